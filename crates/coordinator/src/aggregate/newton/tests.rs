//! The method on likelihoods that are known in closed form.

use std::collections::BTreeMap;

use hospes_privacy::figures;
use hospes_protocol::plan::Figure;
use hospes_protocol::policy::EgressKind;

use super::*;

/// A site's report as the figures of a binomial model with an intercept and one feature: rows (x, y, count).
type Cells = [(f64, f64, f64)];

fn regression(family: &str) -> Regression {
    let mut label = serde_json::json!({ "column": "y" });
    if family == "binomial" {
        label["positive"] = "> 0".into();
    }
    let text = serde_json::json!({
        "schema": "hospes/plan/v1",
        "name": "fit",
        "data": { "subject": "id", "label": label, "columns": ["x"] },
        "tasks": {
            "read": { "component": "reader" },
            "fit": { "component": "glm", "inputs": { "train": "read" }, "params": { "family": family } },
        },
    })
    .to_string();
    Regression::of(&plan::read(&text).unwrap_or_else(|e| panic!("{e}")), "fit").unwrap()
}

fn site(number: u8) -> SiteId {
    SiteId::from_bytes([number; 16])
}

fn report(cells: &Cells, family: Family, point: &[f64]) -> FigureSet {
    let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut add = |name: &str, index: usize, length: usize, value: f64| {
        sums.entry(name.to_owned()).or_insert_with(|| vec![0.0; length])[index] += value;
    };
    for (x, y, n) in cells {
        let predictor = point[0] + point[1] * x;
        let (mean, variance, log_likelihood) = match family {
            Family::Binomial => {
                let mean = 1.0 / (1.0 + (-predictor).exp());
                (mean, mean * (1.0 - mean), if *y > 0.0 { mean.ln() } else { (1.0 - mean).ln() })
            }
            Family::Poisson => (predictor.exp(), predictor.exp(), y * predictor - predictor.exp()),
            Family::Gaussian => (predictor, 1.0, -0.5 * (y - predictor).powi(2)),
        };
        add(figure::N, 0, 1, *n);
        add(figure::SCORE, 0, 2, n * (y - mean));
        add(figure::SCORE, 1, 2, n * (y - mean) * x);
        for (index, square) in [1.0, *x, x * x].into_iter().enumerate() {
            add(figure::INFORMATION, index, 3, n * variance * square);
        }
        add(figure::LOG_LIKELIHOOD, 0, 1, n * log_likelihood);
        add(figure::DEVIANCE, 0, 1, -2.0 * n * log_likelihood);
        add(figure::PEARSON, 0, 1, n * (y - mean).powi(2) / variance);
    }
    FigureSet { sums, withheld: BTreeMap::new() }
}

fn pooled(sites: Vec<(SiteId, FigureSet)>) -> Pooled {
    let mut sum = sites[0].1.clone();
    for (_, set) in &sites[1..] {
        for (name, values) in &set.sums {
            sum.sums.get_mut(name).unwrap().iter_mut().zip(values).for_each(|(a, b)| *a += b);
        }
    }
    sum.withheld = sites.iter().flat_map(|(_, set)| set.withheld.clone()).collect();
    let withheld = &sum.withheld;
    sum.sums.retain(|name, _| !withheld.contains_key(name));
    Pooled { sites: sites.into_iter().map(|(site, set)| (site, Some(set))).collect(), sum }
}

/// The same reports as they come together under masks.
fn masked(sites: Vec<(SiteId, FigureSet)>) -> Pooled {
    let figure = |(name, values): (&String, &Vec<f64>)| Figure {
        name: name.clone().into(),
        values: values.len() as u64,
        kind: EgressKind::Metrics,
    };
    let announced: Vec<Figure> = sites[0].1.sums.iter().map(figure).collect();
    let mut sums: Vec<u64> = Vec::new();
    for (_, set) in &sites {
        let bytes = figures::levels(&announced, set).unwrap();
        let levels = bytes[8..].as_chunks::<4>().0.iter().map(|level| u64::from(u32::from_le_bytes(*level)));
        sums.resize(levels.len(), 0);
        sums.iter_mut().zip(levels).for_each(|(sum, level)| *sum += level);
    }
    let sum = figures::report(&announced, u32::try_from(sites.len()).unwrap(), &sums).unwrap();
    Pooled { sites: sites.into_iter().map(|(site, _)| (site, None)).collect(), sum }
}

