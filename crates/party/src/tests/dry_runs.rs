//! A dry run: what would leave is seen by this site's people, in the log, and leaves nowhere.

use hospes_protocol::plan::{Init, Layer, Linear};
use hospes_protocol::text::in_bytes;

use super::crash::{process, script_that, worker_program};
use super::faults::{fill_database, limit_database};
use super::share::{always_quiet, begun, until, with_waiting_workers};
use super::*;
use crate::error::PartyError;
use crate::requests::text::render;
use crate::view::{
    Attack, ComputeLimits, DryMessage, DryRunState, DryRunView, DryRunWait, DryStart, Preview, TaskState, Verdict,
};

/// A site whose work is done by this program, at which a request waits.
async fn asked(folder: &Path, program: PathBuf) -> (World, Study) {
    let now = crate::config::system_clock()().as_millis();
    let mut world = World::create_at(folder, Executor::Child { program }, now).await;
    world.furnish().await;
    let study = study(1, small_plan(2));
    world.connect().await;
    world.offer(&study).await;
    (world, study)
}

/// The same with workers that are threads, and a clock that stands still.
async fn asked_of_threads() -> (World, Study) {
    let mut world = World::new().await;
    let study = study(1, small_plan(2));
    world.connect().await;
    world.offer(&study).await;
    (world, study)
}

async fn start(world: &World, study: &Study) {
    world.handle.start_dry_run(world.who("sam"), study.id, None, false).await.unwrap();
}

async fn look(world: &World, study: &Study) -> DryRunView {
    world.handle.dry_run(world.who("ava"), study.id).await.unwrap().expect("there is no dry run")
}

