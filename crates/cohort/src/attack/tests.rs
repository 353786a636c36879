use hospes_privacy::dp::{Delta, noise_multiplier};
use hospes_protocol::plan::Feature;
use hospes_protocol::plan::model::initial;

use super::*;

const COLUMNS: usize = 10;

/// Uniform numbers whose labels have nothing to do with them, so that whatever a model knows of a label it remembers.
fn rows(count: usize) -> Matrix {
    let mut draws = stream("rows", 1, b"site", "attack", 0);
    let mut number = || (draws.next_u64() >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
    let values: Vec<f32> = (0..count * COLUMNS).map(|_| number()).collect();
    let labels = (0..count).map(|_| f32::from(number() > 0.0)).collect();
    let columns = (0..COLUMNS).map(|at| Feature { name: format!("x{at}"), codes: None }).collect();
    Matrix { rows: count, columns, values, labels, times: Vec::new(), images: None, origin: vec![0; count] }
}

/// Each row of another subject.
fn subjects(count: usize) -> Vec<SubjectHash> {
    (0..count as u128).map(u128::to_be_bytes).collect()
}

fn training(updates: u32, batch: u32, optimizer: &str, loss: &str) -> NnTrain {
    let text = format!(
        r#"{{ "model": [{{ "linear": {{ "out": 16 }} }}, {{ "tanh": {{}} }}, {{ "linear": {{ "out": 1 }} }}],
              "loss": "{loss}", "optimizer": {optimizer}, "rounds": 1,
              "local": {{ "updates": {updates}, "batch": {batch} }},
              "strategy": {{ "fed_avg": {{}} }}, "privacy": {{ "plain": {{}} }} }}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn tried(count: usize, params: &NnTrain, sites: Option<u32>, noise: Option<Noise>) -> Attack {
    let (mut data, subjects) = (rows(count), subjects(count));
    if params.loss == Loss::Mse {
        // About as much goes back from each row.
        data.labels.fill(1.0);
    }
    let start = initial(&params.model, data.inputs(), 3);
    let target = Target {
        params,
        draws: Draws { seed: 7, site: b"site", task: "train", round: 1 },
        start: &start,
        data: &data,
        subjects: &subjects,
        compute: &Compute::processor(),
        deadline: Timestamp::from_millis(1_000_000),
    };
    let now = || Timestamp::from_millis(0);
    let mut last = 0;
    let mut progress = |told: Progress| {
        assert!(told.done >= last && told.done <= told.total, "{told:?} after {last}");
        last = told.done;
        true
    };
    attack(&target, sites, noise, &mut Pulse { now: &now, progress: &mut progress }).unwrap()
}

fn scores(attack: Attack) -> AttackScores {
    match attack {
        Attack::Found(scores) => scores,
        other => panic!("{other:?}"),
    }
}

/// The same training without protection, in a sum, and with noise at ε = 1. By chance an interval of noise lies above 0 in
/// one of 40 seeds; with this one it does not.
#[test]
fn members_of_an_overfitted_model_are_told_and_with_noise_they_are_not() {
    let updates = 60;
    let params = training(updates, 20, r#"{ "adam": { "lr": 0.05 } }"#, "binary_cross_entropy");
    let rate = 0.25;
    let multiplier = noise_multiplier(1.0, Delta::new(1e-5).unwrap(), rate, u64::from(updates)).unwrap();
    // Of 40 subjects in a model, a quarter is in a step.
    let noise = Noise { rules: dp::Rules::new(10.0, rate, 10.0, "train").unwrap(), noise_multiplier: multiplier };
    let scores = scores(tried(80, &params, Some(3), Some(noise)));
    assert_eq!((scores.subjects, scores.rounds, scores.planned), (80, 1, 1));
    let guards: Vec<Guard> = scores.membership.iter().map(|found| found.guard).collect();
    assert_eq!(guards, [Guard::None, Guard::Masked { sites: 3 }, Guard::Noise]);
    let [plain, masked, noisy] = &scores.membership[..] else { panic!("{scores:?}") };
    for told in [plain.by_loss, plain.compared] {
        assert!(told.advantage_interval.low > 0.2 && told.auc_interval.low > 0.6, "{told:?}");
        assert!((told.advantage_interval.low..=told.advantage_interval.high).contains(&told.advantage), "{told:?}");
    }
    assert!(masked.compared.auc < plain.compared.auc - 0.05, "{masked:?}");
    for told in [noisy.by_loss, noisy.compared] {
        assert!(told.advantage_interval.low <= 0.0 && told.auc < 0.6, "{told:?}");
    }
}

/// One step on one row: the first layer moves along that row.
#[test]
fn a_row_that_an_update_is_of_is_found_and_in_a_sum_it_is_not() {
    let params = training(1, 1, r#"{ "sgd": { "lr": 0.5 } }"#, "mse");
    let found = scores(tried(60, &params, Some(3), None));
    let [plain, masked] = &found.inversion[..] else { panic!("{found:?}") };
    assert_eq!((plain.guard, plain.columns, plain.recovered), (Guard::None, 10, 1.0));
    assert!(plain.guessed < 0.6, "{plain:?}");
    assert!(masked.recovered < 0.6, "{masked:?}");
    // The same again.
    assert_eq!(scores(tried(60, &params, Some(3), None)), found);
}

#[test]
fn a_small_site_is_told_that_it_is_and_of_some_training_nothing_is_said() {
    let params = |loss| training(1, 1, r#"{ "sgd": { "lr": 0.5 } }"#, loss);
    assert_eq!(tried(59, &params("mse"), None, None), Attack::TooFew { subjects: 59, least: 60 });
    assert_eq!(tried(60, &params("cox"), None, None), Attack::Untried(Untried::Loss));
    let mut kept = params("mse");
    kept.strategy = Strategy::Personal { layers: vec!["2".to_owned()] };
    assert_eq!(tried(60, &kept, None, None), Attack::Untried(Untried::KeptLayers));
}
