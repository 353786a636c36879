//! The rules that concern figures, applied to a report before it leaves.
//!
//! A figure is withheld as a whole, together with every figure from which it could be computed, and always for the same
//! reason in the same words: that only one class is present, or that one count is small, is itself something that must
//! not leave.

use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::figure;
use hospes_protocol::policy::Disclosure;

use super::count_allowed;

/// Why a figure is withheld, whatever the rule.
pub const WITHHELD: &str = "withheld by a disclosure rule of the site";

/// Figures that reveal each other: they leave together or not at all.
const AGREEMENT: &[&str] = &[figure::CONFUSION, figure::CORRECT];
const SCORES: &[&str] = &[figure::SCORES_POSITIVE, figure::SCORES_NEGATIVE];
const CALIBRATION: &[&str] = &[figure::CALIBRATION_ROWS, figure::CALIBRATION_SCORES, figure::CALIBRATION_POSITIVES];
const MOMENTS: &[&str] = &[figure::PRESENT, figure::SUM, figure::SUM_OF_SQUARES];

/// The report as it may leave, given the distinct subjects in the table that it is about.
///
/// - Below `min_subset` subjects, or with a small number of rows, everything is withheld.
/// - Where only one class is present, everything but the number of rows is, since that alone would disclose all labels;
///   a policy with `min_cell` = 1 shows every count and so has nothing left to protect here.
/// - A group of figures is withheld if any count in it, or any difference of two, lies between 1 and `min_cell` − 1;
///   so are those that hold something else than counts.
///
/// # Disclosure
/// What is left are counts of 0 or at least `min_cell` and sums over at least `min_subset` subjects. Which figures are
/// withheld tells one bit for each group.
pub fn at_border(policy: &Disclosure, subjects: u64, set: FigureSet) -> FigureSet {
    let mut set = set;
    let rows = one(&set, figure::N);
    let few = subjects < policy.min_subset || rows.is_none_or(|rows| !allowed(policy, rows));
    if few {
        withhold_all(&mut set, &[]);
        return set;
    }
    let rows = rows.unwrap_or(0.0);
    if policy.min_cell > 1 && one_class(&set) {
        withhold_all(&mut set, &[figure::N]);
        return set;
    }
    let agreement = all_allowed(policy, &set, figure::CONFUSION)
        && one(&set, figure::CORRECT).is_none_or(|correct| allowed(policy, correct) && allowed(policy, rows - correct));
    let scores = SCORES.iter().all(|name| all_allowed(policy, &set, name));
    let calibration = all_allowed(policy, &set, figure::CALIBRATION_ROWS)
        && all_allowed(policy, &set, figure::CALIBRATION_POSITIVES)
        && differences_allowed(policy, &set, figure::CALIBRATION_ROWS, figure::CALIBRATION_POSITIVES);
    let moments = moments_allowed(policy, &set, rows);
    for (holds, names) in [(agreement, AGREEMENT), (scores, SCORES), (calibration, CALIBRATION), (moments, MOMENTS)] {
        if !holds {
            // PRIVACY: a group with a small count stays.
            names.iter().for_each(|name| withhold(&mut set, name));
        }
    }
    set
}

fn withhold(set: &mut FigureSet, name: &str) {
    if set.sums.remove(name).is_some() {
        set.withheld.insert(name.to_owned(), WITHHELD.to_owned());
    }
}

fn withhold_all(set: &mut FigureSet, but: &[&str]) {
    let names: Vec<String> = set.sums.keys().filter(|name| !but.contains(&name.as_str())).cloned().collect();
    names.iter().for_each(|name| withhold(set, name));
}

fn one(set: &FigureSet, name: &str) -> Option<f64> {
    set.sums.get(name).and_then(|values| values.first()).copied()
}

/// Whether a number is a count that may be shown.
fn allowed(policy: &Disclosure, value: f64) -> bool {
    // 2^53: every whole number up to there is a double.
    let whole = (0.0..=9_007_199_254_740_992.0).contains(&value) && value.fract() == 0.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let count = value as u64;
    whole && count_allowed(policy, count)
}

