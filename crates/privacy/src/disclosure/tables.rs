//! Cell suppression in a table of counts.
//!
//! *Primary*: counts from 1 to `min_cell` − 1 are suppressed. *Complementary*: since the total is shown, a suppressed
//! count could be had by subtraction; more counts are suppressed until none can, and until those suppressed do not add up
//! to a small count. Where nothing else is left to suppress, the total goes.

/// A count as it may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// Shown.
    Shown(u64),
    /// Suppressed, for itself or to protect another.
    Suppressed,
}

/// A one-way table as it may leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneWay {
    /// Counts.
    pub cells: Vec<Cell>,
    /// Their total.
    pub total: Cell,
}

/// Suppresses a one-way table whose total is shown, if that can be.
///
/// # Shapes
/// As many cells as counts.
///
/// # Disclosure
/// Shown counts are 0 or at least `min_cell`, and no suppressed one follows from them and the total.
pub fn one_way(counts: &[u64], min_cell: u64) -> OneWay {
    let total: u64 = counts.iter().fold(0, |sum, c| sum.saturating_add(*c));
    let mut open: Vec<bool> = counts.iter().map(|c| small(*c, min_cell)).collect();
    let mut total_open = small(total, min_cell);
    loop {
        let (number, sum) = line(counts, &open);
        // A line with one unknown solves for it; two unknowns that add up to a small count give it away together.
        let exposed = if total_open { number == 0 } else { number == 1 || small(sum, min_cell) };
        if !exposed || counts.is_empty() {
            break;
        }
        match cheapest(counts, &open) {
            Some(next) => open[next] = true,
            None if total_open => break,
            None => total_open = true,
        }
    }
    let cells = counts.iter().zip(&open).map(|(count, open)| cell(*count, *open)).collect();
    OneWay { cells, total: cell(total, total_open) }
}

fn small(count: u64, min_cell: u64) -> bool {
    count > 0 && count < min_cell
}

fn cell(count: u64, open: bool) -> Cell {
    if open { Cell::Suppressed } else { Cell::Shown(count) }
}

/// Number and sum of the suppressed counts of a line.
fn line(counts: &[u64], open: &[bool]) -> (usize, u64) {
    let suppressed = counts.iter().zip(open).filter(|(_, open)| **open);
    suppressed.fold((0, 0u64), |(n, sum), (count, _)| (n + 1, sum.saturating_add(*count)))
}

/// The shown count whose loss costs least: the smallest that is not 0, and a 0 only if there is no other, because a 0
/// protects little.
fn cheapest(counts: &[u64], open: &[bool]) -> Option<usize> {
    let shown = || (0..counts.len()).filter(|i| !open[*i]);
    shown().filter(|i| counts[*i] > 0).min_by_key(|i| counts[*i]).or_else(|| shown().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use Cell::{Shown, Suppressed};

    #[test]
    fn a_small_count_takes_another_with_it() {
        let table = one_way(&[50, 3, 20, 0], 10);
        assert_eq!(table.cells, [Shown(50), Suppressed, Suppressed, Shown(0)]);
        assert_eq!(table.total, Shown(73));
    }

    #[test]
    fn two_small_counts_that_add_up_to_a_small_one_take_a_third() {
        assert_eq!(one_way(&[50, 3, 2], 10).cells, [Suppressed; 3]);
        assert_eq!(one_way(&[50, 6, 7], 10).cells, [Shown(50), Suppressed, Suppressed]);
    }

    #[test]
    fn a_table_without_small_counts_stays_as_it_is() {
        assert_eq!(one_way(&[10, 0, 30], 10).cells, [Shown(10), Shown(0), Shown(30)]);
        assert_eq!(one_way(&[1, 2], 1).cells, [Shown(1), Shown(2)]);
        assert_eq!(one_way(&[], 10), OneWay { cells: vec![], total: Shown(0) });
    }

    #[test]
    fn where_nothing_else_is_left_the_total_goes() {
        assert_eq!(one_way(&[4], 10), OneWay { cells: vec![Suppressed], total: Suppressed });
        assert_eq!(one_way(&[4, 0], 10).total, Suppressed);
    }

    proptest! {
        #[test]
        fn no_suppressed_count_of_a_one_way_table_follows_from_the_rest(
            counts in prop::collection::vec(0u64..40, 1..12), min_cell in 1u64..15
        ) {
            let table = one_way(&counts, min_cell);
            let hidden: Vec<u64> =
                counts.iter().zip(&table.cells).filter(|(_, c)| **c == Suppressed).map(|(n, _)| *n).collect();
            for (count, cell) in counts.iter().zip(&table.cells) {
                if let Shown(shown) = cell {
                    prop_assert_eq!(shown, count);
                    prop_assert!(*count == 0 || *count >= min_cell);
                }
            }
            match table.total {
                Shown(total) => {
                    prop_assert_eq!(total, counts.iter().sum::<u64>());
                    let sum: u64 = hidden.iter().sum();
                    prop_assert!(hidden.len() != 1 && (sum == 0 || sum >= min_cell));
                }
                Suppressed => prop_assert!(!hidden.is_empty()),
            }
        }
    }
}
