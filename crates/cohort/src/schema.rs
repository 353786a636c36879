//! Types of columns: what the steward signs for, and what a snapshot keeps.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::CohortError;

/// Type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(into = "String", try_from = "String")]
#[ts(type = "string")]
pub enum ColumnKind {
    /// A number.
    Number,
    /// One of few codes.
    Category,
    /// A calendar date.
    Date,
    /// Anything else; never a feature.
    Text,
    /// An image in each row, all of one size.
    Image(ImageSize),
}

/// Size of an image of bytes, one for each pixel and channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSize {
    /// Channels: 1 for grey, 3 for colour.
    pub channels: u32,
    /// Rows of pixels.
    pub height: u32,
    /// Pixels in a row.
    pub width: u32,
}

impl ImageSize {
    /// Most channels.
    pub const CHANNELS: u32 = 4;
    /// Most bytes of one image; a row group of a snapshot holds several of them in memory.
    pub const BYTES: usize = 64 << 20;

    /// A size within the limits.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn new(channels: u32, height: u32, width: u32) -> Result<Self, String> {
        let side = hospes_protocol::limits::IMAGE_SIDE;
        let size = Self { channels, height, width };
        if channels == 0 || height == 0 || width == 0 {
            return Err(format!("an image of {size} has no pixels"));
        }
        if channels > Self::CHANNELS || height > side || width > side || size.bytes() > Self::BYTES {
            return Err(format!(
                "an image of {size} is too large; at most {} channels, {side} pixels a side and {} MiB",
                Self::CHANNELS,
                Self::BYTES >> 20
            ));
        }
        Ok(size)
    }

    /// Bytes of one image.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub const fn bytes(self) -> usize {
        // Three numbers of 32 bits: the product saturates instead of wrapping.
        (self.channels as usize).saturating_mul(self.height as usize).saturating_mul(self.width as usize)
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
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
            Self::Image(_) => "an image",
        }
    }
}

/// In documents and views a type is one word; that of an image gives its size: `image 3x224x224`.
impl From<ColumnKind> for String {
    fn from(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Number => "number".to_owned(),
            ColumnKind::Category => "category".to_owned(),
            ColumnKind::Date => "date".to_owned(),
            ColumnKind::Text => "text".to_owned(),
            ColumnKind::Image(size) => format!("image {size}"),
        }
    }
}

impl TryFrom<String> for ColumnKind {
    type Error = CohortError;
    fn try_from(text: String) -> Result<Self, CohortError> {
        text.parse()
    }
}

impl std::str::FromStr for ColumnKind {
    type Err = CohortError;
    fn from_str(text: &str) -> Result<Self, CohortError> {
        let wrong = |reason: String| CohortError::Format { what: "column type", reason };
        match text {
            "number" => Ok(Self::Number),
            "category" => Ok(Self::Category),
            "date" => Ok(Self::Date),
            "text" => Ok(Self::Text),
            other => {
                let sides = other.strip_prefix("image ").map(|s| s.split('x').map(str::parse).collect());
                match sides {
                    Some(Ok::<Vec<u32>, _>(sides)) if sides.len() == 3 => {
                        ImageSize::new(sides[0], sides[1], sides[2]).map(Self::Image).map_err(wrong)
                    }
                    _ => Err(wrong("expected number, category, date, text or image 1x28x28".into())),
                }
            }
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
