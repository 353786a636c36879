use std::os::unix::fs::PermissionsExt as _;

use hospes_protocol::id::Timestamp;
use hospes_protocol::study::StudyFile;

use super::*;

fn listed(card: Card) -> Listed {
    Listed { card, name: format!("the {card} one"), driver: String::new() }
}

fn probed(card: Card, deviation: f64, speed: f64) -> Probed {
    let name = format!("the {card} one");
    Probed { listed: listed(card), trial: Some(Ok(Tried { card, name, deviation, speed })) }
}

#[test]
fn a_card_is_chosen_that_computes_right_and_fast_and_else_the_reasons_are_told() {
    let wrong = probed(Card::Discrete(0), 0.1, 30.0);
    let slow = probed(Card::Integrated(0), 1e-6, 0.5);
    let good = probed(Card::Virtual(0), 1e-6, 4.0);
    let broken =
        Probed { listed: listed(Card::Discrete(1)), trial: Some(Err("its driver ended the process".to_owned())) };
    let software = Probed { listed: listed(Card::Software), trial: None };
    let all = [wrong, broken, slow, good, software];
    assert_eq!(chosen(&all, DeviceChoice::Auto).unwrap().card, Card::Virtual(0));
    // Who asks for a card gets a slow one too, never a wrong one.
    assert_eq!(chosen(&all, DeviceChoice::Card).unwrap().card, Card::Integrated(0));
    let why =
        chosen(&[all[0].clone(), all[1].clone(), all[2].clone(), all[4].clone()], DeviceChoice::Auto).unwrap_err();
    for part in ["computes wrongly", "its driver ended the process", "slower than the processor", "no card"] {
        assert!(why.contains(part), "{why}");
    }
    assert!(chosen(&[], DeviceChoice::Auto).unwrap_err().contains("no graphics card"));
    // As it comes from the child that tried it.
    let nan = probed(Card::Discrete(0), device::NO_NUMBER, 9.0);
    let said = serde_json::to_string(nan.trial.as_ref().unwrap()).unwrap();
    let heard = Probed { trial: Some(serde_json::from_str(&said).unwrap()), ..nan };
    let why = chosen(&[heard], DeviceChoice::Card).unwrap_err();
    assert!(why.contains("no finite numbers") && !why.contains("ended the process"), "{why}");
}

#[test]
fn a_card_that_was_chosen_is_tried_and_used_alone() {
    let only = |card: &str| card.parse::<DeviceChoice>().unwrap();
    let all = [probed(Card::Discrete(0), 1e-6, 30.0), probed(Card::Integrated(0), 1e-6, 0.5)];
    assert_eq!(chosen(&all, only("integrated:0")).unwrap().card, Card::Integrated(0));
    let why = chosen(&all, only("discrete:1")).unwrap_err();
    assert!(why.contains("discrete:1, is not among those"), "{why}");
    for (choice, tried) in [
        ("auto", [true, true, false]),
        ("cpu", [false, false, false]),
        ("gpu", [true, true, false]),
        ("discrete:0", [true, false, false]),
        ("software", [false, false, true]),
    ] {
        let cards = [Card::Discrete(0), Card::Integrated(0), Card::Software];
        assert_eq!(cards.map(|card| only(choice).tries(card, true)), tried, "{choice}");
        assert_eq!(only(choice).to_string(), choice);
        let written = serde_json::to_string(&only(choice)).unwrap();
        assert_eq!(serde_json::from_str::<DeviceChoice>(&written).unwrap(), only(choice));
    }
    assert!(only("gpu").tries(Card::Software, false), "a machine without any other");
    for wrong in ["", "GPU", "discrete", "discrete:x", "software:1"] {
        assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
    }
}

fn plan(name: &str) -> (Plan, String) {
    let path = format!("{}/../../examples/{name}/study.yaml", env!("CARGO_MANIFEST_DIR"));
    let plan = StudyFile::read(&std::fs::read_to_string(path).unwrap()).unwrap().plan;
    let trains = |t: &hospes_protocol::plan::Task| matches!(t.component, hospes_protocol::plan::Component::NnTrain(_));
    let task = plan.tasks.iter().find(|(_, t)| trains(t)).unwrap().0.clone();
    (plan, task)
}

fn with_card(choice: DeviceChoice, card: Card) -> Devices {
    let devices = Devices::new(choice, PathBuf::new());
    *devices.found.lock().unwrap() = Some(Found { probed: Vec::new(), card: Ok(card) });
    devices
}

fn on_card(rows_at_once: Option<u32>) -> Place {
    Place::Card { card: Card::Discrete(0), rows_at_once }
}