fn all_allowed(policy: &Disclosure, set: &FigureSet, name: &str) -> bool {
    set.sums.get(name).is_none_or(|values| values.iter().all(|v| allowed(policy, *v)))
}

fn differences_allowed(policy: &Disclosure, set: &FigureSet, whole: &str, part: &str) -> bool {
    let (Some(whole), Some(part)) = (set.sums.get(whole), set.sums.get(part)) else { return true };
    whole.len() == part.len() && whole.iter().zip(part).all(|(w, p)| allowed(policy, w - p))
}

/// Whether all rows are of one class, by the confusion counts or, without them, by the score histograms.
fn one_class(set: &FigureSet) -> bool {
    if let Some([tp, fp, tn, fn_]) = set.sums.get(figure::CONFUSION).map(Vec::as_slice) {
        return tp + fn_ == 0.0 || fp + tn == 0.0;
    }
    let empty = |name: &str| set.sums.get(name).is_some_and(|bins| bins.iter().sum::<f64>() == 0.0);
    SCORES.iter().any(|name| empty(name))
}

/// Whether the sums of every feature are over enough rows, leave enough out or none, and are no small count themselves:
/// the sum of an indicator is one, and equals the sum of its squares.
fn moments_allowed(policy: &Disclosure, set: &FigureSet, rows: f64) -> bool {
    let Some(present) = set.sums.get(figure::PRESENT) else { return true };
    let enough = present.iter().all(|p| allowed(policy, *p) && allowed(policy, rows - p));
    let (Some(sums), Some(squares)) = (set.sums.get(figure::SUM), set.sums.get(figure::SUM_OF_SQUARES)) else {
        return enough;
    };
    let fits = sums.len() == present.len() && squares.len() == present.len();
    let mut features = sums.iter().zip(squares).zip(present);
    enough
        && fits
        && features.all(|((sum, square), present)| {
            let indicator = sum == square && sum.fract() == 0.0;
            !indicator || (allowed(policy, *sum) && allowed(policy, present - sum))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hospes_protocol::policy::Policy;
    use proptest::prelude::*;

    fn set(figures: &[(&str, &[f64])]) -> FigureSet {
        let sums = figures.iter().map(|(name, values)| ((*name).to_owned(), values.to_vec())).collect();
        FigureSet { sums, withheld: std::collections::BTreeMap::new() }
    }

    fn quality(confusion: [f64; 4]) -> FigureSet {
        let [tp, fp, tn, fn_] = confusion;
        set(&[
            (figure::N, &[tp + fp + tn + fn_]),
            (figure::CORRECT, &[tp + tn]),
            (figure::LOSS_SUM, &[12.5]),
            (figure::BRIER_SUM, &[3.25]),
            (figure::CONFUSION, &confusion),
            (figure::SCORES_POSITIVE, &[fn_, tp]),
            (figure::SCORES_NEGATIVE, &[tn, fp]),
            (figure::CALIBRATION_ROWS, &[tn + fn_, tp + fp]),
            (figure::CALIBRATION_SCORES, &[4.5, 40.5]),
            (figure::CALIBRATION_POSITIVES, &[fn_, tp]),
        ])
    }

    fn strict(subjects: u64, figures: FigureSet) -> FigureSet {
        at_border(&Policy::strict().disclosure, subjects, figures)
    }

    #[test]
    fn large_counts_leave_as_they_are() {
        let figures = quality([40.0, 12.0, 50.0, 11.0]);
        assert_eq!(strict(100, figures.clone()), figures);
    }

    #[test]
    fn a_small_count_takes_every_figure_that_reveals_it() {
        let out = strict(100, quality([40.0, 3.0, 50.0, 11.0]));
        let left: Vec<&str> = out.sums.keys().map(String::as_str).collect();
        assert_eq!(left, [figure::BRIER_SUM, figure::LOSS_SUM, figure::N]);
        assert!(out.withheld.values().all(|reason| reason == WITHHELD));
        // The number of errors is n less those right.
        let out = strict(100, set(&[(figure::N, &[100.0]), (figure::CORRECT, &[97.0])]));
        assert!(!out.sums.contains_key(figure::CORRECT));
    }

    #[test]
    fn with_one_class_only_everything_is_withheld_and_nothing_says_why() {
        for confusion in [[40.0, 0.0, 0.0, 20.0], [0.0, 30.0, 40.0, 0.0]] {
            let out = strict(100, quality(confusion));
            assert_eq!(out.sums.keys().collect::<Vec<_>>(), [figure::N]);
            assert!(out.withheld.values().all(|reason| reason == WITHHELD));
            let public = at_border(&Policy::public_data().disclosure, 100, quality(confusion));
            assert!(public.withheld.is_empty());
        }
        let scores = set(&[
            (figure::N, &[60.0]),
            (figure::SCORES_POSITIVE, &[20.0, 40.0]),
            (figure::SCORES_NEGATIVE, &[0.0, 0.0]),
            (figure::LOSS_SUM, &[1.0]),
        ]);
        assert_eq!(strict(60, scores).sums.len(), 1);
    }

    #[test]
    fn few_subjects_or_rows_let_nothing_leave() {
        assert!(strict(9, quality([40.0, 12.0, 50.0, 11.0])).sums.is_empty());
        assert!(strict(100, set(&[(figure::N, &[9.0]), (figure::LOSS_SUM, &[1.0])])).sums.is_empty());
        assert!(strict(100, set(&[(figure::LOSS_SUM, &[1.0])])).sums.is_empty());
    }

    #[test]
    fn statistics_with_few_missing_values_or_a_rare_level_are_withheld() {
        let statistics = |present: f64, sum: f64, squares: f64| {
            set(&[
                (figure::N, &[100.0]),
                (figure::PRESENT, &[100.0, present]),
                (figure::SUM, &[5_000.5, sum]),
                (figure::SUM_OF_SQUARES, &[400_000.25, squares]),
            ])
        };
        assert!(strict(100, statistics(100.0, 40.0, 40.0)).withheld.is_empty());
        assert!(strict(100, statistics(80.0, 3.5, 9.25)).withheld.is_empty());
        for bad in [statistics(97.0, 40.5, 90.0), statistics(4.0, 2.5, 3.0), statistics(100.0, 3.0, 3.0)] {
            assert_eq!(strict(100, bad).withheld.len(), 3);
        }
        assert_eq!(strict(100, statistics(100.0, 95.0, 95.0)).withheld.len(), 3);
    }

    #[test]
    fn what_should_be_a_count_and_is_none_is_withheld() {
        for bad in [-1.0, 10.5, f64::NAN, 1e300] {
            let out = strict(100, set(&[(figure::N, &[100.0]), (figure::CORRECT, &[bad])]));
            assert!(!out.sums.contains_key(figure::CORRECT));
        }
    }

    proptest! {
        #[test]
        fn no_small_count_leaves(confusion in prop::array::uniform4(0u32..40), subjects in 0u64..160) {
            let policy = Policy::strict().disclosure;
            let figures = quality(confusion.map(f64::from));
            let names = figures.sums.len();
            let out = strict(subjects, figures);
            prop_assert_eq!(out.sums.len() + out.withheld.len(), names);
            for (name, values) in &out.sums {
                if ![figure::LOSS_SUM, figure::BRIER_SUM, figure::CALIBRATION_SCORES].contains(&name.as_str()) {
                    prop_assert!(values.iter().all(|v| *v == 0.0 || *v >= policy.min_cell as f64), "{}", name);
                }
            }
            let [tp, fp, tn, fn_] = confusion;
            if tp + fn_ == 0 || fp + tn == 0 {
                prop_assert!(out.sums.len() <= 1);
            }
        }
    }
}
