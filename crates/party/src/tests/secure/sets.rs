//! What is answered for one set of sites only: figures, and training from one model.

use super::*;

/// Attack: the same figures once more, over fewer sites, of which the difference would tell what the missing one sent.
#[tokio::test(flavor = "multi_thread")]
async fn figures_leave_masked_and_are_answered_for_one_set_of_sites_only() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut world, study) = world_with(temporary.path(), evaluated_plan()).await;
    let opened = evaluation(&study, job(1), world.now());
    let mut ring = Ring::new(&opened);
    world.open_round(opened.clone()).await;
    world.serve_model(&study).await;
    hear(&mut world, &mut ring).await;
    let levels = waiting(&files(&world.config.levels())[0]);
    let announced = plan::round_figures(&study.plan, "eval", 1);
    let own = hospes_privacy::figures::report(&announced, 1, &levels).unwrap();
    assert!(own.sums["n"][0] > 0.0 && own.sums["confusion"].iter().sum::<f64>() == own.sums["n"][0], "{own:?}");
    ring.others_speak();
    ring.close();
    world.send(ring.relay()).await;
    play(&mut world, &mut ring, async |_: &mut World| {}).await;
    let mut rest = levels.as_slice();
    let blocks: Vec<_> = ring.aggregator.layout().blocks().collect();
    for (block, sum) in blocks.iter().zip(ring.unmasked()).skip(1) {
        let (mine, others) = rest.split_at(block.entries);
        rest = others;
        let is_shown = block.part == 1 || levels[block.part - 2] == 1;
        assert_eq!(sum == mine, is_shown, "part {}", block.part);
    }
    world.close_round(&opened).await;
    world.settle().await;
    let egress = world.handle.egress(world.who("sam"), Page::default()).await.unwrap();
    assert_eq!((egress.len(), egress[0].kind.as_str(), egress[0].protection), (1, "figures", Protection::Masked));

    world.start_job(&study, job(2)).await;
    // Of a model, too, that is another by the last digit of a parameter: its figures are nearly the same, or wholly.
    let (named, close) = closest(&study);
    let again = RoundHeader { model: Some(named), ..evaluation(&study, job(2), world.now()) };
    let mut ring = Ring::new(&again);
    world.open_round(again).await;
    serve(&mut world, named, close).await;
    announce(&mut world, &mut ring, 0..3).await;
    let RoundReply::Withdrawn(refusal) = world.expect_reply().await else { panic!("it agrees") };
    assert!(refusal.detail.contains("already answered for another set of sites"), "{refusal}");
    world.settle().await;
    assert_eq!(world.entered("sum_agreed", "success").await, 1);
}

/// A model that is another by the last digit of a parameter.
fn closest(study: &Study) -> (Digest, Vec<u8>) {
    let (mut close, _) = model(&study.plan);
    let lowest = close.len() - 4;
    close[lowest] ^= 1;
    (canon::digest("model", 1, &close), close)
}

/// Gives the site another model than the one that the plan begins with.
async fn serve(world: &mut World, named: Digest, model: Vec<u8>) {
    let download = |c: &LinkCommand| match c {
        LinkCommand::Download { digest, to, .. } => Some((*digest, to.clone())),
        _ => None,
    };
    let (digest, path) = world.expect("a download", download).await;
    assert_eq!(digest, named);
    std::fs::write(&path, model).unwrap();
    world.event(LinkEvent::Downloaded { digest, path }).await;
}

/// The update that waits to be masked, once the round has gone one step on.
async fn trained(world: &mut World, ring: &mut Ring) -> Vec<u8> {
    hear(world, ring).await;
    let unmasked = files(&world.config.levels());
    assert_eq!(unmasked.len(), 1);
    let levels = std::fs::read(&unmasked[0]).unwrap();
    ring.others_speak();
    ring.close();
    world.send(ring.relay()).await;
    levels
}

/// Attack: a study's next run trains from the same model, over a site more, whose update would be the difference.
#[tokio::test(flavor = "multi_thread")]
async fn training_from_one_model_is_answered_for_one_set_of_sites_in_all_runs() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut world, study) = masked_world(temporary.path()).await;
    let first = masked_header(&study, 1, 1, world.now());
    let mut ring = Ring::new(&first);
    world.open_round(first.clone()).await;
    world.serve_model(&study).await;
    let levels = trained(&mut world, &mut ring).await;
    announce(&mut world, &mut ring, 0..3).await;
    hear(&mut world, &mut ring).await;
    // The coordinator says that it took no sum.
    let outcome = || RoundOutcome::Abandoned("too few".into());
    world.send(ToSite::RoundClosed { round: first.key(), outcome: outcome() }).await;
    world.settle().await;
    assert_eq!(world.entered("sum_agreed", "success").await, 1);

    world.start_job(&study, job(2)).await;
    let again = RoundHeader { job: job(2), ..masked_header(&study, 1, 1, world.now()) };
    let mut ring = Ring::new(&again);
    world.open_round(again.clone()).await;
    assert_ne!(trained(&mut world, &mut ring).await, levels, "the next run has batches of its own");
    announce(&mut world, &mut ring, 0..4).await;
    let RoundReply::Withdrawn(refusal) = world.expect_reply().await else { panic!("it agrees") };
    assert!(refusal.detail.contains("already answered for another set of sites"), "{refusal}");
    world.send(ToSite::RoundClosed { round: again.key(), outcome: outcome() }).await;
    world.settle().await;
    assert_eq!(world.entered("sum_agreed", "success").await, 1);

    // An honest run with another model to start from goes on with whoever is there. Where that model is nearly the same, the
    // update still is not.
    world.start_job(&study, job(3)).await;
    let (named, close) = closest(&study);
    let anew = RoundHeader { job: job(3), model: Some(named), ..masked_header(&study, 1, 1, world.now()) };
    let mut ring = Ring::new(&anew);
    world.open_round(anew).await;
    serve(&mut world, named, close).await;
    assert_ne!(trained(&mut world, &mut ring).await, levels);
    announce(&mut world, &mut ring, 0..4).await;
    hear(&mut world, &mut ring).await;
    world.settle().await;
    assert_eq!(world.entered("sum_agreed", "success").await, 2);
}
