//! A dry run in the worker: the same bytes as in a round, of which people of the site see what is in them, and which are
//! written nowhere.

use hospes_cohort::worker::{Done, Event, Order, execute};
use hospes_cohort::{Attack, Guard, Preview};
use hospes_privacy::coding::Coding;
use hospes_protocol::approval::{ApprovalState, RefusalCode};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::Timestamp;
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::{self, Coefficients, Component, Plan};
use hospes_protocol::policy::Policy;

use crate::rig::{NOW, Rig, changed, plan as rig_plan, safetensors_file, strict, table};

fn clock() -> Timestamp {
    NOW
}

/// The same work as a dry run, under an approval that nobody has signed and without a model from anywhere. It goes through
/// the pipe's format, as the engine sends it.
fn dry(order: &Order) -> Order {
    let mut dry = Order { dry: true, model_path: None, ..order.clone() };
    dry.approval.signatures.clear();
    dry.circumstances.state = ApprovalState::PartlyApproved;
    dry.circumstances.signers.clear();
    dry.payload_path.set_extension("dry");
    let mut bytes = Vec::new();
    dry.write(&mut bytes).unwrap();
    Order::read(&mut bytes.as_slice()).unwrap()
}

fn done(order: &Order) -> Box<Done> {
    match execute(order, &clock, &mut |_| true) {
        Event::Done(done) => done,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_dry_run_makes_the_bytes_of_the_round_and_writes_them_nowhere() {
    let rig = Rig::new(&table(120));
    for task in ["train", "eval", "count", "alone"] {
        let order = rig.order(task);
        let real = done(&order);
        assert_eq!(real.preview, None, "{task}");
        let tried = dry(&order);
        let dry = done(&tried);
        assert_eq!((dry.digest, dry.bytes, dry.kind), (real.digest, real.bytes, real.kind), "{task}");
        assert_eq!(dry.withheld, real.withheld, "{task}");
        assert!(dry.preview.is_some(), "{task}");
        assert!(order.payload_path.exists() && !tried.payload_path.exists(), "{task}");
    }
}

#[test]
fn attacks_are_tried_beside_what_a_dry_run_makes_and_nowhere_else() {
    let rig = Rig::new(&table(120));
    let order = rig.order("train");
    let plain = done(&dry(&order));
    assert_eq!(plain.attack, None);
    let mut last = 0;
    let mut told = |progress: hospes_cohort::train::Progress| {
        assert!(progress.done >= last && progress.done <= progress.total, "{progress:?} after {last}");
        last = progress.done;
        true
    };
    let tried = match execute(&dry(&Order { attack: true, ..order.clone() }), &clock, &mut told) {
        Event::Done(done) => done,
        other => panic!("{other:?}"),
    };
    assert_eq!((tried.digest, &tried.preview), (plain.digest, &plain.preview));
    let Some(Attack::Found(scores)) = tried.attack.as_deref() else { panic!("{tried:?}") };
    assert_eq!((scores.subjects, scores.rounds, scores.planned), (80, 2, 2));
    assert_eq!(scores.membership.iter().map(|found| found.guard).collect::<Vec<_>>(), [Guard::None]);
    assert_eq!(scores.inversion.len(), 1);
    // What is no training, and what is no dry run, has none.
    assert_eq!(done(&dry(&Order { attack: true, ..rig.order("eval") })).attack, None);
    assert_eq!(done(&Order { attack: true, ..order }).attack, None);
}

#[test]
fn attacks_are_tried_without_the_noise_of_a_plan_and_with_it() {
    let rig = Rig::with(&table(120), crate::noise::noisy("noise_multiplier: 1.0"), Policy::public_data());
    let tried = done(&dry(&Order { attack: true, ..rig.order("train") }));
    let Some(Attack::Found(scores)) = tried.attack.as_deref() else { panic!("{tried:?}") };
    let guards = [Guard::None, Guard::Noise];
    assert_eq!(scores.membership.iter().map(|found| found.guard).collect::<Vec<_>>(), guards);
    assert_eq!(scores.inversion.iter().map(|found| found.guard).collect::<Vec<_>>(), guards);
}

#[test]
fn an_update_is_previewed_as_the_coordinator_reads_it() {
    let rig = Rig::new(&table(120));
    let order = rig.order("train");
    done(&order);
    let payload = std::fs::read(&order.payload_path).unwrap();
    let preview = done(&dry(&order)).preview.unwrap();
    assert_eq!(preview.values(), 25);
    let Preview::Update { rows, tensors, further, .. } = *preview else { panic!("no update") };
    assert_eq!((rows, further), (80, 0));
    // 80 of at most 1000 rows, a clip of 4.
    let (words, _) = payload[8..].as_chunks::<4>();
    let value = |word: &[u8; 4]| (f64::from(u32::from_le_bytes(*word)) / f64::from(u32::MAX) * 8.0 - 4.0) / 0.08;
    let sent: Vec<f64> = words.iter().map(value).collect();
    let names: Vec<(&str, &[u64])> = tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())).collect();
    let wanted = [("0.weight", &[4, 4][..]), ("0.bias", &[4][..]), ("2.weight", &[4, 1][..]), ("2.bias", &[1][..])];
    assert_eq!(names, wanted);
    let mut rest = sent.as_slice();
    for tensor in &tensors {
        let (mine, others) = rest.split_at(usize::try_from(tensor.shape.iter().product::<u64>()).unwrap());
        rest = others;
        assert_eq!(tensor.first.len(), mine.len().min(8));
        assert!(tensor.first.iter().zip(mine).all(|(shown, sent)| (f64::from(*shown) - sent).abs() < 1e-6));
        let (least, most) = mine.iter().fold((f64::MAX, f64::MIN), |(l, m), v| (l.min(*v), m.max(*v)));
        assert!((f64::from(tensor.min) - least).abs() < 1e-6 && (f64::from(tensor.max) - most).abs() < 1e-6);
        let norm = mine.iter().map(|v| v * v).sum::<f64>().sqrt();
        assert!((tensor.norm - norm).abs() < 1e-6 * norm.max(1.0), "{} {norm}", tensor.norm);
        // Whoever prints an event for finding a fault prints no number of it.
        assert!(!format!("{tensor:?}").contains("norm"));
    }
    assert!(rest.is_empty());
}

