//! Rows go to training or to the test; all rows of a subject go together.

use std::collections::{BTreeMap, BTreeSet};

use hospes_protocol::plan::DataSplit;
use sha2::{Digest as _, Sha256};

use super::frame::{Fold, Frame};
use crate::error::CohortError;

/// The training rows and the test rows.
pub(crate) fn apply(frame: &Frame, params: &DataSplit, seed: u64, task: &str) -> Result<(Frame, Frame), CohortError> {
    let folds = match (&params.by_column, params.test_fraction) {
        (Some(column), None) => {
            frame.folds.get(column).cloned().ok_or_else(|| CohortError::UnknownColumn { column: column.clone() })?
        }
        (None, Some(fraction)) => by_fraction(frame, fraction, seed),
        _ => {
            let reason = "needs exactly one of by_column and test_fraction".to_owned();
            return Err(CohortError::Plan { place: format!("tasks.{task}.params"), reason });
        }
    };
    let rows = |wanted: Fold| {
        let rows: Vec<usize> = folds.iter().enumerate().filter(|(_, f)| **f == wanted).map(|(i, _)| i).collect();
        frame.take(&rows)
    };
    Ok((rows(Fold::Train), rows(Fold::Test)))
}

/// The subjects whose seeded hash is smallest go to the test: independent of the order of the rows, and a subject that
/// opts out moves nobody but its neighbour at the border. Of pooled tables each is cut by itself, where its own site cuts
/// it: what was trained on there must not be tested on here.
fn by_fraction(frame: &Frame, fraction: f64, seed: u64) -> Vec<Fold> {
    let rank = |subject: &[u8; 16]| -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"hospes/split/v1");
        hash.update(seed.to_le_bytes());
        hash.update(subject);
        hash.finalize().into()
    };
    let rows = || frame.origin.iter().zip(&frame.subjects);
    let mut tables: BTreeMap<u16, BTreeSet<[u8; 32]>> = BTreeMap::new();
    for (table, subject) in rows() {
        tables.entry(*table).or_default().insert(rank(subject));
    }
    let border = |ranks: &BTreeSet<[u8; 32]>| {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let take = (ranks.len() as f64 * fraction).round() as usize;
        ranks.iter().nth(take).copied()
    };
    let borders: BTreeMap<u16, Option<[u8; 32]>> =
        tables.iter().map(|(table, ranks)| (*table, border(ranks))).collect();
    let fold = |(table, subject): (&u16, &[u8; 16])| match borders.get(table) {
        Some(Some(border)) if rank(subject) >= *border => Fold::Train,
        _ => Fold::Test,
    };
    rows().map(fold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_never_on_both_sides() {
        let subjects: Vec<[u8; 16]> = (0..200u8).map(|i| [i / 4; 16]).collect();
        let frame = Frame { label: vec![0.0; 200], origin: vec![0; 200], subjects, ..Frame::default() };
        let folds = by_fraction(&frame, 0.3, 7);
        assert!(folds.chunks(4).all(|c| c.iter().all(|f| f == &c[0])));
        assert_eq!(folds.iter().filter(|f| **f == Fold::Test).count(), 15 * 4);
        assert_ne!(folds, by_fraction(&frame, 0.3, 8));
        let mut reversed = Frame { subjects: frame.subjects.iter().rev().copied().collect(), ..frame.clone() };
        let mut back = by_fraction(&reversed, 0.3, 7);
        back.reverse();
        assert_eq!(folds, back);
        reversed.subjects.clear();
        assert!(by_fraction(&reversed, 0.3, 7).is_empty());
    }

    #[test]
    fn pooled_tables_are_cut_where_each_of_them_is_cut_alone() {
        let table = |origin: u16, subjects: std::ops::Range<u8>| Frame {
            label: vec![0.0; subjects.len()],
            origin: vec![origin; subjects.len()],
            subjects: subjects.map(|i| [i; 16]).collect(),
            ..Frame::default()
        };
        for seed in 0..20 {
            let mut pooled = table(0, 0..40);
            let alone = [by_fraction(&pooled, 0.3, seed), by_fraction(&table(0, 40..50), 0.3, seed)].concat();
            pooled.append(&table(0, 40..50), 1);
            assert_eq!(by_fraction(&pooled, 0.3, seed), alone, "seed {seed}");
        }
    }
}
