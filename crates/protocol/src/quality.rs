//! What follows from the sums of an evaluation: the same arithmetic for a site on its exact scores and for the
//! coordinator on the histograms that left.
//!
//! A yes/no score is judged by its *groups*: rows with one score at the site, rows of one bin at the coordinator. Where
//! several rows share a group, what their order in it could change is given as a bound.

/// Rows that cannot be told apart by their score.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Group {
    /// Positive rows.
    pub positives: f64,
    /// Negative rows.
    pub negatives: f64,
}

/// A figure, and the most by which the order of rows within groups could change it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounded {
    /// The figure.
    pub value: f64,
    /// The most by which it can be off.
    pub bound: f64,
}

/// A line of the gain and lift table: the share of rows with the highest scores, and what is found among them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gain {
    /// Share of all rows, the highest scores first.
    pub share: f64,
    /// Share of all positive rows that is among them.
    pub gain: f64,
    /// How many times more positive rows are among them than among as many rows drawn at random.
    pub lift: f64,
}

/// How well a score ranks positive rows before negative ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// Largest distance between the distributions of the scores of positive and negative rows (Kolmogorov and Smirnov's
    /// statistic).
    pub ks: Bounded,
    /// The group from which rows count as positive where that distance is reached.
    pub ks_group: usize,
    /// Average precision: Σ (recall − the recall before) · precision over the groups (Manning, Raghavan, Schütze 2008,
    /// section 8.4).
    pub average_precision: Bounded,
    /// Recall and precision after each group that holds rows.
    pub precision_recall: Vec<(f64, f64)>,
    /// Tenths of the rows.
    pub gains: Vec<Gain>,
    /// The most by which a gain can be off.
    pub gain_bound: f64,
}

/// Lines of the gain and lift table.
const TENTHS: u32 = 10;

/// Ranking by groups from the highest score to the lowest; `None` if one class is missing.
#[must_use]
pub fn ranking(groups: &[Group]) -> Option<Ranking> {
    let positives: f64 = groups.iter().map(|g| g.positives).sum();
    let negatives: f64 = groups.iter().map(|g| g.negatives).sum();
    if positives <= 0.0 || negatives <= 0.0 {
        return None;
    }
    let (mut ks, mut ks_bound, mut ks_group) = (0.0f64, 0.0f64, 0);
    let (mut precision, mut least, mut most) = (0.0, 0.0, 0.0);
    let mut precision_recall = Vec::new();
    let (mut above, mut wrong) = (0.0, 0.0);
    for (index, group) in groups.iter().enumerate() {
        let Group { positives: p, negatives: n } = *group;
        if p > 0.0 {
            let share = p / positives;
            // Precision at each positive row lies between these, whatever the order within the group.
            let of = |found: f64, false_ones: f64| found / (found + false_ones);
            most += share * of(above + p.min(1.0), wrong).max(of(above + p, wrong));
            least += share * of(above + p.min(1.0), wrong + n).min(of(above + p, wrong + n));
            precision += share * of(above + p, wrong + n);
        }
        (above, wrong) = (above + p, wrong + n);
        let distance = (above / positives - wrong / negatives).abs();
        if distance > ks {
            (ks, ks_group) = (distance, index);
        }
        if p + n > 0.0 {
            // Within a group the distance can grow by all positive or by all negative rows of it at most.
            ks_bound = ks_bound.max(if p > 0.0 && n > 0.0 { (p / positives).max(n / negatives) } else { 0.0 });
            precision_recall.push((above / positives, above / (above + wrong)));
        }
    }
    let (gains, gain_bound) = gains(groups, positives, positives + negatives);
    let off = (most - precision).max(precision - least).max(0.0);
    Some(Ranking {
        ks: Bounded { value: ks, bound: ks_bound },
        ks_group,
        average_precision: Bounded { value: precision, bound: off },
        precision_recall,
        gains,
        gain_bound,
    })
}

