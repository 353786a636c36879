//! What a payload must look like: its announced length first, every byte of it before it is confirmed.
//!
//! The layout of an update in plain mode is that of [`hospes_privacy::quantise`]. A value is q(α·clip(Δ)) with
//! α = min(n, n_max)/n_max, so that an honest one lies within ±α·clip; whatever lies outside is refused. Of a masked update
//! ([`hospes_privacy::masked`]) nothing can be told but whether it is the vector that its site signed.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use hospes_privacy::masked;
use hospes_privacy::quantise::Quantiser;
use hospes_privacy::secagg::{Layout, Masked, Sent, Tree};
use hospes_protocol::canon::Canonical;
use hospes_protocol::limits;
use hospes_protocol::message::{FigureSet, UploadKind};
use hospes_protocol::plan::{Figure, Quantise, check_figures};

use super::staging::Refused;
use crate::Error;

/// What a round asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A model update.
    Update {
        /// Entries of all tensors.
        parameters: u64,
        /// How they are put on the wire.
        quantise: Quantise,
    },
    /// A masked update, or masked figures, in this layout.
    Masked(Layout, UploadKind),
    /// A report of these figures.
    Figures(Vec<Figure>),
}

impl Content {
    /// Kind of the upload.
    pub fn kind(&self) -> UploadKind {
        match self {
            Self::Update { .. } => UploadKind::Update,
            Self::Masked(_, kind) => *kind,
            Self::Figures(_) => UploadKind::Figures,
        }
    }

    /// Bytes of one payload; of figures, the most that there can be.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Update { parameters, .. } => Quantiser::payload_bytes(*parameters),
            Self::Masked(layout, _) => masked::file_bytes(layout),
            Self::Figures(_) => limits::DOCUMENT_BYTES as u64,
        }
    }

    /// Whether kind and length are what the round asks for.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check_announced(&self, kind: UploadKind, length: u64) -> Result<(), String> {
        if kind != self.kind() {
            return Err("the round asks for another kind of upload".to_owned());
        }
        match self {
            Self::Update { .. } | Self::Masked(..) if length != self.bytes() => {
                Err(format!("the update has {length} bytes, the round's tensors need {}", self.bytes()))
            }
            Self::Figures(_) if length == 0 || length > self.bytes() => {
                Err(format!("the report has {length} bytes, 1 to {} are allowed", self.bytes()))
            }
            _ => Ok(()),
        }
    }
}

/// Steps of the quantiser, 2^32 − 1.
const STEPS: u64 = u32::MAX as u64;

/// Checks every byte of a complete payload. The inner result says what is wrong with it.
///
/// # Errors
/// [`Refused::Failed`] if the file cannot be read.
pub(super) fn check(wanted: &Content, path: &Path) -> Result<Result<(), String>, Refused> {
    let mut file = File::open(path).map_err(Error::file("open", path))?;
    let checked = match wanted {
        Content::Update { quantise, .. } => check_update(&mut file, quantise),
        Content::Masked(layout, _) => check_masked(&mut file, layout),
        Content::Figures(figures) => read_figures(&mut file).map(|set| set.and_then(|s| check_figures(figures, &s))),
    };
    Ok(checked.map_err(Error::file("read", path))?)
}

fn check_update(file: &mut impl Read, quantise: &Quantise) -> std::io::Result<Result<(), String>> {
    let mut weight = [0u8; 8];
    file.read_exact(&mut weight)?;
    let weight = u64::from_le_bytes(weight);
    let n_max = u64::from(quantise.n_max);
    if weight == 0 || weight > n_max {
        return Ok(Err(format!("the row weight is {weight}; it must lie between 1 and {n_max}")));
    }
    let (lowest, highest) = bounds(quantise, weight);
    let mut block = vec![0u8; 1 << 20];
    loop {
        let filled = fill(file, &mut block)?;
        if filled == 0 {
            return Ok(Ok(()));
        }
        let entries = block[..filled].as_chunks::<4>().0;
        if entries.iter().map(|entry| u32::from_le_bytes(*entry)).any(|value| value < lowest || value > highest) {
            return Ok(Err("an entry of the update lies outside what its clip and weight allow".to_owned()));
        }
    }
}

