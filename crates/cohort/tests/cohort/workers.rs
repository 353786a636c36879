//! The child's side of the pipe.

use std::io::Cursor;

use hospes_cohort::Outward;
use hospes_cohort::train::Progress;
use hospes_cohort::worker::{Event, Failure, LocalView, Order, execute, run};
use hospes_protocol::approval::{ApprovalState, RefusalCode, Series, VersionFacts};
use hospes_protocol::id::{DatasetId, Digest, Timestamp};
use hospes_protocol::message::{FigureSet, UploadKind};
use hospes_protocol::plan::{self, Plan};
use hospes_protocol::policy::Policy;
use proptest::prelude::*;

use crate::rig::{NOW, PLAN, Rig, changed, edited, plan as rig_plan, strict, table};

fn clock() -> Timestamp {
    NOW
}

/// Sends an order through the pipe's format and collects what the child says.
fn through_pipe(order: &Order) -> (Vec<Event>, bool) {
    let (mut input, mut output) = (Vec::new(), Vec::new());
    order.write(&mut input).unwrap();
    let good = run(&mut Cursor::new(input), &mut output, &clock).unwrap();
    let mut output = Cursor::new(output);
    let mut events = Vec::new();
    while let Some(event) = Event::read(&mut output).unwrap() {
        events.push(event);
    }
    (events, good)
}

#[test]
fn a_child_trains_and_leaves_a_durable_payload() {
    let rig = Rig::new(&table(120));
    let order = rig.order("train");
    let (events, good) = through_pipe(&order);
    assert!(good);
    let (last, before) = events.split_last().unwrap();
    assert_eq!(before.len(), 100);
    assert!(before.iter().all(|e| matches!(e, Event::Progress(_)) && !e.is_last()));
    let Event::Done(done) = last else { panic!("{last:?}") };
    let payload = std::fs::read(&order.payload_path).unwrap();
    assert_eq!((done.kind, done.digest, done.bytes), (UploadKind::Update, Digest::of(&payload), 108));
    assert_eq!(done.round, order.circumstances.header.key());
    assert!(matches!(&done.view, LocalView::Training(view) if view.rows == 80));
    // Run again in a thread: the same bytes.
    let second = Order { payload_path: rig.folder.path().join("second"), ..order };
    assert!(matches!(execute(&second, &clock, &mut |_| true), Event::Done(_)));
    assert_eq!(std::fs::read(&second.payload_path).unwrap(), payload);
}

#[test]
fn a_child_reports_figures_in_canonical_bytes() {
    let rig = Rig::new(&table(120));
    for task in ["eval", "count", "alone"] {
        let order = rig.order(task);
        let (events, _) = through_pipe(&order);
        let Some(Event::Done(done)) = events.last() else { panic!("{events:?}") };
        assert_eq!(done.kind, UploadKind::Figures);
        let bytes = std::fs::read(&order.payload_path).unwrap();
        let set = hospes_protocol::canon::Canonical::<FigureSet>::parse(&bytes).unwrap();
        assert_eq!(set.withheld, done.withheld);
    }
}

#[test]
fn a_child_asks_for_its_permit_with_the_snapshot_that_it_would_open() {
    let rig = Rig::new(&table(120));
    let later = Rig::new(&table(110));
    let with_more = |(n, line): (usize, &str)| format!("{line},{}\n", if n == 0 { "more" } else { "1.5" });
    let wider = Rig::new(&table(120).lines().enumerate().map(with_more).collect::<String>());
    let id = DatasetId::new(NOW, [9; 10]);
    let form = rig.snapshot.document.form().unwrap();
    let mut document = rig.document();
    document.envelope.data.series = Some(Series { id, version: 1, form, min_subjects: 100, max_subjects: 130 });
    // What the parent says of it would do; what it is decides.
    let told = VersionFacts { series: id, version: 2, form, subjects: 120 };
    let order = |of: &Rig| {
        let mut order = Order { approval: rig.sign(document.clone()), ..rig.order("train") };
        order.snapshot = of.snapshot.document.clone();
        order.snapshot_path = of.snapshot.path.clone();
        order.key = of.key.clone();
        order.circumstances.snapshot.digest = of.snapshot.document.digest();
        order.circumstances.snapshot.version = Some(told.clone());
        order
    };
    assert!(matches!(through_pipe(&order(&later)).0.last(), Some(Event::Done(_))));
    let refused = |of: &Rig, words: &str| {
        let last = through_pipe(&order(of)).0.pop();
        let Some(Event::Refused(refusal)) = &last else { panic!("{last:?}") };
        assert!(refusal.code == RefusalCode::Snapshot && refusal.detail.contains(words), "{refusal}");
    };
    refused(&wider, "other columns or types");
    refused(&Rig::new(&table(60)), "fewer or more subjects");
}

