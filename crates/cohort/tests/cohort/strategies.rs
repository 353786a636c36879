//! What a strategy adds, sends and keeps at the site.

use std::path::PathBuf;

use hospes_cohort::worker::{Event, LocalView, Order, execute};
use hospes_privacy::coding::Coding;
use hospes_protocol::id::Timestamp;
use hospes_protocol::plan::{self, BatchNorm, Component, Layer, Model, NnTrain, Plan, Quantise, Schedule, Strategy};
use hospes_protocol::policy::Policy;

use crate::rig::{NOW, Rig, plan, safetensors_file, table};

fn clock() -> Timestamp {
    NOW
}

/// The plan with this strategy, 20 steps of 0.1, and a batch norm behind the first layer.
fn with(strategy: Strategy) -> Plan {
    let mut plan = plan();
    let Some(Component::NnTrain(train)) = plan.tasks.get_mut("train").map(|t| &mut t.component) else { panic!() };
    train.strategy = strategy;
    train.local.updates = 20;
    let Model::Layers(layers) = &mut train.model else { panic!() };
    layers.insert(1, Layer::BatchNorm(BatchNorm::default()));
    plan
}

fn params(rig: &Rig) -> NnTrain {
    let Component::NnTrain(train) = &rig.plan.tasks["train"].component else { panic!() };
    (**train).clone()
}

/// The order for a round that starts from the plan's first model.
fn order(rig: &Rig, task: &str, round: u32) -> Order {
    let train = params(rig);
    let inputs = plan::inputs(&rig.plan, "train");
    let shapes = if task == "train" { plan::tensors(&train, inputs) } else { plan::model_tensors(&train, inputs) };
    let values: Vec<f32> = plan::initial(&train, inputs, rig.plan.seed).collect();
    let length: u64 = shapes.iter().map(|t| t.len()).sum();
    let model = safetensors_file(&shapes, &values[..usize::try_from(length).unwrap()]);
    rig.order_with(task, round, Some(&model))
}

/// Runs an order that starts from `state_in`; where the payload and the state lie.
fn run(rig: &Rig, task: &str, round: u32, state_in: Option<PathBuf>, name: &str) -> (Event, PathBuf, PathBuf) {
    let (payload_path, kept) = (rig.folder.path().join(format!("{name}.payload")), rig.folder.path().join(name));
    let state_out = Some(kept.clone());
    let order = Order { payload_path: payload_path.clone(), state_in, state_out, ..order(rig, task, round) };
    // Through the pipe's format, as the engine sends it.
    let mut bytes = Vec::new();
    order.write(&mut bytes).unwrap();
    let order = Order::read(&mut bytes.as_slice()).unwrap();
    (execute(&order, &clock, &mut |_| true), payload_path, kept)
}

/// The entries of a payload as numbers, for 80 rows of at most 1000 and a clip of 4.
fn entries(payload: &PathBuf) -> Vec<f64> {
    let bytes = std::fs::read(payload).unwrap();
    let (words, _) = bytes[8..].as_chunks::<4>();
    let value = |word: &[u8; 4]| (f64::from(u32::from_le_bytes(*word)) / f64::from(u32::MAX) * 8.0 - 4.0) / 0.08;
    words.iter().map(value).collect()
}

