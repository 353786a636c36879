//! A keychain that does not answer holds up what needs it, and nothing else.

use super::*;
use crate::keys::Drawer;

#[tokio::test(flavor = "multi_thread")]
async fn a_keychain_that_hangs_stops_neither_alarms_nor_the_deadlines_of_other_rounds() {
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    world.approve_as(&study, Approving { max_runs: 2, ..exactly(study.id) }).await;
    for n in 1..=2 {
        world.start_job(&study, job(n)).await;
    }
    world.pass_time(DAY / 2);
    for (n, length) in [(1, DAY), (2, 60 * MINUTE)] {
        let deadline = world.now().plus_millis(length);
        world.open_round(RoundHeader { deadline, ..header(&study, job(n), "train", 1, 1, world.now()) }).await;
        world.settle().await;
        world.pass_time(1);
    }
    let (digest, to) = world
        .expect("a download", |c| match c {
            LinkCommand::Download { digest, to, .. } => Some((*digest, to.clone())),
            _ => None,
        })
        .await;
    std::fs::write(&to, model(&study.plan).0).unwrap();
    // The first round's work begins; before its end is heard there is a keychain, and it hangs.
    let drawer: Arc<Drawer> = Arc::default();
    let hangs = drawer.clone();
    world
        .handle
        .ask(move |e| {
            async move {
                e.on_downloaded(federation(), digest).await?;
                Box::pin(e.go_on()).await?;
                for name in ["data-key".to_owned(), secret("identity")] {
                    hangs.put(&name, &e.vault.read(&name).await?);
                }
                hangs.stick(true);
                e.vault = hangs.vault(Duration::from_millis(200));
                Ok(())
            }
            .boxed()
        })
        .await
        .unwrap();
    drawer.stuck().await;
    // A day since anybody cosigned the log, and half of one of the first round's.
    world.pass_time(DAY / 2 + MINUTE);
    let ended = |c: &LinkCommand| match c {
        LinkCommand::Send(FromSite::RoundReply { round, reply }) => {
            (round.job == job(2) && *reply != RoundReply::Working).then(|| reply.clone())
        }
        _ => None,
    };
    let reply = world.expect("the end of the other round", ended).await;
    assert!(matches!(reply, RoundReply::Failed(_) | RoundReply::Withdrawn(_)), "{reply:?}");
    world.expect_alarm("nobody cosigned this site's log").await;
    assert!(world.outbox_states().await.is_empty());
    // It answers again: what was made is recorded, and leaves.
    drawer.stick(false);
    let upload = loop {
        world.pass_time(MINUTE);
        let uploads = |c: &LinkCommand| match c {
            LinkCommand::Upload { upload, .. } => Some(upload.round().job),
            _ => None,
        };
        if let Some(found) = world.wait_for(Duration::from_secs(2), uploads).await {
            break found;
        }
    };
    assert_eq!(upload, job(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_left_has_no_link_at_once_and_its_keys_are_destroyed_once_that_can_be_done() {
    let mut world = World::new().await;
    world.connect().await;
    let (drawer, names) = (Arc::<Drawer>::default(), ["tls", "proxy"].map(secret));
    names.iter().for_each(|name| drawer.put(name, b"pem"));
    drawer.stick(true);
    let hangs = drawer.vault(Duration::from_millis(200));
    world
        .handle
        .ask(move |e| {
            async move {
                e.vault = hangs;
                Ok(())
            }
            .boxed()
        })
        .await
        .unwrap();
    world.handle.leave(world.who("ana"), federation(), "we merge".into()).await.unwrap();
    world.expect("the end", |c| matches!(c, LinkCommand::Close).then_some(())).await;
    assert!(names.iter().all(|name| drawer.holds(name)));
    // It answers again.
    drawer.stick(false);
    while names.iter().any(|name| drawer.holds(name)) {
        world.pass_time(MINUTE);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let unfinished = || {
        world.handle.ask(|e| {
            async move {
                let sql = "SELECT COUNT(*) FROM settings WHERE key LIKE 'leaving/%'";
                let count: i64 = sqlx::query_scalar(sql).fetch_one(e.store.readers()).await.unwrap();
                Ok(count)
            }
            .boxed()
        })
    };
    while unfinished().await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Name of a secret of this site.
fn secret(what: &str) -> String {
    format!("{what}/{}", this_site().public().site_id())
}
