//! From an offer to what leaves, and what may stop it.

use hospes_protocol::approval::{OpinionView, Refusal, RefusalCode};
use hospes_protocol::message::{Decision, FromSite, RoundReply, ToSite, UploadKind};
use hospes_protocol::sign::Signed;
use sqlx::Connection as _;

use super::*;
use crate::error::PartyError;
use crate::view::{PersonChange, Phase, RequestState, Verdict};

#[tokio::test(flavor = "multi_thread")]
async fn a_study_is_offered_signed_by_two_trained_and_released() {
    let mut world = World::new().await;
    assert_eq!(world.handle.status().await.unwrap().phase, Phase::SetUp);
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    world.handle.give_opinion(world.who("pia"), study.id, OpinionView::Agree, "fine".into()).await.unwrap();
    let review = world.handle.review(world.who("sam"), study.id, None).await.unwrap();
    assert!(review.approvable, "{:?}", review.findings);
    let signed = world.sign("sam", exactly(study.id)).await.unwrap();
    assert_eq!(signed.state, RequestState::PartlyApproved);
    assert_eq!(world.handle.status().await.unwrap().phase, Phase::Operating);
    let done = world.handle.countersign(world.who("ava"), study.id, signed.digest, pass("ava")).await.unwrap();
    assert_eq!(done.state, RequestState::Active);
    let decision = world
        .expect("the decision", |c| match c {
            LinkCommand::Send(FromSite::Decision { decision, .. }) => Some(decision.clone()),
            _ => None,
        })
        .await;
    assert!(matches!(decision, Decision::Approved { approval, one_person: false, .. } if approval == signed.digest));

    world.start_job(&study, job(1)).await;
    let training = header(&study, job(1), "train", 1, 1, world.now());
    world.open_round(training.clone()).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    assert_eq!(upload.kind(), UploadKind::Update);
    // 8 bytes of weight, then 13 weights and a bias of 4 bytes.
    let payload = world.take(&upload, &path).await;
    assert_eq!(payload.len(), 8 + 14 * 4);
    world.settle().await;
    assert!(!path.exists(), "the payload is deleted once it has arrived");
    world.close_round(&training).await;

    let evaluation = header(&study, job(1), "eval", 1, 1, world.now());
    world.open_round(evaluation.clone()).await;
    let (upload, path) = world.expect_upload().await;
    assert_eq!(upload.kind(), UploadKind::Figures);
    world.take(&upload, &path).await;
    world.close_round(&evaluation).await;
    let ended =
        ToSite::JobEnded { job: job(1), state: "success".into(), reason: None, model: Some(Digest::of(b"next")) };
    world.send(ended).await;
    world.settle().await;

    let jobs = world.handle.jobs(world.who("sam"), Page::default()).await.unwrap();
    assert_eq!((jobs[0].state.as_str(), jobs[0].held), ("success", true));
    assert!(jobs[0].rounds.iter().all(|r| r.state == "published" && r.view.is_none()));
    world.handle.release(world.who("ava"), job(1)).await.unwrap();
    world.expect("the release", |c| matches!(c, LinkCommand::Send(FromSite::Release { .. })).then_some(())).await;
    assert!(matches!(world.handle.release(world.who("ava"), job(1)).await, Err(PartyError::State(_))));

    for (action, count) in [
        ("request_received", 1),
        ("opinion_given", 1),
        ("approval_signed", 1),
        ("approval_countersigned", 1),
        ("setup_ended", 1),
        ("permit_minted", 2),
        ("training_started", 2),
        ("update_prepared", 2),
        ("update_sent", 2),
        ("update_receipt", 2),
        ("round_closed", 2),
        ("results_released", 1),
    ] {
        assert_eq!(world.entered(action, "success").await, count, "{action}");
    }
    assert_eq!(world.outbox_states().await, ["sent", "sent"]);
    assert_eq!(world.payload_files(), 0);
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_no_permit_without_an_approval_in_force_and_each_round_only_once() {
    let mut world = World::new().await;
    let study = study(1, small_plan(3));
    world.connect().await;
    world.offer(&study).await;
    // Not approved: the reservation is refused, and a round of the job cannot even be entered.
    let plan = Box::new(study.plan.clone());
    world.send(ToSite::JobReserve { job: job(1), study: study.id, plan }).await;
    let refused = world
        .expect("a refusal", |c| match c {
            LinkCommand::Send(FromSite::Reserved { refusal, .. }) => refusal.clone(),
            _ => None,
        })
        .await;
    assert_eq!(refused.code, RefusalCode::NotApproved);
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Refused(r) if r.code == RefusalCode::Header), "{reply:?}");

    // Approved: the round is answered, and the same header again is the same round, not another permit.
    world.approve(&study).await;
    world.start_job(&study, job(1)).await;
    let first = header(&study, job(1), "train", 2, 1, world.now());
    world.open_round(first.clone()).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    world.open_round(first.clone()).await;
    let (again, _) = world.expect_upload().await;
    assert_eq!((again.digest(), again.round()), (upload.digest(), upload.round()));
    world.take(&upload, &path).await;
    assert_eq!(world.entered("permit_minted", "success").await, 1);

    // A round before it is a replay, and another header for the same round is a forgery.
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Refused(r) if r.code == RefusalCode::RoundReplayed), "{reply:?}");
    let mut other = first.clone();
    other.deadline = other.deadline.plus_millis(1);
    world.open_round(other).await;
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Refused(r) if r.code == RefusalCode::Header), "{reply:?}");
    assert!(world.alarms().await.iter().any(|a| a.contains("two different headers")));

    // A second run was not approved.
    world.pass_time(MINUTE);
    let plan = Box::new(study.plan.clone());
    world.send(ToSite::JobReserve { job: job(2), study: study.id, plan }).await;
    let refused = world
        .expect("a refusal", |c| match c {
            LinkCommand::Send(FromSite::Reserved { refusal, .. }) => refusal.clone(),
            _ => None,
        })
        .await;
    assert_eq!(refused.code, RefusalCode::RunsUsedUp);
    assert_eq!(world.entered("permit_minted", "success").await, 1);
    assert!(world.entered("permit_refused", "refused").await >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_the_coordinator_did_not_sign_is_an_alarm() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    let forged = Signed::new(header(&study, job(1), "train", 1, 1, world.now()), &key(99)).unwrap();
    world.send(ToSite::RoundOpen(Box::new(forged))).await;
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Refused(r) if r.code == RefusalCode::Header), "{reply:?}");
    assert!(world.alarms().await.iter().any(|a| a.contains("without the coordinator's signature")));
    assert_eq!(world.entered("permit_minted", "success").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_in_a_round_stops_the_work_and_nothing_leaves() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    // The model has not come yet: the round is under way.
    world.expect("a download", |c| matches!(c, LinkCommand::Download { .. }).then_some(())).await;
    let verdict = Verdict::Revoke { reason: "the patients' council asked for it".into() };
    let view = world.handle.decide(world.who("sam"), study.id, verdict).await.unwrap();
    assert_eq!(view.state, RequestState::Revoked);
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Withdrawn(r) if r.code == RefusalCode::Revoked), "{reply:?}");
    let (bytes, digest) = model(&study.plan);
    let to = world.config.models().join(format!("{}-{digest}.safetensors", federation()));
    std::fs::write(&to, bytes).unwrap();
    world.event(LinkEvent::Downloaded { digest, path: to }).await;
    world.never("send after the revocation", |c| matches!(c, LinkCommand::Upload { .. }).then_some(())).await;
    assert_eq!(world.round_state().await.0, "withdrawn");
    // The next round is refused too.
    world.open_round(header(&study, job(1), "train", 1, 2, world.now())).await;
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Refused(r) if r.code == RefusalCode::Revoked), "{reply:?}");
    assert!(world.said.iter().any(|m| matches!(m, FromSite::Decision { decision: Decision::Revoked, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_reaches_an_update_that_waits_in_the_outbox() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    assert!(path.exists());
    let verdict = Verdict::Revoke { reason: "no longer wanted".into() };
    world.handle.decide(world.who("ava"), study.id, verdict).await.unwrap();
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Withdrawn(r) if r.code == RefusalCode::Revoked), "{reply:?}");
    assert!(!path.exists(), "the payload is deleted");
    assert!(world.may_leave(&upload).await.is_err(), "the link asks and hears no");
    let egress = world.handle.egress(world.who("pia"), Page::default()).await.unwrap();
    assert_eq!((egress[0].state.as_str(), egress[0].digest), ("withdrawn", upload.digest()));
    assert_eq!(world.entered("update_withdrawn", "refused").await, 1);
    assert_eq!(world.entered("update_sent", "success").await, 0);
    assert_eq!(world.round_state().await.0, "withdrawn");
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_the_wire_when_an_approval_is_suspended_stops_and_does_not_go_on() {
    let (mut world, study, upload, path) = World::on_the_wire().await;
    let verdict = Verdict::Suspend { reason: "a question is open".into() };
    world.handle.decide(world.who("pia"), study.id, verdict).await.unwrap();
    world.expect_recall(&upload).await;
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Withdrawn(r) if r.code == RefusalCode::Suspended), "{reply:?}");
    assert!(!path.exists());
    assert!(world.may_leave(&upload).await.is_err());
    assert_eq!(world.outbox_states().await, ["withdrawn, may have arrived"]);
    // Only a privacy officer ends what a privacy officer suspended.
    let resumed = world.handle.decide(world.who("sam"), study.id, Verdict::Resume).await;
    assert!(matches!(resumed, Err(PartyError::State(_))), "{resumed:?}");
    let resumed = world.handle.decide(world.who("pia"), study.id, Verdict::Resume).await.unwrap();
    assert_eq!(resumed.state, RequestState::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_the_wire_stops_when_the_policy_or_a_signer_changes() {
    for (change, code) in [
        (None, RefusalCode::Policy),
        (Some(PersonChange::Roles(BTreeSet::from([Role::Auditor]))), RefusalCode::Signatures),
        (Some(PersonChange::Disable), RefusalCode::Signatures),
        (Some(PersonChange::NewKey), RefusalCode::Signatures),
    ] {
        let (mut world, _, upload, path) = World::on_the_wire().await;
        let (h, ana, ava) = (world.handle.clone(), world.who("ana").clone(), world.who("ava").person());
        let outcome = match change {
            Some(change) => h.change_person(&ana, ava, change, pass("ana")).await.unwrap(),
            None => {
                let mut loose = Policy::public_data();
                loose.approval.expires_days = 400;
                h.set_policy(&ana, loose.to_toml().unwrap(), pass("ana")).await.unwrap()
            }
        };
        if let Outcome::Proposed(proposal) = outcome {
            // Proposed only, it stops nothing.
            world.may_leave(&upload).await.unwrap();
            h.answer_proposal(world.who("sam"), proposal.id, true, None, pass("sam")).await.unwrap();
        }
        world.expect_recall(&upload).await;
        let reply = world.expect_reply().await;
        assert!(matches!(&reply, RoundReply::Withdrawn(r) if r.code == code), "{code:?}: {reply:?}");
        assert!(!path.exists());
        assert_eq!(world.outbox_states().await, ["withdrawn, may have arrived"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_expires_between_rounds_refuses_the_next_and_withdraws_what_waits() {
    let mut world = World::new().await;
    let mut policy = Policy::public_data();
    policy.approval.expires_days = 1;
    world.set_policy(&policy).await;
    let study = world.running(small_plan(2)).await;
    let first = header(&study, job(1), "train", 1, 1, world.now());
    world.open_round(first.clone()).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
    world.close_round(&first).await;
    world.settle().await;
    world.pass_time(DAY);
    world
        .expect("the expiry", |c| match c {
            LinkCommand::Send(FromSite::Decision { decision: Decision::Expired, .. }) => Some(()),
            _ => None,
        })
        .await;
    world.open_round(header(&study, job(1), "train", 2, 1, world.now())).await;
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Refused(r) if r.code == RefusalCode::Expired), "{reply:?}");
    assert_eq!(world.entered("approval_expired", "success").await, 1);
    let requests = world.handle.requests(world.who("sam")).await.unwrap();
    assert_eq!(requests[0].state, RequestState::Expired);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_whose_round_is_over_expires() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    world.pass_time(61 * MINUTE);
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Withdrawn(r) if r.code == RefusalCode::TooLate), "{reply:?}");
    assert!(!path.exists());
    assert!(world.may_leave(&upload).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opt_out_after_the_training_withdraws_the_update() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    let list = world.folder.join("opt-outs.txt");
    std::fs::write(&list, "cleveland-001\nsomebody-else\n").unwrap();
    let report = world.handle.import_opt_outs(world.who("sam"), list).await.unwrap();
    assert_eq!((report.listed, report.affected), (2, 1));
    let reply = world.expect_reply().await;
    assert!(
        matches!(&reply, RoundReply::Withdrawn(r) if r.detail.contains("the site's staff can see why")),
        "{reply:?}"
    );
    assert!(world.may_leave(&upload).await.is_err());
    assert!(!path.exists());
    // The approval is not void: the next attempt trains without that person.
    world.open_round(header(&study, job(1), "train", 1, 2, world.now())).await;
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
    let datasets = world.handle.datasets(world.who("sam")).await.unwrap();
    assert_eq!(datasets[0].subjects - datasets[0].subjects_left, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_was_answered_for_one_model_is_not_answered_for_another() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    let attempt = |attempt, now| header(&study, job(1), "train", 1, attempt, now);
    world.open_round(attempt(1, world.now())).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    let first = world.take(&upload, &path).await;
    let other = hospes_protocol::round::RoundHeader {
        model: Some(Digest::of(b"a model that the coordinator likes to hear about, too")),
        ..attempt(2, world.now())
    };
    world.open_round(other).await;
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Refused(r) if r.code == RefusalCode::RoundReplayed), "{reply:?}");
    assert_eq!(world.entered("permit_refused", "refused").await, 1);
    // The same question again gets the same answer.
    world.open_round(attempt(3, world.now())).await;
    let (upload, path) = world.expect_upload().await;
    assert!(world.take(&upload, &path).await == first, "another attempt for the same model gave other bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_one_value_outside_is_refused_and_one_inside_a_range_runs() {
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    let place = "tasks.train.params.optimizer.sgd.lr".to_owned();
    let approving = Approving {
        max_runs: 3,
        ranges: BTreeMap::from([(place, hospes_protocol::approval::Range { min: 0.0005, max: 0.002 })]),
        ..exactly(study.id)
    };
    world.approve_as(&study, approving).await;
    let with = |lr: f64| {
        let mut plan = small_plan(1);
        if let Component::NnTrain(train) = &mut plan.tasks.get_mut("train").unwrap().component {
            train.optimizer = plan::Optimizer::Sgd { lr, momentum: 0.0 };
        }
        Box::new(Canonical::new(plan).unwrap())
    };
    for (n, lr, inside) in [(1, 0.002, true), (2, 0.0021, false)] {
        world.send(ToSite::JobReserve { job: job(n), study: study.id, plan: with(lr) }).await;
        let refusal = world
            .expect("an answer", |c| match c {
                LinkCommand::Send(FromSite::Reserved { refusal, .. }) => Some(refusal.clone()),
                _ => None,
            })
            .await;
        assert_eq!(refusal.is_none(), inside, "lr {lr}: {refusal:?}");
        if let Some(Refusal { code, detail }) = refusal {
            assert_eq!(code, RefusalCode::OutsideEnvelope);
            assert!(detail.contains("optimizer"), "{detail}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_the_whole_site_stops_work_and_answers_no() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.expect("a download", |c| matches!(c, LinkCommand::Download { .. }).then_some(())).await;
    world.handle.stop(world.who("ana"), Some("suspicion of an intrusion".into())).await.unwrap();
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Withdrawn(r) if r.code == RefusalCode::Stopped), "{reply:?}");
    assert!(!format!("{reply:?}").contains("intrusion"), "what the staff wrote left: {reply:?}");
    world.open_round(header(&study, job(1), "train", 1, 2, world.now())).await;
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Refused(r) if r.code == RefusalCode::Stopped), "{reply:?}");
    assert!(!format!("{reply:?}").contains("intrusion"), "what the staff wrote left: {reply:?}");
    assert_eq!(world.handle.status().await.unwrap().stopped.as_deref(), Some("suspicion of an intrusion"));
    world.handle.stop(world.who("ana"), None).await.unwrap();
    world.open_round(header(&study, job(1), "train", 1, 3, world.now())).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
    assert_eq!(world.entered("break_glass", "success").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_goes_on_after_everybody_has_closed_the_window() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    for session in world.sessions.values() {
        world.handle.log_out(session).await.unwrap();
    }
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_was_away_for_a_week_finds_the_site_at_work() {
    let mut world = World::new().await;
    world.verify([2, 3]).await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    world.approve(&study).await;
    let gone = || LinkEvent::Disconnected { reason: "no connection".into(), retry_in: Duration::from_secs(300) };
    for _ in 0..7 {
        world.event(gone()).await;
        world.pass_time(DAY);
        // The engine notices that time passed.
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    // What needs nobody outside goes on meanwhile.
    world.add_dataset("Hungary", "hungary.csv", true).await;
    let link = world.handle.memberships(world.who("ana")).await.unwrap().remove(0).link;
    assert!(
        matches!(&link, crate::view::LinkView::Disconnected { reason, .. } if reason == "no connection"),
        "{link:?}"
    );
    world.connect().await;
    world.start_job(&study, job(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_repeats_what_is_owed_and_nothing_twice() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    let (upload, _) = world.expect_upload().await;
    let cut = LinkEvent::Disconnected { reason: "cut".into(), retry_in: Duration::from_secs(1) };
    world.event(cut).await;
    world.said.clear();
    world.connect().await;
    let (again, path) = world.expect_upload().await;
    assert_eq!(again.digest(), upload.digest());
    assert!(world.said.iter().any(|m| matches!(m, FromSite::Decision { decision: Decision::Approved { .. }, .. })));
    world.take(&again, &path).await;
    // A receipt that comes twice changes nothing.
    world.acknowledge(&again).await;
    world.settle().await;
    assert_eq!(world.entered("update_sent", "success").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_once_a_second_however_often_the_work_tells_it() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    // The clock of this world stands still, and the work beats a hundred times.
    let mut told = 0;
    world
        .expect("the update", |c| match c {
            LinkCommand::Send(FromSite::Progress { .. }) => {
                told += 1;
                None
            }
            LinkCommand::Upload { .. } => Some(()),
            _ => None,
        })
        .await;
    assert_eq!(told, 1);
}

/// Released results of so many runs, the last one newest.
async fn released(world: &World, study: &Study, runs: u8) {
    let url = format!("sqlite://{}", world.config.database().display());
    let mut conn = sqlx::SqliteConnection::connect(&url).await.unwrap();
    for n in 1..=runs {
        sqlx::query(
            "INSERT INTO jobs (job, study, plan, state, release, released, at)
             VALUES (?1, ?2, ?3, 'success', 'released', ?4, ?4)",
        )
        .bind(job(n).to_string())
        .bind(study.id.to_string())
        .bind(study.plan.bytes())
        .bind(START - 1_000 + i64::from(n))
        .execute(&mut conn)
        .await
        .unwrap();
    }
}

/// Releases that a site has said.
async fn releases(world: &mut World) -> Vec<JobId> {
    let mut found = Vec::new();
    let wanted = |c: &LinkCommand| match c {
        LinkCommand::Send(FromSite::Release { job }) => Some(*job),
        _ => None,
    };
    // They are all on their way.
    while let Some(job) = world.wait_for(Duration::from_millis(50), wanted).await {
        found.push(job);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_are_all_said_again_once_and_the_newest_after_each_connection() {
    let jobs = |numbers: std::ops::RangeInclusive<u8>| numbers.rev().map(job).collect::<Vec<_>>();
    let a_minute_later = async |world: &World| {
        world.pass_time(60_000);
        world.handle.ask(|engine| engine.tick_releases().boxed()).await.unwrap();
    };
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    released(&world, &study, 150).await;
    world.connect().await;
    assert_eq!(releases(&mut world).await, jobs(51..=150));
    a_minute_later(&world).await;
    assert_eq!(releases(&mut world).await, jobs(1..=50));
    a_minute_later(&world).await;
    world.connect().await;
    assert_eq!(releases(&mut world).await, jobs(51..=150));
    a_minute_later(&world).await;
    assert_eq!(releases(&mut world).await, [], "those before were heard");
}
