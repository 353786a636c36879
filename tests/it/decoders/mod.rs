//! Decoders of what comes from outside, on corpora that are mutated with a seeded generator. The same decoders are fuzz targets
//! (`fuzz/`), which take a compiler with unstable flags; this takes the stable one and seconds.

mod decode;
mod samples;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use hospes_protocol::id::Digest;

use samples::Sample;

/// Mutants of each file of a corpus.
const MUTANTS: u32 = 120;
/// Set, it lets the test write the files that follow from code.
const UPDATE: &str = "HOSPES_UPDATE_CORPORA";

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same mutants everywhere.
struct Chance(u64);

impl Chance {
    fn of(name: &str) -> Self {
        let mut seed = [0; 8];
        seed.copy_from_slice(&Digest::of(name.as_bytes()).as_bytes()[..8]);
        Self(u64::from_le_bytes(seed))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap_or(0)
    }
}

/// One to four things done to bytes.
fn mutant(chance: &mut Chance, bytes: &[u8]) -> Vec<u8> {
    const EXTREMES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'-', b'"', b'\n'];
    let mut bytes = bytes.to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len());
        let end = (at + 1 + chance.below(16)).min(bytes.len());
        match chance.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << chance.below(8),
            1 if !bytes.is_empty() => bytes[at] = EXTREMES[chance.below(EXTREMES.len())],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at.min(end)..end)),
            4 => {
                let part = bytes[at.min(end)..end].to_vec();
                let to = chance.below(bytes.len() + 1);
                drop(bytes.splice(to..to, part));
            }
            5 => {
                let new: Vec<u8> = (0..=chance.below(8)).map(|_| chance.next().to_le_bytes()[0]).collect();
                drop(bytes.splice(at..at, new));
            }
            // Where a number of eight bytes may lie.
            _ => bytes[at.min(end)..end].iter_mut().take(8).for_each(|byte| *byte = 0xff),
        }
    }
    bytes
}

/// Files of a decoder's corpus by name: what is committed, and what follows from code.
fn corpus(name: &str, written: &[Sample]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    let folder = corpora().join(name);
    if folder.is_dir() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            files.push((entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?));
        }
    }
    for Sample { file, bytes, .. } in written.iter().filter(|sample| sample.decoder == name) {
        if !files.iter().any(|(known, _)| known == file) {
            files.push((file.clone(), bytes.clone()));
        }
    }
    // Approvals have a long form that is tried where they are made; here they get what looks most like one.
    if files.is_empty() && name == "approval" {
        return corpus("round_header", written);
    }
    files.sort();
    ensure!(!files.is_empty(), "{name} has no corpus");
    Ok(files)
}

#[test]
fn no_decoder_panics_on_mutants_and_what_is_read_comes_out_as_it_went_in() -> Result<()> {
    let written = samples::all()?;
    for (name, decode) in decode::ALL {
        for (file, bytes) in corpus(name, &written)? {
            let mut chance = Chance::of(&format!("{name}/{file}"));
            let mutants = (0..MUTANTS).map(|_| mutant(&mut chance, &bytes));
            for (number, mutant) in std::iter::once(bytes.clone()).chain(mutants).enumerate() {
                let ended = catch_unwind(AssertUnwindSafe(|| decode(&mutant)));
                ensure!(ended.is_ok(), "{name}: mutant {number} of {file}: {mutant:02x?}");
            }
        }
    }
    Ok(())
}

#[test]
fn corpora_are_what_is_written_today() -> Result<()> {
    let update = std::env::var_os(UPDATE).is_some();
    for sample in samples::all()? {
        let path = corpora().join(sample.decoder).join(&sample.file);
        if update {
            std::fs::create_dir_all(path.parent().context("a folder")?)?;
            std::fs::write(&path, &sample.bytes)?;
        }
        let committed = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        ensure!(committed == sample.bytes, "{} is of another day; write it anew with {UPDATE}=1", path.display());
    }
    Ok(())
}
