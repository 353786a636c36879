//! *This site alone* against *federated*: two models on the same rows, side by side.

use serde::{Deserialize, Serialize};

use super::Interval;
use crate::cohort::ReportView;

/// One figure of two models that were judged on the same rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct Compared {
    /// Its name, such as `auc`.
    pub figure: String,
    /// Of the model of this site alone.
    pub alone: f64,
    /// Its 95 % interval.
    pub alone_interval: Option<Interval>,
    /// Of the federated model.
    pub federated: f64,
    /// Its 95 % interval.
    pub federated_interval: Option<Interval>,
    /// Federated less alone.
    pub difference: f64,
    /// Its 95 % interval, unpaired: both models were judged on the same resamples, but of those only the two intervals are
    /// kept, so that what the models share by being judged on the same rows is not taken out. It is rather too wide than too
    /// narrow.
    pub difference_interval: Option<Interval>,
}

/// Compares what two views have in common; nothing for views of different kinds.
///
/// # Disclosure
/// Figures of the site's own rows, for its own view; they do not leave.
pub fn compare(alone: &ReportView, federated: &ReportView) -> Vec<Compared> {
    let theirs = figures(federated);
    let common = figures(alone).into_iter().filter_map(|(name, value, interval)| {
        let (_, other, other_interval) = theirs.iter().find(|(n, ..)| *n == name)?;
        let difference = other - value;
        // Variances of independent estimates add; an interval of a normal estimate is ± 1.96 standard errors, so that half
        // widths add in squares.
        let half = |i: &Interval| (i.high - i.low) / 2.0;
        let width = interval.as_ref().zip(other_interval.as_ref()).map(|(a, b)| half(a).hypot(half(b)));
        Some(Compared {
            figure: name.to_owned(),
            alone: value,
            alone_interval: interval,
            federated: *other,
            federated_interval: *other_interval,
            difference,
            difference_interval: width.map(|w| Interval { low: difference - w, high: difference + w }),
        })
    });
    common.collect()
}

type Figure = (&'static str, f64, Option<Interval>);

fn figures(view: &ReportView) -> Vec<Figure> {
    let (list, intervals) = match view {
        ReportView::Metrics(m) => {
            let detail = m.detail.as_ref();
            let list = vec![
                ("auc", m.auc),
                ("accuracy", Some(m.accuracy())),
                ("brier", Some(m.brier())),
                ("average_precision", detail.and_then(|d| d.average_precision)),
                ("ks", detail.and_then(|d| d.ks)),
            ];
            (list, detail.map(|d| &d.intervals))
        }
        ReportView::Classes(m) => {
            #[allow(clippy::cast_precision_loss)]
            let accuracy = (m.rows > 0).then(|| m.correct as f64 / m.rows as f64);
            (vec![("accuracy", accuracy), ("macro_f1", m.macro_f1)], Some(&m.intervals))
        }
        ReportView::Number(m) => {
            (vec![("rmse", m.rmse), ("mae", m.mae), ("r_squared", m.r_squared)], Some(&m.intervals))
        }
        ReportView::Survival(m) => (vec![("c_index", m.c_index)], Some(&m.intervals)),
        ReportView::Grouped { all, .. } => return figures(all),
        ReportView::Statistics { .. } | ReportView::Regression { .. } => (Vec::new(), None),
    };
    let of = |name: &str| intervals.and_then(|i| i.get(name)).copied();
    list.into_iter().filter_map(|(name, value)| Some((name, value?, of(name)))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::NumberMetrics;
    use super::*;

    #[test]
    fn figures_stand_side_by_side_with_an_unpaired_interval() {
        let view = |rmse: f64, low: f64, high: f64| {
            let empty = NumberMetrics::new(&[], &[], &[], None);
            let intervals = [("rmse".to_owned(), Interval { low, high })].into();
            ReportView::Number(NumberMetrics { rmse: Some(rmse), mae: Some(1.0), intervals, ..empty })
        };
        let found = compare(&view(5.0, 2.0, 8.0), &view(4.0, 0.0, 8.0));
        assert_eq!(found.iter().map(|c| c.figure.as_str()).collect::<Vec<_>>(), ["rmse", "mae"]);
        // Half widths 3 and 4 make 5.
        assert_eq!(
            (found[0].difference, found[0].difference_interval),
            (-1.0, Some(Interval { low: -6.0, high: 4.0 }))
        );
        assert_eq!(found[1].difference_interval, None);
        let other = ReportView::Statistics { rows: 1, features: Vec::new() };
        assert!(compare(&other, &view(1.0, 0.0, 2.0)).is_empty());
    }
}
