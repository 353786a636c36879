//! Sums against closed forms, against differences of the likelihood, and against examples worked by hand.

use hospes_protocol::plan::{Cox, Newton, Privacy, Ties, TimeGrid};

use super::*;
use crate::component::Feature;

/// A round in which everything is reported that ever is.
const LAST: u32 = u32::MAX;

fn feature(name: &str, values: &[f64]) -> Feature {
    Feature { name: name.into(), codes: None, category: None, bounds: None, values: values.to_vec() }
}

/// Twenty rows with two features, an offset and weights.
fn frame(label: impl Fn(f64) -> f64) -> Frame {
    let wave = |k: f64| (0..20).map(|i| (f64::from(i) * k).sin() * 2.0).collect::<Vec<f64>>();
    Frame {
        features: vec![feature("a", &wave(1.3)), feature("b", &wave(0.7))],
        label: (0..20).map(|i| label(f64::from(i))).collect(),
        times: (0..20).map(|i| f64::from((i * 7) % 9 + 1)).collect(),
        extras: [
            ("log_time".to_owned(), wave(2.1)),
            ("weight".to_owned(), (0..20).map(|i| 0.5 + f64::from(i % 4)).collect()),
        ]
        .into(),
        ..Frame::default()
    }
}

fn coefficients(intercept: bool) -> Coefficients {
    let names = intercept.then_some("(intercept)").into_iter().chain(["a", "b"]).map(str::to_owned).collect();
    Coefficients { names, intercept }
}

fn glm(family: Family) -> Component {
    Component::Glm(Glm {
        family,
        intercept: true,
        offset: Some("log_time".into()),
        weights: Some("weight".into()),
        newton: Newton::default(),
        confidence: 0.95,
        privacy: Privacy::Plain {},
    })
}

fn cox(ties: Ties, time_grid: Option<TimeGrid>) -> Component {
    Component::Cox(Cox { ties, time_grid, newton: Newton::default(), confidence: 0.95, privacy: Privacy::Plain {} })
}

fn at(component: &Component, frame: &Frame, point: &[f64]) -> Sums {
    let coefficients = coefficients(matches!(component, Component::Glm(_)));
    sums(component, frame, &coefficients, point, "fit", LAST).unwrap_or_else(|e| panic!("{e}"))
}

/// Score and information against central differences, whose error here is about 1e-9 of the largest value.
fn assert_derivatives(component: &Component, frame: &Frame, point: &[f64]) {
    let found = at(component, frame, point);
    let step = 1e-5;
    let mut entries = found.information.iter();
    for i in 0..point.len() {
        let moved = |by: f64| {
            let mut point = point.to_vec();
            point[i] += by;
            at(component, frame, &point)
        };
        let (up, down) = (moved(step), moved(-step));
        let slope = (up.log_likelihood - down.log_likelihood) / (2.0 * step);
        assert!((slope - found.score[i]).abs() < 1e-6 * (1.0 + slope.abs()), "{slope} {}", found.score[i]);
        for j in i..point.len() {
            let curve = (down.score[j] - up.score[j]) / (2.0 * step);
            let entry = entries.next().unwrap();
            assert!((curve - entry).abs() < 1e-6 * (1.0 + curve.abs()), "{i} {j}: {curve} {entry}");
        }
    }
    assert!(entries.next().is_none());
}

#[test]
fn score_and_information_are_the_derivatives_of_the_log_likelihood() {
    let point = [0.3, -0.4, 0.2];
    assert_derivatives(&glm(Family::Gaussian), &frame(|i| i.sin() * 3.0), &point);
    assert_derivatives(&glm(Family::Binomial), &frame(|i| i % 2.0), &point);
    assert_derivatives(&glm(Family::Poisson), &frame(|i| (i * i) % 7.0), &point);
    for ties in [Ties::Efron, Ties::Breslow] {
        assert_derivatives(&cox(ties, None), &frame(|i| f64::from(u8::from(i % 3.0 > 0.0))), &point[1..]);
    }
}

