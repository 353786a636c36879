//! One site in two federations at once: what is held or goes wrong in one leaves the other alone.

use super::*;

/// The coordinator of the second federation; this site's identity there is 11, the others' are 12, 13 and 14.
fn other_coordinator() -> SecretKey {
    key(201)
}

fn other() -> FederationId {
    other_coordinator().public().site_id()
}

async fn join_other(world: &World) {
    let mut members: Vec<Member> = (11..=14).map(|n| member_of(other(), n)).collect();
    members.sort_by_key(|m| m.site);
    let roster = Roster { federation: other(), version: 1, at: Timestamp::from_millis(START), members };
    let enrolled = Enrolled {
        url: "https://other.example".into(),
        federation: other(),
        name: "Lung Federation".into(),
        site: key(11).public().site_id(),
        site_name: "Site 11".into(),
        coordinator: other_coordinator().public(),
        ca_pem: "ca".into(),
        chain_pem: "chain".into(),
        key_pem: Zeroizing::new("key".into()),
        roster: Signed::new(roster, &other_coordinator()).unwrap(),
    };
    let joined = Joined::by_hand(enrolled, "Hospital 11", key(11));
    let session = world.who("ana").clone();
    world.handle.ask(move |e| e.join(session, joined).boxed()).await.unwrap();
}

/// Another model than the first federation's, so that each downloads its own.
pub(super) fn other_study() -> Study {
    let mut plan = small_plan(1);
    plan.seed += 1;
    let mut members: Vec<SiteId> = (11..=14).map(|n| key(n).public().site_id()).collect();
    members.sort_unstable();
    Study { federation: other(), members, ..study(2, plan) }
}

fn other_header(study: &Study, now: Timestamp) -> RoundHeader {
    let entry = |n: u8| RosterEntry { site: key(n).public().site_id(), identity: key(n).public() };
    let roster = (11..=14).map(entry).collect();
    RoundHeader { federation: other(), roster, ..header(study, job(2), "train", 1, 1, now) }
}

/// Joins the second federation, for whose coordinator the test speaks from now on.
pub(super) async fn connect_there(world: &mut World) {
    join_other(world).await;
    assert!(world.take_link(), "no link to the second federation");
    let welcome = Welcome {
        version: Version::V1,
        federation: other(),
        identity: other_coordinator().public(),
        at: world.now(),
        epoch: 1,
    };
    world.event(LinkEvent::Connected(welcome)).await;
    world.settle().await;
}

/// The same, and opens a round of a study there.
async fn open_there(world: &mut World, study: &Study) {
    connect_there(world).await;
    offer_there(world, study).await;
    world.approve(study).await;
    world.start_job(study, job(2)).await;
    open_round_there(world, other_header(study, world.now())).await;
}

pub(super) async fn offer_there(world: &World, study: &Study) {
    world.send(ToSite::Study(Box::new(Signed::new(study.clone(), &other_coordinator()).unwrap()))).await;
    world.settle().await;
}

async fn open_round_there(world: &World, header: RoundHeader) {
    world.send(ToSite::RoundOpen(Box::new(Signed::new(header, &other_coordinator()).unwrap()))).await;
}

/// A site with an update in its outbox for each of two federations; the test speaks for the first coordinator.
struct Both {
    world: World,
    first: (Upload, PathBuf),
    second: (Upload, PathBuf),
    other_wire: Option<Wire>,
}

impl Both {
    async fn waiting() -> Self {
        let mut world = World::new().await;
        let study = world.running(small_plan(1)).await;
        world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
        world.serve_model(&study).await;
        let first = world.expect_upload().await;
        let first_wire = world.wire.take();
        let study = other_study();
        open_there(&mut world, &study).await;
        world.serve_model(&study).await;
        let second = world.expect_upload().await;
        let other_wire = std::mem::replace(&mut world.wire, first_wire);
        let both = Self { world, first, second, other_wire };
        assert_eq!(both.states().await, ("waiting".into(), "waiting".into()));
        both
    }

