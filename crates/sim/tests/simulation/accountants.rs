//! The engine's accountants against those of dp-accounting, which share nothing with ours, over a grid of sampling rates, noise
//! multipliers, numbers of releases and deltas.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hospes_privacy::dp::{Curve, Delta, Release, epsilon};
use serde_json::{Value, json};

const RATES: [f64; 4] = [0.002, 0.03, 0.3, 1.0];
const SIGMAS: [f64; 3] = [0.7, 1.5, 4.0];
const TIMES: [u64; 2] = [1, 200];
const DELTAS: [&str; 2] = ["1e-05", "1e-08"];
/// Orders at which both have the same binomial sum.
const ORDERS: [usize; 6] = [2, 5, 10, 20, 40, 63];
/// Largest relative differences: of loss distributions, whose grids differ; of divergences at whole orders; and of the least over
/// all orders, where dp-accounting is above the exact number at fractional ones.
const NEAR: f64 = 1e-3;
const EXACT: f64 = 1e-9;
const LOOSE: f64 = 2e-2;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pooled").join(name)
}

struct Case {
    rate: f64,
    sigma: f64,
    times: u64,
}

impl Case {
    fn name(&self) -> String {
        format!("{} {} {}", self.rate, self.sigma, self.times)
    }

    fn releases(&self) -> [Release; 1] {
        [Release::new(self.rate, self.sigma, self.times).unwrap()]
    }
}

/// All combinations whose ε a study could have: below about 20.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for rate in RATES {
        for sigma in SIGMAS {
            for times in TIMES.into_iter().filter(|times| rate * (*times as f64).sqrt() / sigma < 2.0) {
                cases.push(Case { rate, sigma, times });
            }
        }
    }
    cases
}

/// What dp-accounting finds: run where `cargo xtask test` has installed it (`HOSPES_PYTHON`), and else what it found when
/// the file was written. Both must agree.
fn independent() -> Value {
    let committed = file("accountants.json");
    let kept = std::fs::read_to_string(&committed).ok().map(|text| serde_json::from_str::<Value>(&text).unwrap());
    let Some(python) = std::env::var_os("HOSPES_PYTHON") else {
        return kept.expect("tests/pooled/accountants.json is missing; run `cargo xtask test`");
    };
    let deltas = DELTAS.map(|delta| delta.parse::<f64>().unwrap());
    let question = |case: &Case| {
        json!({
            "name": case.name(), "rate": case.rate, "sigma": case.sigma, "times": case.times, "deltas": deltas, "orders": ORDERS,
        })
    };
    let questions: Vec<Value> = cases().iter().map(question).collect();
    let mut child =
        Command::new(python).arg(file("accountants.py")).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    serde_json::to_writer(child.stdin.take().unwrap(), &questions).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the script failed; its errors are above");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    if std::env::var_os("HOSPES_WRITE_EXPECTED").is_some() {
        std::fs::write(&committed, &output.stdout).unwrap();
    } else if let Some(kept) = kept {
        compare("", &found, &kept);
    }
    found
}

fn compare(place: &str, found: &Value, kept: &Value) {
    match (found, kept) {
        (Value::Object(found), Value::Object(kept)) => {
            assert!(found.keys().eq(kept.keys()), "{place}: other keys than in accountants.json");
            found.iter().for_each(|(key, value)| compare(&format!("{place}.{key}"), value, &kept[key]));
        }
        _ => {
            let (found, kept) = (found.as_f64().unwrap(), kept.as_f64().unwrap());
            assert!(
                (found - kept).abs() <= 1e-6 * kept.abs().max(1e-2),
                "{place}: {found}, and {kept} when it was written"
            );
        }
    }
}

/// Where a divergence of a whole order lies in a curve: 1.1, 1.2 to 10.9, then 11 and on.
fn place(order: usize) -> usize {
    if order < 11 { order * 10 - 11 } else { order + 88 }
}

/// The worst relative difference so far, and where.
#[derive(Default)]
struct Worst(f64, String);

impl Worst {
    fn see(&mut self, what: &str, found: f64, wanted: f64, least: f64, most: f64) {
        let difference = found / wanted - 1.0;
        assert!(difference >= least && difference <= most, "{what}: {found} instead of {wanted}");
        if difference.abs() >= self.0.abs() {
            *self = Self(difference, what.to_owned());
        }
    }
}

#[test]
fn epsilons_are_those_of_dp_accounting_over_a_grid() {
    let (mut losses, mut divergences, mut whole) = (Worst::default(), Worst::default(), Worst::default());
    let independent = independent();
    let cases = cases();
    assert_eq!((cases.len(), independent.as_object().unwrap().len()), (19, 19));
    for case in &cases {
        let wanted = &independent[case.name()];
        let curve = Curve::of(&case.releases());
        for text in DELTAS {
            let delta = Delta::new(text.parse().unwrap()).unwrap();
            let what = format!("rate {}, σ {}, {} times, δ {text}", case.rate, case.sigma, case.times);
            let of = |kind: &str| wanted[kind][text].as_f64().unwrap_or_else(|| panic!("{what}: no {kind}"));
            losses.see(&what, epsilon(&case.releases(), delta).worst(), of("losses"), -NEAR, NEAR);
            divergences.see(&what, curve.epsilon(delta).epsilon, of("divergences"), -LOOSE, EXACT);
        }
        let curve = Vec::<f64>::from(curve);
        let delta = DELTAS[0].parse::<f64>().unwrap();
        for order in ORDERS {
            let alpha = order as f64;
            let found = curve[place(order)] + (-1.0 / alpha).ln_1p() - (delta * alpha).ln() / (alpha - 1.0);
            let wanted = wanted["whole"][order.to_string()].as_f64().unwrap();
            whole.see(&format!("{}, order {order}", case.name()), found, wanted, -EXACT, EXACT);
        }
    }
    println!("loss distributions: {:.1e} at worst, {}", losses.0, losses.1);
    println!("divergences at whole orders: {:.1e} at worst, {}", whole.0, whole.1);
    println!("divergences, least over all orders: {:.1e} at worst, {}", divergences.0, divergences.1);
}