#[test]
fn a_gaussian_step_is_the_weighted_normal_equations() {
    let frame = frame(|i| i.sin() * 3.0);
    let found = at(&glm(Family::Gaussian), &frame, &[0.0; 3]);
    let (w, o) = (&frame.extras["weight"], &frame.extras["log_time"]);
    let columns = [&vec![1.0; 20], &frame.features[0].values, &frame.features[1].values];
    let mut entries = found.information.iter();
    for (i, a) in columns.iter().enumerate() {
        let right: f64 = (0..20).map(|r| w[r] * a[r] * (frame.label[r] - o[r])).sum();
        assert!((found.score[i] - right).abs() < 1e-12);
        for b in &columns[i..] {
            let left: f64 = (0..20).map(|r| w[r] * a[r] * b[r]).sum();
            assert!((entries.next().unwrap() - left).abs() < 1e-12);
        }
    }
    let deviance: f64 = (0..20).map(|r| w[r] * (frame.label[r] - o[r]).powi(2)).sum();
    assert!((found.others[figure::DEVIANCE][0] - deviance).abs() < 1e-9);
    assert_eq!(found.others[figure::WEIGHTS], [w.iter().sum::<f64>()]);
}

/// Four rows, x = 0, 1, 1, 0 at the times 1, 1, 2, 3; both at 1 and the one at 2 have the event.
fn ties() -> Frame {
    Frame {
        features: vec![feature("a", &[0.0, 1.0, 1.0, 0.0])],
        label: vec![1.0, 1.0, 1.0, 0.0],
        times: vec![1.0, 1.0, 2.0, 3.0],
        ..Frame::default()
    }
}

#[test]
fn ties_are_counted_as_efron_and_breslow_do_by_hand() {
    let one = Coefficients { names: vec!["a".into()], intercept: false };
    let at = |ties_of, b: f64| sums(&cox(ties_of, None), &ties(), &one, &[b], "fit", LAST).unwrap();
    let h = 0.7f64.exp();
    // At 1 the risk set has 2 + 2h, the two that fail 1 + h; at 2 it has h + 1.
    let efron = 0.7 + 0.7 - (2.0 + 2.0 * h).ln() - (2.0 + 2.0 * h - 0.5 * (1.0 + h)).ln() - (1.0 + h).ln();
    let breslow = 0.7 + 0.7 - 2.0 * (2.0 + 2.0 * h).ln() - (1.0 + h).ln();
    assert!((at(Ties::Efron, 0.7).log_likelihood - efron).abs() < 1e-12);
    assert!((at(Ties::Breslow, 0.7).log_likelihood - breslow).abs() < 1e-12);
    // Score: 2 − the mean of x, h/(1 + h), at each of the three events; information: its variance, three times.
    let mean = h / (1.0 + h);
    let found = at(Ties::Efron, 0.7);
    assert!((found.score[0] - (2.0 - 3.0 * mean)).abs() < 1e-12);
    assert!((found.information[0] - 3.0 * mean * (1.0 - mean)).abs() < 1e-12);
}

#[test]
fn sums_stay_numbers_wherever_a_step_leads() {
    let events = frame(|i| f64::from(u8::from(i % 3.0 > 0.0)));
    for far in [1e3, 1e9, 1e30] {
        for (component, frame) in [
            (glm(Family::Binomial), frame(|i| i % 2.0)),
            (glm(Family::Poisson), frame(|i| i)),
            (cox(Ties::Efron, Some(TimeGrid { width: 3.0, intervals: 2 })), events.clone()),
        ] {
            let sums =
                at(&component, &frame, &[far, -far, far][..3 - usize::from(matches!(component, Component::Cox(_)))]);
            let all = [&sums.score, &sums.information].into_iter().chain(sums.others.values()).flatten();
            assert!(all.chain([&sums.log_likelihood]).all(|v| v.is_finite()), "{far}: {component:?}");
        }
    }
}

#[test]
fn rows_count_by_what_they_weigh() {
    assert_eq!((effective(&[2.0; 5]), effective(&[1e300, 1e-300]), effective(&[0.0; 3])), (5.0, 1.0, 0.0));
    assert!((effective(&[3.0, 1.0]) - 1.6).abs() < 1e-15);
}

/// `count` rows with one feature that is 0 but in the last, where it is 1.
fn but_one(count: usize, label: impl Fn(usize) -> f64, time: impl Fn(usize) -> f64) -> Frame {
    let last = |row: usize| if row + 1 == count { 1.0 } else { 0.0 };
    Frame {
        features: vec![feature("a", &(0..count).map(last).collect::<Vec<_>>())],
        label: (0..count).map(label).collect(),
        times: (0..count).map(time).collect(),
        ..Frame::default()
    }
}

