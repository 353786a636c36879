//! Types of columns: what the steward signs for, and what a snapshot keeps.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::error::CohortError;

/// Type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    /// A number.
    Number,
    /// One of few codes.
    Category,
    /// A calendar date.
    Date,
    /// Anything else; never a feature.
    Text,
}

impl ColumnKind {
    /// The word for people.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Category => "a category",
            Self::Date => "a date",
            Self::Text => "text",
        }
    }
}

impl std::str::FromStr for ColumnKind {
    type Err = CohortError;
    fn from_str(text: &str) -> Result<Self, CohortError> {
        match text {
            "number" => Ok(Self::Number),
            "category" => Ok(Self::Category),
            "date" => Ok(Self::Date),
            "text" => Ok(Self::Text),
            _ => Err(CohortError::Format {
                what: "column type",
                reason: "expected number, category, date or text".into(),
            }),
        }
    }
}

/// A column as the steward registers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Name, as in the source.
    pub name: String,
    /// Type.
    pub kind: ColumnKind,
    /// Masked columns never get into the snapshot.
    pub masked: bool,
}

/// All columns of a source in order, and which of them tells patients apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// Columns in the order of the source.
    pub columns: Vec<Column>,
    /// Column of the subject key. It is stored only as a keyed hash.
    pub subject: String,
}

impl Schema {
    /// The column of this name.
    ///
    /// # Disclosure
    /// Name and type of a column.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// Corrects the type of a column.
    ///
    /// # Errors
    /// [`CohortError::UnknownColumn`] if there is none of this name.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn set_kind(&mut self, name: &str, kind: ColumnKind) -> Result<(), CohortError> {
        self.column_mut(name)?.kind = kind;
        Ok(())
    }

    /// Masks or unmasks a column; unmasking a finding of the scan is the steward's signed decision.
    ///
    /// # Errors
    /// [`CohortError::UnknownColumn`] if there is none of this name.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn set_masked(&mut self, name: &str, masked: bool) -> Result<(), CohortError> {
        self.column_mut(name)?.masked = masked;
        Ok(())
    }

    /// Names of the columns that a snapshot keeps, the subject among them.
    ///
    /// # Disclosure
    /// Names of columns.
    pub fn kept(&self) -> BTreeSet<String> {
        self.columns.iter().filter(|c| !c.masked || c.name == self.subject).map(|c| c.name.clone()).collect()
    }

    fn column_mut(&mut self, name: &str) -> Result<&mut Column, CohortError> {
        self.columns
            .iter_mut()
            .find(|c| c.name == name)
            .ok_or_else(|| CohortError::UnknownColumn { column: name.to_owned() })
    }
}
