//! Sweeps: what a researcher may vary, what the site's people sign because of it, and what none of its runs may do.

use std::collections::BTreeSet;

use expect_test::expect;
use hospes_protocol::approval::RefusalCode;
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::StudyId;
use hospes_protocol::plan::{LabelKind, Optimizer, Plan, egress};
use hospes_protocol::study::{Direction, Metric, Study, StudyFile, Sweep, egress_in_all};

use crate::world::{HEART, NOW, World, code, given, heart, site, terms};

const LR: &str = "tasks.train.params.optimizer.sgd.lr";
const UPDATES: &str = "tasks.train.params.local.updates";

/// The heart plan without the reports that would be the same in every run.
fn plan_text() -> String {
    let (text, _) = HEART.split_once("  counts:").unwrap();
    text.to_owned()
}

fn plan() -> Plan {
    hospes_protocol::plan::read(&plan_text()).unwrap()
}

/// A study file with this sweep in YAML, below a plan with one change.
fn read_with(plan: &str, sweep: &str) -> Result<StudyFile, String> {
    let indented: String = plan.lines().map(|l| format!("  {l}\n")).collect();
    let text = format!(
        "terms: {{ title: t, purpose: p, requester: {{ name: n, organisation: o }} }}\nplan:\n{indented}sweep: {sweep}\n"
    );
    StudyFile::read(&text).map_err(|e| e.to_string())
}

fn read(sweep: &str) -> Result<Sweep, String> {
    read_with(&plan_text(), sweep).map(|file| file.sweep.unwrap())
}

fn said(sweep: &str) -> String {
    read(sweep).unwrap_err()
}

fn forty() -> String {
    let rates: Vec<String> = (1..=10).map(|i| format!("{}", f64::from(i) / 1_000.0)).collect();
    format!(
        "{{ grid: {{ {LR}: [{}], {UPDATES}: [10, 20, 50, 100] }}, rank: {{ task: eval }}, parallel: 4 }}",
        rates.join(", ")
    )
}

fn study(plan: Plan, sweep: Option<Sweep>) -> Study {
    let mut members = vec![site(1), site(2)];
    members.sort();
    Study {
        id: StudyId::new(NOW, [1; 10]),
        federation: site(9),
        submitted: NOW,
        terms: terms(),
        plan: Canonical::new(plan).unwrap(),
        sweep,
        members,
    }
}

#[test]
fn a_grid_is_every_combination_and_a_list_is_itself() {
    let sweep = read(&forty()).unwrap();
    assert_eq!((sweep.len(), sweep.parallel), (40, 4));
    assert_eq!((sweep.rank.metric, sweep.rank.direction), (Metric::Accuracy, Direction::Highest));
    assert_eq!(sweep.settings[0], [(LR.to_owned(), 0.001), (UPDATES.to_owned(), 10.0)].into());
    // Places in the order of their names, the last one's values changing fastest.
    assert_eq!(sweep.settings[1], [(LR.to_owned(), 0.002), (UPDATES.to_owned(), 10.0)].into());
    let listed = read(&format!(
        "{{ settings: [{{ {LR}: 0.5, seed: 3 }}, {{ {LR}: 0.1, seed: 4 }}], rank: {{ task: eval, metric: brier }} }}"
    ))
    .unwrap();
    assert_eq!((listed.len(), listed.parallel, listed.rank.direction), (2, 1, Direction::Lowest));
    let study = study(plan(), Some(listed));
    assert_eq!(study.check(), Ok(()));
    let second = study.run(Some(2)).unwrap();
    assert_eq!(second.seed, 4);
    assert_eq!(World::train(&mut second.clone().into_inner()).optimizer, Optimizer::Sgd { lr: 0.1, momentum: 0.0 });
    assert_eq!(study.runs().unwrap()[1].digest(), second.digest());
    for absent in [None, Some(0), Some(3)] {
        assert!(study.run(absent).is_err(), "{absent:?}");
    }
}

#[test]
fn a_study_without_a_sweep_keeps_its_bytes_and_one_with_a_sweep_survives_its_own() {
    let plain = Canonical::new(study(heart(), None)).unwrap();
    assert!(!String::from_utf8_lossy(plain.bytes()).contains("sweep"));
    assert_eq!(plain.runs().unwrap(), std::slice::from_ref(&plain.plan));
    assert!(plain.run(Some(1)).is_err());
    let sweep = study(plan(), Some(read(&forty()).unwrap()));
    let again = Canonical::<Study>::parse(Canonical::new(sweep.clone()).unwrap().bytes()).unwrap();
    assert_eq!(*again, sweep);
}

