//! Models are judged as the plan says: on which rows, and from which score on a row counts as positive.

use hospes_cohort::evaluate::Metrics;
use hospes_cohort::train::{Progress, Pulse};
use hospes_cohort::{Cohort, Round};
use hospes_protocol::canon::{self, Canonical};
use hospes_protocol::id::Timestamp;
use hospes_protocol::plan::{Component, Plan, figure};
use hospes_protocol::policy::Policy;
use hospes_sim::{Overrides, assess, baseline, baseline_task, set};
use serde_json::Value;

use crate::fed_avg::model_file;
use crate::heart::{SITES, drawn, federation, plan};

const ZERO: Timestamp = Timestamp::from_millis(0);
/// Weights and bias of a model that gives each row another score.
const PARAMETERS: [f32; 14] = [0.3, 0.2, -0.4, 0.5, 0.1, -0.1, 0.2, 0.4, -0.3, 0.3, 0.2, -0.2, 0.1, -0.2];

/// The example with this threshold wherever a model is judged.
fn from(threshold: f64) -> Plan {
    let places = ["tasks.eval.params.threshold", "tasks.alone.params.threshold"];
    set(&plan(), &places.map(|place| (place.to_owned(), Value::from(threshold)))).unwrap()
}

/// What the sites report in a round with this plan, and what is said of the model outside of one, is the same.
#[test]
fn a_model_is_assessed_from_the_threshold_of_its_evaluation() {
    let example = plan();
    let Component::NnTrain(train) = &example.tasks["train"].component else { panic!("no training") };
    let file = model_file(train, 13, &PARAMETERS);
    let mut found = Vec::new();
    for threshold in [0.3, 0.5] {
        let plan = from(threshold);
        let federation = federation(&plan);
        let judged = assess(&federation, &plan, &file).unwrap();
        let plan = Canonical::new(plan).unwrap();
        let header = federation.header(&plan, "eval", 1, Some(canon::digest("model", 1, &file))).unwrap();
        for (member, judged) in federation.members().iter().zip(&judged.accuracy) {
            let cohort = federation.open(member, &plan, &header).unwrap();
            let round = Round { site: member.site(), header: &header, model: Some(&file) };
            let mut go_on = |_: Progress| true;
            let mut pulse = Pulse { now: &|| ZERO, progress: &mut go_on };
            let sums = cohort.report(round, &Policy::public_data().disclosure, &mut pulse).unwrap().figures.sums;
            let reported = sums[figure::CORRECT][0] / sums[figure::N][0];
            assert!((judged - reported).abs() < 1e-12, "{}: {judged} and {reported} from {threshold}", member.name);
        }
        found.push(judged.accuracy);
    }
    assert_ne!(found[0], found[1], "the threshold makes no difference, so that this shows nothing");
}

#[test]
fn a_baseline_is_judged_from_its_own_threshold() {
    let mut plan = from(0.95);
    let task = baseline_task(&mut plan, Overrides::default()).unwrap();
    let federation = federation(&plan);
    let alone = format!("{} alone", SITES[0]);
    let result = baseline(&federation, &plan, &task, Some(alone.as_str()), &[1], &mut |_| {}).unwrap();
    let fitted = |plan: Plan| {
        let plan = Canonical::new(Plan { seed: 1, ..plan }).unwrap();
        let header = federation.header(&plan, &task, 1, None).unwrap();
        let mut go_on = |_: Progress| true;
        let mut pulse = Pulse { now: &|| ZERO, progress: &mut go_on };
        let cohort = federation.open(&federation.members()[0], &plan, &header).unwrap();
        cohort.fit(&task, &mut pulse).unwrap().metrics.accuracy()
    };
    let found = result.rows[0].sites[0].mean;
    assert!((found - fitted(plan.clone())).abs() < 1e-12, "{found}");
    let half = set(&plan, &[("tasks.alone.params.threshold".into(), Value::from(0.5))]).unwrap();
    assert!((found - fitted(half)).abs() > 1e-3, "the threshold makes no difference, so that this shows nothing");
}

/// Otherwise pooled training would be judged on rows that it was trained on, one site's as part of the pool and the other's
/// by itself; and whoever opens the same files again judges on the same rows.
#[test]
fn drawn_test_rows_are_the_same_pooled_apart_and_again() {
    for seed in 1..=3 {
        let plan = Plan { seed, ..drawn(&plan()) };
        let (federation, again) = (federation(&plan), federation(&plan));
        let plan = Canonical::new(plan).unwrap();
        let header = federation.header(&plan, "alone", 1, None).unwrap();
        let judged = |cohort: Cohort| cohort.assess("alone", &PARAMETERS).unwrap().by_table;
        let open = |of: &hospes_sim::Federation| -> Vec<Cohort> {
            of.members().iter().map(|member| of.open(member, &plan, &header).unwrap()).collect()
        };
        let rows = |metrics: &[Metrics]| metrics.iter().map(|m| (m.rows, m.positives)).collect::<Vec<_>>();
        let apart: Vec<Metrics> = open(&federation).into_iter().flat_map(judged).collect();
        assert_eq!(rows(&judged(Cohort::pool(open(&federation)).unwrap())), rows(&apart), "seed {seed}");
        assert_eq!(open(&again).into_iter().flat_map(judged).collect::<Vec<_>>(), apart, "seed {seed}");
    }
}
