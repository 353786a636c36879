//! Names that people may take for others: those that look like a name that is known here, and those that mix scripts.
//! Which do is in [`hospes_protocol::look`].

use std::collections::HashMap;

use futures::FutureExt as _;
use hospes_protocol::look::{letter, looks, strange_letters};
use hospes_protocol::text::{name_key, shown};
use sqlx::sqlite::SqliteConnection;

use crate::engine::Engine;
use crate::error::PartyError;
use crate::handle::Handle;
use crate::people::{self, Person, Session};
use crate::view::{NameMark, NameOf};
use crate::{memberships, requests};

/// Marks that are shown at a time; the first ones, which are of people and organisations, matter most.
pub(crate) const MARKS: usize = 100;
/// Characters of a name in a mark.
const NAME_CHARS: usize = 200;
/// Letters that are named in a mark.
const LETTERS: usize = 8;

/// Names that are known, by what they look like.
#[derive(Default)]
pub(crate) struct Known(HashMap<String, Vec<String>>);

impl Known {
    pub(crate) fn add(&mut self, name: &str) {
        for look in looks(name).into_iter().filter(|look| !look.is_empty()) {
            let same = self.0.entry(look).or_default();
            if !same.iter().any(|known| known == name) {
                same.push(name.to_owned());
            }
        }
    }

    pub(crate) fn add_all<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) {
        names.into_iter().for_each(|name| self.add(name));
    }

    /// A known name that this one is taken for, although it has other letters.
    pub(crate) fn like(&self, name: &str) -> Option<&str> {
        let key = name_key(name);
        let found = looks(name).into_iter().filter_map(|look| self.0.get(&look)).flatten();
        found.map(String::as_str).find(|known| name_key(known) != key)
    }

    /// What to know of a name, if anything.
    pub(crate) fn mark(&self, of: NameOf, name: &str) -> Option<NameMark> {
        let like = self.like(name);
        let letters = match like {
            Some(known) => others(name, known),
            None => strange_letters(name),
        };
        let letters: Vec<String> = letters.into_iter().take(LETTERS).map(letter).collect();
        let is_marked = like.is_some() || !letters.is_empty();
        let like = like.map(|known| shown(known, NAME_CHARS));
        is_marked.then(|| NameMark { of, name: shown(name, NAME_CHARS), like, letters })
    }

    /// The marks of many names, each once.
    pub(crate) fn marks<'n>(&self, names: impl IntoIterator<Item = (NameOf, &'n str)>) -> Vec<NameMark> {
        let mut marks: Vec<NameMark> = Vec::new();
        for (of, name) in names {
            if marks.len() == MARKS {
                break;
            }
            marks.extend(self.mark(of, name).filter(|mark| !marks.contains(mark)));
        }
        marks
    }
}

/// Letters of a name that another one has not.
fn others(name: &str, known: &str) -> Vec<char> {
    let mut letters: Vec<char> = Vec::new();
    for c in name.chars().filter(|c| c.is_alphanumeric() && !known.contains(*c)) {
        if !letters.contains(&c) {
            letters.push(c);
        }
    }
    letters
}

/// Names of people and organisations that this site knows of its own: these people, its federations, and those whose studies
/// it approved.
pub(crate) async fn known(conn: &mut SqliteConnection, people: &[Person]) -> Result<Known, PartyError> {
    let mut known = Known::default();
    for person in people {
        known.add(&person.name);
        known.add_all(person.organisation.as_deref());
    }
    for membership in memberships::all(conn).await? {
        known.add_all([membership.name.as_str(), membership.site_name.as_str()]);
    }
    for offered in requests::approved_here(conn).await? {
        let requester = &offered.study.terms.requester;
        known.add_all([requester.name.as_str(), requester.organisation.as_str()]);
    }
    Ok(known)
}

impl Handle {
    /// Names of people, federations and their members that may be taken for others.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn name_marks(&self, session: &Session) -> Result<Vec<NameMark>, PartyError> {
        let s = session.clone();
        self.ask(move |e| e.name_marks(s).boxed()).await
    }
}

impl Engine {
    /// Marks of the names of people, federations and their members.
    async fn name_marks(&mut self, session: Session) -> Result<Vec<NameMark>, PartyError> {
        let acting = self.acting(&session, "see marks of names", &[]).await?;
        let mut conn = self.reader().await?;
        let mut people = people::all(&mut conn).await?;
        if people.iter().any(|p| p.id == acting.person && p.organisation.is_some()) {
            // The names of the staff are not for a person of another organisation.
            people.retain(|p| p.id == acting.person);
        }
        let mut known = known(&mut conn, &people).await?;
        let memberships = memberships::all(&mut conn).await?;
        drop(conn);
        let members = || memberships.iter().flat_map(|m| &m.roster.document.members);
        members().for_each(|m| known.add_all([m.name.as_str(), m.organisation.as_str()]));
        let people = people.iter().flat_map(|p| {
            let organisation = p.organisation.as_deref().map(|name| (NameOf::Organisation, name));
            std::iter::once((NameOf::Person, p.name.as_str())).chain(organisation)
        });
        let federations = memberships.iter().map(|m| (NameOf::Federation, m.name.as_str()));
        let members =
            members().flat_map(|m| [(NameOf::Site, m.name.as_str()), (NameOf::Organisation, m.organisation.as_str())]);
        Ok(known.marks(people.chain(federations).chain(members)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_marked_with_the_known_one_and_the_letters_that_give_it_away() {
        let mut known = Known::default();
        known.add_all(["Cleveland", "Anna"]);
        let mark = known.mark(NameOf::Site, "\u{421}leveland").unwrap();
        assert_eq!((mark.like.as_deref(), mark.letters.len()), (Some("Cleveland"), 1));
        assert_eq!(mark.letters[0], "\u{421} (U+0421)");
        assert!(mark.words().starts_with("the site '\u{421}leveland' looks like 'Cleveland', but has other letters: "));
        // Nobody is known whom it looks like, but it mixes scripts all the same.
        let mark = known.mark(NameOf::Column, "\u{445}yz").unwrap();
        assert_eq!((mark.like, mark.letters.len()), (None, 1));
        assert_eq!(known.mark(NameOf::Person, "anna"), None, "the name itself");
        assert_eq!(known.mark(NameOf::Person, "Hanna"), None);
    }

    #[test]
    fn marks_are_shown_once_and_only_so_many() {
        let mut known = Known::default();
        known.add("Cleveland");
        let names: Vec<String> = (0..2 * MARKS).map(|n| format!("\u{445}y{n}")).collect();
        let twice = names.iter().chain(&names).map(|name| (NameOf::Column, name.as_str()));
        let marks = known.marks(twice.clone());
        assert_eq!(marks.len(), MARKS);
        let first = known.marks(twice.take(3));
        assert_eq!(first, marks[..3]);
        let doubled = [(NameOf::Site, "CIeveland"), (NameOf::Site, "CIeveland")];
        assert_eq!(known.marks(doubled).len(), 1);
    }
}
