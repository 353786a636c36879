//! What a payload must look like: its announced length first, every byte of it before it is confirmed.
//!
//! The layout of an update in plain mode is that of [`hospes_privacy::quantise`]; of 8 or 16 bits it is coded
//! ([`hospes_privacy::coding`]), and how much may come out of it is known before. A value is q(α·clip(Δ)) with
//! α = min(n, n_max)/n_max, so that an honest one lies within ±α·clip; whatever lies outside is refused. Of a masked update
//! ([`hospes_privacy::masked`]) nothing can be told but whether it is the vector that its site signed.

use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

use hospes_privacy::coding::Coding;
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

    /// Bytes of one payload; of figures, and of an update that is coded, the most that there can be.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Update { parameters, quantise } => *lengths(*parameters, quantise).end(),
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
            Self::Update { parameters, quantise } if !lengths(*parameters, quantise).contains(&length) => {
                let possible = lengths(*parameters, quantise);
                if possible.start() == possible.end() {
                    return Err(format!("the update has {length} bytes, the round's tensors need {}", possible.end()));
                }
                let (least, most) = possible.into_inner();
                Err(format!("the update has {length} bytes, for the round's tensors {least} to {most} are possible"))
            }
            Self::Masked(..) if length != self.bytes() => {
                Err(format!("the update has {length} bytes, the round's tensors need {}", self.bytes()))
            }
            Self::Figures(_) if length == 0 || length > self.bytes() => {
                Err(format!("the report has {length} bytes, 1 to {} are allowed", self.bytes()))
            }
            _ => Ok(()),
        }
    }
}

/// Bytes that an update can have which is not masked.
fn lengths(parameters: u64, quantise: &Quantise) -> RangeInclusive<u64> {
    let as_it_is = Quantiser::payload_bytes(parameters);
    Coding::new(quantise.bits, parameters).map_or(as_it_is..=as_it_is, |coding| coding.lengths())
}

/// Checks every byte of a complete payload. The inner result says what is wrong with it.
///
/// # Errors
/// [`Refused::Failed`] if the file cannot be read.
pub(super) fn check(wanted: &Content, path: &Path) -> Result<Result<(), String>, Refused> {
    let mut file = File::open(path).map_err(Error::file("open", path))?;
    let checked = match wanted {
        Content::Update { parameters, quantise } => check_update(&mut file, *parameters, quantise),
        Content::Masked(layout, _) => check_masked(&mut file, layout),
        Content::Figures(figures) => read_figures(&mut file).map(|set| set.and_then(|s| check_figures(figures, &s))),
    };
    Ok(checked.map_err(Error::file("read", path))?)
}

fn check_update(file: &mut impl Read, parameters: u64, quantise: &Quantise) -> std::io::Result<Result<(), String>> {
    let mut weight = [0u8; 8];
    file.read_exact(&mut weight)?;
    let weight = u64::from_le_bytes(weight);
    let n_max = u64::from(quantise.n_max);
    if weight == 0 || weight > n_max {
        return Ok(Err(format!("the row weight is {weight}; it must lie between 1 and {n_max}")));
    }
    let allowed = bounds(quantise, weight);
    if let Some(coding) = Coding::new(quantise.bits, parameters) {
        return check_coded(file, &coding, allowed);
    }
    let mut block = vec![0u8; 1 << 20];
    loop {
        let filled = fill(file, &mut block)?;
        if filled == 0 {
            return Ok(Ok(()));
        }
        if let Err(reason) = check_levels(&block[..filled], allowed) {
            return Ok(Err(reason));
        }
    }
}

/// The chunks of an update that is coded: no more of it is in memory than one of them, in both forms.
fn check_coded(file: &mut impl Read, coding: &Coding, allowed: (u32, u32)) -> std::io::Result<Result<(), String>> {
    const SHORT: &str = "the update ends too early";
    let (mut chunk, mut levels) = (Vec::new(), Vec::new());
    for entries in coding.chunks() {
        let mut head = [0u8; 4];
        if fill(file, &mut head)? < head.len() {
            return Ok(Err(SHORT.to_owned()));
        }
        let length = match coding.chunk_bytes(entries, head) {
            Ok(length) => length,
            Err(error) => return Ok(Err(error.to_string())),
        };
        chunk.resize(length, 0);
        if fill(file, &mut chunk)? < length {
            return Ok(Err(SHORT.to_owned()));
        }
        levels.clear();
        let read = coding.read_chunk(entries, &chunk, &mut levels).map_err(|error| error.to_string());
        if let Err(reason) = read.and_then(|()| check_levels(&levels, allowed)) {
            return Ok(Err(reason));
        }
    }
    let is_whole = fill(file, &mut [0])? == 0;
    Ok(if is_whole { Ok(()) } else { Err("something follows the update".to_owned()) })
}

/// Whether all levels, of four bytes each, lie within these.
fn check_levels(levels: &[u8], (lowest, highest): (u32, u32)) -> Result<(), String> {
    let mut levels = levels.as_chunks::<4>().0.iter().map(|level| u32::from_le_bytes(*level));
    if levels.any(|level| level < lowest || level > highest) {
        return Err("an entry of the update lies outside what its clip and weight allow".to_owned());
    }
    Ok(())
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
    let steps = (1u128 << quantise.bits.min(32)) - 1;
    let n_max = u128::from(quantise.n_max.max(1));
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
        let check = |weight, values: &[u32]| {
            check_update(&mut update(weight, values).as_slice(), values.len() as u64, &quantise()).unwrap()
        };
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

    #[test]
    fn a_coded_update_is_read_to_its_last_byte_and_its_levels_are_held_to_its_clip() {
        let quantise = Quantise { bits: 8, ..quantise() };
        let entries = 20_000usize;
        let coding = Coding::new(8, entries as u64).unwrap();
        let code = |weight, level: &dyn Fn(usize) -> u32| {
            coding.encode(&update(weight, &(0..entries).map(level).collect::<Vec<_>>())).unwrap()
        };
        let check = |bytes: &[u8]| check_update(&mut &bytes[..], entries as u64, &quantise).unwrap();
        let good = code(50, &|i| 120 + u32::try_from(i % 13).unwrap());
        assert_eq!(check(&good), Ok(()));
        let wanted = Content::Update { parameters: entries as u64, quantise: quantise.clone() };
        assert!(wanted.check_announced(UploadKind::Update, good.len() as u64).is_ok());
        assert!(good.len() * 5 < entries * 4, "{}", good.len());
        assert_eq!(wanted.bytes(), 8 + 2 * 4 + 20_000);
        for length in [0, 8, wanted.bytes() + 1, u64::MAX] {
            assert!(wanted.check_announced(UploadKind::Update, length).unwrap_err().contains("possible"), "{length}");
        }
        // α = .5: honest levels lie between 63 and 192 of 255.
        assert!(check(&code(50, &|i| if i == 19_999 { 255 } else { 127 })).unwrap_err().contains("clip"));
        assert_eq!(check(&code(100, &|i| if i == 19_999 { 255 } else { 127 })), Ok(()));
        assert!(check(&good[..good.len() - 1]).unwrap_err().contains("too early"));
        assert!(check(&[&good[..], &[0]].concat()).unwrap_err().contains("follows"));
        for at in [8, 11, 12, 40, good.len() - 1] {
            let mut altered = good.clone();
            altered[at] ^= 0x80;
            assert!(check(&altered).is_err(), "{at}");
        }
    }
}
