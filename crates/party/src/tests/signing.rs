//! What the second signer reads, and whom nobody may pass by.

use hospes_protocol::approval::{OpinionView, Range, ReleaseRule};
use hospes_protocol::message::Decision;
use hospes_protocol::sign::DocumentSignature;

use super::series::version;
use super::*;
use crate::error::PartyError;
use crate::requests::text::render;
use crate::view::{Finding, RequestState, RequestView, Review, Signed as SignedApproval, Verdict};

async fn first(world: &World, approving: Approving) -> Result<SignedApproval, PartyError> {
    world.sign("sam", approving).await
}

async fn second(world: &World, study: &Study, digest: Digest) -> Result<SignedApproval, PartyError> {
    world.handle.countersign(world.who("ava"), study.id, digest, pass("ava")).await
}

async fn read(world: &World, study: &Study) -> Review {
    world.handle.review(world.who("ava"), study.id, None).await.unwrap()
}

async fn decide(world: &World, study: &Study, who: &str, verdict: Verdict) -> Result<RequestView, PartyError> {
    world.handle.decide(world.who(who), study.id, verdict).await
}

/// Waits until the coordinator hears that the study is suspended.
async fn expect_suspended(world: &mut World) {
    world
        .expect("the suspension", |c| match c {
            LinkCommand::Send(FromSite::Decision { decision: Decision::Suspended, .. }) => Some(()),
            _ => None,
        })
        .await;
}

fn refused_with(result: Result<SignedApproval, PartyError>, part: &str) {
    assert!(matches!(&result, Err(PartyError::Refused(r)) if r.detail.contains(part)), "{part}: {result:?}");
}