#[test]
fn models_are_ranked_by_what_their_kind_of_label_gives() {
    let usual = |kind| Metric::of(kind).next().map(Metric::as_str);
    assert_eq!([LabelKind::Classes(3), LabelKind::Number].map(usual), [Some("accuracy"), Some("rmse")]);
    let label = plan().data.label.kind().unwrap();
    assert_eq!(usual(label), Some("accuracy"));
    let wrong = format!("{{ grid: {{ {LR}: [0.1, 0.2] }}, rank: {{ task: eval, metric: rmse }} }}");
    expect![[r#"sweep.rank.metric: a label as the plan has it gives no rmse; there is accuracy, auc, brier, loss, average_precision"#]]
        .assert_eq(&said(&wrong));
}

#[test]
fn every_mistake_in_a_sweep_is_named_by_its_place() {
    expect!["sweep: names nothing to try: write 'grid' or 'settings'"].assert_eq(&said("{ rank: { task: eval } }"));
    expect![[r#"
        sweep.gird: no field 'gird', did you mean 'grid'?
        sweep.rank: is missing"#]]
    .assert_eq(&said("{ gird: {} }"));
    expect![[r#"
        sweep.grid.seeds: is no place that a sweep may vary; there is 'seed', and 'tasks.<task>.params.…' of a training task
        sweep.grid.tasks.train.params.local.updates.1: is 1.5; it must be a whole number from 0 on
        sweep.grid.tasks.train.params.local.updates.2: is 0; it must lie between 1 and 1000000
        sweep.grid.tasks.train.params.local.updates.4: 10 stands twice
        sweep.grid.tasks.train.params.optimizer.sgd.lr.1: is 5000; it must be above 0 and at most 1000
        sweep.grid.tasks.train.params.optimizer.sgd.rate.0: is no number in the plan; write the number there that the sweep starts from
        sweep.grid.tasks.trian.params.rounds: the plan has no task 'trian'"#]]
    .assert_eq(&said(&format!(
        "{{ grid: {{ {LR}: [0.1, 5000], {UPDATES}: [10, 1.5, 0, 20, 10], seeds: [1], \
         tasks.train.params.optimizer.sgd.rate: [1], tasks.trian.params.rounds: [1] }}, rank: {{ task: eval }} }}"
    )));
    expect![[r#"
        sweep.parallel: is 0; it must lie between 1 and 16
        sweep.settings.2: names other places than the first setting; give a number for the same places in each
        sweep.rank.direction: the best model is the one with the lowest loss; write 'lowest' or leave it out
        sweep.rank.task: 'train' is no evaluation of the plan; there is eval"#]]
    .assert_eq(&said(
        "{ settings: [{ seed: 1 }, { seed: 2 }, { sead: 3 }], parallel: 0, rank: { task: train, metric: loss, \
         direction: highest } }",
    ));
    expect![[r#"
        sweep.settings.1.seed: is 0.5; it must be a whole number from 0 on
        sweep.settings.3.seed: is -2; it must be a whole number from 0 on"#]]
    .assert_eq(&said("{ settings: [{ seed: 1 }, { seed: 0.5 }, { seed: 2 }, { seed: -2 }], rank: { task: eval } }"));
    expect!["sweep.settings.0: names 0 places of the plan; a sweep varies between 1 and 16 (limit SWEEP_PLACES)"]
        .assert_eq(&said("{ settings: [{}, {}], rank: { task: eval } }"));
    expect!["sweep.settings: needs at least two settings; for one, write it into the plan"]
        .assert_eq(&said("{ settings: [{ seed: 1 }], rank: { task: eval } }"));
    let many: Vec<String> = (0..20).map(|i| i.to_string()).collect();
    let many = many.join(", ");
    expect!["sweep.grid: gives 400 settings, more than the 256 allowed (limit SWEEP_SETTINGS)"].assert_eq(&said(
        &format!(
            "{{ grid: {{ seed: [{many}], tasks.train.params.rounds: [{}] }}, rank: {{ task: eval }} }}",
            many.replace("0,", "20,")
        ),
    ));
    let unranked = plan_text().split_once("  eval:").unwrap().0.to_owned();
    expect!["sweep.rank.task: the plan has no evaluation; add one, so that models can be ranked"]
        .assert_eq(&read_with(&unranked, "{ grid: { seed: [1, 2] }, rank: { task: eval } }").unwrap_err());
}

/// What is not about training stays the same in every run: which rows, which judgement, which protection.
#[test]
fn a_sweep_varies_how_a_model_is_trained_and_nothing_else() {
    let vary = |plan: &str, place: &str, values: &str| {
        read_with(plan, &format!("{{ grid: {{ {place}: [{values}] }}, rank: {{ task: eval }} }}")).unwrap_err()
    };
    let text = plan_text();
    for place in ["tasks.eval.params.threshold", "tasks.eval.params.calibration_bins", "tasks.fill.params.method"] {
        assert!(vary(&text, place, "0.2, 0.4").contains("a sweep varies how models are trained"), "{place}");
    }
    for place in ["tasks.train.params.quantise.clip", "tasks.train.params.privacy.plain"] {
        assert!(vary(&text, place, "1, 2").contains("protected and put on the wire"), "{place}");
    }
    let drawn = text.replace("{ by_column: fold }", "{ test_fraction: 0.3 }");
    assert!(vary(&drawn, "seed", "1, 2").contains("'split' would draw other rows in each run"));
    for place in ["name", "data.columns.0", "tasks.train", "tasks.train.params", "tasks.train.inputs.train", ""] {
        assert!(vary(&text, &format!("'{place}'"), "1, 2").contains("is no place that a sweep may vary"), "{place}");
    }
    // What the numbers of a plan allow together is checked for each setting.
    assert!(read(&format!("{{ grid: {{ {LR}: [0.1, 0.2] }}, rank: {{ task: eval }} }}")).is_ok());
}

#[test]
fn no_result_leaves_twice_because_a_plan_is_run_twice() {
    let sweep = format!("{{ grid: {{ {LR}: [0.1, 0.2] }}, rank: {{ task: eval }} }}");
    expect![[r#"
        sweep.settings.1: 'alone' of setting 1 gives the same as 'alone' of setting 0, and would let it leave twice; vary what it depends on in every setting, or leave the task out of the plan
        sweep.settings.1: 'counts' of setting 1 gives the same as 'counts' of setting 0, and would let it leave twice; vary what it depends on in every setting, or leave the task out of the plan"#]]
    .assert_eq(&read_with(HEART, &sweep).unwrap_err());
    let twice = format!("{{ settings: [{{ {LR}: 0.1 }}, {{ {LR}: 0.2 }}, {{ {LR}: 0.1 }}], rank: {{ task: eval }} }}");
    expect![[r#"
        sweep.settings.2: 'eval' of setting 2 judges the same model on the same rows as 'eval' of setting 0, and would let it leave twice; vary what it depends on in every setting, or leave the task out of the plan
        sweep.settings.2: 'train' of setting 2 gives the same as 'train' of setting 0, and would let it leave twice; vary what it depends on in every setting, or leave the task out of the plan"#]]
    .assert_eq(&said(&twice));
    // Not under another name either: what 'train' does in one run and 'other' does in the next is the same.
    let train = plan_text();
    let start = train.find("  train:").unwrap();
    let end = train.find("  eval:").unwrap();
    let other = train[start..end].replace("  train:", "  other:").replace("lr: 0.001", "lr: 0.002");
    let two = format!(
        "{train}{other}  judge: {{ component: evaluation, inputs: {{ model: other.model, data: scale_test.data }}, params: {{ threshold: 0.4 }} }}\n"
    );
    let place = LR.replace("train", "other");
    let swapped = format!(
        "{{ settings: [{{ {LR}: 0.1, {place}: 0.2 }}, {{ {LR}: 0.2, {place}: 0.3 }}], rank: {{ task: eval }} }}"
    );
    let refused = read_with(&two, &swapped).unwrap_err();
    assert!(
        refused.contains("'eval' of setting 1 judges the same model on the same rows as 'judge' of setting 0"),
        "{refused}"
    );
    // Nor on rows that a step in between leaves as they are.
    let idle = "  idle: { component: imputation, inputs: { data: scale_test }, params: { method: mean } }\n";
    let two = two.replace("model: other.model, data: scale_test.data", "model: other.model, data: idle.data") + idle;
    let refused = read_with(&two, &swapped).unwrap_err();
    assert!(
        refused.contains("'eval' of setting 1 judges the same model on the same rows as 'judge' of setting 0"),
        "{refused}"
    );
}

#[test]
fn what_people_sign_follows_from_the_sweep() {
    let study = study(plan(), Some(read(&forty()).unwrap()));
    let computation = study.computation().unwrap();
    assert_eq!(computation.max_runs, 40);
    let range = |place: &str| (computation.ranges[place].min, computation.ranges[place].max);
    assert_eq!((computation.ranges.len(), range(LR), range(UPDATES)), (2, (0.001, 0.01), (10.0, 100.0)));
    let runs = study.runs().unwrap();
    assert_eq!(runs.len(), 40);
    assert_eq!(computation.settings, runs.iter().map(Canonical::digest).collect::<BTreeSet<_>>());
    for run in &runs {
        assert_eq!(computation.holds(run), Ok(()));
    }
    // Within the ranges, and none of the settings.
    let mut between = runs[0].clone().into_inner();
    World::train(&mut between).optimizer = Optimizer::Sgd { lr: 0.0015, momentum: 0.0 };
    let refusal = computation.holds(&Canonical::new(between).unwrap()).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::OutsideEnvelope);
    assert_eq!(refusal.detail, "the plan is none of the 40 settings that were approved");
}

#[test]
fn everything_that_leaves_is_counted_over_all_runs() {
    let sweep = "{ grid: { tasks.train.params.rounds: [5, 10, 15] }, rank: { task: eval } }";
    let study = study(plan(), Some(read(sweep).unwrap()));
    let of = |list: Vec<hospes_protocol::plan::Egress>, task: &str, name: &str| {
        list.iter().find(|e| e.task == task && e.name == name).unwrap().times
    };
    assert_eq!(of(study.egress().unwrap(), "train", "0.weight"), 15);
    assert_eq!(of(egress_in_all(&study.runs().unwrap()), "train", "0.weight"), 30);
    assert_eq!(of(study.egress().unwrap(), "eval", "confusion"), 1);
    assert_eq!(of(egress_in_all(&study.runs().unwrap()), "eval", "confusion"), 3);
    // Layers of another width are other tensors, each with its own line.
    let wide = plan_text().replace(
        "[{ linear: { out: 1, init: torch_default } }]",
        "[{ linear: { out: 4 } }, { relu: {} }, { linear: { out: 1 } }]",
    );
    let sweep = "{ grid: { tasks.train.params.model.0.linear.out: [4, 8] }, rank: { task: eval } }";
    let file = read_with(&wide, sweep).unwrap();
    let study = Study { plan: Canonical::new(file.plan).unwrap(), sweep: file.sweep, ..study };
    let shapes: Vec<Vec<u64>> =
        study.egress().unwrap().into_iter().filter(|e| e.name == "0.weight").map(|e| e.shape).collect();
    assert_eq!(shapes, [[13, 4], [13, 8]]);
    let mut bytes = 0;
    for run in study.runs().unwrap() {
        bytes += egress(&run).iter().map(|e| e.bytes * u64::from(e.times)).sum::<u64>();
    }
    let all: u64 = egress_in_all(&study.runs().unwrap()).iter().map(|e| e.bytes * u64::from(e.times)).sum();
    assert_eq!(all, bytes);
}

/// The permit rules are those of every study: each run inside, as many as were signed, no other plan.
#[test]
fn permits_are_given_for_the_settings_and_for_nothing_else() {
    let settle = |w: &mut World| {
        let study =
            study(plan(), Some(read(&format!("{{ grid: {{ {LR}: [0.1, 0.2] }}, rank: {{ task: eval }} }}")).unwrap()));
        w.document.envelope.computation = study.computation().unwrap();
        w.document.envelope.egress = study.egress().unwrap();
        w.plan = study.plan.clone().into_inner();
        w.run = study.run(Some(2)).unwrap().into_inner();
    };
    given(settle);
    assert_eq!(
        code(|w| {
            settle(w);
            World::train(&mut w.run).optimizer = Optimizer::Sgd { lr: 0.15, momentum: 0.0 };
        }),
        RefusalCode::OutsideEnvelope
    );
    assert_eq!(
        code(|w| {
            settle(w);
            w.run = w.plan.clone();
        }),
        RefusalCode::OutsideEnvelope,
        "the plan that the settings start from is none of them"
    );
    let other = |n: u8| hospes_protocol::id::JobId::new(NOW, [100 + n; 10]);
    given(|w| {
        settle(w);
        w.now.spent.jobs = [other(1)].into();
    });
    assert_eq!(
        code(|w| {
            settle(w);
            w.now.spent.jobs = [other(1), other(2)].into();
        }),
        RefusalCode::RunsUsedUp
    );
}

#[test]
fn a_hostile_sweep_is_refused_before_it_costs_anything() {
    let mut sweep = read(&forty()).unwrap();
    sweep.settings = vec![sweep.settings[0].clone(); 257];
    let refused = study(plan(), Some(sweep)).check().unwrap_err().to_string();
    assert!(refused.contains("257 settings"), "{refused}");
    let mut sweep = read(&forty()).unwrap();
    for setting in &mut sweep.settings {
        *setting = [("tasks.eval.params.threshold\u{202E}".to_owned(), 0.5)].into();
    }
    let refused = study(plan(), Some(sweep)).check().unwrap_err().to_string();
    assert!(!refused.contains('\u{202E}'), "{refused}");
}