    /// What became of the update for the first federation and of that for the second.
    async fn states(&self) -> (String, String) {
        let egress = self.world.handle.egress(self.world.who("sam"), Page::default()).await.unwrap();
        assert_eq!(egress.len(), 2, "{egress:?}");
        let of = |federation: FederationId| egress.iter().find(|e| e.federation == federation).unwrap().state.clone();
        (of(federation()), of(other()))
    }

    /// How the link to a federation is, in the words of the engine.
    async fn link(&self, federation: FederationId) -> String {
        let memberships = self.world.handle.status().await.unwrap().memberships;
        format!("{:?}", memberships.iter().find(|m| m.federation == federation).unwrap().link)
    }

    /// The first federation's update is let go and acknowledged, as if there were no other federation.
    async fn first_goes_on(&self) {
        assert!(self.link(federation()).await.starts_with("Connected"));
        let (upload, path) = &self.first;
        self.world.take(upload, path).await;
        self.world.settle().await;
        assert_eq!(self.states().await.0, "sent");
        self.world.assert_ledger_intact().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_one_federation_withdraws_its_update_and_leaves_the_others() {
    let both = Both::waiting().await;
    let world = &both.world;
    world.handle.pause(world.who("pia"), other(), Some("a question".into())).await.unwrap();
    world.settle().await;
    assert_eq!(both.states().await, ("waiting".into(), "withdrawn".into()));
    assert!(both.first.1.exists() && !both.second.1.exists());
    both.first_goes_on().await;
    assert_eq!(both.states().await, ("sent".into(), "withdrawn".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_in_one_federation_leaves_the_other_at_work() {
    let mut both = Both::waiting().await;
    std::mem::swap(&mut both.world.wire, &mut both.other_wire);
    both.world.event(LinkEvent::Stopped { reason: "the last word".into() }).await;
    both.world.expect_alarm("the last word").await;
    std::mem::swap(&mut both.world.wire, &mut both.other_wire);
    assert!(both.link(other()).await.starts_with("Disconnected"));
    both.first_goes_on().await;
    assert_eq!(both.states().await, ("sent".into(), "waiting".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_came_from_one_coordinator_is_asked_of_the_other_too() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    let download = |c: &LinkCommand| match c {
        LinkCommand::Download { digest, to, .. } => Some((*digest, to.clone())),
        _ => None,
    };
    let (digest, here) = world.expect("a download", download).await;
    world.put_model(&study, digest, here.clone()).await;
    world.expect_upload().await;
    let _first = world.wire.take();
    let same = Study { plan: study.plan.clone(), ..other_study() };
    open_there(&mut world, &same).await;
    let (again, there) = world.expect("a download", download).await;
    assert_eq!(again, digest);
    // While it comes, it is nowhere near the other's.
    std::fs::write(&there, "halfway").unwrap();
    assert_eq!(std::fs::read(&here).unwrap(), model(&study.plan).0);
    world.put_model(&same, again, there).await;
    world.expect_upload().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_does_not_learn_by_ids_what_another_federation_asked_of_this_site() {
    let mut both = Both::waiting().await;
    std::mem::swap(&mut both.world.wire, &mut both.other_wire);
    let world = &mut both.world;
    world.said.clear();
    for n in [1, 9] {
        offer_there(world, &Study { id: study(n, small_plan(1)).id, ..other_study() }).await;
    }
    let never_offered = Study { id: study(8, small_plan(1)).id, ..other_study() };
    let known = world.reserve(&never_offered, job(1)).await;
    assert!(known.is_some());
    assert_eq!(known, world.reserve(&never_offered, job(9)).await);
    let mut replies = Vec::new();
    for n in [1, 9] {
        let header = RoundHeader { job: job(n), ..other_header(&other_study(), world.now()) };
        open_round_there(world, header).await;
        replies.push(world.expect_reply().await);
    }
    assert_eq!(replies[0], replies[1]);
    assert!(!world.said.iter().any(|m| matches!(m, FromSite::Decision { .. })), "{:?}", world.said);
    world.expect_alarm("has the id of another one").await;
    assert_eq!(both.states().await, ("waiting".into(), "waiting".into()));
}