async fn opinion(world: &World, study: &Study, view: OpinionView) {
    world.handle.give_opinion(world.who("pia"), study.id, view, "so I think".into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_signer_reads_everything_that_the_first_allowed() {
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    let plain = render(&read(&world, &study).await);
    assert!(plain.contains("Runs: one, if the first signer"), "{plain}");
    let place = "tasks.train.params.local.updates";
    let approving = Approving {
        max_runs: 1_000,
        ranges: BTreeMap::from([(place.to_owned(), Range { min: 1.0, max: 1e6 })]),
        release: ReleaseRule::Automatic,
        checklist: BTreeMap::from([("Dry run".to_owned(), "was not made".to_owned())]),
        ..exactly(study.id)
    };
    let signed = first(&world, approving).await.unwrap();
    let review = read(&world, &study).await;
    let text = render(&review).split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "Runs: 1000",
        "tasks.train.params.local.updates from 1 to 1000000",
        "Release of results: at once, without a person",
        "Checklist: Dry run: was not made",
        &format!("Valid until: {}", signed.expires),
        "up to 1000 runs are allowed",
        "may be any number from 1 to 1000000 without another signature",
        "results are released without a person",
        &format!("Approval to be signed {}", signed.digest),
    ] {
        assert!(text.contains(part), "'{part}' is missing in\n{text}");
    }
    assert!(!text.contains("they are held at the coordinator"), "{text}");
    assert!(review.approvable, "{:?}", review.findings);
    assert_eq!(review.approval_digest, Some(signed.digest));
    second(&world, &study, signed.digest).await.unwrap();
}

/// Attack: two runs within one approval whose reports differ in nothing but what the coordinator makes of them.
#[tokio::test(flavor = "multi_thread")]
async fn only_how_a_model_is_trained_may_be_left_free() {
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    for (place, words) in [
        ("tasks.eval.params.threshold", "'eval' is evaluation"),
        ("tasks.train.params.quantise.clip", "is the same in every run"),
        ("data.columns.0", "is no place that"),
    ] {
        let ranges = BTreeMap::from([(place.to_owned(), Range { min: 0.0, max: 1.0 })]);
        let refused = first(&world, Approving { max_runs: 2, ranges, ..exactly(study.id) }).await;
        assert!(matches!(&refused, Err(e) if e.to_string().contains(words)), "{place}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_on_another_dataset_is_not_of_what_was_signed() {
    let mut world = World::new().await;
    let other = world.add_dataset("Hungary", "hungary.csv", true).await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    let datasets = world.handle.datasets(world.who("sam")).await.unwrap();
    let cleveland = datasets.iter().find(|d| d.name == "Cleveland").unwrap().id;
    let signed = first(&world, Approving { dataset: Some(cleveland), ..exactly(study.id) }).await.unwrap();
    assert_eq!(read(&world, &study).await.approval_digest, Some(signed.digest));
    let review = world.handle.review(world.who("ava"), study.id, Some(other.id)).await.unwrap();
    assert_eq!((review.approval_digest, review.signatures.len()), (None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_privacy_officer_suspended_is_not_signed_again_past_them() {
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    world.approve(&study).await;
    // A new approval is on its way when the officer suspends the one in force.
    world.pass_time(1);
    let draft = first(&world, exactly(study.id)).await.unwrap();
    let suspend = Verdict::Suspend { reason: "patients complained".into() };
    decide(&world, &study, "pia", suspend.clone()).await.unwrap();
    expect_suspended(&mut world).await;
    refused_with(second(&world, &study, draft.digest).await, "patients complained");
    refused_with(first(&world, exactly(study.id)).await, "privacy officer suspended it");
    // The window offers the officer to resume although the request is partly approved.
    let shown = read(&world, &study).await;
    let in_force = shown.in_force.unwrap();
    assert!(!shown.approvable && shown.state == RequestState::PartlyApproved);
    assert_eq!((in_force.state, in_force.held_by), (RequestState::Suspended, Some(Role::PrivacyOfficer)));
    let listed = world.handle.requests(world.who("sam")).await.unwrap();
    assert_eq!(listed[0].in_force.as_ref().map(|f| f.state), Some(RequestState::Suspended));
    // A refusal of what is on its way would take the suspension with it.
    let refuse = Verdict::Refuse { reason: "to begin anew".into() };
    for who in ["sam", "ava"] {
        let refused = decide(&world, &study, who, refuse.clone()).await;
        assert!(matches!(&refused, Err(PartyError::State(words)) if words.contains("privacy officer")), "{refused:?}");
    }
    refused_with(second(&world, &study, draft.digest).await, "patients complained");
    // The officer goes on whatever is on its way, and stops it again.
    decide(&world, &study, "pia", Verdict::Resume).await.unwrap();
    decide(&world, &study, "pia", suspend).await.unwrap();
    expect_suspended(&mut world).await;
    // Neither a revocation nor a refusal after it lifts what the officer said; only the officer does.
    decide(&world, &study, "sam", Verdict::Revoke { reason: "to begin anew".into() }).await.unwrap();
    refused_with(first(&world, exactly(study.id)).await, "privacy officer suspended it");
    decide(&world, &study, "ava", refuse).await.unwrap();
    refused_with(first(&world, exactly(study.id)).await, "privacy officer suspended it");
    opinion(&world, &study, OpinionView::Object).await;
    refused_with(first(&world, exactly(study.id)).await, "privacy officer suspended it");
    world.pass_time(1);
    opinion(&world, &study, OpinionView::Agree).await;
    let signed = first(&world, exactly(study.id)).await.unwrap();
    let done = second(&world, &study, signed.digest).await.unwrap();
    assert_eq!(done.state, RequestState::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_privacy_officer_takes_over_a_suspension() {
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    world.approve(&study).await;
    let suspend = |reason: &str| Verdict::Suspend { reason: reason.into() };
    let decide = |who, verdict| world.handle.decide(world.who(who), study.id, verdict);
    decide("sam", suspend("a holiday")).await.unwrap();
    decide("pia", suspend("patients complained")).await.unwrap();
    let resumed = decide("sam", Verdict::Resume).await;
    assert!(matches!(&resumed, Err(PartyError::State(words)) if words.contains("privacy officer")), "{resumed:?}");
    assert!(decide("sam", suspend("once more")).await.is_err());
    decide("pia", Verdict::Resume).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opinion_changed_between_the_signatures_asks_for_the_first_again() {
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    opinion(&world, &study, OpinionView::Agree).await;
    let signed = first(&world, exactly(study.id)).await.unwrap();
    world.pass_time(1);
    opinion(&world, &study, OpinionView::Object).await;
    let review = read(&world, &study).await;
    assert!(review.findings.iter().any(|f| f.words.contains("another opinion")), "{:?}", review.findings);
    assert_eq!(review.approval_digest, None, "the review is of what would be signed first");
    refused_with(second(&world, &study, signed.digest).await, "another opinion");
    // An objection does not decide; but both people sign knowing it.
    let again = first(&world, exactly(study.id)).await.unwrap();
    second(&world, &study, again.digest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requesters_key_counts_only_if_it_signed_the_study() {
    let mut world = World::new().await;
    let researcher = key(9);
    let mut study = study(1, small_plan(1));
    study.terms.requester.key = Some(researcher.public());
    study.terms.requester.vouched_by = Some("Heart Federation".into());
    world.connect().await;
    world.offer(&study).await;
    assert!(world.handle.requests(world.who("sam")).await.unwrap().is_empty());
    assert_eq!(world.entered("request_received", "refused").await, 1);
    assert!(world.alarms().await.iter().any(|a| a.contains("did not sign it")), "{:?}", world.alarms().await);
    let mut signed = Signed::new(study.clone(), &coordinator()).unwrap();
    let signature = researcher.sign(&signed.document.digest());
    signed.signatures.push(DocumentSignature { key: researcher.public(), signature });
    world.send(ToSite::Study(Box::new(signed))).await;
    world.settle().await;
    let text = render(&read(&world, &study).await);
    for part in ["which signed this study", "not checked: Heart Federation"] {
        assert!(text.contains(part), "'{part}' is missing in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_it_was_read_is_not_signed() {
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    let sign = |read: Reading| world.handle.approve(world.who("sam"), Approving::exactly(study.id, read), pass("sam"));
    let reading = async || read(&world, &study).await.read;

    let before = reading().await;
    let mut policy = Policy::public_data();
    policy.approval.expires_days = 10;
    world.set_policy(&policy).await;
    refused_with(sign(before).await, "(changed: the policy); read it again");

    let before = reading().await;
    opinion(&world, &study, OpinionView::Object).await;
    refused_with(sign(before).await, "(changed: the privacy officer's opinion)");

    // No dataset is named: the version that is newest now was not read.
    let before = reading().await;
    let older = world.handle.datasets(world.who("sam")).await.unwrap().remove(0);
    let newer = version(&world, 300, |_, line| line.to_owned()).await;
    refused_with(sign(before).await, "(changed: the dataset)");
    assert_eq!((newer.version, newer.former), (2, Some(older.id)));

    let before = reading().await;
    let list = world.folder.join("opt-outs.txt");
    std::fs::write(&list, "cleveland-001\n").unwrap();
    world.handle.import_opt_outs(world.who("sam"), list).await.unwrap();
    refused_with(sign(before).await, "(changed: the dataset)");

    // What was read of one version is not signed for another; what was made up is not signed at all.
    let other = world.handle.review(world.who("sam"), study.id, Some(older.id)).await.unwrap().read;
    refused_with(sign(other).await, "(changed: the dataset)");
    let now = reading().await;
    refused_with(sign(Reading { digest: Digest::of(b"x"), ..now }).await, "read it again");
    assert_eq!(world.entered("approval_signed", "refused").await, 6);
    assert_eq!(world.entered("setup_ended", "success").await, 0);

    let signed = sign(now).await.unwrap();
    second(&world, &study, signed.digest).await.unwrap();
}

/// A study that its requester signed with this key, besides the coordinator.
fn asked_by(key: &SecretKey, study: &mut Study) -> Signed<Study> {
    study.terms.requester.key = Some(key.public());
    let mut signed = Signed::new(study.clone(), &coordinator()).unwrap();
    let signature = key.sign(&signed.document.digest());
    signed.signatures.push(DocumentSignature { key: key.public(), signature });
    signed
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_signs_a_study_of_their_own() {
    let mut world = World::new().await;
    world.connect().await;
    let (mut of_sam, mut of_ava) = (study(1, small_plan(1)), study(2, small_plan(1)));
    for (who, study) in [("sam", &mut of_sam), ("ava", &mut of_ava)] {
        let person = world.who(who).person();
        let key = world.handle.ask(move |e| e.unlock(person, pass(who)).boxed()).await.unwrap();
        world.send(ToSite::Study(Box::new(asked_by(&key, study)))).await;
        world.settle().await;
        let review = read(&world, study).await;
        let told = format!("'{who}', who signs here, is the requester by their key");
        assert!(review.findings.iter().any(|f| f.words.starts_with(&told)), "{:?}", review.findings);
    }
    refused_with(first(&world, exactly(of_sam.id)).await, "the study is yours");
    let signed = first(&world, exactly(of_ava.id)).await.unwrap();
    refused_with(second(&world, &of_ava, signed.digest).await, "the study is yours");
    assert_eq!(world.entered("approval_signed", "refused").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_signers_are_told_of_one_who_has_the_requesters_name() {
    let mut world = World::new().await;
    let mut study = study(1, small_plan(1));
    study.terms.requester.name = "S. Am".into();
    world.connect().await;
    world.offer(&study).await;
    let told = "'sam', who signs here, has the name of the requester";
    let is_told = |f: &Finding| f.words.starts_with(told) && !f.refuses;
    let review = read(&world, &study).await;
    assert!(review.approvable && review.findings.iter().any(is_told), "{:?}", review.findings);
    // A name is no proof: people judge.
    let signed = first(&world, exactly(study.id)).await.unwrap();
    assert!(read(&world, &study).await.findings.iter().any(is_told));
    second(&world, &study, signed.digest).await.unwrap();
}
