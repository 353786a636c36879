//! The privacy ledger: one budget of each patient, over datasets, studies and federations.

use hospes_cohort::Released;
use hospes_privacy::dp::Release;
use hospes_protocol::approval::{Refusal, RefusalCode};
use hospes_protocol::id::{DatasetId, RoundKey};
use hospes_protocol::message::Witness;

use super::federations::{connect_there, offer_there, other_study};
use super::*;
use crate::error::PartyError;
use crate::pools::{self, Charge, Spending};
use crate::store::At as _;
use crate::view::{AuditQuery, PoolView};

/// Of sums over everybody with five times the noise, the strict budget (ε = 8, δ = 1e-6) admits 52: what the order of the
/// filter is worth, 4.63 at 4.4, by 4.4/(2·5²) for each.
const MOST: u64 = 52;

/// Charges a pool for a round with so many of them, as the step would that enters its payload.
pub(super) async fn spend(
    world: &World,
    study: StudyId,
    pool: DatasetId,
    round: u32,
    times: u64,
) -> Result<(), Refusal> {
    let key = RoundKey { job: job(9), task: "train".into(), epoch: 1, round, attempt: 1 };
    let charge = Charge::Bounded(Release::new(1.0, 5.0, times).unwrap());
    let charged = world.handle.ask(move |e| {
        async move {
            let mut tx = e.store.begin("a test").await?;
            let rules = crate::requests::policy::current(tx.conn()).await?.privacy;
            let spending = Spending { key: &key, study, pool: Some(pool), charge };
            if let Some(refusal) = pools::against(tx.conn(), &spending, &rules).await? {
                // What is refused cannot be spent either.
                assert!(pools::spend(&mut tx, &spending, &rules, e.now()).await.is_err());
                return Ok(Err(refusal));
            }
            pools::spend(&mut tx, &spending, &rules, e.now()).await?;
            tx.commit().await?;
            Ok::<_, PartyError>(Ok(()))
        }
        .boxed()
    });
    charged.await.unwrap()
}

#[test]
fn a_bound_is_charged_only_for_the_steps_that_the_worker_took_with_noise() {
    let charge = Charge::Bounded(Release::new(0.1, 1.0, 5).unwrap());
    assert!(charge.is_met(Some(Released { steps: 5 })));
    for other in [None, Some(Released { steps: 4 }), Some(Released { steps: 6 })] {
        assert!(!charge.is_met(other), "{other:?}");
    }
    assert!(Charge::Unprotected.is_met(None));
}

async fn accounts(world: &World) -> Vec<PoolView> {
    world.handle.privacy(world.who("odo")).await.unwrap()
}

