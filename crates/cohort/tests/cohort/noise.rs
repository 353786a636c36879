//! Training with differential privacy in the worker: what is done is what is accounted for.

use hospes_cohort::Released;
use hospes_cohort::opt_out::OptOuts;
use hospes_cohort::worker::{Event, Order, execute};
use hospes_privacy::dp::{Delta, Release, Training, epsilon};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::Timestamp;
use hospes_protocol::plan::{self, Component, Plan};
use hospes_protocol::policy::Policy;
use hospes_protocol::round::Mode;

use crate::rig::{NOW, PLAN, Rig, table, write};

const BOUNDS: &str = "    x: { number: { min: 0, max: 11 } }\n    z: { number: { min: 0, max: 10 } }\n    kind:";

/// The plan of the rig with two rounds of five steps, of a fifth of the patients each, and this noise.
pub(crate) fn noisy(noise: &str) -> Plan {
    with(
        &format!("mode: local, {noise}, delta: 1.0e-5, clip_norm_l2: 1.0, sampling_rate: 0.2, expected_batch: 8"),
        "updates: 5, batch: 8",
        "plain",
    )
}

fn with(dp: &str, local: &str, privacy: &str) -> Plan {
    let scaled = "inputs: { data: split.train }, params: { method: bounds } }";
    let text = PLAN
        .replacen("    kind:", BOUNDS, 1)
        .replacen("inputs: { data: split.train } }", scaled, 1)
        .replacen("updates: 100, batch: 4", local, 1)
        .replacen("privacy: { plain: {} }", &format!("privacy: {{ {privacy}: {{}} }}"), 1)
        .replacen("n_max: 1000 }", &format!("n_max: 1000 }}\n      dp: {{ {dp} }}"), 1);
    plan::read(&text).unwrap_or_else(|e| panic!("{e}"))
}

fn clock() -> Timestamp {
    NOW
}

/// The payload, and what noise was added to.
fn run(order: &Order) -> (Vec<u8>, Option<Released>) {
    match execute(order, &clock, &mut |_| true) {
        Event::Done(done) => (std::fs::read(&order.payload_path).unwrap(), done.released),
        other => panic!("{other:?}"),
    }
}

fn rig(noise: &str) -> Rig {
    Rig::with(&table(120), noisy(noise), Policy::public_data())
}

#[test]
fn noise_is_the_same_after_a_restart_and_another_for_another_attempt_secret_round_and_patient() {
    let rig = rig("noise_multiplier: 1.0");
    let order = rig.order("train");
    let (payload, released) = run(&order);
    let released = released.unwrap();
    // Not the 80 patients with whom it was trained, but what the plan expects of every site.
    assert_eq!(payload[..8], 40u64.to_le_bytes());

    let again = Order { payload_path: rig.folder.path().join("again"), ..order.clone() };
    assert_eq!(run(&again), (payload.clone(), Some(released)));

    let mut header = (*order.circumstances.header).clone();
    header.attempt += 1;
    let mut retried = Order { payload_path: rig.folder.path().join("retried"), ..order.clone() };
    retried.circumstances.header = Canonical::new(header).unwrap();

    let other = Rig::keyed(&table(120), noisy("noise_multiplier: 1.0"), Policy::public_data(), [8; 32]);
    let later = rig.order_with("train", 2, Some(&rig.model()));
    let mut list = OptOuts::new();
    list.import(&write(rig.folder.path(), "left.txt", "P-1\n"), &rig.subjects).unwrap();
    let fewer = Order { opt_outs: list, payload_path: rig.folder.path().join("fewer"), ..order.clone() };
    let mut seen = vec![payload];
    for order in [retried, other.order("train"), later, fewer] {
        let (another, taken) = run(&order);
        assert_eq!(taken, Some(released));
        assert!(seen.iter().all(|payload| payload[8..] != another[8..]));
        seen.push(another);
    }
}

#[test]
fn steps_that_are_accounted_for_are_steps_that_were_taken() {
    let rig = rig("epsilon: 3.0");
    let Component::NnTrain(train) = &rig.plan.tasks["train"].component else { panic!("no training") };
    let account = Training::of(train, plan::inputs(&rig.plan, "train")).unwrap().unwrap();
    let mut done = Vec::new();
    for round in 1..=train.rounds {
        let (_, released) = run(&rig.order_with("train", round, Some(&rig.model())));
        done.push(account.part(released.unwrap().steps).unwrap());
    }
    let shown = account.epsilons().worst();
    assert!((epsilon(&done, account.delta()).worst() - shown).abs() < 1e-12 && shown <= 3.0, "{shown}");
    // Ten steps of a fifth of the patients, by the noise that was found.
    let sigma = account.release().noise_multiplier();
    let plain = epsilon(&[Release::new(0.2, sigma, 10).unwrap()], Delta::new(1e-5).unwrap()).worst();
    assert!((plain - shown).abs() < 1e-9, "{plain} {shown}");
    // What leaves of another task has no noise.
    assert_eq!(run(&rig.order("count")).1, None);
}

#[test]
fn noise_that_sites_share_is_not_added_before_the_mask() {
    // Everybody in the one step, so that nothing is drawn but noise.
    let payload = |multiplier: &str| {
        let dp = format!(
            "mode: distributed, noise_multiplier: {multiplier}, delta: 1.0e-5, clip_norm_l2: 1.0, sampling_rate: 1, \
             expected_batch: 80"
        );
        let plan = with(&dp, "updates: 1, batch: 80", "secure_aggregation");
        let rig = Rig::with(&table(120), plan, Policy::public_data());
        let mut order = rig.order("train");
        let mut header = (*order.circumstances.header).clone();
        header.mode = Mode::SecureAggregation { c: 1, t: 2, k_min: 2 };
        order.circumstances.header = Canonical::new(header).unwrap();
        let (payload, released) = run(&order);
        assert_eq!(released.unwrap().steps, 1);
        payload
    };
    let clean = payload("1.0");
    assert_eq!(clean, payload("50.0"));
    assert_eq!(clean[..8], 80u64.to_le_bytes());
    // It moves the model by the rate of 0.1 and no further than one clip for each of the 80, in levels of 8/2^32 and a weight of
    // 80 of 1,000.
    let (levels, _) = clean[8..].as_chunks::<4>();
    let moved = levels.iter().map(|level| f64::from(u32::from_le_bytes(*level)) / f64::from(u32::MAX) * 8.0 - 4.0);
    let length = moved.map(|by| (by / 0.08).powi(2)).sum::<f64>().sqrt();
    assert!(length > 1e-3 && length <= 0.1, "{length}");
}