/// Rounds until it ends.
fn run(family: Family, name: &str, sites: &[&Cells]) -> Result<Fit, Stop> {
    run_of(&regression(name), family, sites)
}

fn run_of(regression: &Regression, family: Family, sites: &[&Cells]) -> Result<Fit, Stop> {
    run_with(regression, family, sites, pooled)
}

fn run_with(
    regression: &Regression,
    family: Family,
    sites: &[&Cells],
    together: fn(Vec<(SiteId, FigureSet)>) -> Pooled,
) -> Result<Fit, Stop> {
    let mut newton = Newton::start(&regression.coefficients);
    for _ in 0..60 {
        // Through its text, as between two rounds in the store.
        let text = serde_json::to_string(&newton).unwrap();
        newton = serde_json::from_str(&text).unwrap();
        let reports = sites.iter().zip(1..).map(|(cells, n)| (site(n), report(cells, family, newton.point())));
        let reports = together(reports.collect());
        if let Next::Done(fit) = newton.advance(regression, &reports)? {
            return Ok(*fit);
        }
    }
    Err(Stop::Failed(newton.unfinished(regression)))
}

fn failed<T: std::fmt::Debug>(result: Result<T, Stop>) -> String {
    match result {
        Err(Stop::Failed(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

/// What masks change of a sum lies below what adding doubles does (docs/adr/0037).
#[test]
fn a_fit_under_masks_is_the_one_without() {
    let cells: [&Cells; 3] = [
        &[(1.0, 1.0, 18.0), (1.0, 0.0, 7.0), (0.0, 1.0, 2.0), (0.0, 0.0, 31.0)],
        &[(1.0, 1.0, 12.0), (-0.3, 0.0, 13.0), (0.7, 1.0, 10.0), (0.0, 0.0, 17.0)],
        &[(2.0, 1.0, 5.0), (1e-3, 0.0, 6.0), (-1.1, 1.0, 7.0), (0.4, 0.0, 8.0)],
    ];
    for (family, name) in [(Family::Binomial, "binomial"), (Family::Poisson, "poisson"), (Family::Gaussian, "gaussian")]
    {
        let regression = regression(name);
        let plain = run_of(&regression, family, &cells).unwrap();
        let secret = run_with(&regression, family, &cells, masked).unwrap();
        assert_eq!((secret.n, secret.iterations, &secret.sites), (plain.n, plain.iterations, &plain.sites));
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12 * (1.0 + b.abs()), "{name}: {a} instead of {b}");
        close(secret.log_likelihood, plain.log_likelihood);
        for (a, b) in secret.coefficients.iter().zip(&plain.coefficients) {
            close(a.estimate, b.estimate);
            close(a.error, b.error);
            close(a.p, b.p);
        }
    }
}

#[test]
fn a_feature_whose_sums_masks_would_cut_off_is_refused_in_words() {
    let cells: [&Cells; 2] = [
        &[(1e-13, 1.0, 18.0), (1e-13, 0.0, 7.0), (0.0, 1.0, 2.0), (0.0, 0.0, 31.0)],
        &[(2e-13, 1.0, 12.0), (1e-13, 0.0, 13.0), (0.0, 1.0, 10.0), (0.0, 0.0, 17.0)],
    ];
    let words = failed(run_with(&regression("binomial"), Family::Binomial, &cells, masked));
    assert!(words.contains("too small for sums under masks"), "{words}");
}

#[test]
fn a_fourfold_table_has_its_log_odds_ratio_and_woolfs_error() {
    // Exposed: 30 of 50; not exposed: 12 of 60. Over two sites.
    let one: &Cells = &[(1.0, 1.0, 18.0), (1.0, 0.0, 7.0), (0.0, 1.0, 2.0), (0.0, 0.0, 31.0)];
    let two: &Cells = &[(1.0, 1.0, 12.0), (1.0, 0.0, 13.0), (0.0, 1.0, 10.0), (0.0, 0.0, 17.0)];
    let fit = run(Family::Binomial, "binomial", &[one, two]).unwrap();
    let close = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-11, "{found} instead of {wanted}");
    close(fit.coefficients[0].estimate, (12.0f64 / 48.0).ln());
    close(fit.coefficients[1].estimate, (30.0f64 * 48.0 / (20.0 * 12.0)).ln());
    close(fit.coefficients[1].error, (1.0f64 / 30.0 + 1.0 / 20.0 + 1.0 / 12.0 + 1.0 / 48.0).sqrt());
    close(fit.coefficients[1].ratio.as_ref().unwrap().value.unwrap(), 6.0);
    assert!(fit.coefficients[0].ratio.is_none() && fit.converged);
    let of = |p: f64| p * p.ln() + (1.0 - p) * (1.0 - p).ln();
    close(fit.log_likelihood, 50.0 * of(0.6) + 60.0 * of(0.2));
    close(fit.null_deviance.unwrap(), -2.0 * 110.0 * of(42.0 / 110.0));
    assert_eq!((fit.n, fit.residual_degrees, fit.sites), (110.0, Some(108.0), vec![site(1), site(2)]));
}

#[test]
fn counts_of_any_size_converge_from_the_intercept_alone() {
    let cells: &Cells = &[(0.0, 2e6, 3.0), (0.0, 4e6, 1.0), (1.0, 3.0, 2.0), (1.0, 5.0, 2.0)];
    let fit = run(Family::Poisson, "poisson", &[cells]).unwrap();
    assert!((fit.coefficients[0].estimate - 2.5e6f64.ln()).abs() < 1e-11);
    assert!((fit.coefficients[1].estimate - (4.0 / 2.5e6f64).ln()).abs() < 1e-10);
    assert!(fit.iterations < 25, "{}", fit.iterations);
}

#[test]
fn a_gaussian_fit_takes_three_rounds() {
    let cells: &Cells = &[(0.0, 1.0, 2.0), (0.0, 3.0, 2.0), (1.0, 7.0, 1.0), (1.0, 9.0, 3.0)];
    let fit = run(Family::Gaussian, "gaussian", &[cells]).unwrap();
    assert!((fit.coefficients[0].estimate - 2.0).abs() < 1e-13 && (fit.coefficients[1].estimate - 6.5).abs() < 1e-13);
    assert_eq!((fit.iterations, fit.statistic.as_str()), (3, "t"));
}

/// A feature in very small units has a coefficient whose ratio is beyond all numbers; the fit can be read all the same.
#[test]
fn a_ratio_that_is_no_number_is_left_out() {
    let cells: &Cells = &[(1e-4, 1.0, 30.0), (1e-4, 0.0, 20.0), (0.0, 1.0, 12.0), (0.0, 0.0, 48.0)];
    let fit = run(Family::Binomial, "binomial", &[cells]).unwrap();
    let ratio = fit.coefficients[1].ratio.as_ref().unwrap();
    assert!(fit.coefficients[1].estimate > 1e4 && ratio.value.is_none() && ratio.high.is_none(), "{fit:?}");
    let read: Fit = serde_json::from_str(&serde_json::to_string(&fit).unwrap()).unwrap();
    assert_eq!(read.coefficients[1].ratio, fit.coefficients[1].ratio);
}

/// Whether the coefficients are whole numbers, or of those that neither a double nor a file holds exactly.
#[test]
fn a_label_that_the_features_tell_exactly_ends_in_words() {
    let whole: &Cells = &[(0.0, 1.0, 2.0), (1.0, 3.0, 2.0), (2.0, 5.0, 1.0)];
    let broken: &Cells = &[(0.0, 0.1, 2.0), (1.0, 0.4, 2.0), (2.0, 0.7, 1.0)];
    for cells in [whole, broken] {
        let reason = failed(run(Family::Gaussian, "gaussian", &[cells]));
        assert!(reason.contains("features tell the label exactly"), "{reason}");
    }
}

#[test]
fn a_label_that_is_always_the_same_is_told_by_no_feature() {
    for label in [0.0, 5.0, 0.1, -1e11 / 3.0] {
        let cells: &Cells = &[(0.0, label, 2.0), (1.0, label, 3.0), (2.0, label, 1.0)];
        let reason = failed(run(Family::Gaussian, "gaussian", &[cells]));
        assert!(reason.contains("the label is the same in all rows"), "{label}: {reason}");
    }
}

/// Moles for each litre, or cells for each: what is estimated is in the unit of the label, and so is what counts as small.
#[test]
fn a_gaussian_fit_is_the_same_in_every_unit_of_its_label() {
    let of = |unit: f64| {
        let cells = [(0.0, 1.0, 2.0), (0.0, 3.0, 2.0), (1.0, 7.0, 1.0), (1.0, 9.0, 3.0)];
        run(Family::Gaussian, "gaussian", &[&cells.map(|(x, y, n)| (x, y * unit, n))]).unwrap()
    };
    let wanted = of(1.0);
    for unit in [1e-12, 1e-9, 1e11 / 3.0] {
        let found = of(unit);
        for (found, wanted) in found.coefficients.iter().zip(&wanted.coefficients) {
            let near = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-9;
            assert!(near(found.estimate, wanted.estimate * unit), "{found:?} {wanted:?}");
            assert!(near(found.error, wanted.error * unit), "{found:?} {wanted:?}");
            assert!(near(found.statistic, wanted.statistic) && near(found.p, wanted.p), "{found:?} {wanted:?}");
        }
        assert_eq!(found.iterations, 3, "{unit}");
    }
}

/// What is left is less than a millionth of a millionth of the label, beside which the predictor's rounding is not nothing.
#[test]
fn a_gaussian_fit_of_next_to_no_residual_ends_where_rounding_begins() {
    let cell = |row: u32| {
        let x = 1e5 + f64::from(row);
        (x, 3.0 + 2.7 * x + 1e-8 * (f64::from(row * 7 % 11) - 5.0), 1.0)
    };
    let cells: Vec<_> = (0..40).map(cell).collect();
    let fit = run(Family::Gaussian, "gaussian", &[&cells]).unwrap();
    assert!(fit.iterations <= 6 && (fit.coefficients[1].estimate - 2.7).abs() < 1e-9, "{fit:?}");
}

/// With each step the standard error grows by √e, so that the step becomes small beside it.
#[test]
fn a_separated_outcome_is_no_fit_however_loose_the_tolerance_is() {
    let of = |tolerance: f64, cells: &Cells| {
        let mut regression = regression("binomial");
        let Component::Glm(glm) = &mut regression.component else { panic!() };
        glm.newton.tolerance = tolerance;
        failed(run_of(&regression, Family::Binomial, &[cells]))
    };
    let complete: &Cells = &[(1.0, 1.0, 20.0), (0.0, 0.0, 20.0)];
    // Five rows of a rare code, none of them ill, where one in a thousand is.
    let rare: &Cells = &[(1.0, 0.0, 5.0), (0.0, 1.0, 1.0), (0.0, 0.0, 999.0)];
    for (tolerance, cells) in [(0.1, complete), (1e-3, complete), (hospes_protocol::limits::NEWTON_TOLERANCE, rare)] {
        let reason = of(tolerance, cells);
        assert!(reason.contains("'x' grows without end"), "{tolerance}: {reason}");
    }
}

#[test]
fn separation_and_dependence_end_in_words_that_name_the_feature() {
    let complete: &Cells = &[(1.0, 1.0, 20.0), (0.0, 0.0, 20.0)];
    let quasi: &Cells = &[(1.0, 1.0, 20.0), (0.0, 0.0, 20.0), (0.0, 1.0, 7.0)];
    for cells in [complete, quasi] {
        let reason = failed(run(Family::Binomial, "binomial", &[cells]));
        assert!(reason.contains("'x' grows without end"), "{reason}");
    }
    let constant: &Cells = &[(2.0, 1.0, 20.0), (2.0, 0.0, 20.0)];
    assert!(failed(run(Family::Binomial, "binomial", &[constant])).contains("'x' cannot be found"));
    let one_value: &Cells = &[(2.0, 1.0, 20.0), (1.0, 1.0, 20.0)];
    assert!(failed(run(Family::Binomial, "binomial", &[one_value])).contains("the same in all rows"));
}

/// With an offset the intercept alone is found step by step, and would walk on until rounding stops it.
#[test]
fn a_yes_or_no_that_is_always_the_same_is_told_so_with_an_offset_too() {
    let mut regression = regression("binomial");
    let Component::Glm(glm) = &mut regression.component else { panic!() };
    glm.offset = Some("exposure".into());
    for (label, events) in [(1.0, 40.0), (0.0, 0.0)] {
        let mut set = report(&[(2.0, label, 20.0), (1.0, label, 20.0)], Family::Binomial, &[0.0, 0.0]);
        set.sums.insert(figure::EVENTS.into(), vec![events]);
        let mut newton = Newton::start(&regression.coefficients);
        let reason = failed(newton.advance(&regression, &pooled(vec![(site(1), set)])));
        assert!(reason.contains("the label is the same in all rows"), "{reason}");
    }
}

#[test]
fn a_fit_goes_on_without_pearsons_statistic() {
    let cells: &Cells = &[(1.0, 1.0, 18.0), (1.0, 0.0, 7.0), (0.0, 1.0, 2.0), (0.0, 0.0, 31.0)];
    let shown = run(Family::Binomial, "binomial", &[cells, cells]).unwrap();
    let regression = regression("binomial");
    let mut newton = Newton::start(&regression.coefficients);
    let fit = loop {
        let whole = report(cells, Family::Binomial, newton.point());
        let mut held = whole.clone();
        held.sums.remove(figure::PEARSON);
        held.withheld.insert(figure::PEARSON.into(), "withheld".into());
        if let Next::Done(fit) = newton.advance(&regression, &pooled(vec![(site(1), whole), (site(2), held)])).unwrap()
        {
            break *fit;
        }
    };
    assert!(shown.pearson.is_some() && fit == Fit { pearson: None, ..shown });
}

#[test]
fn what_a_site_withholds_stops_the_fit_and_another_set_of_sites_begins_it_anew() {
    let regression = regression("binomial");
    let cells: &Cells = &[(1.0, 1.0, 18.0), (1.0, 0.0, 7.0), (0.0, 1.0, 2.0), (0.0, 0.0, 31.0)];
    let at = |newton: &Newton| report(cells, Family::Binomial, newton.point());
    let mut newton = Newton::start(&regression.coefficients);
    let mut held = at(&newton);
    held.withheld.insert(figure::SCORE.into(), "withheld".into());
    let both = pooled(vec![(site(1), at(&newton)), (site(2), held)]);
    assert_eq!(newton.clone().advance(&regression, &both), Err(Stop::Withheld(vec![site(2)])));
    for _ in 0..2 {
        let both = pooled(vec![(site(1), at(&newton)), (site(2), at(&newton))]);
        assert_eq!(newton.advance(&regression, &both), Ok(Next::Round));
    }
    assert_ne!(newton.point(), [0.0, 0.0]);
    let stop = Stop::Others { missing: vec![site(2)], new: vec![site(3)] };
    let others = |newton: &Newton| pooled(vec![(site(1), at(newton)), (site(3), at(newton))]);
    let pooled = others(&newton);
    assert_eq!(newton.advance(&regression, &pooled), Err(stop));
    // Run again, it begins with those that are there then, also if they are others once more.
    let mut third = newton.clone();
    let reports = self::pooled((1..=3).map(|n| (site(n), at(&third))).collect());
    assert_eq!(third.advance(&regression, &reports), Ok(Next::Round));
    assert_eq!((third.point(), third.sites.len()), ([0.0, 0.0].as_slice(), 3));
    // The same round again, from the same point; then from the start.
    assert_ne!(newton.point(), [0.0, 0.0]);
    let pooled = others(&newton);
    assert_eq!(newton.advance(&regression, &pooled), Ok(Next::Round));
    assert_eq!(newton.point(), [0.0, 0.0]);
    let mut fit = None;
    for _ in 0..12 {
        let pooled = others(&newton);
        if let Next::Done(done) = newton.advance(&regression, &pooled).unwrap() {
            fit = Some(done);
            break;
        }
    }
    assert_eq!(fit.unwrap().sites, [site(1), site(3)]);
}

#[test]
fn a_step_that_goes_too_far_is_halved_until_the_likelihood_rises() {
    let regression = regression("poisson");
    let mut newton = Newton::start(&regression.coefficients);
    newton.stage = Stage::All;
    // From 0 the first step of the intercept is near 1000, where e^η has no number.
    let cells: &Cells = &[(0.0, 1_000.0, 1.0), (1.0, 1_100.0, 1.0), (-1.0, 900.0, 1.0)];
    let mut lengths = Vec::new();
    for _ in 0..60 {
        let mut set = report(cells, Family::Poisson, newton.point());
        for value in set.sums.values_mut().flatten().filter(|v| !v.is_finite()) {
            *value = value.signum() * 1e300;
        }
        lengths.push(newton.point()[0]);
        if let Next::Done(fit) = newton.advance(&regression, &pooled(vec![(site(1), set)])).unwrap() {
            assert!((fit.coefficients[0].estimate - 6.904).abs() < 0.01, "{:?}", fit.coefficients);
            assert!(lengths[1] > 900.0 && lengths[2] < lengths[1]);
            return;
        }
    }
    panic!("{lengths:?}");
}

/// A site whose likelihood is 40·(b − 0.5·b²/0.7), whose report of the last round has pairs and a grid.
fn strata(point: &[f64], is_last: bool, pairs: [f64; 3]) -> FigureSet {
    let b = point[0];
    let mut sums: BTreeMap<String, Vec<f64>> =
        [(figure::N, vec![100.0]), (figure::EVENTS, vec![40.0])].map(|(name, sum)| (name.to_owned(), sum)).into();
    let rest: &[(&str, Vec<f64>)] = if is_last {
        &[
            (figure::PAIRS, pairs.to_vec()),
            (figure::GRID_EVENTS, vec![30.0, 10.0]),
            (figure::GRID_EXPOSURE, vec![60.0, 40.0]),
        ]
    } else {
        &[
            (figure::SCORE, vec![40.0 * (1.0 - b / 0.7)]),
            (figure::INFORMATION, vec![40.0 / 0.7]),
            (figure::LOG_LIKELIHOOD, vec![40.0 * (b - 0.5 * b * b / 0.7)]),
        ]
    };
    sums.extend(rest.iter().map(|(name, sum)| ((*name).to_owned(), sum.clone())));
    FigureSet { sums, withheld: BTreeMap::new() }
}

#[test]
fn what_leaves_once_completes_a_fit_that_has_converged() {
    let text = r#"
schema: hospes/plan/v1
name: hazard
data: { subject: id, label: { column: died, positive: "== 1", time: days }, columns: [dose] }
tasks:
  read: { component: reader }
  fit: { component: cox, inputs: { train: read }, params: { time_grid: { width: 2.0, intervals: 2 } } }
"#;
    let regression = Regression::of(&plan::read(text).unwrap_or_else(|e| panic!("{e}")), "fit").unwrap();
    assert_eq!((regression.steps(), regression.component.rounds()), (25, 26));
    let mut newton = Newton::start(&regression.coefficients);
    let at = |newton: &Newton, last: bool| {
        let [a, b] = [[50.0, 30.0, 10.0], [20.0, 10.0, 0.0]].map(|pairs| strata(newton.point(), last, pairs));
        pooled(vec![(site(1), a), (site(2), b)])
    };
    let mut steps = 0;
    loop {
        let reports = at(&newton, false);
        steps += 1;
        match newton.advance(&regression, &reports).unwrap() {
            Next::Round => assert!(steps < 5),
            Next::Last => break,
            Next::Done(fit) => panic!("{fit:?}"),
        }
    }
    assert!((newton.point()[0] - 0.7).abs() < 1e-12, "the last round asks at what was found");
    // Through its text, as between two rounds in the store.
    let newton: Newton = serde_json::from_str(&serde_json::to_string(&newton).unwrap()).unwrap();
    let done = |newton: &Newton, reports: &Pooled| match newton.clone().advance(&regression, reports) {
        Ok(Next::Done(fit)) => *fit,
        other => panic!("{other:?}"),
    };
    let fit = done(&newton, &at(&newton, true));
    let found = fit.concordance.clone().unwrap();
    assert_eq!((found.concordant, found.discordant, found.tied, found.index), (70.0, 40.0, 10.0, 0.625));
    assert_eq!(fit.baseline.iter().map(|i| i.hazard.unwrap()).collect::<Vec<_>>(), [0.5, 0.25]);
    assert_eq!((fit.n, fit.events, fit.iterations, fit.sites.len()), (200.0, Some(80.0), steps, 2));
    assert!((fit.coefficients[0].estimate - 0.7).abs() < 1e-12);
    // A grid or pairs that a site withholds are left out, and those of other sites than the fit's are.
    let mut held = at(&newton, true);
    held.sum.sums.remove(figure::GRID_EXPOSURE);
    held.sum.withheld.insert(figure::GRID_EXPOSURE.into(), "withheld".into());
    let without = done(&newton, &held);
    assert!(without.baseline.is_empty() && without.concordance == fit.concordance);
    let one = pooled(vec![(site(1), strata(newton.point(), true, [50.0, 30.0, 10.0]))]);
    let of_one = done(&newton, &one);
    assert!(of_one.concordance.is_none() && of_one.baseline.is_empty());
    assert_eq!(of_one.coefficients, fit.coefficients);
}

#[test]
fn a_cox_model_without_events_or_comparisons_is_told_so() {
    let text = r#"
schema: hospes/plan/v1
name: hazard
data: { subject: id, label: { column: died, positive: "== 1", time: days }, columns: [dose] }
tasks:
  read: { component: reader }
  fit: { component: cox, inputs: { train: read } }
"#;
    let regression = Regression::of(&plan::read(text).unwrap_or_else(|e| panic!("{e}")), "fit").unwrap();
    // What a site reports where nobody has the event, or everybody who has it is alone, or like all others then.
    let of = |events: f64| {
        let zero = [(figure::SCORE, 0.0), (figure::INFORMATION, 0.0), (figure::LOG_LIKELIHOOD, 0.0)];
        let sums = zero.into_iter().chain([(figure::N, 50.0), (figure::EVENTS, events)]);
        let sums = sums.map(|(name, sum)| (name.to_owned(), vec![sum])).collect();
        let set = FigureSet { sums, withheld: BTreeMap::new() };
        failed(Newton::start(&regression.coefficients).advance(&regression, &pooled(vec![(site(1), set)])))
    };
    assert_eq!(of(0.0), "no row of any site has the event, so there is nothing to fit");
    let reason = of(3.0);
    assert!(reason.contains("'dose' cannot be found: whenever a row has the event, all rows of its site"), "{reason}");
}
