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

fn plan(name: &str) -> (Plan, String) {
    let path = format!("{}/../../examples/{name}/study.yaml", env!("CARGO_MANIFEST_DIR"));
    let plan = StudyFile::read(&std::fs::read_to_string(path).unwrap()).unwrap().plan;
    let trains = |t: &hospes_protocol::plan::Task| matches!(t.component, hospes_protocol::plan::Component::NnTrain(_));
    let task = plan.tasks.iter().find(|(_, t)| trains(t)).unwrap().0.clone();
    (plan, task)
}

#[test]
fn memory_that_is_too_small_halves_the_rows_and_other_failures_leave_it_to_the_processor() {
    let (heart, heart_task) = plan("heart");
    let (images, images_task) = plan("breastmnist");
    let job = JobId::new(Timestamp::from_millis(1), [1; 10]);
    let devices = Devices::new(DeviceChoice::Card, PathBuf::new());
    devices.known.lock().unwrap().card = Some(Ok(Card::Discrete(0)));
    let work = Work { job, task: &heart_task, plan: &heart };
    let full = DeviceFailure::new("wgpu error: Out of Memory");
    assert!(full.out_of_memory);
    let batch = device::batch(&heart, &heart_task);
    let first = devices.first(work);
    assert_eq!(first, Decision { place: Place::Card { card: Card::Discrete(0), rows_at_once: None }, note: None });
    let mut rows = batch;
    while rows > 1 {
        let known = (rows != batch).then_some(rows);
        let next = devices.after(work, Card::Discrete(0), known, &full);
        rows = rows.div_ceil(2);
        assert_eq!(next.place, Place::Card { card: Card::Discrete(0), rows_at_once: Some(rows) });
        // The next round does not try what has no room again.
        assert_eq!(devices.first(work).place, next.place);
    }
    let next = devices.after(work, Card::Discrete(0), Some(1), &full);
    assert_eq!(next.place, Place::Processor);
    // What sees a batch as a whole cannot be cut.
    let whole = Work { job, task: &images_task, plan: &images };
    let next = devices.after(whole, Card::Discrete(0), None, &full);
    assert!(next.place == Place::Processor && next.note.unwrap().contains("too little memory"));
    // A card that fails rests; the words of its driver are shown, short.
    let lost = DeviceFailure::new(&format!("Device lost{}", "!".repeat(5_000)));
    assert!(!lost.out_of_memory);
    let note = devices.after(work, Card::Discrete(0), None, &lost).note.unwrap();
    assert!(note.contains("Device lost") && note.len() < 400, "{note}");
    assert!(devices.first(work).note.unwrap().contains("a short time ago"));
}

#[test]
fn small_networks_stay_on_the_processor_unless_a_card_is_asked_for() {
    let ((heart, train), (images, conv)) = (plan("heart"), plan("breastmnist"));
    let job = JobId::new(Timestamp::from_millis(1), [1; 10]);
    for (choice, small, large) in
        [(DeviceChoice::Auto, false, true), (DeviceChoice::Processor, false, false), (DeviceChoice::Card, true, true)]
    {
        let devices = Devices::new(choice, PathBuf::new());
        devices.known.lock().unwrap().card = Some(Ok(Card::Integrated(0)));
        let on_card = |plan, task| devices.first(Work { job, task, plan }).place != Place::Processor;
        assert_eq!((on_card(&heart, &train), on_card(&images, &conv)), (small, large), "{choice:?}");
    }
    // Statistics have no network.
    let devices = Devices::new(DeviceChoice::Card, PathBuf::new());
    assert_eq!(devices.first(Work { job, task: "no network", plan: &heart }), Decision::processor(None));
}
