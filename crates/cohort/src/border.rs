//! Which figures of a report a site's disclosure rules hold back.

use std::collections::BTreeMap;

use hospes_protocol::plan::figure;
use hospes_protocol::policy::Disclosure;

use crate::component::FeatureStatistics;
use crate::evaluate::Metrics;

/// Figures that are withheld, each with its rule.
pub(crate) type Withheld = BTreeMap<&'static str, String>;

/// One sentence for every case of a small class, so that it does not tell which class is absent or how small it is.
const SMALL_CLASS: &str = "withheld by the rule for small classes";

/// Figures of the labels; what is known without labels is not among them.
const OF_LABELS: [&str; 5] =
    [figure::CORRECT, figure::LOSS_SUM, figure::BRIER_SUM, figure::CONFUSION, figure::CALIBRATION_POSITIVES];
const SCORES: [&str; 2] = [figure::SCORES_POSITIVE, figure::SCORES_NEGATIVE];
const CALIBRATION: [&str; 3] = [figure::CALIBRATION_ROWS, figure::CALIBRATION_SCORES, figure::CALIBRATION_POSITIVES];
const ALL_METRICS: [&str; 10] = [
    figure::N,
    figure::CORRECT,
    figure::LOSS_SUM,
    figure::BRIER_SUM,
    figure::CONFUSION,
    figure::SCORES_POSITIVE,
    figure::SCORES_NEGATIVE,
    figure::CALIBRATION_ROWS,
    figure::CALIBRATION_SCORES,
    figure::CALIBRATION_POSITIVES,
];

/// Rules for the quality of a model on `subjects` distinct subjects.
pub(crate) fn metrics(metrics: &Metrics, subjects: u64, rules: &Disclosure) -> Withheld {
    let mut withheld = Withheld::new();
    let mut hold = |names: &[&'static str], rule: &str| {
        for name in names {
            withheld.entry(name).or_insert_with(|| rule.to_owned());
        }
    };
    // PRIVACY: the order goes from the rule that takes most to the one that takes least.
    if subjects < rules.min_subset {
        hold(&ALL_METRICS, "withheld by the rule for small groups");
        return withheld;
    }
    let small = |n: u64| n > 0 && n < rules.min_cell;
    let smaller_class = metrics.positives.min(metrics.rows - metrics.positives);
    if smaller_class < rules.min_cell.max(1) {
        // With one class only, the histograms by class are all labels; the AUC is made from them.
        hold(&SCORES, SMALL_CLASS);
        if rules.min_cell > 1 {
            hold(&OF_LABELS, SMALL_CLASS);
        }
    }
    let cells = format!("withheld: a count lies below {}", rules.min_cell);
    if metrics.confusion.iter().any(|n| small(*n)) {
        hold(&[figure::CONFUSION], &cells);
    }
    if small(metrics.correct) || small(metrics.rows - metrics.correct) {
        hold(&[figure::CORRECT, figure::CONFUSION], &cells);
    }
    if metrics.scores_positive.iter().chain(&metrics.scores_negative).any(|n| small(*n)) {
        hold(&SCORES, &cells);
    }
    let bin = |b: &crate::evaluate::CalibrationBin| small(b.rows) || small(b.positives) || small(b.rows - b.positives);
    if metrics.calibration.iter().any(bin) {
        hold(&CALIBRATION, &cells);
    }
    withheld
}

/// Rules for sums of features over `rows` rows of `subjects` distinct subjects.
pub(crate) fn statistics(list: &[FeatureStatistics], rows: u64, subjects: u64, rules: &Disclosure) -> Withheld {
    let sums = [figure::SUM, figure::SUM_OF_SQUARES];
    let mut withheld = Withheld::new();
    let mut hold = |names: &[&'static str], rule: String| {
        for name in names {
            withheld.entry(name).or_insert_with(|| rule.clone());
        }
    };
    if subjects < rules.min_subset {
        let all = [figure::N, figure::PRESENT, figure::SUM, figure::SUM_OF_SQUARES];
        hold(&all, "withheld by the rule for small groups".into());
        return withheld;
    }
    let small = |n: u64| n > 0 && n < rules.min_cell;
    let cells = format!("withheld: a count lies below {}", rules.min_cell);
    if list.iter().any(|f| small(f.present) || small(rows - f.present)) {
        hold(&[figure::PRESENT, figure::SUM, figure::SUM_OF_SQUARES], cells.clone());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let ones = |f: &FeatureStatistics| f.sum as u64;
    if list.iter().any(|f| f.indicator && (small(ones(f)) || small(f.present - ones(f)))) {
        hold(&sums, cells);
    }
    withheld
}

#[cfg(test)]
mod tests {
    use hospes_protocol::policy::Policy;

    use super::*;

    fn some(positives: usize, negatives: usize) -> Metrics {
        let logits: Vec<f32> =
            std::iter::repeat_n(2.0, positives).chain(std::iter::repeat_n(-2.0, negatives)).collect();
        let labels: Vec<f32> = std::iter::repeat_n(1.0, positives).chain(std::iter::repeat_n(0.0, negatives)).collect();
        Metrics::new(&logits, &labels, 0.5, 10)
    }

    #[test]
    fn one_class_withholds_what_the_curve_is_made_from_even_for_public_data() {
        let public = Policy::public_data().disclosure;
        let held = metrics(&some(16, 0), 16, &public);
        assert_eq!(held.keys().copied().collect::<Vec<_>>(), [figure::SCORES_NEGATIVE, figure::SCORES_POSITIVE]);
        assert!(held.values().all(|rule| !rule.contains("one")));
        assert!(metrics(&some(15, 1), 16, &public).is_empty());
    }

    #[test]
    fn strict_rules_withhold_small_cells_and_everything_of_small_classes() {
        let strict = Policy::strict().disclosure;
        assert!(metrics(&some(50, 40), 90, &strict).is_empty());
        let small_class = metrics(&some(50, 3), 53, &strict);
        assert!(OF_LABELS.iter().chain(&SCORES).all(|name| small_class.contains_key(name)));
        assert!(!small_class.contains_key(figure::N));
        // One class and a small class give the same words.
        let one = metrics(&some(50, 0), 50, &strict);
        assert_eq!(one.get(figure::CONFUSION), small_class.get(figure::CONFUSION));
        assert_eq!(metrics(&some(5, 4), 9, &strict).len(), ALL_METRICS.len());
    }

    #[test]
    fn sums_of_indicators_are_counts() {
        let strict = Policy::strict().disclosure;
        let feature = |present, sum, indicator| FeatureStatistics {
            name: "f".into(),
            present,
            sum,
            sum_of_squares: sum,
            indicator,
        };
        assert!(statistics(&[feature(100, 3.0, false)], 100, 100, &strict).is_empty());
        assert_eq!(statistics(&[feature(100, 3.0, true)], 100, 100, &strict).len(), 2);
        assert_eq!(statistics(&[feature(100, 97.0, true)], 100, 100, &strict).len(), 2);
        assert_eq!(statistics(&[feature(97, 50.0, true)], 100, 100, &strict).len(), 3);
        assert_eq!(statistics(&[feature(9, 5.0, false)], 9, 9, &strict).len(), 4);
    }
}
