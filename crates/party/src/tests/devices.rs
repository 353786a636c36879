//! Work on a graphics card, and what becomes of it when the card fails: real children on software Vulkan.

use std::os::unix::fs::PermissionsExt as _;

use hospes_protocol::plan::{Conv, Init, Layer, Linear, Model, Reshape};

use super::crash::worker_program;
use super::*;

/// A site with a card to be used, its study offered and approved, and a round of it opened.
async fn with_card(program: PathBuf, plan: Plan) -> (World, Study) {
    let temporary = tempfile::tempdir().unwrap();
    let mut parts = configure(temporary.path(), Executor::Child { program });
    parts.0.device = DeviceChoice::Card;
    // A software card computes in the worker's own memory.
    parts.0.worker_memory_bytes = None;
    let now = crate::config::system_clock()().as_millis();
    let mut world = World::create_as(parts, now).await;
    world._temporary = Some(temporary);
    world.furnish().await;
    let study = world.running(plan).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    (world, study)
}

/// The ledger's entry that training finished, as it is exported: with device and remark.
async fn finished(world: &mut World) -> String {
    let export = world.folder.join("ledger.jsonl");
    world.handle.export_audit(world.who("ana"), None, export.clone()).await.unwrap();
    let text = std::fs::read_to_string(export).unwrap();
    text.lines().find(|line| line.contains("training_finished")).unwrap().to_owned()
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
    let (script, tried) = (scripts.path().join("worker.sh"), scripts.path().join("tried"));
    // Listing and trying go well; the first order on the card kills the process, as drivers do.
    let text = format!(
        "#!/bin/sh\ncase \"$2\" in devices|try) exec {0} \"$@\";; esac\n\
         [ -e {1} ] && exec {0} \"$@\"\n: > {1}\nkill -SEGV $$\n",
        worker_program().display(),
        tried.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (mut world, _) = with_card(script, small_plan(1)).await;
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
    let entry = finished(&mut world).await;
    assert!(entry.contains("\"cpu\"") && entry.contains("the processor goes on"), "{entry}");
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
