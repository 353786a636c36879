//! Work on a graphics card, and what becomes of it when the card fails: real children on software Vulkan, and scripts that
//! do what broken drivers do.

use std::os::unix::fs::PermissionsExt as _;

use hospes_protocol::plan::{Conv, Init, Layer, Linear, Model, Reshape};

use super::crash::worker_program;
use super::*;
use crate::error::PartyError;
use crate::view::DecidedBy;

/// A site with a card to be used, which may be silent for so long.
async fn site_with_card(program: PathBuf, patience: Duration) -> World {
    let temporary = tempfile::tempdir().unwrap();
    let mut parts = configure(temporary.path(), Executor::Child { program });
    parts.0.device = Some(DeviceChoice::Card);
    parts.0.card_patience = patience;
    // A software card computes in the worker's own memory.
    parts.0.worker_memory_bytes = None;
    let now = crate::config::system_clock()().as_millis();
    let mut world = World::create_as(parts, now).await;
    world._temporary = Some(temporary);
    world.furnish().await;
    world
}

/// Such a site with its study offered and approved, and a round of it opened.
async fn with_card(program: PathBuf, plan: Plan) -> (World, Study) {
    let mut world = site_with_card(program, Duration::from_secs(600)).await;
    let study = world.running(plan).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    (world, study)
}

