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
fn other_study() -> Study {
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
        join_other(&world).await;
        let first_wire = world.wire.take();
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
        let study = other_study();
        world.send(ToSite::Study(Box::new(Signed::new(study.clone(), &other_coordinator()).unwrap()))).await;
        world.settle().await;
        world.approve(&study).await;
        world.start_job(&study, job(2)).await;
        let header = other_header(&study, world.now());
        world.send(ToSite::RoundOpen(Box::new(Signed::new(header, &other_coordinator()).unwrap()))).await;
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
