//! Enrolment and renewal.

use hospes_coordinator::audit::Audit;
use hospes_coordinator::ca::Peer;
use hospes_coordinator::enrol::Register;
use hospes_coordinator::store::Standing;
use hospes_protocol::enrol::EnrolRequest;
use hospes_protocol::sign::{SecretKey, Signed};
use serde_json::json;

use crate::site::{Site, csr, post_enrol, statement, tls_key};
use crate::world::World;

fn detail(problem: &serde_json::Value) -> &str {
    problem["detail"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_enrols_and_is_in_the_signed_roster_and_in_the_ledger() {
    let world = World::new().await;
    let site = world.enrolled("Cleveland", 1).await;
    let roster = site.answer.signed_roster().unwrap();
    assert!(roster.signed_by(&world.home.key.public()) && roster.signed_by(&site.answer.identity));
    assert_eq!(roster.document.version, 1);
    assert_eq!(roster.document.members.len(), 1);
    assert!(roster.document.members[0].holds(world.home.federation()));
    assert_eq!(site.answer.ca_pem, world.home.ca.pem());
    world.heard.wait("roster changed").await;
    let (_, view) = world.api("GET", "/api/v1/sites", None).await;
    assert_eq!(view[0]["name"], "Cleveland");
    assert_eq!(view[0]["state"], "enrolled");
    let mut connection = world.store.read().await.unwrap();
    let mut ledger = hospes_ledger::Ledger::on(&mut *connection);
    // Two tokens, one invitation, then enrolled, certificate, roster.
    assert_eq!(ledger.size().await.unwrap(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_is_good_once_and_only_until_it_ends() {
    let world = World::new().await;
    let invitation = world.invite("Cleveland").await;
    Site::enrol(&world, &invitation, 1).await.unwrap();
    let (status, problem) = Site::enrol(&world, &invitation, 1).await.err().expect("an invitation was good twice");
    assert!(status == 403 && detail(&problem).contains("is used"), "{problem}");
    let late = world.invite("Hungary").await;
    world.time.by(86_400_000);
    let (status, problem) = Site::enrol(&world, &late, 2).await.err().expect("an expired invitation was good");
    assert!(status == 403 && detail(&problem).contains("is expired"), "{problem}");
    let withdrawn = world.invite("Hungary").await;
    let (_, list) = world.api("GET", "/api/v1/invitations", None).await;
    let id = list.as_array().unwrap().iter().find(|i| i["state"] == "open").unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(world.api("DELETE", &format!("/api/v1/invitations/{id}"), None).await.0, 204);
    assert_eq!(world.api("DELETE", &format!("/api/v1/invitations/{id}"), None).await.0, 404);
    let (status, problem) = Site::enrol(&world, &withdrawn, 2).await.err().expect("a withdrawn invitation was good");
    assert!(status == 403 && detail(&problem).contains("is revoked"), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_use_one_invitation_at_once_one_gets_in() {
    let world = World::new().await;
    let invitation = world.invite("Cleveland").await;
    let tries = (1..=6).map(|seed| Site::enrol(&world, &invitation, seed));
    let results = futures::future::join_all(tries).await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    assert_eq!(world.store.sites().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_of_two_sites_with_one_name_is_told_why_not() {
    let world = World::new().await;
    let (first, second) = (world.invite("Cleveland").await, world.invite(" cleveland ").await);
    Site::enrol(&world, &first, 1).await.unwrap();
    let (status, problem) = Site::enrol(&world, &second, 2).await.err().expect("two sites with one name");
    assert!(status == 409 && detail(&problem).contains("belongs to another site"), "{problem}");
    assert_eq!(world.store.sites().await.unwrap().len(), 1);
    // The refusal did not use the invitation up, and stands in the ledger.
    let (_, list) = world.api("GET", "/api/v1/invitations", None).await;
    assert_eq!(list.as_array().unwrap().iter().filter(|i| i["state"] == "open").count(), 1);
    let mut connection = world.store.read().await.unwrap();
    let filter = hospes_ledger::Filter { actions: vec![hospes_ledger::Action::PeerRefused], ..Default::default() };
    let page = hospes_ledger::Ledger::on(&mut *connection).page(&filter, 10).await.unwrap();
    assert_eq!(page.records.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_would_make_every_site_refuse_the_roster_is_not_let_in() {
    let world = World::new().await;
    for name in ["X\u{200B}", "a\u{202E}b", "\u{FEFF}X", "..."] {
        let (status, problem) = world.api("POST", "/api/v1/invitations", Some(json!({ "name": name }))).await;
        assert!(status == 422 && detail(&problem).contains("the site's name"), "{name:?}: {problem}");
    }
    world.enrolled("St. Mary", 1).await;
    let same = world.invite("St Mary").await;
    let (status, problem) = Site::enrol(&world, &same, 2).await.err().expect("two names that read alike");
    assert!(status == 409 && detail(&problem).contains("belongs to another site"), "{problem}");
    world.enrolled("St. John", 3).await;
    let roster = world.store.roster().await.unwrap().unwrap();
    assert_eq!(roster.document.check(world.home.federation()), Ok(()));
    assert_eq!(roster.document.members.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_are_forged_renamed_or_of_another_federation_are_refused() {
    let world = World::new().await;
    let invitation = world.invite("Cleveland").await;
    let refuse = async |statement: &Signed<_>, why: &str| {
        let request = EnrolRequest::new(&invitation.secret, csr(&tls_key()), statement).unwrap();
        let (status, problem) = post_enrol(&world, &request).await.expect_err(why);
        assert!(status == 422 && detail(&problem).contains(why), "{problem}");
    };
    let good = statement(&world, "Cleveland", 1);
    let mut forged = good.clone();
    forged.signatures = statement(&world, "Cleveland", 2).signatures;
    refuse(&forged, "not signed by").await;
    let mut unsigned = good.clone();
    unsigned.signatures.clear();
    refuse(&unsigned, "not signed by").await;
    refuse(&statement(&world, "Budapest", 1), "the invitation is for 'Cleveland'").await;
    let mut other = (*good.document).clone();
    other.federation = SecretKey::from_seed(&[9; 32]).public().site_id();
    refuse(&Signed::new(other, &SecretKey::from_seed(&[1; 32])).unwrap(), "another federation").await;
    let mut hostile = (*good.document).clone();
    hostile.organisation = "a\u{1b}[2Jb".into();
    refuse(&Signed::new(hostile, &SecretKey::from_seed(&[1; 32])).unwrap(), "U+001B").await;
    for organisation in ["X\u{200B}", " X", "a\u{202E}b", "—"] {
        let mut hidden = (*good.document).clone();
        hidden.organisation = organisation.into();
        refuse(&Signed::new(hidden, &SecretKey::from_seed(&[1; 32])).unwrap(), "the organisation").await;
    }
    // A wrong secret, a short one, one of no alphabet, and a body that is none.
    let mut wrong = invitation.secret.clone();
    wrong[20] ^= 1;
    for secret in [wrong, vec![1; 5]] {
        let request = EnrolRequest::new(&secret, csr(&tls_key()), &good).unwrap();
        assert_eq!(post_enrol(&world, &request).await.unwrap_err().0, 403);
    }
    let mut request = EnrolRequest::new(&invitation.secret, "no csr".into(), &good).unwrap();
    assert_eq!(post_enrol(&world, &request).await.unwrap_err().0, 422);
    request.csr_pem = "x".repeat(70 << 10);
    assert_eq!(post_enrol(&world, &request).await.unwrap_err().0, 413);
    // After all that the invitation is still good for the right one.
    Site::enrol(&world, &invitation, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enrolling_again_keeps_the_identity_and_revokes_the_old_certificates() {
    let world = World::new().await;
    let before = world.enrolled("Cleveland", 1).await;
    let after = world.enrolled("Cleveland", 1).await;
    assert_eq!(before.id, after.id);
    assert_eq!(world.store.sites().await.unwrap().len(), 1);
    assert!(before.session(before.hello(now(&world))).await.is_err(), "the old certificate is still good");
    let mut session = after.session(after.hello(now(&world))).await.unwrap();
    assert!(session.hear().await.is_some());
    // The same key under another name is refused.
    let other = world.invite("Budapest").await;
    let (status, problem) = Site::enrol(&world, &other, 1).await.err().unwrap();
    assert!(status == 409 && detail(&problem).contains("enrolled as 'Cleveland'"), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_of_a_revoked_site_is_free_for_a_new_key() {
    let world = World::new().await;
    let lost = world.enrolled("Cleveland", 1).await;
    let path = format!("/api/v1/sites/{}/revoke", lost.id);
    assert_eq!(world.api("POST", &path, Some(json!({ "reason": "key lost" }))).await.0, 204);
    let found = world.enrolled("Cleveland", 2).await;
    assert_ne!(lost.id, found.id);
    let roster = world.store.roster().await.unwrap().unwrap();
    assert_eq!(roster.document.members.iter().map(|m| m.site).collect::<Vec<_>>(), [found.id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_while_it_is_good_and_not_after() {
    const DAY_MS: i64 = 86_400_000;
    // Thirty days.
    let world = World::new().await;
    let mut site = world.enrolled("Cleveland", 1).await;
    world.time.by(13 * DAY_MS);
    let (status, problem) = site.renew(&world).await.expect_err("renewed in the first half of its life");
    assert!(status == 409 && problem.contains("can be renewed from"), "{problem}");
    world.time.by(7 * DAY_MS);
    let first = site.credentials.clone();
    // Its answer gets lost, so that the site asks again with what it has.
    site.renew(&world).await.unwrap();
    let lost = std::mem::replace(&mut site.credentials, first);
    site.renew(&world).await.unwrap();
    let valid = world.store.certificates(site.id).await.unwrap().into_iter().filter(|c| c.revoked.is_none());
    assert_eq!(valid.count(), 2, "the present one and the last");
    let kept = std::mem::replace(&mut site.credentials, lost);
    assert!(site.session(site.hello(now(&world))).await.is_err(), "a third certificate is good");
    site.credentials = kept;
    world.time.by(11 * DAY_MS);
    let mut session = site.session(site.hello(now(&world))).await.unwrap();
    assert!(session.hear().await.is_some(), "the renewed certificate is not good");
    world.time.by(20 * DAY_MS);
    assert!(site.renew(&world).await.is_err(), "an expired certificate renewed itself");
    let again = world.enrolled("Cleveland", 1).await;
    assert_eq!(again.id, site.id, "enrolling again after expiry keeps the identity");
    let plain = world.client().post(world.url("/renew")).header("content-type", "application/json");
    let body = serde_json::to_string(&hospes_protocol::enrol::RenewRequest { csr_pem: csr(&tls_key()) }).unwrap();
    assert_eq!(plain.body(body).send().await.unwrap().status(), 403, "renewed without a certificate");
}

/// What the port asks and what the transaction does lie apart: a site may be locked out in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_is_locked_out_while_it_renews_gets_no_certificate() {
    let world = World::new().await;
    let site = world.enrolled("Cleveland", 1).await;
    let serial = world.store.certificates(site.id).await.unwrap()[0].serial.clone();
    let peer = Peer { site: site.id, serial };
    let clock = world.time.clock();
    let (home, store) = (world.home.clone(), world.store.clone());
    let register = Register { home, store, audit: Audit::default(), clock };
    world.time.by(20 * 86_400_000);
    let path = format!("/api/v1/sites/{}/revoke", site.id);
    assert_eq!(world.api("POST", &path, Some(json!({ "reason": "key lost" }))).await.0, 204);
    let refused = register.renew(&peer, &csr(&tls_key())).await.unwrap().expect_err("a revoked site renewed");
    assert!(refused.message.contains("key lost"), "{refused}");
    assert_eq!(world.store.certificates(site.id).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_invitations_is_slowed_down() {
    let world = World::with(|s| s.limits.enrolments_per_minute = 5).await;
    let request = EnrolRequest::new(&[7; 48], csr(&tls_key()), &statement(&world, "Cleveland", 1)).unwrap();
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(post_enrol(&world, &request).await.unwrap_err().0);
    }
    assert_eq!(statuses, [403, 403, 403, 403, 403, 429, 429, 429]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standing_is_asked_of_the_store_and_not_of_the_certificate() {
    let world = World::new().await;
    let site = world.enrolled("Cleveland", 1).await;
    let serial = world.store.certificates(site.id).await.unwrap()[0].serial.clone();
    let ask = async || world.store.standing(site.id, &serial, now(&world)).await.unwrap();
    assert!(matches!(ask().await, Standing::Good(_)));
    let path = format!("/api/v1/sites/{}/suspend", site.id);
    assert_eq!(world.api("POST", &path, Some(json!({ "reason": "audit" }))).await.0, 204);
    assert!(matches!(ask().await, Standing::Refused(reason) if reason.contains("audit")));
    assert_eq!(world.api("POST", &format!("/api/v1/sites/{}/resume", site.id), None).await.0, 204);
    assert!(matches!(ask().await, Standing::Good(_)));
}

fn now(world: &World) -> hospes_protocol::id::Timestamp {
    (world.time.clock())()
}
