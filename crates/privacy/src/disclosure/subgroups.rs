//! Which subgroups of a table may be reported beside the whole table.
//!
//! Whoever has a sum over all rows and those of some subgroups has the sum over the rest by subtraction. So the rest is a
//! table that is reported too: the rows of the subgroups that are withheld together with the rows that are in none. Where
//! it could not be reported by itself, one subgroup more is withheld (complementary suppression), until it can be or no
//! subgroup is left.

/// Which groups are shown: each may be reported by itself, and so may all rows that are in no shown group, unless there
/// are none.
///
/// `rows` has the rows of each group and then of those that are in no group. `allowed` says whether a table that is made
/// of these groups, by their index, may be reported in full.
///
/// # Shapes
/// One answer for each group; `rows` has one entry more.
///
/// # Disclosure
/// What is withheld tells that the group, or the rest without it, broke a rule, and not which. A group without rows is
/// withheld like any other.
pub fn shown(rows: &[u64], allowed: &mut dyn FnMut(&[usize]) -> bool) -> Vec<bool> {
    let Some(groups) = rows.len().checked_sub(1) else { return Vec::new() };
    let mut shown: Vec<bool> = (0..groups).map(|group| rows[group] > 0 && allowed(&[group])).collect();
    loop {
        let rest: Vec<usize> = (0..rows.len()).filter(|i| rows[*i] > 0 && shown.get(*i) != Some(&true)).collect();
        if rest.is_empty() || !shown.contains(&true) || allowed(&rest) {
            return shown;
        }
        // The smallest costs least.
        let next = (0..groups).filter(|group| shown[*group]).min_by_key(|group| rows[*group]);
        next.into_iter().for_each(|group| shown[group] = false);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(rows: &[u64], least: u64) -> Vec<bool> {
        shown(rows, &mut |groups| groups.iter().map(|group| rows[*group]).sum::<u64>() >= least)
    }

    #[test]
    fn a_small_group_takes_the_smallest_other_with_it() {
        assert_eq!(of(&[50, 30, 4, 20, 0], 10), [true, true, false, false]);
        assert_eq!(of(&[50, 30, 20, 0], 10), [true; 3]);
        // Two groups: the one would be the whole less the other.
        assert_eq!(of(&[50, 4, 0], 10), [false, false]);
        // Rows in no group protect, if they are enough, and are protected, if they are few.
        assert_eq!(of(&[50, 4, 12], 10), [true, false]);
        assert_eq!(of(&[50, 30, 3], 10), [true, false]);
        assert_eq!(of(&[50, 3], 10), [false]);
        // A group without rows is in nobody's rest.
        assert_eq!(of(&[50, 0, 0], 10), [true, false]);
        assert_eq!((of(&[], 10), of(&[7], 10)), (vec![], vec![]));
    }

    proptest! {
        #[test]
        fn nothing_that_follows_from_what_is_shown_is_small(
            rows in prop::collection::vec(0u64..30, 1..9), least in 1u64..15
        ) {
            let shown = of(&rows, least);
            let rest: u64 = (0..rows.len()).filter(|i| shown.get(*i) != Some(&true)).map(|i| rows[i]).sum();
            if shown.contains(&true) {
                prop_assert!(rest == 0 || rest >= least, "{rows:?} {shown:?}");
            }
            for (group, is_shown) in shown.iter().enumerate() {
                prop_assert!(!is_shown || rows[group] >= least);
            }
        }
    }
}