/// Whether the vector is the one that stands in the head. Who signed that is looked at by the session's aggregator.
fn check_masked(file: &mut impl Read, layout: &Layout) -> std::io::Result<Result<(), String>> {
    let told = match read_head(file)? {
        Ok((_, told)) => told,
        Err(reason) => return Ok(Err(reason)),
    };
    let (mut tree, mut bytes) = (Tree::default(), Vec::new());
    for block in layout.blocks() {
        bytes.resize(block.bytes(), 0);
        file.read_exact(&mut bytes)?;
        tree.push(&bytes);
    }
    let is_it = tree.finish() == told && fill(file, &mut [0])? == 0;
    Ok(if is_it { Ok(()) } else { Err("the masked update is not the one that its head names".to_owned()) })
}

fn read_head(file: &mut impl Read) -> std::io::Result<Result<(Sent, Masked), String>> {
    let mut head = [0u8; masked::HEAD_BYTES];
    file.read_exact(&mut head)?;
    Ok(masked::read_head(&head).map_err(|refusal| refusal.to_string()))
}

/// What the site of a masked update, which was checked when it came, signs of it.
///
/// # Errors
/// [`Error::File`] if it cannot be read, [`Error::Corrupt`] if it was altered since.
pub fn head(path: &Path) -> Result<(Sent, Masked), Error> {
    let mut file = File::open(path).map_err(Error::file("open", path))?;
    read_head(&mut file).map_err(Error::file("read", path))?.map_err(|reason| Error::corrupt("masked update", reason))
}

/// Smallest and largest quantised value that a site of this weight can send, with one step for rounding.
fn bounds(quantise: &Quantise, weight: u64) -> (u32, u32) {
    let (steps, n_max) = (u128::from(STEPS), u128::from(quantise.n_max.max(1)));
    let weight = u128::from(weight).min(n_max);
    // ±α·clip lies at (1 ± α)/2 of the steps.
    let lowest = steps * (n_max - weight) / (2 * n_max);
    let highest = (steps * (n_max + weight)).div_ceil(2 * n_max);
    let narrow = |value: u128| u32::try_from(value).unwrap_or(u32::MAX);
    (narrow(lowest.saturating_sub(1)), narrow((highest + 1).min(steps)))
}

/// Reads until the block is full or the file ends.
pub(crate) fn fill(file: &mut impl Read, block: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match file.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn read_figures(file: &mut impl Read) -> std::io::Result<Result<Canonical<FigureSet>, String>> {
    let mut bytes = Vec::new();
    file.take(limits::DOCUMENT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Canonical::parse(&bytes).map_err(|e| format!("the report cannot be read: {e}")))
}

/// Reads a report that was checked when it came.
///
/// # Errors
/// [`Error::File`] if it cannot be read, [`Error::Corrupt`] if it was altered since.
pub fn figures(path: &Path) -> Result<Canonical<FigureSet>, Error> {
    let mut file = File::open(path).map_err(Error::file("open", path))?;
    read_figures(&mut file).map_err(Error::file("read", path))?.map_err(|reason| Error::corrupt("report", reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantise() -> Quantise {
        Quantise { clip: 4.0, bits: 32, n_max: 100 }
    }

    fn update(weight: u64, values: &[u32]) -> Vec<u8> {
        let mut bytes = weight.to_le_bytes().to_vec();
        bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        bytes
    }

    #[test]
    fn updates_outside_their_weights_clip_are_refused_and_the_limits_themselves_are_not() {
        let check = |weight, values: &[u32]| check_update(&mut update(weight, values).as_slice(), &quantise()).unwrap();
        assert!(check(100, &[0, u32::MAX, 1 << 31]).is_ok());
        // α = .5: honest values lie between a quarter and three quarters of the steps.
        assert!(check(50, &[1 << 30, 3 << 30]).is_ok());
        assert!(check(50, &[(1 << 30) - 3]).unwrap_err().contains("clip"));
        assert!(check(50, &[(3 << 30) + 2]).is_err());
        assert!(check(0, &[]).unwrap_err().contains("row weight"));
        assert!(check(101, &[]).is_err());
    }

    #[test]
    fn length_and_kind_are_refused_before_a_byte_is_sent() {
        let wanted = Content::Update { parameters: 10, quantise: quantise() };
        assert!(wanted.check_announced(UploadKind::Update, 48).is_ok());
        assert!(wanted.check_announced(UploadKind::Update, 47).unwrap_err().contains("need 48"));
        assert!(wanted.check_announced(UploadKind::Figures, 48).is_err());
        let figures = Content::Figures(Vec::new());
        assert!(figures.check_announced(UploadKind::Figures, 0).is_err());
        assert!(figures.check_announced(UploadKind::Figures, limits::DOCUMENT_BYTES as u64 + 1).is_err());
    }
}