/// At −50 the last row weighs next to nothing in the information, and e^50 in Pearson's statistic.
#[test]
fn a_row_far_on_its_wrong_side_is_counted_where_it_is_all_of_a_sum() {
    let one = Coefficients { names: vec!["a".into()], intercept: false };
    let at = |family, label: &dyn Fn(usize) -> f64, point: f64| {
        let glm = Component::Glm(Glm {
            family,
            intercept: false,
            offset: None,
            weights: None,
            newton: Newton::default(),
            confidence: 0.95,
            privacy: Privacy::Plain {},
        });
        sums(&glm, &but_one(200, label, |_| 1.0), &one, &[point], "fit", 1).unwrap()
    };
    // The last row is positive, and a count of 1.
    let positive = |row: usize| f64::from(u8::from(row % 2 == 1));
    for family in [Family::Binomial, Family::Poisson] {
        let fair = at(family, &positive, 0.1);
        assert!(fair.effective_rows > 190.0 && fair.pearson_rows > 90.0, "{family:?}");
        let far = at(family, &positive, -50.0);
        assert!(far.pearson_rows < 1.001, "{family:?}: {}", far.pearson_rows);
        assert!(far.effective_rows > 10.0, "the other sums are of all rows: {family:?}");
    }
    // Further off, the likelihood and the deviance are its own too.
    let further = at(Family::Binomial, &positive, -250.0);
    assert!(further.effective_rows < 3.0, "{}", further.effective_rows);
    // What a gaussian model reports follows from sums that do not depend on the coefficients.
    let gaussian = at(Family::Gaussian, &positive, -250.0);
    assert!(gaussian.effective_rows == 200.0 && gaussian.pearson_rows == f64::INFINITY);
}

#[test]
fn an_event_without_hazard_is_counted_as_all_of_the_likelihood() {
    let one = Coefficients { names: vec!["a".into()], intercept: false };
    let time = |row: usize| f64::from(u8::try_from(row % 100).unwrap()) + 1.0;
    let frame = but_one(200, |row| f64::from(u8::from(row % 2 == 1)), time);
    let at = |point: f64| sums(&cox(Ties::Efron, None), &frame, &one, &[point], "fit", 1).unwrap().effective_rows;
    assert!(at(0.0) > 80.0, "{}", at(0.0));
    // Beside the others it has no hazard, and 199 of 200 have one.
    assert!(at(-1e6) < 1.1, "{}", at(-1e6));
    assert!(at(20.0) < 1.1, "{}", at(20.0));
}

/// Few rows are left in the late intervals, and one of them outweighs the others there, but not all rows.
#[test]
fn a_grid_counts_the_rows_of_each_interval_and_of_what_two_differ_in() {
    let one = Coefficients { names: vec!["a".into()], intercept: false };
    let at = |width: f64, intervals: u32, late: &[f64], point: f64| {
        let count = 2_000 + late.len();
        let time = |row: usize| if row < 2_000 { 1.0 } else { late[row - 2_000] };
        let frame = but_one(count, |row| f64::from(u8::from(row % 2 == 1)), time);
        let grid = Some(TimeGrid { width, intervals });
        let found = sums(&cox(Ties::Efron, grid), &frame, &one, &[point], "fit", LAST).unwrap();
        (found.effective_rows, found.grid_rows)
    };
    let late = vec![11.0; 40];
    let (all, grid) = at(10.0, 2, &late, 0.0);
    assert!(all > 900.0 && (grid - 40.0).abs() < 1e-9, "{all} {grid}");
    let (all, grid) = at(10.0, 2, &late, 4.0);
    assert!(all > 500.0 && grid < 3.5, "{all} {grid}");
    // Sixty rows are in both intervals, and one leaves in the first of them: the difference is its hazard.
    let mut late = vec![25.0; 60];
    late.push(11.0);
    let (_, grid) = at(10.0, 3, &late, 0.0);
    assert!(grid > 10.0, "those who leave on either side hide it: {grid}");
    let mut alone = vec![99.0; 60];
    alone.push(21.0);
    let (_, grid) = at(10.0, 4, &alone, 0.0);
    assert!((grid - 1.0).abs() < 1e-9, "{grid}");
}