#[test]
fn an_update_of_few_bits_is_previewed_as_it_comes_out_of_its_coding() {
    let rig = Rig::with(&table(120), changed("bits: 32", "bits: 16"), Policy::public_data());
    let order = rig.order("train");
    let (real, tried) = (done(&order), done(&dry(&order)));
    assert_eq!((tried.digest, tried.bytes), (real.digest, real.bytes));
    let Preview::Update { rows, values, tensors, .. } = *tried.preview.unwrap() else { panic!("no update") };
    assert_eq!((rows, values), (80, 25));
    let payload = std::fs::read(&order.payload_path).unwrap();
    let levels = Coding::new(16, 25).unwrap().decode(&payload).unwrap();
    // 80 of at most 1000 rows, a clip of 4.
    let first = f64::from(u32::from_le_bytes(*levels[8..].first_chunk().unwrap()));
    assert!((f64::from(tensors[0].first[0]) - (first / 65_535.0 * 8.0 - 4.0) / 0.08).abs() < 1e-5);
}

#[test]
fn figures_are_previewed_whole_and_after_the_rules() {
    let rig = Rig::with(&table(120), rig_plan(), strict());
    let order = rig.order("eval");
    done(&order);
    let set = Canonical::<FigureSet>::parse(&std::fs::read(&order.payload_path).unwrap()).unwrap().into_inner();
    let tried = done(&dry(&order));
    assert!(!tried.withheld.is_empty(), "score histograms are withheld under the strict policy");
    assert_eq!(tried.withheld, set.withheld);
    assert_eq!(tried.preview.as_deref(), Some(&Preview::Figures(set.sums)));
}

#[test]
fn what_a_rule_refuses_in_a_round_it_refuses_in_a_dry_run() {
    let plan = changed("by_column: fold", "test_fraction: 0.97");
    let rig = Rig::with(&table(120), plan, strict());
    let order = rig.order("train");
    let real = execute(&order, &clock, &mut |_| true);
    assert!(matches!(&real, Event::Failed(failure) if failure.local.contains("disclosure.min_subset")), "{real:?}");
    assert_eq!(execute(&dry(&order), &clock, &mut |_| true), real);
}

