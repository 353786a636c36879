//! Cell suppression in tables of counts.
//!
//! *Primary*: counts from 1 to `min_cell` − 1 are suppressed. *Complementary*: since totals are shown, a suppressed
//! count could be had by subtraction; more counts are suppressed until none can. In a two-way table with shown margins
//! a suppressed count is determined exactly if and only if its edge is a bridge of the graph whose nodes are rows and
//! columns and whose edges are the suppressed cells (D. Gusfield 1988, "A graph theoretic approach to statistical data
//! security", SIAM J. Comput. 17(3), Theorem 2.1); margins are cells of the table extended by them, and a one-way table
//! is the special case of one row. In addition the suppressed counts of a line must not add up to a small count, where
//! the line's total is shown.

/// A count as it may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// Shown.
    Shown(u64),
    /// Suppressed, for itself or to protect another.
    Suppressed,
}

/// Most rows or columns of a table with its margin: the policy's `max_levels` is far below, and the work grows with
/// their product.
pub const TABLE_SIDE: usize = 512;

/// A one-way table as it may leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneWay {
    /// Counts.
    pub cells: Vec<Cell>,
    /// Their total.
    pub total: Cell,
}

/// A two-way table as it may leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwoWay {
    /// Counts, row by row.
    pub cells: Vec<Vec<Cell>>,
    /// Totals of the rows.
    pub rows: Vec<Cell>,
    /// Totals of the columns.
    pub columns: Vec<Cell>,
    /// Total of all.
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

