//! Who may do what, that it is really they, and what needs two.

use hospes_protocol::approval::{OpinionView, RefusalCode};

use super::*;
use crate::error::PartyError;
use crate::view::{FileReading, PersonChange, PersonState, ProposalView, SignInRules, Verdict};

fn proposed(outcome: Outcome) -> ProposalView {
    match outcome {
        Outcome::Proposed(view) => view,
        Outcome::Done { .. } => panic!("done by one person alone"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passphrases_cost_time_and_are_audited() {
    let world = World::new().await;
    let wrong = || world.handle.log_in("sam".into(), pass("not sam"));
    for expected in [0, 0, 0, 1_000] {
        match wrong().await {
            Err(PartyError::LogIn { retry_in_ms }) => assert_eq!(retry_in_ms, expected),
            other => panic!("{other:?}"),
        }
    }
    // While the wait lasts even the right passphrase is not heard; afterwards it is.
    let right = || world.handle.log_in("sam".into(), pass("sam"));
    assert!(matches!(right().await, Err(PartyError::LogIn { retry_in_ms: 1_000 })));
    world.pass_time(1_001);
    right().await.unwrap();
    // A name that nobody has waits like one that somebody has.
    for expected in [0, 0, 0, 1_000, 1_000] {
        match world.handle.log_in("nobody".into(), pass("nobody")).await {
            Err(PartyError::LogIn { retry_in_ms }) => assert_eq!(retry_in_ms, expected),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.entered("login_failed", "refused").await, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_on_an_unattended_workstation() {
    let mut world = World::new().await;
    world.config.session_idle_ms = 0;
    let session = world.handle.log_in("sam".into(), pass("sam")).await.unwrap();
    world.handle.requests(&session).await.unwrap();
    world.pass_time(3_650 * DAY + 1);
    assert!(matches!(world.handle.requests(&session).await, Err(PartyError::NoSession)));
    let mut session = world.handle.log_in("sam".into(), pass("sam")).await.unwrap();
    // A screen that keeps itself up to date is nobody at work; whoever says so is.
    for _ in 0..3 {
        world.pass_time(1_500 * DAY);
        session.looks_on(true);
        world.handle.requests(&session).await.unwrap();
        session.looks_on(false);
        world.handle.active(&session).await.unwrap();
    }
    session.looks_on(true);
    for _ in 0..2 {
        world.pass_time(1_500 * DAY);
        world.handle.requests(&session).await.unwrap();
    }
    world.pass_time(1_500 * DAY);
    assert!(matches!(world.handle.requests(&session).await, Err(PartyError::NoSession)));
    let session = world.handle.log_in("sam".into(), pass("sam")).await.unwrap();
    world.handle.log_out(&session).await.unwrap();
    assert!(matches!(world.handle.requests(&session).await, Err(PartyError::NoSession)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_sets_when_sessions_end_and_what_wrong_passphrases_cost() {
    let temporary = tempfile::tempdir().unwrap();
    let mut world = World::create(temporary.path(), Executor::Thread).await;
    world.staff().await;
    let rules = SignInRules { idle_minutes: 2, tries: 5, longest_wait_minutes: 5 };
    let set = |who: &'static str, rules, passphrase| world.handle.set_sign_in_rules(world.who(who), rules, passphrase);
    assert!(matches!(set("sam", rules, pass("sam")).await, Err(PartyError::Denied { .. })));
    assert!(matches!(set("ana", rules, pass("not ana")).await, Err(PartyError::LogIn { .. })));
    let loose = SignInRules { idle_minutes: 61, ..rules };
    let wrong = set("ana", loose, pass("ana")).await;
    assert!(matches!(wrong, Err(PartyError::Input { place: "idle_minutes", .. })), "{wrong:?}");
    set("ana", rules, pass("ana")).await.unwrap();
    assert_eq!(world.handle.sign_in_rules(world.who("odo")).await.unwrap(), rules);

    // The log has both, and digests of both.
    let query = crate::view::AuditQuery { actions: vec!["settings_changed".into()], ..Default::default() };
    let page = world.handle.audit(world.who("ana"), query).await.unwrap();
    let entry = page.entries.iter().find(|e| e.detail.contains("sign-in")).expect("it is entered");
    assert!(entry.detail.contains("after 2 idle minutes") && entry.detail.contains("Before: "), "{entry:?}");
    assert!(entry.detail.contains("3 wrong passphrases are free"), "{entry:?}");

    // At once, and for sessions that were open before.
    for expected in [0, 0, 0, 0, 0, 1_000] {
        match world.handle.log_in("pia".into(), pass("not pia")).await {
            Err(PartyError::LogIn { retry_in_ms }) => assert_eq!(retry_in_ms, expected),
            other => panic!("{other:?}"),
        }
    }
    world.pass_time(2 * MINUTE);
    world.handle.active(world.who("ana")).await.unwrap();
    world.pass_time(2 * MINUTE + 1);
    assert!(matches!(world.handle.active(world.who("ana")).await, Err(PartyError::NoSession)));

    // And after a restart.
    let now = world.now().as_millis();
    world.handle.shut_down().await.unwrap();
    drop(world);
    let world = World::reopen(temporary.path(), Executor::Thread, now).await;
    assert_eq!(world.handle.sign_in_rules(world.who("ana")).await.unwrap(), rules);
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refused_role_is_audited() {
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    let before = world.entered("role_refused", "refused").await;
    let denied =
        |result: Result<(), PartyError>| assert!(matches!(result, Err(PartyError::Denied { .. })), "{result:?}");
    let h = &world.handle;
    denied(world.sign("pia", exactly(study.id)).await.map(drop));
    denied(world.sign("ava", exactly(study.id)).await.map(drop));
    denied(h.countersign(world.who("pia"), study.id, Digest::of(b"x"), pass("pia")).await.map(drop));
    denied(h.countersign(world.who("sam"), study.id, Digest::of(b"x"), pass("sam")).await.map(drop));
    denied(h.give_opinion(world.who("sam"), study.id, OpinionView::Agree, "x".into()).await);
    denied(h.set_policy(world.who("pia"), String::new(), pass("pia")).await.map(drop));
    denied(h.stop(world.who("sam"), Some("x".into())).await);
    denied(h.sheets(world.who("ana"), heart("cleveland.csv")).await.map(drop));
    denied(h.survey(world.who("ana"), heart("cleveland.csv"), FileReading::default()).await.map(drop));
    denied(h.release(world.who("pia"), job(1)).await);
    denied(h.export_audit(world.who("sam"), None, world.folder.join("x")).await.map(drop));
    denied(h.decide(world.who("odo"), study.id, Verdict::Refuse { reason: "x".into() }).await.map(drop));
    assert_eq!(world.entered("role_refused", "refused").await, before + 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_approved_until_a_second_person_holds_a_key() {
    let temporary = tempfile::tempdir().unwrap();
    let mut world = World::create(temporary.path(), Executor::Thread).await;
    world.handle.set_up("ana".into(), pass("ana")).await.unwrap();
    let again = world.handle.set_up("eve".into(), pass("eve")).await;
    assert!(matches!(again, Err(PartyError::State(_))), "a second first administrator");
    let ana = world.handle.log_in("ana".into(), pass("ana")).await.unwrap();
    world.sessions.insert("ana", ana);
    let ana = || world.who("ana");
    // While the site is set up, the administrator gives herself the steward's role.
    let roles = PersonChange::Roles(BTreeSet::from([Role::Administrator, Role::DataSteward]));
    world.handle.change_person(ana(), ana().person(), roles, pass("ana")).await.unwrap();
    world.set_policy(&Policy::public_data()).await;
    let session = world.handle.log_in("ana".into(), pass("ana")).await.unwrap();
    world.sessions.insert("sam", session);
    world.add_dataset("Cleveland", "cleveland.csv", true).await;
    world.join().await;
    world.connect().await;
    let study = study(1, small_plan(1));
    world.offer(&study).await;
    let refused = world.sign("ana", exactly(study.id)).await;
    assert!(matches!(&refused, Err(PartyError::State(words)) if words.contains("second person")), "{refused:?}");
    // A privacy officer with another role is refused at once.
    let person = NewPerson {
        name: "pia".into(),
        roles: BTreeSet::from([Role::PrivacyOfficer, Role::DataAccessApprover]),
        organisation: None,
    };
    let refused = world.handle.add_person(world.who("ana"), person, pass("ana")).await;
    assert!(matches!(refused, Err(PartyError::Input { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_cannot_give_both_signatures() {
    let mut world = World::new().await;
    let both = PersonChange::Roles(BTreeSet::from([Role::DataSteward, Role::DataAccessApprover]));
    let sam = world.who("sam").person();
    world.handle.change_person(world.who("ana"), sam, both, pass("ana")).await.unwrap();
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    let signed = world.sign("sam", exactly(study.id)).await.unwrap();
    let refused = world.handle.countersign(world.who("sam"), study.id, signed.digest, pass("sam")).await;
    assert!(matches!(&refused, Err(PartyError::Refused(r)) if r.detail.contains("yours")), "{refused:?}");
    assert_eq!(world.entered("approval_signed", "refused").await, 1);
    // And each signature asks for the passphrase again.
    let wrong = world.handle.countersign(world.who("ava"), study.id, signed.digest, pass("not ava")).await;
    assert!(matches!(wrong, Err(PartyError::LogIn { .. })), "{wrong:?}");
    // A digest of another document is not signed.
    let other = world.handle.countersign(world.who("ava"), study.id, Digest::of(b"other"), pass("ava")).await;
    assert!(matches!(other, Err(PartyError::State(_))), "{other:?}");
    world.handle.countersign(world.who("ava"), study.id, signed.digest, pass("ava")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_first_approval_what_weakens_protection_needs_two() {
    let mut world = World::new().await;
    world.in_operation().await;
    let h = world.handle.clone();
    let ana = world.who("ana").clone();
    let person = |name: &str| NewPerson {
        name: name.into(),
        roles: BTreeSet::from([Role::DataAccessApprover]),
        organisation: None,
    };

    // Adding a person.
    let view = proposed(h.add_person(&ana, person("eve"), pass("ana")).await.unwrap());
    assert!(view.words.contains("eve"), "{}", view.words);
    let own = h.answer_proposal(&ana, view.id, true, None, pass("ana")).await;
    assert!(matches!(own, Err(PartyError::State(_))), "the proposer cannot agree: {own:?}");
    let officer = h.answer_proposal(world.who("pia"), view.id, true, None, pass("pia")).await;
    assert!(matches!(officer, Err(PartyError::Denied { .. })), "{officer:?}");
    let done = h.answer_proposal(world.who("ava"), view.id, true, None, pass("ava")).await.unwrap();
    let Outcome::Done { code: Some(code) } = done else { panic!("{done:?}") };
    h.activate("eve".into(), code.clone(), pass("eve")).await.unwrap();
    assert!(matches!(h.activate("eve".into(), code, pass("eve")).await, Err(PartyError::LogIn { .. })), "used twice");

    // Turning one down.
    let view = proposed(h.add_person(&ana, person("mallory"), pass("ana")).await.unwrap());
    h.answer_proposal(world.who("sam"), view.id, false, None, pass("sam")).await.unwrap();
    assert!(h.people(&ana).await.unwrap().iter().all(|p| p.name != "mallory"));
    assert!(h.proposals(&ana).await.unwrap().is_empty());

    // Loosening the policy needs two, tightening one.
    let mut loose = Policy::public_data();
    loose.approval.expires_days = 400;
    let view = proposed(h.set_policy(&ana, loose.to_toml().unwrap(), pass("ana")).await.unwrap());
    assert!(view.words.contains("expires_days"), "{}", view.words);
    let mut tight = Policy::public_data();
    tight.approval.expires_days = 30;
    let done = h.set_policy(&ana, tight.to_toml().unwrap(), pass("ana")).await.unwrap();
    assert_eq!(done, Outcome::Done { code: None });
    h.answer_proposal(world.who("sam"), view.id, true, None, pass("sam")).await.unwrap();
    assert!(h.policy(&ana).await.unwrap().contains("expires_days = 400"));

    // Disabling is immediate; letting somebody act again is not.
    let sam = world.who("sam").person();
    let mut notices = h.notices();
    h.change_person(&ana, sam, PersonChange::Disable, pass("ana")).await.unwrap();
    // Whoever reads a request at another window hears that a signature under it may count no more.
    let heard = async { while notices.recv().await.unwrap() != crate::view::Notice::Requests {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), heard).await.unwrap();
    assert!(matches!(h.requests(world.who("sam")).await, Err(PartyError::NoSession)));
    proposed(h.change_person(&ana, sam, PersonChange::Enable, pass("ana")).await.unwrap());
    let last = h.change_person(&ana, ana.person(), PersonChange::Disable, pass("ana")).await;
    assert!(matches!(last, Err(PartyError::State(_))), "the last administrator: {last:?}");
}

/// Attacks: what two people agreed to when it harmed nobody is carried out after something else has changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_is_checked_again_when_it_is_carried_out() {
    let mut world = World::new().await;
    world.in_operation().await;
    let h = world.handle.clone();
    let (ana, ava) = (world.who("ana").clone(), world.who("ava").person());
    let agreed = async |id| h.answer_proposal(world.who("sam"), id, true, None, pass("sam")).await;

    // Two names that nobody could tell apart.
    let person = |name: &str| NewPerson {
        name: name.into(),
        roles: BTreeSet::from([Role::DataAccessApprover]),
        organisation: None,
    };
    let one = proposed(h.add_person(&ana, person("Eve Miller"), pass("ana")).await.unwrap());
    world.pass_time(1);
    let other = proposed(h.add_person(&ana, person("eve-miller"), pass("ana")).await.unwrap());
    agreed(one.id).await.unwrap();
    let refused = agreed(other.id).await;
    assert!(matches!(&refused, Err(PartyError::Input { place: "name", .. })), "{refused:?}");

    // There are two administrators; one is to be none, and before that is agreed to the other one is disabled.
    let roles = |roles: &[Role]| PersonChange::Roles(roles.iter().copied().collect());
    let both = roles(&[Role::DataAccessApprover, Role::Administrator]);
    world.pass_time(1);
    let view = proposed(h.change_person(&ana, ava, both, pass("ana")).await.unwrap());
    agreed(view.id).await.unwrap();
    world.pass_time(1);
    let steward = roles(&[Role::DataSteward]);
    let view = proposed(h.change_person(&ana, ana.person(), steward, pass("ana")).await.unwrap());
    h.change_person(&ana, ava, PersonChange::Disable, pass("ana")).await.unwrap();
    let refused = agreed(view.id).await;
    assert!(matches!(&refused, Err(PartyError::State(words)) if words.contains("last administrator")), "{refused:?}");
    let people = h.people(&ana).await.unwrap();
    assert!(people.iter().any(|p| p.id == ana.person() && p.roles.contains(&Role::Administrator)), "{people:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_key_counts_only_after_a_second_person_confirmed_it() {
    let mut world = World::new().await;
    let first = study(1, small_plan(1));
    world.connect().await;
    world.offer(&first).await;
    world.approve(&first).await;
    let h = world.handle.clone();
    let ava = world.who("ava").person();
    let old_key = h.people(world.who("ana")).await.unwrap().into_iter().find(|p| p.id == ava).unwrap().key;
    let done = h.change_person(world.who("ana"), ava, PersonChange::NewKey, pass("ana")).await.unwrap();
    let Outcome::Done { code: Some(code) } = done else { panic!("{done:?}") };
    let gone = h.log_in("ava".into(), pass("ava")).await;
    assert!(matches!(gone, Err(PartyError::LogIn { .. })), "the old passphrase opens nothing: {gone:?}");
    h.activate("ava".into(), code, pass("new ava")).await.unwrap();
    let view = h.people(world.who("ana")).await.unwrap().into_iter().find(|p| p.id == ava).unwrap();
    assert_eq!(view.state, PersonState::KeyUnconfirmed);
    assert_ne!(view.key, old_key);
    assert!(h.log_in("ava".into(), pass("new ava")).await.is_err(), "not before it was confirmed");
    // A second attempt closes the proposal of the first, so that nobody confirms a key that is gone.
    let older = h.proposals(world.who("sam")).await.unwrap().remove(0).id;
    world.pass_time(1);
    let done = h.change_person(world.who("ana"), ava, PersonChange::NewKey, pass("ana")).await.unwrap();
    let Outcome::Done { code: Some(code) } = done else { panic!("{done:?}") };
    let first_key = view.key.unwrap();
    let proposals = h.proposals(world.who("sam")).await.unwrap();
    assert!(matches!(proposals.as_slice(), [p] if p.id != older && p.needs_words), "{proposals:?}");
    assert!(proposals[0].words.contains("not made it yet"), "{proposals:?}");
    h.activate("ava".into(), code, pass("newer ava")).await.unwrap();
    let view = h.people(world.who("ana")).await.unwrap().into_iter().find(|p| p.id == ava).unwrap();
    let proposal = h.proposals(world.who("sam")).await.unwrap().remove(0);
    let words = hospes_protocol::words::of_key(&view.key.unwrap());
    assert!(proposal.words.contains(&words), "{}", proposal.words);
    // Who confirms says which key: by the words of it, not of another and not of none.
    let answer = |words: Option<String>| h.answer_proposal(world.who("sam"), proposal.id, true, words, pass("sam"));
    let none = answer(None).await;
    assert!(matches!(none, Err(PartyError::Input { place: "words", .. })), "{none:?}");
    let other = answer(Some(hospes_protocol::words::of_key(&first_key))).await;
    assert!(matches!(other, Err(PartyError::Fingerprint(crate::view::Words::Different))), "{other:?}");
    answer(Some(words)).await.unwrap();
    h.log_in("ava".into(), pass("newer ava")).await.unwrap();
    // What the old key signed no longer holds: whoever had it might have been somebody else.
    world.start_job_expecting(&first, job(1), RefusalCode::Signatures).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn enabling_somebody_confirms_no_key() {
    let mut world = World::new().await;
    world.in_operation().await;
    let h = world.handle.clone();
    let (ana, ava) = (world.who("ana").clone(), world.who("ava").person());
    let done = h.change_person(&ana, ava, PersonChange::NewKey, pass("ana")).await.unwrap();
    let Outcome::Done { code: Some(code) } = done else { panic!("{done:?}") };
    h.activate("ava".into(), code, pass("not ava")).await.unwrap();
    // Whoever made that key is let in by two signatures that say nothing of it.
    h.change_person(&ana, ava, PersonChange::Disable, pass("ana")).await.unwrap();
    world.pass_time(1);
    let view = proposed(h.change_person(&ana, ava, PersonChange::Enable, pass("ana")).await.unwrap());
    assert!(view.words.contains("still to be confirmed"), "{}", view.words);
    h.answer_proposal(world.who("sam"), view.id, true, None, pass("sam")).await.unwrap();
    let view = h.people(&ana).await.unwrap().into_iter().find(|p| p.id == ava).unwrap();
    assert_eq!(view.state, PersonState::KeyUnconfirmed);
    assert!(h.log_in("ava".into(), pass("not ava")).await.is_err(), "an unconfirmed key acts");
    let proposal = h.proposals(world.who("sam")).await.unwrap().remove(0);
    let words = hospes_protocol::words::of_key(&view.key.unwrap());
    h.answer_proposal(world.who("sam"), proposal.id, true, Some(words), pass("sam")).await.unwrap();
    h.log_in("ava".into(), pass("not ava")).await.unwrap();
    // From then on it is a key like any other.
    h.change_person(&ana, ava, PersonChange::Disable, pass("ana")).await.unwrap();
    world.pass_time(1);
    let view = proposed(h.change_person(&ana, ava, PersonChange::Enable, pass("ana")).await.unwrap());
    h.answer_proposal(world.who("sam"), view.id, true, None, pass("sam")).await.unwrap();
    h.log_in("ava".into(), pass("not ava")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_administrator_gets_a_new_key_by_two_other_peoples_signatures() {
    let mut world = World::new().await;
    let ana = world.who("ana").person();
    let new_key = |by: &'static str| {
        let (h, session) = (world.handle.clone(), world.who(by).clone());
        async move { h.change_person(&session, ana, PersonChange::NewKey, pass(by)).await }
    };
    let early = new_key("ava").await;
    assert!(matches!(early, Err(PartyError::Denied { .. })), "while the site is set up: {early:?}");
    world.in_operation().await;
    let h = world.handle.clone();
    let new_key = |by: &'static str| {
        let (h, session) = (world.handle.clone(), world.who(by).clone());
        async move { h.change_person(&session, ana, PersonChange::NewKey, pass(by)).await }
    };
    assert!(matches!(new_key("pia").await, Err(PartyError::Denied { .. })), "who only watches");
    assert!(matches!(new_key("ana").await, Err(PartyError::State(_))), "she herself");
    let view = proposed(new_key("ava").await.unwrap());
    assert!(view.words.contains("the only administrator") && !view.needs_words, "{}", view.words);
    // One person alone takes nothing from her, and she herself decides nothing about it.
    h.log_in("ana".into(), pass("ana")).await.unwrap();
    for who in ["ava", "ana"] {
        let answer = h.answer_proposal(world.who(who), view.id, true, None, pass(who)).await;
        assert!(matches!(answer, Err(PartyError::State(_))), "{answer:?}");
    }
    let done = h.answer_proposal(world.who("sam"), view.id, true, None, pass("sam")).await.unwrap();
    let Outcome::Done { code: Some(code) } = done else { panic!("{done:?}") };
    assert!(h.log_in("ana".into(), pass("ana")).await.is_err(), "the old key is destroyed");
    let key = h.activate("ana".into(), code, pass("new ana")).await.unwrap().key.unwrap();
    assert!(h.log_in("ana".into(), pass("new ana")).await.is_err(), "not before it was confirmed");
    let confirm = h.proposals(world.who("ava")).await.unwrap().remove(0);
    assert!(confirm.needs_words);
    let words = Some(hospes_protocol::words::of_key(&key));
    let own = h.answer_proposal(world.who("sam"), confirm.id, true, words.clone(), pass("sam")).await;
    assert!(matches!(own, Err(PartyError::State(_))), "who handed out the code cannot confirm the key: {own:?}");
    h.answer_proposal(world.who("ava"), confirm.id, true, words, pass("ava")).await.unwrap();
    let session = h.log_in("ana".into(), pass("new ana")).await.unwrap();
    assert_eq!(session.person(), ana);
    world.sessions.insert("ana", session);
    assert_eq!(world.entered("key_replaced", "success").await, 2);
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_signature_of_another_organisation_must_be_one() {
    let mut world = World::new().await;
    let mut policy = Policy::public_data();
    policy.approval.four_eyes = hospes_protocol::policy::FourEyes::External;
    world.set_policy(&policy).await;
    world.add_person("xara", Role::DataAccessApprover, Some("Data access committee")).await;
    let xara = world.who("xara").clone();
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    let signed = world.sign("sam", exactly(study.id)).await.unwrap();
    let own = world.handle.countersign(world.who("ava"), study.id, signed.digest, pass("ava")).await;
    assert!(matches!(&own, Err(PartyError::Refused(r)) if r.detail.contains("another organisation")), "{own:?}");
    world.handle.countersign(&xara, study.id, signed.digest, pass("xara")).await.unwrap();
    world.start_job(&study, job(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_of_another_organisation_signs_and_decides_nothing_else() {
    let mut world = World::new().await;
    let mut policy = Policy::public_data();
    policy.approval.four_eyes = hospes_protocol::policy::FourEyes::External;
    world.set_policy(&policy).await;
    world.add_person("xara", Role::DataAccessApprover, Some("Data access committee")).await;
    let (first, second) = (study(1, small_plan(1)), study(2, small_plan(1)));
    world.connect().await;
    world.offer(&first).await;
    world.offer(&second).await;
    let (h, ana, xara) = (world.handle.clone(), world.who("ana").clone(), world.who("xara").clone());
    let signed = world.sign("sam", exactly(first.id)).await.unwrap();
    h.countersign(&xara, first.id, signed.digest, pass("xara")).await.unwrap();
    world.start_job(&first, job(1)).await;
    let mut loose = policy.clone();
    loose.approval.expires_days = 400;
    let proposal = proposed(h.set_policy(&ana, loose.to_toml().unwrap(), pass("ana")).await.unwrap());

    let before = world.entered("role_refused", "refused").await;
    let denied = |result: Result<(), PartyError>| match result {
        Err(denied @ PartyError::Denied { .. }) => denied.to_string(),
        other => panic!("{other:?}"),
    };
    denied(h.answer_proposal(&xara, proposal.id, true, None, pass("xara")).await.map(drop));
    denied(h.audit(&xara, crate::view::AuditQuery::default()).await.map(drop));
    denied(h.acknowledge(&xara, 1).await);
    denied(h.release(&xara, job(1)).await);
    denied(h.fetch_model(&xara, job(1)).await);
    denied(h.model_copy(&xara, job(1)).await.map(drop));
    // Where anybody of the site may look, the words name their roles.
    let words = denied(h.job_log(&xara, job(1)).await.map(drop));
    assert!(words.contains("auditor") && !words.contains("approver"), "{words}");
    let dataset = h.datasets(&ana).await.unwrap()[0].id;
    denied(h.datasets(&xara).await.map(drop));
    denied(h.dataset_uses(&xara, dataset).await.map(drop));
    denied(h.jobs(&xara, Page::default()).await.map(drop));
    denied(h.egress(&xara, Page::default()).await.map(drop));
    denied(h.privacy(&xara).await.map(drop));
    denied(h.alarms(&xara).await.map(drop));
    let reason = || "as we like it".to_owned();
    for verdict in [Verdict::Suspend { reason: reason() }, Verdict::Resume, Verdict::Revoke { reason: reason() }] {
        denied(h.decide(&xara, first.id, verdict).await.map(drop));
    }
    assert_eq!(world.entered("role_refused", "refused").await, before + 16);
    // Of people and of what waits for a second signature they see what is theirs.
    let names: Vec<String> = h.people(&xara).await.unwrap().into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["xara"]);
    assert!(h.proposals(&xara).await.unwrap().is_empty());
    assert_eq!(h.proposals(world.who("sam")).await.unwrap(), [proposal]);

    // What they are asked for they read and turn down, and they look after their passphrase.
    world.sign("sam", exactly(second.id)).await.unwrap();
    assert_eq!(h.requests(&xara).await.unwrap().len(), 2);
    h.review(&xara, second.id, None).await.unwrap();
    let view = h.decide(&xara, second.id, Verdict::Refuse { reason: reason() }).await.unwrap();
    assert_eq!(view.state, crate::view::RequestState::Refused);
    // Where the policy asks no other organisation, they turn nothing down either.
    world.set_policy(&Policy::public_data()).await;
    denied(h.decide(&xara, second.id, Verdict::Refuse { reason: reason() }).await.map(drop));
    h.change_passphrase(&xara, pass("xara"), pass("another xara")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_and_a_signer_of_another_organisation_do_not_end_set_up() {
    let temporary = tempfile::tempdir().unwrap();
    let mut world = World::create(temporary.path(), Executor::Thread).await;
    let h = world.handle.clone();
    h.set_up("ana".into(), pass("ana")).await.unwrap();
    let ana = h.log_in("ana".into(), pass("ana")).await.unwrap();
    world.sessions.insert("ana", ana.clone());
    let roles = PersonChange::Roles(BTreeSet::from([Role::Administrator, Role::DataSteward]));
    h.change_person(&ana, ana.person(), roles, pass("ana")).await.unwrap();
    world.sessions.insert("sam", ana.clone());
    let mut policy = Policy::public_data();
    policy.approval.four_eyes = hospes_protocol::policy::FourEyes::External;
    world.set_policy(&policy).await;
    world.add_dataset("Cleveland", "cleveland.csv", true).await;
    world.add_person("xara", Role::DataAccessApprover, Some("Data access committee")).await;
    // A privacy officer only watches: with one, nobody could answer Ana either.
    world.add_person("pia", Role::PrivacyOfficer, None).await;
    world.join().await;
    world.connect().await;
    let study = study(1, small_plan(1));
    world.offer(&study).await;
    let refused = world.sign("ana", exactly(study.id)).await;
    let named = "second person of this organisation";
    assert!(matches!(&refused, Err(PartyError::State(words)) if words.contains(named)), "{refused:?}");
    assert_eq!(world.entered("setup_ended", "success").await, 0);

    // In set-up Ana still adds one by herself, and then the site works.
    world.add_person("ava", Role::DataAccessApprover, None).await;
    let signed = world.sign("ana", exactly(study.id)).await.unwrap();
    h.countersign(world.who("xara"), study.id, signed.digest, pass("xara")).await.unwrap();
    assert_eq!(world.entered("setup_ended", "success").await, 1);
    let person =
        NewPerson { name: "eve".into(), roles: BTreeSet::from([Role::DataAccessApprover]), organisation: None };
    let view = proposed(h.add_person(&ana, person, pass("ana")).await.unwrap());
    h.answer_proposal(world.who("ava"), view.id, true, None, pass("ava")).await.unwrap();
    assert!(h.people(&ana).await.unwrap().iter().any(|p| p.name == "eve"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_person_of_a_site_is_joined_by_another_with_an_outsiders_signature() {
    let mut world = World::new().await;
    world.add_person("xara", Role::DataAccessApprover, Some("Data access committee")).await;
    world.in_operation().await;
    let (h, ana, xara) = (world.handle.clone(), world.who("ana").clone(), world.who("xara").clone());
    let person = |name: &str, organisation: Option<&str>| NewPerson {
        name: name.into(),
        roles: BTreeSet::from([Role::DataAccessApprover]),
        organisation: organisation.map(Into::into),
    };
    let view = proposed(h.add_person(&ana, person("eve", None), pass("ana")).await.unwrap());
    world.pass_time(1);
    let other = proposed(h.add_person(&ana, person("zoe", Some("Another")), pass("ana")).await.unwrap());
    let answer = |id| h.answer_proposal(&xara, id, true, None, pass("xara"));
    // Not while somebody of this organisation could answer.
    h.change_person(&ana, world.who("sam").person(), PersonChange::Disable, pass("ana")).await.unwrap();
    let early = answer(view.id).await;
    assert!(matches!(early, Err(PartyError::Denied { .. })), "{early:?}");
    assert!(h.proposals(&xara).await.unwrap().is_empty());
    // Ana is alone: another of this organisation may join her, and nothing else is for Xara.
    h.change_person(&ana, world.who("ava").person(), PersonChange::Disable, pass("ana")).await.unwrap();
    assert_eq!(h.proposals(&xara).await.unwrap(), std::slice::from_ref(&view));
    let outsider = answer(other.id).await;
    assert!(matches!(outsider, Err(PartyError::Denied { .. })), "{outsider:?}");
    let done = answer(view.id).await.unwrap();
    let Outcome::Done { code: Some(code) } = done else { panic!("{done:?}") };
    h.activate("eve".into(), code, pass("eve")).await.unwrap();
    let eve = h.log_in("eve".into(), pass("eve")).await.unwrap();
    h.answer_proposal(&eve, other.id, false, None, pass("eve")).await.unwrap();
    assert!(h.proposals(&ana).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_signature_is_refused_where_updates_are_not_masked() {
    let mut world = World::new().await;
    let mut policy = Policy::public_data();
    policy.approval.four_eyes = hospes_protocol::policy::FourEyes::Delayed;
    world.set_policy(&policy).await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    let refused = world.sign("sam", exactly(study.id)).await;
    assert!(matches!(&refused, Err(PartyError::Refused(r)) if r.detail.contains("secure aggregation")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_opinion_comes_before_the_signatures() {
    let mut world = World::new().await;
    let mut policy = Policy::public_data();
    policy.approval.require_opinion = true;
    world.set_policy(&policy).await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    let refused = world.sign("sam", exactly(study.id)).await;
    assert!(matches!(&refused, Err(PartyError::Refused(r)) if r.detail.contains("opinion")), "{refused:?}");
    let opinion = world.handle.give_opinion(world.who("pia"), study.id, OpinionView::Object, "too broad".into());
    opinion.await.unwrap();
    // An objection does not decide; people do, and they see it.
    let review = world.handle.review(world.who("sam"), study.id, None).await.unwrap();
    assert_eq!(review.opinion.unwrap().view, OpinionView::Object);
    world.pass_time(1);
    world.approve(&study).await;
    world.start_job(&study, job(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_passphrase_opens_the_same_key() {
    let world = World::new().await;
    let key = |people: Vec<crate::view::PersonView>| people.into_iter().find(|p| p.name == "sam").unwrap().key;
    let before = key(world.handle.people(world.who("ana")).await.unwrap());
    let short =
        world.handle.change_passphrase(world.who("sam"), pass("sam"), Passphrase::from("short".to_owned())).await;
    assert!(matches!(short, Err(PartyError::Input { .. })));
    world.handle.change_passphrase(world.who("sam"), pass("sam"), pass("another sam")).await.unwrap();
    assert!(world.handle.log_in("sam".into(), pass("sam")).await.is_err());
    world.handle.log_in("sam".into(), pass("another sam")).await.unwrap();
    assert_eq!(key(world.handle.people(world.who("ana")).await.unwrap()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_not_destroyed_where_nobody_could_confirm_the_next_one() {
    let mut world = World::new().await;
    world.add_person("xara", Role::DataAccessApprover, Some("Data access committee")).await;
    world.in_operation().await;
    let h = world.handle.clone();
    let ana = world.who("ana").clone();
    // Ana asks, the key is Ava's, and without Sam only people who watch are left, and one of another organisation.
    h.change_person(&ana, world.who("sam").person(), PersonChange::Disable, pass("ana")).await.unwrap();
    let refused = h.change_person(&ana, world.who("ava").person(), PersonChange::NewKey, pass("ana")).await;
    assert!(matches!(&refused, Err(PartyError::State(words)) if words.contains("third person")), "{refused:?}");
    h.log_in("ava".into(), pass("ava")).await.unwrap();
    assert!(h.proposals(&ana).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_or_pauses_says_why() {
    let world = World::new().await;
    for blank in ["", "  "] {
        let stop = world.handle.stop(world.who("ana"), Some(blank.into())).await;
        assert!(matches!(stop, Err(PartyError::Input { place: "reason", .. })), "{stop:?}");
        let pause = world.handle.pause(world.who("ana"), federation(), Some(blank.into())).await;
        assert!(matches!(pause, Err(PartyError::Input { place: "reason", .. })), "{pause:?}");
    }
    assert_eq!(world.handle.status().await.unwrap().stopped, None);
    world.handle.stop(world.who("ana"), Some("a break-in".into())).await.unwrap();
    assert_eq!(world.handle.status().await.unwrap().stopped.as_deref(), Some("a break-in"));
}
