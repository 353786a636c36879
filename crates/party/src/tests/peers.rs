//! Verified members that rename themselves, or that the coordinator leaves out.

use hospes_protocol::approval::Trust;

use super::*;
use crate::error::PartyError;
use crate::view::PeerView;

/// A member under another name, with its own good statement.
fn named(n: u8, name: &str) -> Member {
    let Member { site, organisation, identity, .. } = member(n);
    let statement = MemberStatement {
        federation: federation(),
        name: name.to_owned(),
        organisation: organisation.clone(),
        identity,
    };
    let statement = key(n).sign(&Canonical::new(statement).unwrap().digest());
    Member { site, name: name.to_owned(), organisation, identity, statement }
}

/// The coordinator states these members besides the sites 1, 3 and 4.
async fn state(world: &World, version: u64, others: &[(u8, &str)]) {
    let mut stated = roster(version);
    stated.members.retain(|m| m.name != "Site 2");
    stated.members.extend(others.iter().map(|(n, name)| named(*n, name)));
    stated.members.sort_by_key(|m| m.site);
    world.send(ToSite::Roster(Box::new(Signed::new(stated, &coordinator()).unwrap()))).await;
    world.settle().await;
}

async fn of(world: &World, n: u8) -> Option<PeerView> {
    let peers = world.handle.peers(world.who("sam"), federation()).await.unwrap();
    peers.into_iter().find(|p| p.site == key(n).public().site_id())
}

/// Attack: a member's key is stolen, and the coordinator leaves the member out of the roster until its people have tried in vain
/// to take the verification back.
#[tokio::test(flavor = "multi_thread")]
async fn a_verification_is_taken_back_although_the_coordinator_leaves_the_member_out() {
    let mut world = World::new().await;
    world.connect().await;
    world.verify([2]).await;
    state(&world, 2, &[]).await;
    let peer = of(&world, 2).await.unwrap();
    assert!(peer.absent && peer.trust == Trust::VerifiedHere && peer.name == "Site 2", "{peer:?}");
    let vouched = world.handle.vouch(world.who("ana"), federation(), peer.site).await;
    assert!(matches!(vouched, Err(PartyError::State(_))), "{vouched:?}");
    let taken = world.handle.unverify_peer(world.who("sam"), federation(), peer.site, "stolen".into()).await.unwrap();
    assert!(taken.trust == Trust::AssertedOnly && taken.revoked.is_some() && taken.words.is_none(), "{taken:?}");
    assert_eq!(world.entered("peer_revoked", "success").await, 1);
    assert_eq!(of(&world, 2).await, None);
    state(&world, 3, &[(2, "Site 2")]).await;
    let peer = of(&world, 2).await.unwrap();
    assert!(!peer.absent && peer.trust == Trust::AssertedOnly && peer.revoked.is_some(), "{peer:?}");
}

/// Attacks: a new member gets the name that a verified one had, whose verification is to end; and the new name of a verified one
/// is given to another key, of which nobody is to hear.
#[tokio::test(flavor = "multi_thread")]
async fn a_verification_follows_its_key_when_the_member_renames_itself() {
    let mut world = World::new().await;
    world.connect().await;
    world.verify([2]).await;
    state(&world, 2, &[(2, "Charité")]).await;
    state(&world, 3, &[(2, "Charité"), (9, "Site 2")]).await;
    let peer = of(&world, 2).await.unwrap();
    assert!(peer.trust == Trust::VerifiedHere && peer.name == "Charité", "{peer:?}");
    assert_eq!(world.alarms().await, Vec::<String>::new());
    state(&world, 4, &[(9, "Charité")]).await;
    world.expect_alarm("'Charité', whose key was verified here, has another key now").await;
    assert_eq!(of(&world, 2).await, None, "verified no more, and not in the roster");
    let peer = of(&world, 9).await.unwrap();
    assert!(peer.trust == Trust::AssertedOnly && peer.revoked.is_some(), "{peer:?}");
}