/// A site with a study of each of two federations that both read its one dataset.
async fn with_two_studies() -> (World, Study, Study) {
    let mut world = World::new().await;
    let (first, second) = (study(1, small_plan(1)), other_study());
    world.connect().await;
    world.offer(&first).await;
    connect_there(&mut world).await;
    offer_there(&world, &second).await;
    (world, first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_federations_study_spent_refuses_anothers() {
    let (world, first, second) = with_two_studies().await;
    let pool = accounts(&world).await.remove(0);
    assert_eq!((pool.patients, pool.account.spent, pool.account.share), (303, 0.0, 0.0));
    spend(&world, first.id, pool.id, 1, 30).await.unwrap();
    let refused = spend(&world, second.id, pool.id, 2, 30).await.unwrap_err();
    assert!(refused.detail.contains("is spent") && refused.detail.contains("of at most 8"), "{refused}");
    // The other coordinator learns no more than after an opt-out.
    assert_eq!(refused.code, RefusalCode::Snapshot);
    assert!(!refused.outward().detail.contains("budget"));
    // A round is charged once, whoever asks again.
    spend(&world, first.id, pool.id, 1, 30).await.unwrap();
    spend(&world, second.id, pool.id, 2, MOST - 30).await.unwrap();
    spend(&world, second.id, pool.id, 3, 1).await.unwrap_err();
    let pool = accounts(&world).await.remove(0);
    assert!(pool.account.share > 0.98 && pool.account.spent <= 8.0, "{:?}", pool.account);
    let of = |study: &Study| pool.studies.iter().find(|s| s.study == study.id).unwrap();
    let federations = [&first, &second].map(|study| of(study).federation_name.as_str());
    assert_eq!(federations, ["Heart Federation", "Lung Federation"]);
    for study in [of(&first), of(&second)] {
        // The number that is reported lies below its cross-check, and both below what all have together.
        let (epsilon, renyi) = (study.epsilon.unwrap(), study.renyi.unwrap());
        assert!(0.0 < epsilon && epsilon < renyi && renyi < pool.account.spent, "{study:?}");
        assert_eq!((study.bounded, study.unprotected), (1, 0));
    }
    assert_eq!(pool.points.len(), 1, "one task of one run");
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_the_same_patients_again_is_no_new_budget() {
    let (world, first, _) = with_two_studies().await;
    let pool = accounts(&world).await.remove(0);
    spend(&world, first.id, pool.id, 1, 30).await.unwrap();
    let before = accounts(&world).await.remove(0);
    world.add_dataset("The same", "cleveland.csv", true).await;
    world.add_dataset("Cleveland", "cleveland.csv", true).await;
    let after = accounts(&world).await;
    assert_eq!((after.len(), &after[0].account, after[0].patients), (1, &before.account, 303));
    assert_eq!(after[0].datasets.len(), 3, "{:?}", after[0].datasets);
    spend(&world, first.id, pool.id, 2, 30).await.unwrap_err();
    // Others have their own, until a dataset has some of both: then each patient has paid the larger of the two.
    world.pass_time(MINUTE);
    world.add_dataset("Hungary", "hungary.csv", true).await;
    let apart = accounts(&world).await;
    assert_eq!((apart.len(), apart[1].account.share), (2, 0.0));
    spend(&world, first.id, apart[1].id, 3, 10).await.unwrap();
    let both = world.folder.with_file_name("both.csv");
    let file = |name: &str| std::fs::read_to_string(heart(name)).unwrap();
    let (some, others) = (file("cleveland.csv"), file("hungary.csv"));
    let lines: Vec<&str> = some.lines().take(20).chain(others.lines().skip(1).take(20)).collect();
    std::fs::write(&both, lines.join("\n")).unwrap();
    world.add_dataset("Both", both.to_str().unwrap(), true).await;
    let joined = accounts(&world).await;
    assert_eq!((joined.len(), joined[0].id, joined[0].patients), (1, pool.id, 303 + 294));
    assert_eq!((joined[0].account.spent, joined[0].account.share), (before.account.spent, before.account.share));
    assert_eq!(joined[0].studies[0].bounded, 2);
    // Whose datasets are removed stays in it.
    for dataset in world.handle.datasets(world.who("sam")).await.unwrap() {
        world.handle.remove_dataset(world.who("sam"), dataset.id, "a test".into()).await.unwrap();
    }
    world.add_dataset("Anew", "hungary.csv", true).await;
    let anew = accounts(&world).await;
    assert_eq!((anew.len(), &anew[0].account), (1, &joined[0].account));
    assert_eq!(anew[0].datasets, ["Anew"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_without_noise_is_entered_as_such_with_its_payload() {
    let (world, study, upload, path) = World::on_the_wire().await;
    assert_eq!(world.unprotected().await, 1);
    world.take(&upload, &path).await;
    world.settle().await;
    assert_eq!(world.unprotected().await, 1);
    let pool = accounts(&world).await.remove(0);
    assert_eq!((pool.studies[0].study, pool.studies[0].unprotected, pool.studies[0].epsilon), (study.id, 1, None));
    assert_eq!((pool.points[0].task.as_str(), pool.points[0].unprotected), ("train", 1));
    let query = AuditQuery { limit: 1_000, ..AuditQuery::default() };
    let log = world.handle.audit(world.who("odo"), query).await.unwrap().entries;
    let prepared = log.iter().find(|line| line.action == "update_prepared").unwrap();
    let charged = prepared.parts.about.iter().find(|o| o.kind == hospes_ledger::ObjectKind::Pool).unwrap();
    assert_eq!((charged.id.clone(), charged.digest.is_some()), (format!("{} unprotected", pool.id), true));
    // Who reads the request sees both: what it releases, and that no bound holds.
    let review = world.handle.review(world.who("sam"), study.id, None).await.unwrap();
    let budget = review.privacy.as_ref().unwrap();
    assert_eq!((budget.account.unprotected, budget.epsilon, budget.fits), (1, None, true));
    assert!(budget.unprotected.contains(&"train".to_owned()), "{budget:?}");
    let text = crate::requests::text::render(&review).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("no bound holds"), "{text}");
    // A site of before had no pools: it finds its patients, and what left of them.
    let forgotten = world.handle.ask(|e| {
        async move {
            let mut tx = e.store.begin("a test").await?;
            for sql in ["UPDATE datasets SET pool = NULL", "DELETE FROM spendings", "DELETE FROM pools"] {
                sqlx::query(sql).execute(tx.conn()).await.at("a test")?;
            }
            tx.commit().await
        }
        .boxed()
    });
    forgotten.await.unwrap();
    assert!(accounts(&world).await.is_empty());
    world.handle.shut_down().await.unwrap();
    let folder = world.folder.parent().unwrap().to_owned();
    let back = World::reopen(&folder, Executor::Thread, world.now().as_millis()).await;
    let again = accounts(&back).await.remove(0);
    assert_eq!((again.id, again.patients, again.account.unprotected), (pool.id, pool.patients, 1));
    drop(world);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_bounded_leaves_only_when_its_charge_is_witnessed() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    let (upload, _) = world.expect_upload().await;
    // As if the round had noise.
    let release = crate::store::to_json(&Release::new(0.1, 5.0, 10).unwrap());
    let bounded = world.handle.ask(move |e| {
        async move {
            let mut tx = e.store.begin("a test").await?;
            sqlx::query("UPDATE spendings SET release = ?1").bind(release).execute(tx.conn()).await.at("a test")?;
            tx.commit().await
        }
        .boxed()
    });
    bounded.await.unwrap();
    world.event(LinkEvent::Disconnected { reason: "a test".into(), retry_in: Duration::ZERO }).await;
    world.connect().await;
    let note = world
        .expect("a checkpoint", |c| match c {
            LinkCommand::Upload { .. } => panic!("it was handed over before its charge was witnessed"),
            LinkCommand::Send(FromSite::Witness(Witness::Show { checkpoint, .. })) => Some(checkpoint.clone()),
            _ => None,
        })
        .await;
    world.never("an upload", |c| matches!(c, LinkCommand::Upload { .. }).then_some(())).await;
    let shown = hospes_ledger::SignedCheckpoint::parse(&note, &this_site().public()).unwrap();
    let cosignature = shown.checkpoint().cosign(&coordinator(), world.now()).line();
    let (origin, size) = (this_site().public().site_id(), shown.checkpoint().size);
    world.send(ToSite::Witness(Witness::Cosigned { origin, size, witness: federation(), cosignature })).await;
    let (again, path) = world.expect_upload().await;
    assert_eq!(again.digest(), upload.digest());
    world.take(&again, &path).await;
}