/// Suppresses a two-way table whose margins are shown, as far as that can be.
///
/// # Shapes
/// `counts` row by row, all rows of one length, at most [`TABLE_SIDE`] − 1 rows and columns; `None` otherwise.
///
/// # Disclosure
/// Shown counts are 0 or at least `min_cell`, and no suppressed one follows exactly from them and the margins. Bounds
/// on suppressed counts can still be computed.
pub fn two_way(counts: &[Vec<u64>], min_cell: u64) -> Option<TwoWay> {
    let width = counts.first()?.len();
    if width == 0 || width >= TABLE_SIDE || counts.len() >= TABLE_SIDE || counts.iter().any(|r| r.len() != width) {
        return None;
    }
    let mut table = Extended::new(counts);
    table.suppress_small(min_cell);
    loop {
        let small = table.protect_sums(min_cell);
        let bridged = table.protect_bridges();
        if !small && !bridged {
            break;
        }
    }
    let (height, all) = (counts.len(), table.cells());
    Some(TwoWay {
        cells: all[..height].iter().map(|row| row[..width].to_vec()).collect(),
        rows: all[..height].iter().map(|row| row[width]).collect(),
        columns: all[height][..width].to_vec(),
        total: all[height][width],
    })
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

/// A two-way table with its margins as a last row and column.
struct Extended {
    counts: Vec<Vec<u64>>,
    open: Vec<Vec<bool>>,
}

impl Extended {
    fn new(inner: &[Vec<u64>]) -> Self {
        let mut counts: Vec<Vec<u64>> = inner.to_vec();
        for row in &mut counts {
            row.push(row.iter().fold(0, |sum, c| sum.saturating_add(*c)));
        }
        let width = counts[0].len();
        let totals = (0..width).map(|c| counts.iter().fold(0u64, |sum, row| sum.saturating_add(row[c]))).collect();
        counts.push(totals);
        let open = vec![vec![false; width]; counts.len()];
        Self { counts, open }
    }

    fn height(&self) -> usize {
        self.counts.len()
    }

    fn width(&self) -> usize {
        self.counts[0].len()
    }

    fn cells(&self) -> Vec<Vec<Cell>> {
        let row = |(counts, open): (&Vec<u64>, &Vec<bool>)| {
            counts.iter().zip(open).map(|(count, open)| cell(*count, *open)).collect()
        };
        self.counts.iter().zip(&self.open).map(row).collect()
    }

    fn suppress_small(&mut self, min_cell: u64) {
        for (counts, open) in self.counts.iter().zip(&mut self.open) {
            for (count, open) in counts.iter().zip(open) {
                *open = small(*count, min_cell);
            }
        }
    }

    /// In every line whose total is shown, suppresses more while the suppressed counts add up to a small one. Returns
    /// whether anything changed.
    fn protect_sums(&mut self, min_cell: u64) -> bool {
        let (height, width) = (self.height(), self.width());
        let mut changed = false;
        let rows = (0..height).map(|r| (0..width).map(|c| (r, c)).collect::<Vec<_>>());
        let columns = (0..width).map(|c| (0..height).map(|r| (r, c)).collect::<Vec<_>>());
        for places in rows.chain(columns) {
            let Some((total, inner)) = places.split_last() else { continue };
            loop {
                let counts: Vec<u64> = inner.iter().map(|(r, c)| self.counts[*r][*c]).collect();
                let open: Vec<bool> = inner.iter().map(|(r, c)| self.open[*r][*c]).collect();
                let (_, sum) = line(&counts, &open);
                if self.open[total.0][total.1] || !small(sum, min_cell) {
                    break;
                }
                let (r, c) = cheapest(&counts, &open).map_or(*total, |next| inner[next]);
                self.open[r][c] = true;
                changed = true;
            }
        }
        changed
    }

    /// Suppresses a rectangle through the first bridge, so that the bridge lies on a cycle. Returns whether there was
    /// one.
    fn protect_bridges(&mut self) -> bool {
        let Some((r, c)) = self.bridge() else { return false };
        let mut best: Option<(u128, usize, usize)> = None;
        for r2 in (0..self.height()).filter(|r2| *r2 != r) {
            for c2 in (0..self.width()).filter(|c2| *c2 != c) {
                let cost = self.cost(r2, c) + self.cost(r, c2) + self.cost(r2, c2);
                if best.is_none_or(|(least, ..)| cost < least) {
                    best = Some((cost, r2, c2));
                }
            }
        }
        // The margins are a second row and column, so there always is a rectangle.
        if let Some((_, r2, c2)) = best {
            for (r, c) in [(r2, c), (r, c2), (r2, c2)] {
                self.open[r][c] = true;
            }
        }
        true
    }

    /// What it costs to suppress a cell: nothing if it is, its count otherwise, more for a margin than for any inner
    /// cell, and most for the total.
    fn cost(&self, r: usize, c: usize) -> u128 {
        if self.open[r][c] {
            return 0;
        }
        let margins = u32::from(r + 1 == self.height()) + u32::from(c + 1 == self.width());
        (u128::from(self.counts[r][c]) + 1) << (20 * margins)
    }

    /// A suppressed cell that lies on no cycle of suppressed cells: the first bridge of the bipartite graph, found by
    /// depth-first search without recursion (R. E. Tarjan 1974, "A note on finding the bridges of a graph").
    fn bridge(&self) -> Option<(usize, usize)> {
        let (height, width) = (self.height(), self.width());
        let nodes = height + width;
        let joined = |node: usize, other: usize| match (node < height, other < height) {
            (true, false) => self.open[node][other - height],
            (false, true) => self.open[other][node - height],
            _ => false,
        };
        let (mut found, mut low) = (vec![0usize; nodes], vec![0usize; nodes]);
        let mut time = 0;
        for root in 0..nodes {
            if found[root] > 0 {
                continue;
            }
            time += 1;
            (found[root], low[root]) = (time, time);
            let mut stack = vec![(root, root, 0)];
            while let Some((node, parent, next)) = stack.pop() {
                if next < nodes {
                    stack.push((node, parent, next + 1));
                    if next != parent && joined(node, next) {
                        if found[next] == 0 {
                            time += 1;
                            (found[next], low[next]) = (time, time);
                            stack.push((next, node, 0));
                        } else {
                            low[node] = low[node].min(found[next]);
                        }
                    }
                } else if node != parent {
                    low[parent] = low[parent].min(low[node]);
                    if low[node] > found[parent] {
                        let (row, column) = if node < height { (node, parent) } else { (parent, node) };
                        return Some((row, column - height));
                    }
                }
            }
        }
        None
    }
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
        let table = two_way(&[vec![10, 20], vec![30, 0]], 10).unwrap();
        assert_eq!(
            (table.rows, table.columns, table.total),
            (vec![Shown(30); 2], vec![Shown(40), Shown(20)], Shown(60))
        );
    }

    #[test]
    fn where_nothing_else_is_left_the_total_goes() {
        assert_eq!(one_way(&[4], 10), OneWay { cells: vec![Suppressed], total: Suppressed });
        assert_eq!(one_way(&[4, 0], 10).total, Suppressed);
    }

    #[test]
    fn a_small_count_of_a_two_way_table_takes_a_rectangle() {
        let table = two_way(&[vec![3, 20, 30], vec![40, 12, 60], vec![70, 80, 90]], 10).unwrap();
        let wanted = [
            [Suppressed, Suppressed, Shown(30)],
            [Suppressed, Suppressed, Shown(60)],
            [Shown(70), Shown(80), Shown(90)],
        ];
        assert_eq!(table.cells, wanted.map(|r| r.to_vec()));
        assert_eq!((table.rows[0], table.total), (Shown(53), Shown(405)));
    }

    #[test]
    fn malformed_tables_are_refused() {
        assert!(two_way(&[], 10).is_none());
        assert!(two_way(&[vec![]], 10).is_none());
        assert!(two_way(&[vec![1, 2], vec![3]], 10).is_none());
        assert!(two_way(&vec![vec![1]; TABLE_SIDE], 10).is_none());
    }

    /// Whether a suppressed cell is the same in every real solution of the equations "row and column add up", by
    /// Gaussian elimination over rationals modulo a large prime: it is determined if and only if its unit vector lies
    /// in the row space.
    fn determined(open: &[Vec<bool>]) -> Vec<(usize, usize)> {
        const P: i128 = 1_000_000_007;
        let (height, width) = (open.len(), open[0].len());
        let unknowns: Vec<(usize, usize)> =
            (0..height).flat_map(|r| (0..width).map(move |c| (r, c))).filter(|(r, c)| open[*r][*c]).collect();
        // The last row and column are sums: their unknowns enter with the other sign.
        let sign = |place: usize, last: usize| if place == last { P - 1 } else { 1 };
        let mut rows: Vec<Vec<i128>> = Vec::new();
        for r in 0..height {
            rows.push(unknowns.iter().map(|(x, y)| if *x == r { sign(*y, width - 1) } else { 0 }).collect());
        }
        for c in 0..width {
            rows.push(unknowns.iter().map(|(x, y)| if *y == c { sign(*x, height - 1) } else { 0 }).collect());
        }
        let power = |mut base: i128, mut exponent: i128| {
            let mut result = 1;
            while exponent > 0 {
                if exponent & 1 == 1 {
                    result = result * base % P;
                }
                base = base * base % P;
                exponent >>= 1;
            }
            result
        };
        let mut rank = 0;
        for column in 0..unknowns.len() {
            let Some(pivot) = (rank..rows.len()).find(|r| rows[*r][column] != 0) else { continue };
            rows.swap(rank, pivot);
            let inverse = power(rows[rank][column], P - 2);
            let head: Vec<i128> = rows[rank].iter().map(|x| x * inverse % P).collect();
            for (i, row) in rows.iter_mut().enumerate() {
                let factor = row[column];
                if i != rank && factor != 0 {
                    for (x, h) in row.iter_mut().zip(&head) {
                        *x = (*x + (P - factor) * h) % P;
                    }
                }
            }
            rows[rank] = head;
            rank += 1;
        }
        let solved = rows[..rank].iter().filter(|row| row.iter().filter(|x| **x != 0).count() == 1);
        solved.filter_map(|row| row.iter().position(|x| *x != 0)).map(|i| unknowns[i]).collect()
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

        #[test]
        fn no_suppressed_count_of_a_two_way_table_follows_from_the_rest(
            counts in (1usize..6, 1usize..6).prop_flat_map(|(r, c)| {
                prop::collection::vec(prop::collection::vec(prop_oneof![Just(0u64), 1u64..12, 10u64..99], c), r)
            }),
            min_cell in 1u64..12
        ) {
            let table = two_way(&counts, min_cell).unwrap();
            let mut all: Vec<Vec<Cell>> = table.cells.clone();
            for (row, total) in all.iter_mut().zip(&table.rows) {
                row.push(*total);
            }
            all.push(table.columns.iter().copied().chain([table.total]).collect());
            let open: Vec<Vec<bool>> = all.iter().map(|r| r.iter().map(|c| *c == Suppressed).collect()).collect();
            prop_assert_eq!(determined(&open), vec![]);
            for (row, cells) in counts.iter().zip(&table.cells) {
                for (count, cell) in row.iter().zip(cells) {
                    let shown = Shown(*count);
                    prop_assert!(*cell == Suppressed || (*cell == shown && (*count == 0 || *count >= min_cell)));
                }
            }
        }

        #[test]
        fn nothing_is_suppressed_where_nothing_is_small(counts in prop::collection::vec(prop::collection::vec(10u64..99, 3), 1..5)) {
            let table = two_way(&counts, 10).unwrap();
            prop_assert!(table.cells.iter().flatten().all(|c| *c != Suppressed));
            prop_assert!(table.total != Suppressed);
        }
    }
}