#[test]
fn pairs_are_ordered_where_one_failed_while_the_other_was_watched() {
    let one = Coefficients { names: vec!["a".into()], intercept: false };
    // (1, x=0) with the rows at 2 and 3: wrong, equal. (1, x=1): equal, right. (2, x=1) with that at 3: right.
    let found = sums(&cox(Ties::Efron, None), &ties(), &one, &[1.0], "fit", LAST).unwrap();
    assert_eq!(found.others[figure::PAIRS], [2.0, 1.0, 2.0]);
    assert_eq!(found.others[figure::EVENTS], [3.0]);
    // Before the last round no pair is counted, and no interval of time.
    let grid = Some(TimeGrid { width: 1.0, intervals: 2 });
    let before = sums(&cox(Ties::Efron, grid), &ties(), &one, &[1.0], "fit", 25).unwrap();
    assert_eq!(before.others.keys().copied().collect::<Vec<_>>(), [figure::EVENTS]);
    assert_eq!((before.score, before.information), (found.score, found.information));
    // Censored at the time of an event: watched longer.
    let mut frame = ties();
    frame.label[0] = 0.0;
    let found = sums(&cox(Ties::Efron, None), &frame, &one, &[1.0], "fit", LAST).unwrap();
    assert_eq!(found.others[figure::PAIRS], [3.0, 0.0, 1.0]);
}

#[test]
fn fenwick_counts_are_those_of_all_pairs() {
    let frame = frame(|i| f64::from(u8::from(i % 3.0 > 0.0)));
    let point = [0.4, -0.9];
    let found = at(&cox(Ties::Efron, None), &frame, &point);
    let risk = |r: usize| (0..2).map(|f| frame.features[f].values[r] * point[f]).sum::<f64>();
    let (mut right, mut wrong) = (0.0, 0.0);
    for i in (0..20).filter(|i| frame.label[*i] > 0.5) {
        let watched = |j: &usize| {
            frame.times[*j] > frame.times[i] || (frame.times[*j] == frame.times[i] && frame.label[*j] < 0.5)
        };
        for j in (0..20).filter(watched) {
            right += f64::from(u8::from(risk(i) > risk(j)));
            wrong += f64::from(u8::from(risk(i) < risk(j)));
        }
    }
    assert!(right > 0.0 && wrong > 0.0);
    assert_eq!(found.others[figure::PAIRS][..2], [right, wrong]);
}

#[test]
fn a_time_grid_has_events_and_exposure_of_rows_with_features_of_zero() {
    let one = Coefficients { names: vec!["a".into()], intercept: false };
    let grid = TimeGrid { width: 1.0, intervals: 2 };
    let found = sums(&cox(Ties::Efron, Some(grid)), &ties(), &one, &[0.7], "fit", LAST).unwrap();
    let h = 0.7f64.exp();
    assert_eq!(found.others[figure::GRID_EVENTS], [2.0, 1.0]);
    let exposure = &found.others[figure::GRID_EXPOSURE];
    assert!((exposure[0] - (2.0 + 2.0 * h)).abs() < 1e-12 && (exposure[1] - (1.0 + h)).abs() < 1e-12);
    // Events by interval and after; rows that enter 0, 1, and what lies behind.
    assert_eq!(found.grid_cells, [2, 1, 0, 4, 2, 1]);
    let wide = TimeGrid { width: 2.0, intervals: 2 };
    let found = sums(&cox(Ties::Efron, Some(wide)), &ties(), &one, &[0.0], "fit", LAST).unwrap();
    assert_eq!(found.others[figure::GRID_EXPOSURE], [1.0 + 1.0 + 2.0 + 2.0, 1.0]);
    assert_eq!(
        (&found.others[figure::GRID_EVENTS][..], &found.grid_cells[..]),
        (&[3.0, 0.0][..], &[3, 0, 0, 4, 1, 0][..])
    );
}

