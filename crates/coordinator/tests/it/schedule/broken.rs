//! A database that refuses to write, at one table or another: nothing happens that is not recorded, nothing is lost,
//! and work goes on when it can be written again.

use std::time::Duration;

use hospes_coordinator::schedule::{Command, Event, RejectionCode, Reply};
use hospes_ledger::{Action, Filter, Ledger};
use hospes_protocol::id::{JobId, RoundKey};
use hospes_protocol::message::{FromSite, Hello, RoundReply};
use hospes_protocol::version::Version;

use super::peer::Act;
use super::world::{PLAN, World, caller, quick, terms};

impl World {
    /// From now on nothing can be written into a table, as on a full disk.
    async fn break_table(&self, table: &str) {
        let mut connection = self.store.read().await.unwrap();
        let sql = format!(
            "CREATE TRIGGER broken BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await.unwrap();
    }

    async fn mend(&self) {
        let mut connection = self.store.read().await.unwrap();
        sqlx::raw_sql("DROP TRIGGER broken").execute(&mut *connection).await.unwrap();
    }
}

async fn a_table_breaks_and_is_mended(table: &str) {
    let mut settings = quick();
    (settings.patience_ms, settings.grace_ms) = (10_000, 5_000);
    let mut world = World::with(4, settings, None).await;
    world.peers[0].script(|h| if h.task == "train" && h.round == 2 { Act::Slow(300) } else { Act::Work });
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let opened = |round: u32| {
        let log = world.peers[1].log.lock().unwrap();
        log.opened.iter().any(|h| h.task == "train" && h.round == round)
    };
    world.until("round 2 is open", || async { opened(2) }).await;
    world.break_table(table).await;
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert!(!opened(3), "a round was opened that is not in the ledger");
    let command = Command::Submit { terms: Box::new(terms()), plan: PLAN.to_owned(), sweep: None, by: caller() };
    if table == "ledger_entry" {
        let refused = world.command(command).await.unwrap_err();
        assert_eq!(refused.code, RejectionCode::Unavailable);
        assert_eq!(world.store.studies().await.unwrap().len(), 1, "a study was taken that is not in the ledger");
    }
    world.mend().await;
    let job = world.succeeded(study).await;
    assert_eq!(world.included(job.job).await.iter().map(|(_, _, n)| *n).collect::<Vec<_>>(), [4; 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_ledger_nothing_happens_and_with_it_work_goes_on() {
    a_table_breaks_and_is_mended("ledger_entry").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_place_for_uploads_nothing_is_confirmed_and_with_it_work_goes_on() {
    a_table_breaks_and_is_mended("uploads").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_place_for_models_nothing_is_published_and_with_it_work_goes_on() {
    a_table_breaks_and_is_mended("models").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_words_of_a_site_stop_neither_the_ledger_nor_the_job() {
    let mut world = World::new().await;
    world.peers[3].script(|h| if h.task == "train" { Act::Silence } else { Act::Work });
    world.start(None).await;
    let study = world.submit(PLAN).await;
    world
        .until("training began", || async {
            world.peers[3].log.lock().unwrap().opened.iter().any(|h| h.task == "train")
        })
        .await;
    let header = world.peers[3].log.lock().unwrap().opened.iter().find(|h| h.task == "train").unwrap().clone();
    let reason = format!("\0\u{1b}[2J\u{202e}{}", "x".repeat(100_000));
    let message = FromSite::RoundReply { round: header.key(), reply: RoundReply::Failed(reason) };
    let said = Event::Message { site: world.peers[3].id, session: 0, message };
    world.process().events.send(said).await.unwrap();
    let job = world.succeeded(study).await;
    let mut connection = world.store.read().await.unwrap();
    let filter = Filter { job: Some(job.job), ..Filter::default() };
    let page = Ledger::on(&mut *connection).page(&filter, 1_000).await.unwrap();
    let failed = page.records.iter().filter_map(|r| r.reason.as_ref()).find(|r| r.contains("xxx")).unwrap();
    assert!(failed.chars().count() <= 1_000 && !failed.contains(['\0', '\u{1b}', '\u{202e}']), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_while_nothing_can_be_written_leaves_no_ghost_and_a_refusal_is_kept() {
    let mut world = World::new().await;
    for peer in &world.peers {
        peer.online.send_replace(false);
    }
    world.start(None).await;
    let site = world.peers[0].id;
    let (out, _inbox) = tokio::sync::mpsc::channel(64);
    let now = (world.clock)();
    let hello = Hello { versions: vec![Version::V1], site, software: "test".into(), at: now, epoch: 1 };
    let events = world.process().events;
    events.send(Event::Joined { site, session: 99, hello, out }).await.unwrap();
    let open = async || match world.command(Command::Sessions).await {
        Ok(Reply::Sessions(open)) => Some(open.len()),
        _ => None,
    };
    world.until("the session is open", || async { open().await == Some(1) }).await;
    world.break_table("ledger_entry").await;
    let round = RoundKey { job: JobId::new(now, [1; 10]), task: "train".into(), epoch: 1, round: 1, attempt: 1 };
    // Both in one step, which fails.
    events.try_send(Event::UploadRefused { site, round, reason: "too short".into() }).unwrap();
    events.try_send(Event::Left { site, session: 99 }).unwrap();
    world.until("it fails", || async { open().await.is_none() }).await;
    world.mend().await;
    world.until("it works again", || async { open().await == Some(0) }).await;
    let filter = Filter { actions: vec![Action::UploadRefused], ..Filter::default() };
    let mut connection = world.store.read().await.unwrap();
    let page = Ledger::on(&mut *connection).page(&filter, 10).await.unwrap();
    assert_eq!(page.records.iter().map(|r| r.reason.as_deref()).collect::<Vec<_>>(), [Some("too short")]);
}