/// Gain and lift of the tenths of the rows; rows of a group that a tenth cuts count in proportion.
fn gains(groups: &[Group], positives: f64, rows: f64) -> (Vec<Gain>, f64) {
    let mut found = 0.0;
    let mut before = 0.0;
    let mut bound = 0.0f64;
    let mut lines = Vec::with_capacity(TENTHS as usize);
    let mut rest = groups.iter();
    let mut now = rest.next().copied().unwrap_or_default();
    for tenth in 1..=TENTHS {
        let share = f64::from(tenth) / f64::from(TENTHS);
        let wanted = rows * share;
        while before + now.positives + now.negatives < wanted {
            found += now.positives;
            before += now.positives + now.negatives;
            match rest.next() {
                Some(next) => now = *next,
                None => break,
            }
        }
        let (size, cut) = (now.positives + now.negatives, (wanted - before).max(0.0));
        let part = if size > 0.0 { now.positives * (cut / size).min(1.0) } else { 0.0 };
        let (least, most) = ((cut - now.negatives).max(0.0), cut.min(now.positives));
        bound = bound.max((most - part).max(part - least) / positives);
        let gain = ((found + part) / positives).min(1.0);
        lines.push(Gain { share, gain, lift: gain / share });
    }
    (lines, bound.max(0.0))
}

/// F1 of each class by itself, then their mean (macro average). A class that occurs neither as label nor as prediction is
/// left out; `None` if there is no row.
///
/// # Shapes
/// `confusion` has a row for each true class and a column for each predicted one, row after row.
#[must_use]
pub fn macro_f1(confusion: &[f64], classes: usize) -> Option<f64> {
    if classes == 0 || confusion.len() != classes * classes {
        return None;
    }
    let cell = |truth: usize, predicted: usize| confusion[truth * classes + predicted];
    let scores: Vec<f64> = (0..classes)
        .filter_map(|class| {
            let truth: f64 = (0..classes).map(|other| cell(class, other)).sum();
            let predicted: f64 = (0..classes).map(|other| cell(other, class)).sum();
            (truth + predicted > 0.0).then(|| 2.0 * cell(class, class) / (truth + predicted))
        })
        .collect();
    #[allow(clippy::cast_precision_loss)]
    let count = scores.len() as f64;
    (count > 0.0).then(|| scores.iter().sum::<f64>() / count)
}

/// How far predictions of a number are off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Errors {
    /// Root of the mean squared error.
    pub rmse: f64,
    /// Mean absolute error.
    pub mae: f64,
    /// Share of the label's variance that is explained: 1 − Σ(y − ŷ)² / Σ(y − ȳ)²; `None` if the label is constant, or varies
    /// by less than a millionth of its size, which its sums cannot tell.
    pub r_squared: Option<f64>,
}

/// Sums over rows with a number as label. That of Σ(y − ȳ)² is what is left of Σy² − (Σy)²/n: of labels that lie far from 0
/// for their spread it has few digits or none. Whoever has the rows takes a number amid them off each label first, which
/// changes none of the figures.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct NumberSums {
    /// Rows.
    pub rows: f64,
    /// Σ |y − ŷ|.
    pub absolute: f64,
    /// Σ (y − ŷ)².
    pub squared: f64,
    /// Σ y.
    pub label: f64,
    /// Σ y².
    pub label_squared: f64,
}

/// Errors from sums; `None` without rows.
#[must_use]
pub fn errors(sums: NumberSums) -> Option<Errors> {
    if sums.rows <= 0.0 {
        return None;
    }
    let spread = sums.label_squared - sums.label * sums.label / sums.rows;
    // What is left of a constant label is rounding. Below a spread of 1e-6 of the label's size, too, most of it is.
    let constant = spread <= 1e-12 * sums.label_squared.abs();
    Some(Errors {
        rmse: (sums.squared / sums.rows).sqrt(),
        mae: sums.absolute / sums.rows,
        r_squared: (!constant).then(|| 1.0 - sums.squared / spread),
    })
}