/// Waits until it is in one of these states.
async fn in_state(world: &World, study: &Study, states: &[DryRunState]) -> DryRunView {
    for _ in 0..1_500 {
        let view = look(world, study).await;
        if states.contains(&view.state) {
            return view;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not come to that: {:?}", look(world, study).await);
}

async fn over(world: &World, study: &Study) -> DryRunView {
    in_state(world, study, &[DryRunState::Done, DryRunState::Stopped, DryRunState::Failed]).await
}

fn scratch_files(world: &World) -> usize {
    std::fs::read_dir(world.config.scratch()).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dry_run_shows_is_byte_for_byte_what_the_first_rounds_send_and_nothing_leaves_before() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut world, study) = asked(temporary.path(), worker_program()).await;
    start(&world, &study).await;
    let tried = over(&world, &study).await;
    assert_eq!((tried.state, tried.reason.as_deref(), tried.runs), (DryRunState::Done, None, 1), "{tried:?}");
    assert_eq!((tried.dataset_name.as_str(), tried.by.as_str()), ("Cleveland", "sam"));
    let [eval, train] = [1, 0].map(|at| &tried.messages[at]);
    let of = |message: &DryMessage| (message.task.clone(), message.rounds, message.start, message.state);
    assert_eq!(of(train), ("train".into(), 2, DryStart::Plan, TaskState::Done));
    assert_eq!(of(eval), ("eval".into(), 1, DryStart::Untrained, TaskState::Done));
    let [train, eval] = [train, eval].map(|message| message.made.clone().expect("nothing was made"));
    assert_eq!(tried.bytes, train.bytes + eval.bytes);
    assert_eq!((train.bytes, train.values), (8 + 14 * 4, 14));
    let Preview::Update { tensors, .. } = &train.preview else { panic!("{:?}", train.preview) };
    assert_eq!(tensors.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["0.weight", "0.bias"]);
    let Preview::Figures(sums) = &eval.preview else { panic!("{:?}", eval.preview) };
    assert!(sums.contains_key("confusion") && eval.withheld.is_empty(), "{sums:?}");

    // Nothing is on its way: no row, no payload, no permit, and no word to the coordinator.
    assert!(world.outbox_states().await.is_empty());
    assert_eq!((world.payload_files(), scratch_files(&world)), (0, 0));
    let of_work = |c: &LinkCommand| match c {
        LinkCommand::Upload { .. } | LinkCommand::Download { .. } => Some(()),
        LinkCommand::Send(FromSite::RoundReply { .. } | FromSite::Progress { .. }) => Some(()),
        _ => None,
    };
    world.never("anything of work", of_work).await;
    for action in ["permit_minted", "training_started", "update_prepared", "update_leaving"] {
        assert_eq!(world.entered(action, "success").await, 0, "{action}");
    }
    // It was begun, it gave two messages, and it ended; each of them by its digest.
    assert_eq!(world.entered("dry_run", "success").await, 4);
    world.assert_ledger_intact().await;

    world.approve(&study).await;
    let signed = render(&world.handle.review(world.who("ava"), study.id, None).await.unwrap());
    let signed = signed.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(signed.contains("Checklist: Dry run on this machine:"), "{signed}");
    assert!(signed.contains(&format!("2 messages of {}, 0 tasks that gave none", in_bytes(tried.bytes))), "{signed}");
    world.start_job(&study, job(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    let sent = world.take(&upload, &path).await;
    assert_eq!((upload.digest(), sent.len() as u64), (train.digest, train.bytes));
    // This coordinator evaluates the model that the plan begins with.
    world.open_round(header(&study, job(1), "eval", 1, 1, world.now())).await;
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
    assert_eq!(upload.digest(), eval.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_are_tried_on_what_training_sends_where_they_are_asked_for() {
    let (world, study) = asked_of_threads().await;
    world.handle.start_dry_run(world.who("sam"), study.id, None, true).await.unwrap();
    let tried = over(&world, &study).await;
    assert_eq!((tried.state, tried.attack), (DryRunState::Done, true), "{tried:?}");
    let found = |at: usize| tried.messages[at].made.as_ref().expect("nothing was made").attack.clone();
    let Some(Attack::Found(scores)) = found(0) else { panic!("{tried:?}") };
    assert_eq!((scores.rounds, scores.planned, scores.membership.len(), scores.inversion.len()), (2, 2, 1, 1));
    assert_eq!(found(1), None, "an evaluation sends no update");
    // Begun, two messages, ended: no entries of its own.
    assert_eq!(world.entered("dry_run", "success").await, 4);
    world.handle.stop_dry_run(world.who("sam"), study.id).await.unwrap();
    assert_eq!(world.handle.dry_run(world.who("sam"), study.id).await.unwrap(), None);
    // Without attacks, none is tried.
    start(&world, &study).await;
    let tried = over(&world, &study).await;
    assert!(!tried.attack && tried.messages[0].made.as_ref().is_some_and(|made| made.attack.is_none()), "{tried:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_is_for_people_who_may_see_the_data_of_a_request_that_waits() {
    let (mut world, study) = asked_of_threads().await;
    world.add_person("xara", Role::DataAccessApprover, Some("Data access committee")).await;
    for name in ["ana", "odo", "xara"] {
        let started = world.handle.start_dry_run(world.who(name), study.id, None, false).await;
        assert!(matches!(started, Err(PartyError::Denied { .. })), "{name}: {started:?}");
        let seen = world.handle.dry_run(world.who(name), study.id).await;
        assert!(matches!(seen, Err(PartyError::Denied { .. })), "{name}");
        let stopped = world.handle.stop_dry_run(world.who(name), study.id).await;
        assert!(matches!(stopped, Err(PartyError::Denied { .. })), "{name}: {stopped:?}");
    }
    assert_eq!(world.entered("role_refused", "refused").await, 9);
    // Two datasets fit, and none is named; then one that is not there.
    let other = world.add_dataset("Hungary", "hungary.csv", true).await;
    let unnamed = world.handle.start_dry_run(world.who("sam"), study.id, None, false).await;
    assert!(matches!(&unnamed, Err(PartyError::Input { place: "dataset", .. })), "{unnamed:?}");
    world.handle.remove_dataset(world.who("sam"), other.id, "a test".into()).await.unwrap();
    let removed = world.handle.start_dry_run(world.who("sam"), study.id, Some(other.id), false).await;
    assert!(matches!(removed, Err(PartyError::NotFound(_))), "{removed:?}");
    // The privacy officer may look before giving an opinion.
    world.handle.start_dry_run(world.who("pia"), study.id, None, false).await.unwrap();
    assert_eq!(over(&world, &study).await.state, DryRunState::Done);
    let refuse = Verdict::Refuse { reason: "not our field".into() };
    world.handle.decide(world.who("sam"), study.id, refuse).await.unwrap();
    let refused = world.handle.start_dry_run(world.who("sam"), study.id, None, false).await;
    assert!(matches!(&refused, Err(PartyError::State(words)) if words.contains("refused")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_over_is_not_tried() {
    let (mut world, study) = asked_of_threads().await;
    let mut policy = Policy::public_data();
    policy.approval.expires_days = 1;
    world.set_policy(&policy).await;
    world.approve(&study).await;
    let active = world.handle.start_dry_run(world.who("sam"), study.id, None, false).await;
    assert!(matches!(&active, Err(PartyError::State(words)) if words.contains("active")), "{active:?}");
    world.pass_time(2 * DAY);
    for _ in 0..200 {
        if world.entered("approval_expired", "success").await == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let expired = world.handle.start_dry_run(world.who("sam"), study.id, None, false).await;
    assert!(matches!(&expired, Err(PartyError::State(words)) if words.contains("expired")), "{expired:?}");
    let other = super::study(2, small_plan(1));
    world.offer(&other).await;
    world.send(ToSite::StudyWithdrawn { study: other.id }).await;
    world.settle().await;
    let withdrawn = world.handle.start_dry_run(world.who("sam"), other.id, None, false).await;
    assert!(matches!(&withdrawn, Err(PartyError::State(words)) if words.contains("withdrawn")), "{withdrawn:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_could_sign_or_show_is_refused_and_entered() {
    let (mut world, study) = asked_of_threads().await;
    world.set_policy(&Policy::strict()).await;
    let refused = world.handle.start_dry_run(world.who("sam"), study.id, None, false).await;
    assert!(matches!(&refused, Err(PartyError::Refused(_))), "{refused:?}");
    assert_eq!(world.entered("dry_run", "refused").await, 1);
    world.set_policy(&Policy::public_data()).await;
    let mut plan = small_plan(1);
    let Some(Component::NnTrain(train)) = plan.tasks.get_mut("train").map(|task| &mut task.component) else { panic!() };
    let linear = |out| Layer::Linear(Linear { out, bias: true, init: Init::TorchDefault });
    train.model = vec![linear(6_000_000), linear(1)].into();
    let large = super::study(2, plan);
    world.offer(&large).await;
    let refused = world.handle.start_dry_run(world.who("sam"), large.id, None, false).await;
    assert!(matches!(&refused, Err(PartyError::Refused(r)) if r.detail.contains("DRY_RUN_BYTES")), "{refused:?}");
    assert_eq!(world.entered("dry_run", "refused").await, 2);
    world.handle.stop(world.who("ana"), Some("a break-in".into())).await.unwrap();
    let refused = world.handle.start_dry_run(world.who("sam"), study.id, None, false).await;
    assert!(matches!(&refused, Err(PartyError::Refused(r)) if r.detail.contains("stopped all work")), "{refused:?}");
    assert!(world.handle.dry_run(world.who("sam"), study.id).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_a_rule_refuses_is_shown_as_refused_and_the_others_are_tried() {
    let mut world = World::new().await;
    // Of the two, only what is counted before a row is read stands against a signature; this is found with the rows.
    let mut policy = Policy::public_data();
    policy.disclosure.min_subset = 150;
    world.set_policy(&policy).await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    start(&world, &study).await;
    let tried = over(&world, &study).await;
    assert_eq!(tried.state, DryRunState::Done, "{tried:?}");
    let [train, eval] = [0, 1].map(|at| &tried.messages[at]);
    assert_eq!((train.state, train.made.is_none()), (TaskState::Failed, true));
    assert!(train.failure.as_ref().is_some_and(|why| why.contains("disclosure.min_subset")), "{train:?}");
    let made = eval.made.as_ref().expect("figures are told of less, and not refused");
    assert!(!made.withheld.is_empty(), "{made:?}");
    assert_eq!(world.entered("dry_run", "failed").await, 1);
    // Under other rules it might have held more back: it is forgotten.
    policy.disclosure.local_views = hospes_protocol::policy::LocalViews::Suppressed;
    world.set_policy(&policy).await;
    let view = look(&world, &study).await;
    assert_eq!((view.state, view.bytes), (DryRunState::Stopped, 0));
    assert!(view.reason.as_ref().is_some_and(|why| why.contains("policy changed")), "{view:?}");
    assert!(view.messages.iter().all(|m| m.made.is_none() && m.failure.is_none()), "{view:?}");
    // On a screen that others see, the reason names no count.
    start(&world, &study).await;
    let why = over(&world, &study).await.messages.remove(0).failure.unwrap();
    assert_eq!(why, hospes_cohort::Outward::Disclosure.words());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_entered_in_the_log_is_not_shown() {
    let (world, study) = asked_of_threads().await;
    let (session, id) = (world.who("sam").clone(), study.id);
    // It begins while there is room; before the engine hears what was made there is none.
    world
        .handle
        .ask(move |e| {
            async move {
                e.start_dry_run(session, id, None, false).await?;
                Box::pin(e.go_on_with_dry_run()).await?;
                limit_database(e, Some(0)).await;
                fill_database(e).await;
                // What is left in the log's own pages.
                let small = e.entry(hospes_ledger::Actor::Engine, hospes_ledger::Action::EngineStarted);
                while e.record("fill the log", &small).await.is_ok() {}
                Ok(())
            }
            .boxed()
        })
        .await
        .unwrap();
    let tried = over(&world, &study).await;
    assert_eq!((tried.state, tried.bytes), (DryRunState::Failed, 0));
    assert!(tried.reason.as_ref().is_some_and(|why| why.contains("could not be entered")), "{tried:?}");
    assert!(tried.messages.iter().all(|m| m.made.is_none() && m.failure.is_none()), "{tried:?}");
    // Who reads the log is in it.
    world
        .handle
        .ask(|e| {
            async {
                limit_database(e, None).await;
                Ok(())
            }
            .boxed()
        })
        .await
        .unwrap();
    assert_eq!(world.entered("dry_run", "success").await, 1, "that it was begun");
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_privacy_officer_holds_is_not_tried() {
    let (mut world, study) = asked_of_threads().await;
    world.approve(&study).await;
    // Somebody signs it anew, as if it waited for nothing but a second signature.
    world.sign("sam", exactly(study.id)).await.unwrap();
    let suspend = Verdict::Suspend { reason: "patients complained".into() };
    world.handle.decide(world.who("pia"), study.id, suspend).await.unwrap();
    let refused = world.handle.start_dry_run(world.who("sam"), study.id, None, false).await;
    assert!(matches!(&refused, Err(PartyError::Refused(r)) if r.detail.contains("suspended it")), "{refused:?}");
    assert_eq!(world.entered("dry_run", "refused").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_ends_the_dry_run_and_another_can_be_made() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut world, study) = asked(temporary.path(), PathBuf::from("/bin/false")).await;
    for n in 1..=2 {
        start(&world, &study).await;
        let tried = over(&world, &study).await;
        assert_eq!(tried.state, DryRunState::Failed, "{tried:?}");
        assert!(tried.reason.as_ref().is_some_and(|why| why.contains("worker process failed")), "{tried:?}");
        assert!(tried.messages.iter().all(|m| m.made.is_none() && m.state == TaskState::Skipped), "{tried:?}");
        assert_eq!(world.entered("dry_run", "failed").await, n);
    }
    assert_eq!((world.payload_files(), scratch_files(&world)), (0, 0));
    world.never("an upload", |c| matches!(c, LinkCommand::Upload { .. }).then_some(())).await;
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_is_stopped_at_once_and_forgotten_when_somebody_says_so() {
    let scripts = tempfile::tempdir().unwrap();
    let (script, pid) = script_that(scripts.path(), "exec sleep 1000");
    let temporary = tempfile::tempdir().unwrap();
    let (world, study) = asked(temporary.path(), script).await;
    start(&world, &study).await;
    let process = process(&pid).await;
    let view = look(&world, &study).await;
    assert_eq!((view.state, view.messages[0].state), (DryRunState::Running, TaskState::Working));
    let second = world.handle.start_dry_run(world.who("pia"), study.id, None, false).await;
    assert!(matches!(&second, Err(PartyError::State(words)) if words.contains("under way")), "{second:?}");
    world.handle.stop_dry_run(world.who("ava"), study.id).await.unwrap();
    until("the worker is gone", || !process.exists()).await;
    assert_eq!(look(&world, &study).await.state, DryRunState::Stopped);
    assert_eq!(world.entered("dry_run", "success").await, 2, "it was begun, and a person stopped it");
    world.handle.stop_dry_run(world.who("ava"), study.id).await.unwrap();
    assert!(world.handle.dry_run(world.who("ava"), study.id).await.unwrap().is_none());
    let gone = world.handle.stop_dry_run(world.who("ava"), study.id).await;
    assert!(matches!(gone, Err(PartyError::NotFound(_))), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_ends_with_its_time_with_the_request_and_with_a_stop_of_everything() {
    for end in ["time", "withdrawal", "approval", "stop"] {
        let scripts = tempfile::tempdir().unwrap();
        let (script, pid) = script_that(scripts.path(), "exec sleep 1000");
        let temporary = tempfile::tempdir().unwrap();
        let (mut world, study) = asked(temporary.path(), script).await;
        start(&world, &study).await;
        let process = process(&pid).await;
        let words = match end {
            "time" => {
                world.pass_time(limits::DRY_RUN_MS);
                "limit DRY_RUN_MS"
            }
            "withdrawal" => {
                world.send(ToSite::StudyWithdrawn { study: study.id }).await;
                "does not wait for a decision"
            }
            "approval" => {
                world.approve(&study).await;
                "does not wait for a decision"
            }
            _ => {
                world.handle.stop(world.who("ana"), Some("a break-in".into())).await.unwrap();
                "stopped all work"
            }
        };
        let view = over(&world, &study).await;
        assert_eq!(view.state, DryRunState::Stopped, "{end}");
        assert!(view.reason.as_ref().is_some_and(|why| why.contains(words)), "{end}: {view:?}");
        until("the worker is gone", || !process.exists()).await;
        assert_eq!(world.entered("dry_run", "refused").await, 1, "{end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_gives_way_to_a_round_and_begins_its_task_anew() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut world, log, go) = with_waiting_workers(temporary.path()).await;
    let approved = world.running(small_plan(1)).await;
    let waiting = study(2, small_plan(1));
    world.offer(&waiting).await;
    start(&world, &waiting).await;
    let (first, _) = begun(&log, 1).await.remove(0);
    world.open_round(header(&approved, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&approved).await;
    begun(&log, 2).await;
    let view = in_state(&world, &waiting, &[DryRunState::Waiting]).await;
    assert_eq!(view.waits, Some(DryRunWait::Rounds));
    until("the first worker is gone", || !Path::new(&format!("/proc/{first}")).exists()).await;
    std::fs::write(&go, "").unwrap();
    let (upload, path) = world.expect_upload().await;
    assert_eq!(upload.round().job, job(1));
    world.take(&upload, &path).await;
    let tried = over(&world, &waiting).await;
    assert_eq!((tried.state, tried.messages.len()), (DryRunState::Done, 2), "{tried:?}");
    // The same plan on the same rows, begun from the same model.
    assert_eq!(tried.messages[0].made.as_ref().map(|made| made.digest), Some(upload.digest()));
    assert_eq!(world.outbox_states().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_that_never_gets_through_ends() {
    let scripts = tempfile::tempdir().unwrap();
    let (script, _) = script_that(scripts.path(), "exec sleep 1000");
    let temporary = tempfile::tempdir().unwrap();
    let (world, study) = asked(temporary.path(), script).await;
    start(&world, &study).await;
    for _ in 0..limits::ROUND_ATTEMPTS {
        in_state(&world, &study, &[DryRunState::Running]).await;
        for share in [always_quiet(), ComputeLimits::default()] {
            world.handle.set_compute_limits(world.who("ana"), share).await.unwrap();
        }
    }
    let view = over(&world, &study).await;
    assert_eq!(view.state, DryRunState::Stopped);
    assert!(view.reason.as_ref().is_some_and(|why| why.contains("ROUND_ATTEMPTS")), "{view:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_hours_hold_a_dry_run_and_somebody_at_the_machine_does_not() {
    let (world, study) = asked_of_threads().await;
    world.handle.set_compute_limits(world.who("ana"), always_quiet()).await.unwrap();
    start(&world, &study).await;
    world.settle().await;
    let view = look(&world, &study).await;
    assert_eq!(view.state, DryRunState::Waiting);
    assert!(matches!(view.waits, Some(DryRunWait::QuietHours { .. })), "{view:?}");
    // Whoever looks at it works in the window.
    let yields = ComputeLimits { yields: true, ..ComputeLimits::default() };
    world.handle.set_compute_limits(world.who("ana"), yields).await.unwrap();
    assert_eq!(over(&world, &study).await.state, DryRunState::Done);
    assert!(world.handle.status().await.unwrap().pause.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_of_somebody_who_opted_out_is_forgotten_and_not_signed_for() {
    let (mut world, study) = asked_of_threads().await;
    start(&world, &study).await;
    assert_eq!(over(&world, &study).await.state, DryRunState::Done);
    let list = world.folder.join("opt-outs.txt");
    std::fs::write(&list, "cleveland-001\n").unwrap();
    world.handle.import_opt_outs(world.who("sam"), list).await.unwrap();
    let view = look(&world, &study).await;
    assert_eq!((view.state, view.bytes), (DryRunState::Stopped, 0));
    assert!(view.messages.iter().all(|message| message.made.is_none()), "{view:?}");
    // Nor does the signer's own word stand in for it.
    let checklist = BTreeMap::from([("Dry run on this machine".to_owned(), "nothing to see".to_owned())]);
    world.approve_as(&study, Approving { checklist, ..exactly(study.id) }).await;
    let signed = render(&world.handle.review(world.who("ava"), study.id, None).await.unwrap());
    assert!(!signed.contains("Dry run on this machine"), "{signed}");
}
