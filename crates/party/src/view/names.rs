//! What to know of a name before taking it for another.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What a name is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum NameOf {
    /// A person.
    Person,
    /// An organisation.
    Organisation,
    /// A site of a federation.
    Site,
    /// A federation.
    Federation,
    /// A study, by its title.
    Study,
    /// A column.
    Column,
}

impl NameOf {
    /// In words.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Organisation => "organisation",
            Self::Site => "site",
            Self::Federation => "federation",
            Self::Study => "study",
            Self::Column => "column",
        }
    }
}

/// A name that people may take for another: it looks like one that is known here and has other letters, or words of it have
/// letters of more than one script. Nothing is refused for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct NameMark {
    /// What it is the name of.
    pub of: NameOf,
    /// The name, as it is shown elsewhere.
    pub name: String,
    /// The known name that it looks like.
    pub like: Option<String>,
    /// The letters that give it away, some of them, each with its number.
    pub letters: Vec<String>,
}

impl NameMark {
    /// In words, for a terminal.
    pub fn words(&self) -> String {
        let (what, name, letters) = (self.of.word(), &self.name, self.letters.join(", "));
        match &self.like {
            Some(like) => format!("the {what} '{name}' looks like '{like}', but has other letters: {letters}"),
            None => format!("the {what} '{name}' mixes letters of several scripts: {letters}"),
        }
    }
}