/// Five rows, x = 1, 0, 1, 0, 0: the first has the event at time 0, the second leaves then; events at 1 and 2.
#[test]
fn a_row_at_time_zero_is_at_risk_of_what_happens_then_and_has_no_time_of_its_own() {
    let frame = Frame {
        features: vec![feature("a", &[1.0, 0.0, 1.0, 0.0, 0.0])],
        label: vec![1.0, 0.0, 1.0, 1.0, 0.0],
        times: vec![0.0, 0.0, 1.0, 2.0, 3.0],
        ..Frame::default()
    };
    let one = Coefficients { names: vec!["a".into()], intercept: false };
    let grid = TimeGrid { width: 1.5, intervals: 2 };
    let found = sums(&cox(Ties::Efron, Some(grid)), &frame, &one, &[0.7], "fit", LAST).unwrap();
    let h = 0.7f64.exp();
    // All five are at risk at 0, three at 1, two at 2.
    let wanted = 0.7 + 0.7 - (3.0 + 2.0 * h).ln() - (2.0 + h).ln() - 2f64.ln();
    assert!((found.log_likelihood - wanted).abs() < 1e-12, "{} {wanted}", found.log_likelihood);
    // The event at 0 with all four others, that at 1 with two, that at 2 with one.
    assert_eq!(found.others[figure::PAIRS], [5.0, 0.0, 2.0]);
    assert_eq!(found.others[figure::GRID_EVENTS], [2.0, 1.0]);
    let exposure = &found.others[figure::GRID_EXPOSURE];
    assert!((exposure[0] - (h + 3.0)).abs() < 1e-12 && (exposure[1] - (0.5 + 1.5)).abs() < 1e-12, "{exposure:?}");
    assert_eq!(found.grid_cells, [2, 1, 0, 5, 2, 0]);
}

/// Two rows differ in it, and leave before the first event.
#[test]
fn a_column_that_is_the_same_whenever_a_row_has_the_event_tells_exactly_nothing() {
    let early = |row: usize| row.is_multiple_of(10);
    let mut frame = frame(|row| f64::from(u8::from(row % 10.0 != 0.0)));
    for row in (0..20).filter(|row| early(*row)) {
        frame.times[row] = 0.5;
    }
    frame.features[1].values = (0..20).map(|row| if early(row) { 0.7 } else { 0.1 }).collect();
    for (ties, point) in [(Ties::Efron, [0.0, 0.0]), (Ties::Breslow, [0.3, -0.2])] {
        let found = at(&cox(ties, None), &frame, &point);
        assert!(found.information[0] > 1.0 && found.score[0] != 0.0);
        assert_eq!([found.information[1], found.information[2], found.score[1]], [0.0; 3]);
    }
}

/// A component, what is spoiled, and what is said about it.
type Case<'a> = (&'a Component, &'a dyn Fn(&mut Frame), &'a str);

#[test]
fn values_that_a_regression_cannot_take_are_named_by_column_and_rule() {
    let words = |component: &Component, change: &dyn Fn(&mut Frame)| {
        let mut frame = frame(|i| i % 2.0);
        change(&mut frame);
        let coefficients = coefficients(matches!(component, Component::Glm(_)));
        sums(component, &frame, &coefficients, &[0.0; 3][..coefficients.len()], "fit", LAST).err().unwrap().to_string()
    };
    let extra = |name: &'static str, value: f64| move |f: &mut Frame| f.extras.get_mut(name).unwrap()[3] = value;
    let (poisson, cox) = (glm(Family::Poisson), cox(Ties::Efron, None));
    let cases: [Case<'_>; 8] = [
        (&poisson, &|f| f.label[2] = 1.5, "1 rows of the column 'label' are no counts"),
        (&poisson, &|f| f.label[2] = -1.0, "1 rows of the column 'label' are no counts"),
        (&poisson, &|f| f.label[2] = f64::NAN, "1 rows have no label"),
        (&poisson, &extra("weight", 0.0), "1 rows of the column 'weight' have a weight that is not above 0"),
        (&poisson, &extra("log_time", f64::NAN), "1 rows have a missing value in 'log_time'"),
        (&poisson, &|f| f.features[1].values[0] = f64::NAN, "1 rows have a missing value in 'b'"),
        (&cox, &|f| f.times[0] = -1.0, "1 rows of the column 'time' have a negative time"),
        (&cox, &|f| f.times[0] = f64::NAN, "1 rows have a missing value in 'time'"),
    ];
    for (component, change, wanted) in cases {
        let found = words(component, change);
        assert!(found.starts_with(&format!("task 'fit': {wanted}")), "{found}");
    }
}