#[test]
fn an_approval_that_nobody_signed_opens_nothing_but_a_dry_run() {
    let rig = Rig::new(&table(120));
    let unsigned = Order { dry: false, ..dry(&rig.order("train")) };
    let refused = execute(&unsigned, &clock, &mut |_| true);
    assert!(matches!(&refused, Event::Refused(r) if r.code == RefusalCode::NotApproved), "{refused:?}");
    assert!(!unsigned.payload_path.exists());
    let mut stopped = dry(&rig.order("train"));
    stopped.circumstances.stopped = Some("this site has stopped all work".into());
    let refused = execute(&stopped, &clock, &mut |_| true);
    assert!(matches!(&refused, Event::Refused(r) if r.code == RefusalCode::Stopped), "{refused:?}");
    let mut other = dry(&rig.order("train"));
    other.circumstances.policy = Policy::strict();
    let refused = execute(&other, &clock, &mut |_| true);
    assert!(matches!(&refused, Event::Refused(r) if r.code == RefusalCode::Policy), "{refused:?}");
}

#[test]
fn a_first_round_starts_from_what_its_plan_says_whatever_the_strategy_sends_besides() {
    let plan = changed("strategy: { fed_avg: {} }", "strategy: { scaffold: {} }");
    let rig = Rig::with(&table(120), plan, Policy::public_data());
    let Component::NnTrain(train) = &rig.plan.tasks["train"].component else { panic!("no training") };
    let inputs = plan::inputs(&rig.plan, "train");
    let drawn: Vec<f32> = plan::initial(train, inputs, rig.plan.seed).collect();
    let (all, model) = (plan::tensors(train, inputs), plan::model_tensors(train, inputs));
    let length = usize::try_from(model.iter().map(|t| t.len()).sum::<u64>()).unwrap();
    assert!(length < drawn.len(), "control variates are no part of a model");
    let (round, judged) = (safetensors_file(&all, &drawn), safetensors_file(&model, &drawn[..length]));
    for (task, model) in [("train", round), ("eval", judged)] {
        let order = rig.order_with(task, 1, Some(model.as_slice()));
        assert_eq!(done(&dry(&order)).digest, done(&order).digest, "{task}");
    }
}

#[test]
fn a_regression_starts_from_coefficients_of_zero_and_so_does_what_judges_it() {
    let plan: Plan = plan::read(crate::regress::PLAN).unwrap_or_else(|e| panic!("{e}"));
    let rig = Rig::with(&table(300), plan, Policy::public_data());
    let coefficients = Coefficients::of(&rig.plan, "fit").unwrap();
    let zeros = vec![0.0; coefficients.len()];
    let round = safetensors_file(&coefficients.tensors(), &coefficients.file_values(&zeros));
    let judged = safetensors_file(&coefficients.model_tensors(), &coefficients.model_values(&zeros));
    for (task, model) in [("fit", round), ("judge", judged)] {
        let order = rig.order_with(task, 1, Some(model.as_slice()));
        let tried = done(&dry(&order));
        assert_eq!(tried.digest, done(&order).digest, "{task}");
        assert!(matches!(tried.preview.as_deref(), Some(Preview::Figures(_))), "{task}");
    }
}

#[test]
fn layers_that_stay_here_stay_in_a_dry_run_too_and_lie_encrypted() {
    let plan = changed("strategy: { fed_avg: {} }", "strategy: { personal: { layers: [\"2\"] } }");
    let rig = Rig::with(&table(120), plan, Policy::public_data());
    let kept = rig.folder.path().join("kept");
    let mut train = dry(&rig.order_with("train", 1, None));
    train.state_out = Some(kept.clone());
    let tried = done(&train);
    let Some(Preview::Update { tensors, .. }) = tried.preview.as_deref() else { panic!("{tried:?}") };
    assert!(tensors.iter().all(|tensor| tensor.name.starts_with("0.")), "{tensors:?}");
    assert!(!std::fs::read(&kept).unwrap().windows(8).any(|window| window == b"2.weight"));
    let mut eval = dry(&rig.order_with("eval", 1, None));
    eval.state_in = Some(kept);
    assert!(matches!(done(&eval).preview.as_deref(), Some(Preview::Figures(_))));
}