/// The share of comparable pairs in which the row with the earlier event has the higher risk, ties counted half (Harrell
/// et al. 1982); `None` if no pair can be compared.
#[must_use]
pub fn concordance(concordant: f64, tied: f64, comparable: f64) -> Option<f64> {
    (comparable > 0.0).then(|| (concordant + tied / 2.0) / comparable)
}

/// The model logit P(y) = intercept + slope · logit(score) (Cox 1958).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recalibration {
    /// 1 for a calibrated score.
    pub slope: f64,
    /// 0 for a calibrated score.
    pub intercept: f64,
    /// Standard error of the slope.
    pub slope_error: f64,
    /// Standard error of the intercept.
    pub intercept_error: f64,
}

/// The recalibration from its information and from that times its solution; `None` if the information has no inverse.
///
/// Summed over sites, these give the mean of the sites' own solutions, each weighed by its precision (the fixed-effect
/// meta-analysis of two correlated estimates; Jackson, Riley, White 2011). It is what one site's figures give for that
/// site, and is near the fit over all rows together where the sites agree and have many rows, but not equal to it.
///
/// # Shapes
/// `information`: the upper triangle row by row; `weighted`: intercept first.
#[must_use]
pub fn recalibration(information: [f64; 3], weighted: [f64; 2]) -> Option<Recalibration> {
    let ([ii, is, ss], [i, s]) = (information, weighted);
    let determinant = ii * ss - is * is;
    // Relative to its terms, what is left of a matrix without an inverse is rounding.
    if !determinant.is_finite() || determinant <= 1e-9 * ii * ss {
        return None;
    }
    let found = Recalibration {
        slope: (ii * s - is * i) / determinant,
        intercept: (ss * i - is * s) / determinant,
        slope_error: (ii / determinant).sqrt(),
        intercept_error: (ss / determinant).sqrt(),
    };
    let all = [found.slope, found.intercept, found.slope_error, found.intercept_error];
    all.iter().all(|value| value.is_finite()).then_some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(positives: u32, negatives: u32) -> Group {
        Group { positives: f64::from(positives), negatives: f64::from(negatives) }
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn single_rows_are_ranked_as_by_hand() {
        // Scores .9 (+), .8 (−), .7 (+), .6 (−), .5 (−): precision at the positives is 1 and 2/3.
        let found = ranking(&[group(1, 0), group(0, 1), group(1, 0), group(0, 1), group(0, 1)]).unwrap();
        assert!(near(found.average_precision.value, (1.0 + 2.0 / 3.0) / 2.0));
        assert_eq!((found.average_precision.bound, found.ks.bound), (0.0, 0.0));
        // After the third row: 2/2 of the positives, 1/3 of the negatives.
        assert!(near(found.ks.value, 2.0 / 3.0));
        assert_eq!(found.ks_group, 2);
        assert!(near(found.gains[1].gain, 0.5) && near(found.gains[1].lift, 2.5));
        assert!(near(found.gains[9].gain, 1.0) && near(found.gains[9].lift, 1.0));
        assert_eq!(found.precision_recall.last(), Some(&(1.0, 0.4)));
        assert_eq!((ranking(&[group(3, 0)]), ranking(&[])), (None, None));
    }

    #[test]
    fn recalibrations_add_up_by_their_precision() {
        let one = ([4.0, 1.0, 9.0], 0.9, 0.2);
        let other = ([1.0, 0.5, 2.0], 1.3, -0.4);
        let weighted = |([ii, is, ss], slope, intercept): ([f64; 3], f64, f64)| {
            [ii * intercept + is * slope, is * intercept + ss * slope]
        };
        let found = recalibration(one.0, weighted(one)).unwrap();
        assert!(near(found.slope, 0.9) && near(found.intercept, 0.2));
        assert!(near(found.slope_error, (4.0f64 / 35.0).sqrt()) && near(found.intercept_error, (9.0f64 / 35.0).sqrt()));
        let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<_>>();
        let information = sum(&one.0, &other.0).try_into().unwrap();
        let all = recalibration(information, sum(&weighted(one), &weighted(other)).try_into().unwrap()).unwrap();
        assert!(all.slope > 0.9 && all.slope < 1.3 && all.slope_error < found.slope_error, "{all:?}");
        // Twice the same is the same, but more precise.
        let twice = recalibration([8.0, 2.0, 18.0], weighted(one).map(|w| 2.0 * w)).unwrap();
        assert!(near(twice.slope, 0.9) && near(twice.slope_error, found.slope_error / 2f64.sqrt()));
        assert_eq!(recalibration([0.0; 3], [0.0; 2]), None);
        assert_eq!(recalibration([1.0, 1.0, 1.0], [1.0, 1.0]), None);
        assert_eq!(recalibration([f64::MAX, 0.0, f64::MAX], [1.0, 1.0]), None);
    }

    #[test]
    fn one_group_tells_nothing_and_says_so() {
        let found = ranking(&[group(5, 15)]).unwrap();
        assert!(near(found.average_precision.value, 0.25) && found.average_precision.bound > 0.5);
        assert_eq!((found.ks.value, found.ks.bound), (0.0, 1.0));
        assert!(found.gains.iter().all(|g| near(g.lift, 1.0)));
    }

    #[test]
    fn figures_of_classes_numbers_and_times() {
        // Three classes, the third never there and never predicted.
        assert!(near(
            macro_f1(&[8.0, 2.0, 0.0, 1.0, 9.0, 0.0, 0.0, 0.0, 0.0], 3).unwrap(),
            (16.0 / 19.0 + 18.0 / 21.0) / 2.0
        ));
        assert_eq!((macro_f1(&[0.0; 4], 2), macro_f1(&[1.0; 3], 2)), (None, None));
        // y = 1, 2, 3 and ŷ = 1, 2, 5.
        let sums = NumberSums { rows: 3.0, absolute: 2.0, squared: 4.0, label: 6.0, label_squared: 14.0 };
        let found = errors(sums).unwrap();
        assert!(near(found.rmse, (4.0f64 / 3.0).sqrt()) && near(found.mae, 2.0 / 3.0));
        assert!(near(found.r_squared.unwrap(), -1.0));
        let constant = NumberSums { rows: 3.0, label: 6.3, label_squared: 13.23, ..sums };
        assert_eq!(errors(constant).unwrap().r_squared, None);
        assert_eq!((errors(NumberSums::default()), concordance(0.0, 0.0, 0.0)), (None, None));
        assert_eq!(concordance(2.0, 1.0, 4.0), Some(0.625));
    }

    proptest! {
        /// However the rows of the groups are ordered, the figures of single rows lie within the bounds.
        #[test]
        fn bounds_hold_for_every_order_within_groups(
            groups in prop::collection::vec((0u32..5, 0u32..5), 1..8),
            first in prop::collection::vec(any::<bool>(), 8),
        ) {
            let binned: Vec<Group> = groups.iter().map(|(p, n)| group(*p, *n)).collect();
            let single: Vec<Group> = groups
                .iter()
                .zip(&first)
                .flat_map(|((p, n), positives_first)| {
                    let ones = vec![group(1, 0); *p as usize];
                    let zeros = vec![group(0, 1); *n as usize];
                    if *positives_first { [ones, zeros].concat() } else { [zeros, ones].concat() }
                })
                .collect();
            let (Some(binned), Some(single)) = (ranking(&binned), ranking(&single)) else { return Ok(()) };
            let within = |a: Bounded, b: Bounded| (a.value - b.value).abs() <= a.bound + 1e-9;
            prop_assert!(within(binned.ks, single.ks), "{:?} {:?}", binned.ks, single.ks);
            prop_assert!(within(binned.average_precision, single.average_precision));
            for (a, b) in binned.gains.iter().zip(&single.gains) {
                prop_assert!((a.gain - b.gain).abs() <= binned.gain_bound + 1e-9, "{:?} {:?}", a, b);
            }
        }
    }
}