fn refusal(table: &str, plan: Plan, policy: Policy) -> Option<Failure> {
    let rig = Rig::with(table, plan, policy);
    let order = rig.order("train");
    let (mut events, good) = through_pipe(&order);
    assert_eq!(good, order.payload_path.exists());
    match events.pop() {
        Some(Event::Failed(failure)) => Some(failure),
        Some(Event::Done(_)) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_child_trains_on_enough_patients_or_not_at_all() {
    let refused = |table: &str, plan: &dyn Fn() -> Plan, rule: &str| {
        let failure = refusal(table, plan(), strict()).unwrap_or_else(|| panic!("{rule} lets it train"));
        assert!(failure.local.contains(rule), "{}", failure.local);
        assert_eq!(failure.outward, Outward::Disclosure);
        assert!(!failure.outward.words().chars().any(|c| c.is_ascii_digit()));
        assert_eq!(refusal(table, plan(), Policy::public_data()), None, "public data");
    };
    // Two patients in the training part have no missing value.
    let holes = edited(&table(120), |row, column| (column == 1 && row % 3 != 2 && row > 1).then_some("?"));
    refused(&holes, &rig_plan, "disclosure.min_subset");
    let split = |fraction: &'static str| move || changed("by_column: fold", fraction);
    refused(&table(120), &split("test_fraction: 0.97"), "disclosure.min_subset");
    refused(&table(120), &split("test_fraction: 0.01"), "disclosure.min_subset");
    assert_eq!(refusal(&table(120), split("test_fraction: 0.5")(), strict()), None);
    // One patient has no value and is left out alone.
    let hole = edited(&table(120), |row, column| (column == 1 && row == 0).then_some("?"));
    assert_eq!(refusal(&hole, rig_plan(), strict()), None, "the rest is large: the part for the test is in it");
    let alone = || {
        changed(
            "inputs: { data: hot }, params: { by_column: fold }",
            "inputs: { data: hot }, params: { test_fraction: 0.1 }",
        )
    };
    assert_eq!(refusal(&table(120), alone(), strict()), None);
    // 5 parameters, a third of one for each patient: 20 are enough, and the half of them of whom all is known are too few.
    let glm = || {
        let text =
            PLAN.replace("[{ linear: { out: 4 } }, { tanh: {} }, { linear: { out: 1 } }]", "[{ linear: { out: 1 } }]");
        plan::read(&text.replace("by_column: fold", "test_fraction: 0.5")).unwrap_or_else(|e| panic!("{e}"))
    };
    let half = edited(&table(40), |row, column| (column == 1 && row % 2 == 0).then_some("?"));
    refused(&half, &glm, "disclosure.max_param_ratio");
    assert_eq!(refusal(&table(40), glm(), strict()), None);
}

#[test]
fn progress_tells_no_number_of_rows() {
    let told = |rows: u32| -> Vec<Progress> {
        let rig = Rig::new(&table(rows));
        let (events, _) = through_pipe(&rig.order("alone"));
        events.iter().filter_map(|e| if let Event::Progress(p) = e { Some(*p) } else { None }).collect()
    };
    assert_eq!(told(60), told(120));
    assert_eq!(told(60).last(), Some(&Progress { done: 100, total: 100 }));
}

#[test]
fn a_child_asks_for_its_own_permit() {
    let rig = Rig::new(&table(60));
    let mut order = rig.order("train");
    order.circumstances.state = ApprovalState::Revoked;
    let (events, good) = through_pipe(&order);
    assert!(good);
    assert!(matches!(&events[..], [Event::Refused(refusal)] if refusal.code == RefusalCode::Revoked));
    assert!(!order.payload_path.exists());
    // The child's own clock counts, not only the parent's.
    let order = rig.order("train");
    let tomorrow = || NOW.plus_millis(86_400_000);
    assert!(matches!(execute(&order, &tomorrow, &mut |_| true), Event::Refused(r) if r.code == RefusalCode::Expired));
}

#[test]
fn failures_reach_the_parent_in_two_voices() {
    let rig = Rig::new(&table(60));
    let order = rig.order("train");
    std::fs::write(&order.snapshot_path, b"altered").unwrap();
    let (events, good) = through_pipe(&order);
    assert!(!good);
    let [Event::Failed(failure)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(failure.outward, Outward::SnapshotUnusable);
    assert!(failure.local.contains("was altered"), "{}", failure.local);
    assert!(!order.payload_path.exists());
}

#[test]
fn a_payload_that_cannot_be_written_is_a_failure_and_leaves_nothing() {
    let rig = Rig::new(&table(60));
    let order = Order { payload_path: rig.folder.path().join("absent/payload"), ..rig.order("count") };
    let (events, _) = through_pipe(&order);
    assert!(matches!(&events[..], [Event::Failed(f)] if f.outward == Outward::Engine), "{events:?}");
}

/// What a process that was stopped in the middle of training leaves behind: the value is in its source only.
#[test]
fn a_canary_value_is_nowhere_outside_its_source() {
    const CANARY: &str = "4711471147.25";
    let text = table(120).replacen(",0,", &format!(",{CANARY},"), 1).replace("P-7,", "CANARY-PERSON,");
    assert!(text.contains(CANARY) && text.contains("CANARY-PERSON"));
    let rig = Rig::new(&text);
    let order = rig.order("train");
    let stopped = execute(&order, &clock, &mut |progress| progress.done < 50);
    assert!(matches!(&stopped, Event::Failed(f) if f.outward == Outward::Cancelled), "{stopped:?}");
    let mut said = Vec::new();
    stopped.write(&mut said).unwrap();
    let float = 4_711_471_147.25f64.to_le_bytes();
    let single = 4_711_471_147.25f32.to_le_bytes();
    let needles: [&[u8]; 4] = [CANARY.as_bytes(), b"CANARY-PERSON", &float, &single];
    let has = |bytes: &[u8]| needles.iter().any(|n| bytes.windows(n.len()).any(|w| w == *n));
    assert!(!has(&said));
    let mut files = 0;
    for entry in std::fs::read_dir(rig.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let source = path.file_name().unwrap() == "table.csv";
        assert_eq!(has(&std::fs::read(&path).unwrap()), source, "{}", path.display());
        files += 1;
    }
    assert_eq!(files, 3, "source, snapshot, model");
}

#[test]
fn a_parent_that_is_gone_ends_the_child() {
    struct Gone;
    impl std::io::Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let rig = Rig::new(&table(60));
    let order = rig.order("train");
    let mut input = Vec::new();
    order.write(&mut input).unwrap();
    assert!(run(&mut Cursor::new(input), &mut Gone, &clock).is_err());
    assert!(!order.payload_path.exists());
}

#[test]
fn debug_of_an_order_shows_neither_keys_nor_people() {
    let rig = Rig::new(&table(60));
    let text = format!("{:?}", rig.order("train"));
    assert!(text.contains("SnapshotKey(…)") && text.contains("OptOuts(0 entries)"));
    assert!(!text.contains("[5, 5, 5"));
}

#[test]
fn an_order_cut_anywhere_is_refused() {
    let rig = Rig::new(&table(60));
    let mut bytes = Vec::new();
    rig.order("count").write(&mut bytes).unwrap();
    for cut in (0..bytes.len()).step_by(97) {
        let mut output = Vec::new();
        let good = run(&mut Cursor::new(&bytes[..cut]), &mut output, &clock).unwrap();
        assert!(!good);
        assert!(matches!(Event::read(&mut Cursor::new(output)).unwrap(), Some(Event::Failed(_))));
    }
    let huge = [0xff; 4];
    assert!(Order::read(&mut Cursor::new(huge)).unwrap_err().to_string().contains("more than"));
}

proptest! {
    #[test]
    fn no_bytes_make_the_pipe_decoders_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut framed = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        framed.extend(&bytes);
        prop_assert!(Order::read(&mut Cursor::new(&framed)).is_err());
        let _ = Event::read(&mut Cursor::new(&framed));
        let _ = Event::read(&mut Cursor::new(&bytes));
    }
}
