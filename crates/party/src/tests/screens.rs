//! What the app's screens ask for: who is there, what a policy would do, what data were used for, how far a run is.

use std::time::Duration;

use hospes_ledger::ObjectKind;

use super::*;
use crate::error::PartyError;
use crate::view::{
    AuditLine, AuditQuery, LogLevel, Notice, PolicyEffect, Protection, RequestState, RoundState, TaskState, TaskView,
};

/// A site that trained one round of two, whose update was taken.
async fn under_way() -> (World, Study, RoundHeader) {
    let mut world = World::new().await;
    let (study, round) = world.first_round(small_plan(2)).await;
    (world, study, round)
}

async fn task(world: &World, name: &str) -> TaskView {
    let run = world.handle.job(world.who("sam"), job(1), Page::default()).await.unwrap();
    run.tasks.into_iter().find(|task| task.name == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_who_they_are_and_when_their_session_ends() {
    let world = World::new().await;
    let me = world.handle.whoami(world.who("sam")).await.unwrap();
    assert_eq!((me.name.as_str(), me.organisation), ("sam", None));
    assert_eq!(me.roles, BTreeSet::from([Role::DataSteward]));
    let idle = world.config.session_idle_ms;
    assert_eq!(me.ends, world.now().plus_millis(idle));
    // A screen that asks by itself does not put off the end.
    let began = world.now();
    world.pass_time(MINUTE);
    let mut looks_on = world.who("sam").clone();
    looks_on.looks_on(true);
    assert_eq!(world.handle.whoami(&looks_on).await.unwrap().ends, began.plus_millis(idle));
    world.pass_time(idle);
    let ended = world.handle.whoami(world.who("sam")).await;
    assert!(matches!(ended, Err(PartyError::NoSession)), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_shows_how_far_each_task_is_and_what_happened() {
    let (world, _study, round) = under_way().await;
    let read = world.handle.job(world.who("sam"), job(1), Page::default()).await.unwrap();
    assert_eq!(read.tasks.len(), small_plan(2).tasks.len());
    let train = task(&world, "train").await;
    assert_eq!((train.state, train.rounds, train.component.as_str()), (Some(TaskState::Working), 1, "nn_train"));
    let from: Vec<_> = train.inputs.iter().map(|input| (input.port.as_str(), input.task.as_str())).collect();
    assert!(from.iter().any(|(port, _)| *port == "train"), "{from:?}");
    // What stays within others has no state of its own; what comes later waits.
    let tasks = &read.tasks;
    assert!(tasks.iter().any(|t| t.component == "reader" && t.state.is_none()), "{tasks:?}");
    assert!(tasks.iter().any(|t| t.component == "evaluation" && t.state == Some(TaskState::Waiting)), "{tasks:?}");
    assert!(world.handle.jobs(world.who("ana"), Page::default()).await.unwrap()[0].tasks.is_empty());

    let log = world.handle.job_log(world.who("ana"), job(1)).await.unwrap();
    let place = Some("train 1".to_owned());
    assert!(log.is_sorted_by_key(|line| line.at), "{log:?}");
    assert!(log.iter().any(|l| l.words.starts_with("training started") && l.place == place), "{log:?}");
    assert!(log.iter().all(|line| line.level == LogLevel::Info), "{log:?}");
    world.close_round(&round).await;
    world.settle().await;
    world.handle.cancel_job(world.who("sam"), job(1), "the data are wrong".into()).await.unwrap();
    assert_eq!(task(&world, "train").await.state, Some(TaskState::Done));
    let log = world.handle.job_log(world.who("ana"), job(1)).await.unwrap();
    assert!(log.last().is_some_and(|line| line.words.contains("the data are wrong")), "{log:?}");
    assert!(task(&world, &read.tasks[0].name).await.state != Some(TaskState::Waiting));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_shows_which_studies_used_it_and_how_much_left() {
    let (world, study, _round) = under_way().await;
    let dataset = world.handle.datasets(world.who("sam")).await.unwrap()[0].id;
    let uses = world.handle.dataset_uses(world.who("ana"), dataset).await.unwrap();
    assert_eq!(uses.len(), 1);
    assert_eq!((uses[0].study, uses[0].state.as_str(), uses[0].runs), (study.id, "active", 1));
    let left = world.handle.egress(world.who("sam"), Page::default()).await.unwrap();
    assert_eq!(uses[0].bytes_left, left.iter().map(|parcel| parcel.bytes).sum::<u64>());
    assert!(uses[0].bytes_left > 0);
    let unknown = hospes_protocol::id::DatasetId::new(world.now(), [9; 10]);
    let none = world.handle.dataset_uses(world.who("ana"), unknown).await;
    assert!(matches!(none, Err(PartyError::NotFound(_))), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_is_removed_with_its_copy_and_key_but_not_below_an_approval() {
    let (world, study, _round) = under_way().await;
    let dataset = world.handle.datasets(world.who("sam")).await.unwrap()[0].clone();
    let files = || std::fs::read_dir(world.config.snapshots()).unwrap().count();
    let before = files();
    let remove = |who: &str| world.handle.remove_dataset(world.who(who), dataset.id, "a wrong file".into());
    let denied = remove("ava").await;
    assert!(matches!(denied, Err(PartyError::Denied { .. })), "{denied:?}");
    let refused = remove("sam").await.unwrap_err().to_string();
    assert!(refused.contains(&study.id.to_string()) && refused.contains("revoke it first"), "{refused}");
    assert_eq!(files(), before);
    let verdict = crate::view::Verdict::Revoke { reason: "a wrong file".into() };
    world.handle.decide(world.who("sam"), study.id, verdict).await.unwrap();
    remove("sam").await.unwrap();
    assert_eq!((world.handle.datasets(world.who("sam")).await.unwrap().len(), files()), (0, before - 1));
    let gone = world.handle.profile(world.who("sam"), dataset.id).await;
    assert!(matches!(gone, Err(PartyError::NotFound(_))), "{gone:?}");
    assert!(remove("sam").await.is_err(), "it was removed twice");
    // What it was used for can still be told, and its name is free.
    assert_eq!(world.handle.dataset_uses(world.who("ana"), dataset.id).await.unwrap().len(), 1);
    let again = world.add_dataset(&dataset.name, "cleveland.csv", true).await;
    assert_eq!((again.name.as_str(), again.version), (dataset.name.as_str(), 1));
    // Without its newest version a series goes on from the one before, under its name.
    let second = world.add_dataset(&dataset.name, "cleveland.csv", true).await;
    assert_eq!((second.version, second.former), (2, Some(again.id)));
    world.handle.remove_dataset(world.who("sam"), second.id, "a wrong file".into()).await.unwrap();
    let left = world.handle.datasets(world.who("sam")).await.unwrap();
    assert_eq!(left.iter().map(|d| (d.name.as_str(), d.version)).collect::<Vec<_>>(), [(dataset.name.as_str(), 1)]);
    let third = world.add_dataset(&dataset.name, "cleveland.csv", true).await;
    assert_eq!((third.version, third.former), (2, Some(again.id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_can_be_looked_at_before_it_is_set() {
    let (world, study, _round) = under_way().await;
    let now = world.handle.policy(world.who("ana")).await.unwrap();
    let same = world.handle.policy_preview(world.who("ana"), now.clone()).await.unwrap();
    assert_eq!((same.changes.len(), same.ends.len(), same.needs_second_signature), (0, 0, false));
    let mut tighter = Policy::from_toml(&now).unwrap();
    tighter.training.min_parties += 1;
    let preview = world.handle.policy_preview(world.who("ana"), tighter.to_toml().unwrap()).await.unwrap();
    assert_eq!(preview.changes.len(), 1);
    assert_eq!(preview.changes[0].effect, PolicyEffect::Tightens);
    assert!(preview.loosens.is_empty() && !preview.needs_second_signature);
    let ends: Vec<_> = preview.ends.iter().map(|ended| (ended.study, ended.running)).collect();
    assert_eq!(ends, [(study.id, 1)]);
    let mut looser = tighter.clone();
    looser.approval.expires_days += 100;
    let preview = world.handle.policy_preview(world.who("ana"), looser.to_toml().unwrap()).await.unwrap();
    assert!(preview.needs_second_signature && preview.loosens.len() == 1, "{preview:?}");
    // Nothing was set.
    assert_eq!(world.handle.policy(world.who("ana")).await.unwrap(), now);
    let broken = world.handle.policy_preview(world.who("ana"), "profile = 1".into()).await;
    assert!(matches!(broken, Err(PartyError::Policy(_))), "{broken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_filtered_by_what_who_what_for_and_when() {
    let (world, study, _round) = under_way().await;
    let audit = async |query: AuditQuery| world.handle.audit(world.who("odo"), query).await.unwrap();
    let all = audit(AuditQuery { limit: 1_000, ..Default::default() }).await;
    assert_eq!((all.total, all.next), (all.entries.len() as u64, None));
    let of = |filter: &dyn Fn(&AuditLine) -> bool| all.entries.iter().filter(|l| filter(l)).count();

    let actions = vec!["approval_signed".to_owned(), "training_started".to_owned()];
    let query = AuditQuery { actions: actions.clone(), limit: 1_000, ..Default::default() };
    let found = audit(query).await.entries;
    assert_eq!(found.len(), of(&|l| actions.contains(&l.action)));
    assert!(!found.is_empty() && found.is_sorted_by_key(|l| std::cmp::Reverse(l.sequence)), "{found:?}");

    let sam = world.handle.whoami(world.who("sam")).await.unwrap().id.to_string();
    let found = audit(AuditQuery { actor: Some(sam), limit: 1_000, ..Default::default() }).await.entries;
    assert!(!found.is_empty() && found.iter().all(|l| l.actor.starts_with("sam")), "{found:?}");

    let found = audit(AuditQuery { study: Some(study.id), job: Some(job(1)), ..Default::default() }).await.entries;
    assert!(!found.is_empty() && found.len() < all.entries.len(), "{found:?}");
    let found = audit(AuditQuery { until: Some(world.now().plus_millis(-DAY)), ..Default::default() }).await;
    assert_eq!((found.entries.len(), found.total), (0, all.total));

    // Page by page it is the whole log.
    let (mut before, mut pages) = (None, Vec::new());
    loop {
        let page = audit(AuditQuery { before, limit: 7, ..Default::default() }).await;
        pages.extend(page.entries);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(pages, all.entries);
    for query in [
        AuditQuery { actions: vec!["shell\"".into()], ..Default::default() },
        AuditQuery { outcome: Some("perhaps".into()), ..Default::default() },
    ] {
        let refused = world.handle.audit(world.who("odo"), query).await;
        assert!(matches!(refused, Err(PartyError::Input { .. })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_opens_to_its_parts_and_names_only_what_this_site_knows() {
    let (world, study, _round) = under_way().await;
    let audit = async |query: AuditQuery| world.handle.audit(world.who("odo"), query).await.unwrap().entries;
    let of = |action: &str| AuditQuery { actions: vec![action.to_owned()], ..Default::default() };
    let sam = world.handle.whoami(world.who("sam")).await.unwrap().id.to_string();
    let dataset = world.handle.datasets(world.who("sam")).await.unwrap()[0].clone();
    let title = Some(study.terms.title.as_str());

    let signed = audit(of("approval_signed")).await.remove(0).parts;
    assert_eq!((signed.who.as_deref(), signed.key.is_some()), (Some(sam.as_str()), true));
    assert_eq!(signed.software.as_deref(), Some(crate::SOFTWARE));
    let purpose: Vec<_> = signed.purpose.iter().map(|object| (object.kind, object.name.as_deref())).collect();
    assert_eq!(purpose, [(ObjectKind::Study, title), (ObjectKind::Approval, title)]);
    let about = |kind: ObjectKind| signed.about.iter().find(|object| object.kind == kind).unwrap();
    let data = about(ObjectKind::Dataset);
    assert_eq!((data.id.clone(), data.name.as_deref()), (dataset.id.to_string(), Some(dataset.name.as_str())));
    let snapshot = about(ObjectKind::Snapshot);
    assert_eq!((snapshot.name.as_deref(), snapshot.digest), (None, Some(dataset.snapshot)));

    let prepared = audit(of("update_prepared")).await.remove(0);
    let sent = prepared.parts.sent.unwrap();
    assert_eq!((sent.to, sent.name.is_some()), (federation().to_string(), true));
    let egress = world.handle.egress(world.who("sam"), Page::default()).await.unwrap();
    assert!(egress.iter().any(|e| e.digest == sent.digest && Some(e.bytes) == prepared.bytes), "{egress:?}");
    assert!(egress.iter().all(|e| e.protection == Protection::Unmasked), "{egress:?}");

    let mut tighter = Policy::from_toml(&world.handle.policy(world.who("ana")).await.unwrap()).unwrap();
    tighter.training.min_parties += 1;
    world.handle.set_policy(world.who("ana"), tighter.to_toml().unwrap(), pass("ana")).await.unwrap();
    let changed = audit(of("policy_changed")).await;
    let after = Some(tighter.digest().unwrap());
    assert_eq!((changed[0].parts.after, changed[0].parts.before.is_some()), (after, true), "{changed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_filtered_by_dataset_and_by_approval() {
    let (world, _study, _round) = under_way().await;
    let audit = async |query: AuditQuery| {
        let query = AuditQuery { limit: 1_000, ..query };
        world.handle.audit(world.who("odo"), query).await.unwrap().entries
    };
    let all = audit(AuditQuery::default()).await;
    let dataset = world.handle.datasets(world.who("sam")).await.unwrap()[0].id;
    let requests = world.handle.requests(world.who("sam")).await.unwrap();
    let approval = requests[0].in_force.as_ref().unwrap().approval;

    let named = |line: &AuditLine| {
        let id = dataset.to_string();
        line.parts.about.iter().any(|object| object.kind == ObjectKind::Dataset && object.id == id)
    };
    let found = audit(AuditQuery { dataset: Some(dataset), ..Default::default() }).await;
    assert_eq!(found, all.iter().filter(|line| named(line)).cloned().collect::<Vec<_>>());
    for action in ["dataset_registered", "approval_signed", "permit_minted"] {
        assert!(found.iter().any(|line| line.action == action), "{action}: {found:?}");
    }

    let under = |line: &AuditLine| {
        let id = approval.to_string();
        line.parts.purpose.iter().any(|object| object.kind == ObjectKind::Approval && object.id == id)
    };
    let found = audit(AuditQuery { approval: Some(approval), ..Default::default() }).await;
    assert_eq!(found, all.iter().filter(|line| under(line)).cloned().collect::<Vec<_>>());
    for action in ["approval_signed", "approval_countersigned", "permit_minted", "update_prepared"] {
        assert!(found.iter().any(|line| line.action == action), "{action}: {found:?}");
    }

    let unknown = hospes_protocol::id::DatasetId::new(world.now(), [9; 10]);
    assert!(audit(AuditQuery { dataset: Some(unknown), ..Default::default() }).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_federation_sends_nothing_more_and_can_join_again() {
    let (mut world, study, _round) = under_way().await;
    let (ana, sam) = (world.who("ana").clone(), world.who("sam").clone());
    let h = world.handle.clone();
    let denied = h.leave(&sam, federation(), "we merge".into()).await;
    assert!(matches!(denied, Err(PartyError::Denied { .. })), "{denied:?}");
    let unsaid = h.leave(&ana, federation(), " ".into()).await;
    assert!(matches!(unsaid, Err(PartyError::Input { .. })), "{unsaid:?}");
    let mut notices = h.notices();
    h.leave(&ana, federation(), "we merge".into()).await.unwrap();
    world.expect("the end", |c| matches!(c, LinkCommand::Close).then_some(())).await;
    let membership = h.memberships(&ana).await.unwrap().remove(0);
    assert_eq!(membership.left, Some(world.now()));
    assert!(membership.paused.is_some_and(|words| words.contains("we merge")));
    let request = h.requests(&ana).await.unwrap().remove(0);
    assert_eq!((request.study, request.state), (study.id, RequestState::Revoked));
    let heard = async { while notices.recv().await.unwrap() != Notice::Federations {} };
    tokio::time::timeout(Duration::from_secs(10), heard).await.unwrap();
    assert_eq!(world.entered("federation_left", "success").await, 1);
    // It is not a pause that could be ended, and happens once.
    for again in [
        h.pause(&ana, federation(), None).await,
        h.leave(&ana, federation(), "again".into()).await,
        h.diagnose(&ana, federation()).await.map(drop),
    ] {
        assert!(matches!(again, Err(PartyError::State(_))), "{again:?}");
    }
    let run = h.job(&sam, job(1), Page::default()).await.unwrap();
    assert!(run.rounds.iter().all(|r| r.state != RoundState::Working), "{run:?}");
    world.join().await;
    let membership = h.memberships(&ana).await.unwrap().remove(0);
    assert_eq!((membership.left, membership.paused), (None, None));
    world.assert_ledger_intact().await;
}