fn view(event: &Event) -> &hospes_cohort::TrainingView {
    match event {
        Event::Done(done) => match &done.view {
            LocalView::Training(view) => view,
            LocalView::Report(_) => panic!("a report"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn layers_that_stay_do_not_travel_and_the_next_round_goes_on_from_them() {
    for strategy in [Strategy::FedBn {}, Strategy::Personal { layers: vec!["1".into(), "3".into()] }] {
        let personal = matches!(strategy, Strategy::Personal { .. });
        let rig = Rig::with(&table(120), with(strategy), Policy::public_data());
        let (first, payload, kept) = run(&rig, "train", 1, None, "first");
        view(&first);
        // 4·4 + 4 parameters of the first layer, 4·1 + 1 of the last one; 16 of the norm stay.
        assert_eq!(entries(&payload).len(), if personal { 20 } else { 25 });
        let (second, with_state, _) = run(&rig, "train", 2, Some(kept.clone()), "second");
        let (_, without, _) = run(&rig, "train", 2, None, "third");
        assert_ne!(std::fs::read(&with_state).unwrap(), std::fs::read(without).unwrap());
        if personal {
            // The last layer was kept trained, so the round begins where that one helps.
            assert!(view(&second).loss_before < view(&first).loss_before, "{second:?}");
        }
        // The model is judged with the site's own layers, and not at all without them.
        let (own, _, _) = run(&rig, "eval", 1, Some(kept), "own");
        assert!(matches!(own, Event::Done(_)), "{own:?}");
        let (without, _, _) = run(&rig, "eval", 1, None, "initial");
        let Event::Failed(failure) = without else { panic!("{without:?}") };
        assert!(failure.local.contains("layers that stayed at this site are not here any more"), "{failure:?}");
    }
}

#[test]
fn what_is_kept_lies_encrypted_and_opens_for_its_own_task_only() {
    let rig = Rig::with(&table(120), with(Strategy::FedBn {}), Policy::public_data());
    let (_, _, kept) = run(&rig, "train", 1, None, "kept");
    let bytes = std::fs::read(&kept).unwrap();
    let shows = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(!shows(b"running_mean") && !shows(b"1.weight"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // The same rows give the same bytes; another round's differ.
    let (_, _, again) = run(&rig, "train", 1, None, "again");
    assert_eq!(std::fs::read(again).unwrap(), bytes);
    let (_, _, other) = run(&rig, "train", 2, None, "other");
    assert_ne!(std::fs::read(other).unwrap()[..24], bytes[..24], "a nonce was used twice");
    for (n, at) in [0, 30, bytes.len() - 1].into_iter().enumerate() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let path = rig.folder.path().join(format!("damaged-{n}"));
        std::fs::write(&path, damaged).unwrap();
        let (event, payload, _) = run(&rig, "train", 2, Some(path), &format!("out-{n}"));
        assert!(matches!(&event, Event::Failed(f) if f.local.contains("state of the site")), "{event:?}");
        assert!(!payload.exists());
    }
}

#[test]
fn scaffold_sends_the_change_of_its_control_variate_and_keeps_it() {
    let rig = Rig::with(&table(120), with(Strategy::Scaffold { lr: 1.0 }), Policy::public_data());
    let (first, payload, kept) = run(&rig, "train", 1, None, "first");
    assert_eq!(view(&first).clipped, 0);
    let all = entries(&payload);
    // 25 + 8 trained, 8 running figures; a control variate for each trained one.
    assert_eq!(all.len(), 41 + 33);
    let (model, control) = all.split_at(41);
    // The running figures stand behind the norm's weight and bias: 20 + 8 before them.
    let trained: Vec<f64> = model[..28].iter().chain(&model[36..]).copied().collect();
    for (moved, control) in trained.iter().zip(control) {
        // c = cᵢ = 0 in the first round: Δcᵢ = (x − y) / (K·η) with K·η = 20 · 0.1.
        assert!((control + moved / 2.0).abs() < 1e-6, "{control} {moved}");
    }
    // With cᵢ from the first round and c still 0, gradients are corrected by −cᵢ.
    let (_, corrected, _) = run(&rig, "train", 2, Some(kept), "second");
    let (_, plain, _) = run(&rig, "train", 2, None, "third");
    assert_ne!(std::fs::read(corrected).unwrap(), std::fs::read(plain).unwrap());
}

#[test]
fn with_top_k_few_entries_leave_and_what_is_owed_is_in_the_next_round() {
    let mut plan = plan();
    let Some(Component::NnTrain(train)) = plan.tasks.get_mut("train").map(|t| &mut t.component) else { panic!() };
    train.top_k = Some(0.2);
    train.quantise = Quantise { clip: 4.0, bits: 16, n_max: 80 };
    let rig = Rig::with(&table(120), plan, Policy::public_data());
    let (first, payload, kept) = run(&rig, "train", 1, None, "first");
    view(&first);
    let coded = std::fs::read(payload).unwrap();
    let levels = Coding::new(16, 25).unwrap().decode(&coded).unwrap();
    let (words, _) = levels[8..].as_chunks::<4>();
    // A step is 8/65535: what is further from the middle than one was sent.
    let sent = words.iter().filter(|word| (2.0 * f64::from(u32::from_le_bytes(**word)) - 65_535.0).abs() > 2.0).count();
    assert_eq!(sent, 5, "a fifth of 25");
    let (_, again, kept_again) = run(&rig, "train", 1, None, "again");
    assert_eq!(
        (std::fs::read(again).unwrap(), std::fs::read(kept_again).unwrap()),
        (coded, std::fs::read(&kept).unwrap())
    );
    let (_, owing, _) = run(&rig, "train", 2, Some(kept.clone()), "second");
    let (_, without, _) = run(&rig, "train", 2, None, "third");
    assert_ne!(std::fs::read(owing).unwrap(), std::fs::read(without).unwrap());
    // The model is judged as if there were none.
    let (judged, _, _) = run(&rig, "eval", 1, Some(kept), "judged");
    assert!(matches!(judged, Event::Done(_)), "{judged:?}");
}

#[test]
fn a_strategy_that_keeps_nothing_writes_nothing_and_its_proximal_term_shortens_the_way() {
    let length = |strategy| -> f64 {
        let rig = Rig::with(&table(120), with(strategy), Policy::public_data());
        let (event, payload, kept) = run(&rig, "train", 1, None, "kept");
        view(&event);
        assert!(!kept.exists());
        // Without the running figures.
        let all = entries(&payload);
        all[..28].iter().chain(&all[36..]).map(|v| v * v).sum::<f64>().sqrt()
    };
    let (free, zero, pulled) =
        (length(Strategy::FedAvg {}), length(Strategy::FedProx { mu: 0.0 }), length(Strategy::FedProx { mu: 5.0 }));
    assert!((free - zero).abs() < 1e-6);
    assert!(pulled < 0.7 * free, "{pulled} {free}");
}

#[test]
fn the_schedule_turns_the_learning_rate_down_from_round_to_round() {
    let mut plan = plan();
    let Some(Component::NnTrain(train)) = plan.tasks.get_mut("train").map(|t| &mut t.component) else { panic!() };
    train.schedule = Schedule::Step { every: 1, factor: 0.001 };
    let rig = Rig::with(&table(120), plan, Policy::public_data());
    let change = |round, name: &str| {
        let (event, _, _) = run(&rig, "train", round, None, name);
        let view = view(&event);
        (view.loss_before - view.loss_after).abs()
    };
    let (first, second) = (change(1, "first"), change(2, "second"));
    assert!(second < 0.2 * first, "{first} {second}");
}