/// A program with a card that is listed and passes its trial. With its n-th order it does the n-th of these, with those
/// after them what a worker does; on that card it fails, for there is none.
fn driver_that(folder: &Path, does: &[&str]) -> PathBuf {
    let script = folder.join("worker.sh");
    let cases: String = does.iter().enumerate().map(|(n, does)| format!("{}) {does};;\n", n + 1)).collect();
    let text = format!(
        "#!/bin/sh\ncase \"$2\" in\n\
         devices) echo '{{\"Ok\":[{{\"card\":\"discrete:7\",\"name\":\"a card\",\"driver\":\"\"}}]}}'; exit;;\n\
         try) echo '{{\"Ok\":{{\"card\":\"discrete:7\",\"name\":\"a card\",\"deviation\":0.0,\"speed\":9.0}}}}'; exit;;\n\
         esac\necho $$ >> {0}/orders\ncase $(wc -l < {0}/orders) in\n{cases}*) exec {1} \"$@\";;\nesac\n",
        folder.display(),
        worker_program().display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

/// The ledger's last entry that training finished, as it is exported: with device and remark.
async fn finished(world: &mut World) -> String {
    let folder = tempfile::tempdir().unwrap();
    let export = folder.path().join("ledger.jsonl");
    world.handle.export_audit(world.who("ana"), None, export.clone()).await.unwrap();
    let text = std::fs::read_to_string(export).unwrap();
    text.lines().rfind(|line| line.contains("training_finished")).unwrap().to_owned()
}

fn entries(payload: &[u8]) -> Vec<i64> {
    let (words, _) = payload[8..].as_chunks::<4>();
    words.iter().map(|word| i64::from(u32::from_le_bytes(*word))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_on_a_card_gives_what_the_processor_gives_and_the_ledger_names_the_card() {
    let (mut world, _) = with_card(worker_program(), small_plan(1)).await;
    let (upload, path) = world.expect_upload().await;
    let by_card = world.take(&upload, &path).await;
    let entry = finished(&mut world).await;
    assert!(entry.contains("llvmpipe") && !entry.contains("graphics card"), "{entry}");
    let mut other = World::new().await;
    let again = other.running(small_plan(1)).await;
    other.open_round(header(&again, job(1), "train", 1, 1, other.now())).await;
    other.serve_model(&again).await;
    let (upload, path) = other.expect_upload().await;
    let by_processor = other.take(&upload, &path).await;
    let (card, processor) = (entries(&by_card), entries(&by_processor));
    // Of 2³² steps over twice the clip, each entry weighted by the rows: 1e-4 of the largest change.
    let middle = i64::from(u32::MAX) / 2;
    let largest = processor.iter().map(|v| (v - middle).abs()).max().unwrap();
    let furthest = card.iter().zip(&processor).map(|(a, b)| (a - b).abs()).max().unwrap();
    assert!(largest > 0 && furthest * 10_000 <= largest, "{furthest} of {largest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_whose_driver_crashes_leaves_the_round_to_the_processor() {
    let scripts = tempfile::tempdir().unwrap();
    // Listing and trying go well; the first order on the card kills the process, as drivers do.
    let (mut world, _) = with_card(driver_that(scripts.path(), &["kill -SEGV $$"]), small_plan(1)).await;
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
    let entry = finished(&mut world).await;
    assert!(entry.contains("\"cpu\"") && entry.contains("the processor goes on"), "{entry}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_is_gone_when_work_begins_leaves_the_round_to_the_processor() {
    let scripts = tempfile::tempdir().unwrap();
    // It was listed and tried, and the worker that is to use it finds none.
    let (mut world, _) = with_card(driver_that(scripts.path(), &[]), small_plan(1)).await;
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
    let entry = finished(&mut world).await;
    assert!(entry.contains("\"cpu\"") && entry.contains("the processor goes on"), "{entry}");
    let orders = std::fs::read_to_string(scripts.path().join("orders")).unwrap();
    assert_eq!(orders.lines().count(), 2, "the card was not asked");
}

/// Two runs of a study may be begun.
async fn two_runs(world: &mut World) -> Study {
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    world.approve_as(&study, Approving { max_runs: 2, ..exactly(study.id) }).await;
    study
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_hangs_costs_its_patience_and_no_round() {
    let scripts = tempfile::tempdir().unwrap();
    let script = driver_that(scripts.path(), &["exec sleep 1000"]);
    let mut world = site_with_card(script, Duration::from_secs(1)).await;
    let study = two_runs(&mut world).await;
    for (n, why) in [(1, "(nothing was heard of it for 1 seconds); the processor goes on"), (2, "a short time ago")] {
        world.start_job(&study, job(n)).await;
        world.open_round(header(&study, job(n), "train", 1, 1, world.now())).await;
        if n == 1 {
            world.serve_model(&study).await;
        }
        let (upload, path) = world.expect_upload().await;
        world.take(&upload, &path).await;
        let entry = finished(&mut world).await;
        assert!(entry.contains(why), "{entry}");
    }
    let orders = std::fs::read_to_string(scripts.path().join("orders")).unwrap();
    assert_eq!(orders.lines().count(), 3, "the second run asked the card again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_hung_until_the_work_was_stopped_is_left_alone() {
    let scripts = tempfile::tempdir().unwrap();
    let script = driver_that(scripts.path(), &["exec sleep 1000", "kill -SEGV $$"]);
    let mut world = site_with_card(script, Duration::from_secs(5)).await;
    let study = two_runs(&mut world).await;
    world.start_job(&study, job(1)).await;
    let mut first = header(&study, job(1), "train", 1, 1, world.now());
    first.deadline = world.now().plus_millis(60_000);
    world.open_round(first).await;
    world.serve_model(&study).await;
    while !scripts.path().join("orders").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A fifth of the patience, and then the deadline.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    world.pass_time(61_000);
    assert!(matches!(world.expect_reply().await, RoundReply::Failed(_)));
    world.start_job(&study, job(2)).await;
    world.open_round(header(&study, job(2), "train", 1, 1, world.now())).await;
    // The processor has the second order, which kills it: were it the card's, there would be a third and an upload.
    assert!(matches!(world.expect_reply().await, RoundReply::Failed(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_the_processor_has_too_is_not_the_cards() {
    let scripts = tempfile::tempdir().unwrap();
    // Both fail; then the card is asked again, fails, and the processor does it.
    let script = driver_that(scripts.path(), &["kill -SEGV $$", "exit 1", "kill -SEGV $$"]);
    let (mut world, study) = with_card(script, small_plan(1)).await;
    assert!(matches!(world.expect_reply().await, RoundReply::Failed(_)));
    world.open_round(header(&study, job(1), "train", 1, 2, world.now())).await;
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
    assert_eq!(std::fs::read_to_string(scripts.path().join("orders")).unwrap().lines().count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_without_room_for_a_batch_goes_on_with_half_of_it() {
    let mut plan = small_plan(1);
    let Some(Component::NnTrain(train)) = plan.tasks.get_mut("train").map(|t| &mut t.component) else { panic!() };
    let features = u32::try_from(plan::inputs(&small_plan(1), "train").features).unwrap();
    // One value of a batch of 256 has more bytes than a buffer of this driver may have (128 MiB); half of it has not.
    let wide = Conv { out: (200 << 20) / 4 / 256 / features, kernel: 1, stride: 1, padding: 0, bias: true };
    train.local.batch = 256;
    train.local.updates = 1;
    train.model = Model::Layers(vec![
        Layer::Reshape(Reshape { shape: vec![1, features] }),
        Layer::Conv1d(wide),
        Layer::GlobalPool {},
        Layer::Linear(Linear { out: 1, bias: true, init: Init::TorchDefault }),
    ]);
    let (mut world, _) = with_card(worker_program(), plan).await;
    // Three children compile a software card's programs one after the other, on a machine that may be busy.
    let uploads = |c: &LinkCommand| match c {
        LinkCommand::Upload { upload, path } => Some((upload.clone(), path.clone())),
        _ => None,
    };
    let (upload, path) = world.wait_for(Duration::from_secs(300), uploads).await.expect("no upload");
    world.take(&upload, &path).await;
    let entry = finished(&mut world).await;
    assert!(entry.contains("llvmpipe") && entry.contains("it goes on with"), "{entry}");
}

/// A site whose people may choose, with a program that has one card.
async fn choosing(folder: &Path, managed: ManagedFile) -> World {
    let script = driver_that(folder, &[]);
    let mut parts = configure(folder, Executor::Child { program: script });
    parts.0.device = None;
    parts.0.worker_memory_bytes = None;
    parts.0.managed = managed;
    let now = crate::config::system_clock()().as_millis();
    let mut world = World::create_as(parts, now).await;
    world.furnish().await;
    world
}

/// What the card list and the decision are, as a screen shows them.
async fn shown(world: &World) -> (String, DecidedBy, Option<String>, Vec<String>) {
    let device = world.handle.device(world.who("odo")).await.unwrap();
    let cards = device.cards.into_iter().map(|card| card.card).collect();
    (device.choice.to_string(), device.decided_by, device.used, cards)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_trained_on_is_set_by_the_administrator_and_taken_with_the_next_work() {
    let temporary = tempfile::tempdir().unwrap();
    let mut world = choosing(temporary.path(), ManagedFile::none()).await;
    let (card, cards) = (Some("a card".to_owned()), vec!["discrete:7".to_owned()]);
    assert_eq!(shown(&world).await, ("auto".to_owned(), DecidedBy::People, card.clone(), cards.clone()));
    let set = async |who: &str, choice: &str| {
        world.handle.set_device(world.who(who), choice.parse::<DeviceChoice>().unwrap()).await
    };
    let denied = set("sam", "cpu").await;
    assert!(matches!(denied, Err(PartyError::Denied { .. })), "{denied:?}");
    for (choice, used) in [("cpu", None), ("gpu", card.clone()), ("discrete:7", card), ("integrated:3", None)] {
        set("ana", choice).await.unwrap();
        assert_eq!(shown(&world).await, (choice.to_owned(), DecidedBy::People, used, cards.clone()), "{choice}");
    }
    let device = world.handle.device(world.who("odo")).await.unwrap();
    assert!(device.reason.is_some_and(|why| why.contains("integrated:3, is not among those")));
    assert_eq!(world.entered("settings_changed", "success").await, 4);

    // Work goes to the card that was chosen, which fails as there is none in truth; what was chosen meanwhile is for the next.
    set("ana", "discrete:7").await.unwrap();
    let study = two_runs(&mut world).await;
    for (n, choice, why) in [(1, "cpu", Some("the processor goes on")), (2, "cpu", None)] {
        world.start_job(&study, job(n)).await;
        world.open_round(header(&study, job(n), "train", 1, 1, world.now())).await;
        if n == 1 {
            world.serve_model(&study).await;
        }
        let (upload, path) = world.expect_upload().await;
        world.take(&upload, &path).await;
        let entry = finished(&mut world).await;
        assert_eq!(why.is_some_and(|words| entry.contains(words)), why.is_some(), "{entry}");
        assert_eq!(entry.contains("graphics card"), why.is_some(), "{entry}");
        let choice = choice.parse::<DeviceChoice>().unwrap();
        world.handle.set_device(world.who("ana"), choice).await.unwrap();
    }
    // It is still so after a restart.
    world.handle.shut_down().await.unwrap();
    world.handle = open(world.config.clone()).await.unwrap();
    let kept = world.handle.device_setting().await.unwrap();
    assert_eq!((kept.choice, kept.decided_by), (DeviceChoice::Processor, DecidedBy::People));
    // Whoever starts the engine with another one decides.
    world.handle.shut_down().await.unwrap();
    world.config.device = Some(DeviceChoice::Card);
    world.handle = open(world.config.clone()).await.unwrap();
    world.log_everybody_in().await;
    let given = world.handle.device_setting().await.unwrap();
    assert_eq!((given.choice, given.decided_by), (DeviceChoice::Card, DecidedBy::Start));
    let refused = world.handle.set_device(world.who("ana"), DeviceChoice::Auto).await;
    assert!(matches!(&refused, Err(PartyError::State(words)) if words.contains("--device gpu")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_it_fixed_is_trained_on_whatever_else_was_chosen() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("managed.toml");
    std::fs::write(&path, "[compute]\ndevice = \"cpu\"\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = ManagedFile::at(path, rustix::process::geteuid().as_raw());
    let mut world = choosing(temporary.path(), file).await;
    // Nor is a driver asked for cards that nobody could choose.
    assert_eq!(shown(&world).await, ("cpu".to_owned(), DecidedBy::It, None, Vec::new()));
    let refused = world.handle.set_device(world.who("ana"), DeviceChoice::Card).await;
    let words = "networks are trained on the processor only; that is set by your IT, in ";
    assert!(matches!(&refused, Err(PartyError::Managed(said)) if said.contains(words)), "{refused:?}");
    assert_eq!(world.entered("settings_changed", "refused").await, 1);
    assert_eq!(world.handle.managed().await.unwrap().device, Some(DeviceChoice::Processor));
    // Nor does the command line help.
    world.handle.shut_down().await.unwrap();
    world.config.device = Some(DeviceChoice::Card);
    world.handle = open(world.config.clone()).await.unwrap();
    let held = world.handle.device_setting().await.unwrap();
    assert_eq!((held.choice, held.decided_by), (DeviceChoice::Processor, DecidedBy::It));
}