#[test]
fn memory_that_is_too_small_halves_the_rows_and_other_failures_leave_it_to_the_processor() {
    let (heart, heart_task) = plan("heart");
    let (images, images_task) = plan("breastmnist");
    let job = JobId::new(Timestamp::from_millis(1), [1; 10]);
    let devices = with_card(DeviceChoice::Card, Card::Discrete(0));
    let first = |work: Work<'_>| devices.first(work, &Slot::default());
    let work = Work { job, task: &heart_task, plan: &heart, rows: 1_000 };
    let full = DeviceFailure::new("wgpu error: Out of Memory");
    assert!(full.out_of_memory);
    let batch = device::batch(&heart, &heart_task);
    assert_eq!(first(work), Decision { place: on_card(None), note: None });
    let mut rows = batch;
    while rows > 1 {
        let known = (rows != batch).then_some(rows);
        let next = devices.after(work, Card::Discrete(0), known, &full);
        rows = rows.div_ceil(2);
        assert_eq!(next.place, on_card(Some(rows)));
        // The next round does not try what has no room again.
        assert_eq!(first(work).place, next.place);
    }
    let next = devices.after(work, Card::Discrete(0), Some(1), &full);
    assert_eq!(next.place, Place::Processor);
    let next = first(work);
    assert!(next.place == Place::Processor && next.note.unwrap().contains("too little memory"), "for one row");
    // What sees a batch as a whole cannot be cut.
    let other = JobId::new(Timestamp::from_millis(2), [2; 10]);
    let whole = Work { job: other, task: &images_task, plan: &images, rows: 1_000 };
    assert_eq!(first(whole).place, on_card(None));
    let next = devices.after(whole, Card::Discrete(0), None, &full);
    assert!(next.place == Place::Processor && next.note.unwrap().contains("too little memory"));
    assert_eq!(first(whole).place, Place::Processor);
    // Another run has its own plan, and may have room.
    let third = JobId::new(Timestamp::from_millis(3), [3; 10]);
    assert_eq!(first(Work { job: third, ..work }).place, on_card(None));
}

#[test]
fn halving_begins_with_the_rows_that_there_are() {
    let (mut heart, task) = plan("heart");
    let component = &mut heart.tasks.get_mut(&task).unwrap().component;
    let hospes_protocol::plan::Component::NnTrain(train) = component else { panic!() };
    train.local.batch = 256;
    let devices = with_card(DeviceChoice::Card, Card::Discrete(0));
    let full = DeviceFailure::new("wgpu error: Out of Memory");
    let job = JobId::new(Timestamp::from_millis(1), [1; 10]);
    let work = Work { job, task: &task, plan: &heart, rows: 30 };
    assert_eq!(devices.after(work, Card::Discrete(0), None, &full).place, on_card(Some(15)));
}

#[test]
fn a_card_that_fails_rests_longer_each_time_until_it_works() {
    let (heart, task) = plan("heart");
    let work = Work { job: JobId::new(Timestamp::from_millis(1), [1; 10]), task: &task, plan: &heart, rows: 1_000 };
    let devices = with_card(DeviceChoice::Card, Card::Discrete(0));
    let first = || devices.first(work, &Slot::default());
    // The words of its driver are shown, short.
    let lost = DeviceFailure::new(&format!("Device lost{}", "!".repeat(5_000)));
    assert!(!lost.out_of_memory);
    let note = devices.after(work, Card::Discrete(0), None, &lost).note.unwrap();
    assert!(note.contains("Device lost") && note.len() < 400, "{note}");
    // Whether it was the card's fault, the processor shows.
    assert_eq!(first().place, on_card(None));
    let rested = |time: Duration| {
        let mut known = devices.known();
        let (at, times) = known.failed.unwrap();
        // A machine may have been up for less time.
        known.failed = at.checked_sub(time).map(|at| (at, times)).or(Some((at, times)));
    };
    devices.blame();
    assert!(first().note.unwrap().contains("a short time ago"));
    devices.blame();
    assert_eq!(devices.known().failed.map(|(_, times)| times), Some(2));
    rested(REST);
    assert!(first().note.unwrap().contains("a short time ago"), "after the second failure it rests twice as long");
    devices.worked();
    assert_eq!(first().place, on_card(None));
}

#[test]
fn a_look_at_the_cards_that_is_stopped_ends_and_is_not_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let (script, pid) = (folder.path().join("w.sh"), folder.path().join("pid"));
    std::fs::write(&script, format!("#!/bin/sh\necho $$ > {}\nexec sleep 1000\n", pid.display())).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (heart, task) = plan("heart");
    let work = Work { job: JobId::new(Timestamp::from_millis(1), [1; 10]), task: &task, plan: &heart, rows: 1_000 };
    let devices = Devices::new(DeviceChoice::Card, script);
    let slot = Slot::default();
    let decision = std::thread::scope(|scope| {
        let looks = scope.spawn(|| devices.first(work, &slot));
        while !std::fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // What is known of failures can be asked meanwhile.
        assert!(devices.known.try_lock().is_ok());
        slot.stop();
        looks.join().unwrap()
    });
    assert_eq!(decision.place, Place::Processor);
    assert!(devices.found.lock().unwrap().is_none());
    let pid = std::fs::read_to_string(&pid).unwrap();
    assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists(), "the child still runs");
}

#[test]
fn small_networks_stay_on_the_processor_unless_a_card_is_asked_for() {
    let ((heart, train), (images, conv)) = (plan("heart"), plan("breastmnist"));
    let job = JobId::new(Timestamp::from_millis(1), [1; 10]);
    for (choice, small, large) in
        [(DeviceChoice::Auto, false, true), (DeviceChoice::Processor, false, false), (DeviceChoice::Card, true, true)]
    {
        let devices = with_card(choice, Card::Integrated(0));
        let on_card = |plan, task| {
            let work = Work { job, task, plan, rows: 1_000 };
            devices.first(work, &Slot::default()).place != Place::Processor
        };
        assert_eq!((on_card(&heart, &train), on_card(&images, &conv)), (small, large), "{choice:?}");
    }
    // Statistics have no network.
    let devices = Devices::new(DeviceChoice::Card, PathBuf::new());
    let work = Work { job, task: "no network", plan: &heart, rows: 1_000 };
    assert_eq!(devices.first(work, &Slot::default()), Decision::processor(None));
}
