//! Who else is in a federation, and how far this site believes it.
//!
//! The coordinator states the roster; it never creates identity. A member's name and organisation count only with the
//! member's own signature, and its key counts as *verified here* only after people compared words over another way.

use std::collections::{BTreeMap, BTreeSet};

use hospes_ledger::{Action, Actor, Entry, ObjectKind};
use hospes_protocol::approval::{Role, Trust};
use hospes_protocol::id::{Digest, FederationId, SiteId, Timestamp};
use hospes_protocol::message::FromSite;
use hospes_protocol::sign::{PublicKey, Signed};
use hospes_protocol::study::{Member, Roster, Vouch};
use hospes_protocol::{limits, text, words};
use sqlx::sqlite::SqliteConnection;

use super::{Membership, by_id};
use crate::audit::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::people::Session;
use crate::store::{At as _, Tx, parse, signed};
use crate::view::{Notice, PeerView, Words, WordsCompared};

/// Whether a roster holds together; the reason if not.
pub(crate) fn check(
    roster: &Signed<Roster>,
    federation: FederationId,
    coordinator: &PublicKey,
    site: SiteId,
) -> Result<(), String> {
    if !roster.signed_by(coordinator) {
        return Err("it is not signed by the coordinator".into());
    }
    roster.document.check(federation).map_err(|e| e.to_string())?;
    if !roster.document.members.iter().any(|m| m.site == site) {
        return Err("this site is not in it".into());
    }
    Ok(())
}

/// How the other members' keys are trusted now.
pub(crate) async fn trust(
    conn: &mut SqliteConnection,
    membership: &Membership,
) -> Result<BTreeMap<SiteId, Trust>, PartyError> {
    let verified = verified(conn, membership.federation).await?;
    let vouches = vouches(conn, membership.federation, OF_VERIFIED).await?;
    let members: BTreeMap<SiteId, &Member> = membership.roster.document.members.iter().map(|m| (m.site, m)).collect();
    let is_verified = |member: &Member| verified.get(&member.site) == Some(&member.identity);
    let counts = |vouch: &&Vouch| {
        vouch.by != membership.site
            && members.get(&vouch.by).is_some_and(|by| is_verified(by))
            && members.get(&vouch.site).is_some_and(|member| holds(vouch, member))
    };
    let vouched: BTreeSet<SiteId> = vouches.iter().filter(counts).map(|vouch| vouch.site).collect();
    let level = |member: &Member| match (is_verified(member), vouched.contains(&member.site)) {
        (true, _) => Trust::VerifiedHere,
        (false, true) => Trust::VouchedFor,
        (false, false) => Trust::AssertedOnly,
    };
    let others = members.values().filter(|m| m.site != membership.site);
    Ok(others.map(|m| (m.site, level(m))).collect())
}

fn holds(vouch: &Vouch, member: &Member) -> bool {
    vouch.site == member.site && vouch.identity == member.identity && vouch.organisation == member.organisation
}

async fn verified(
    conn: &mut SqliteConnection,
    federation: FederationId,
) -> Result<BTreeMap<SiteId, PublicKey>, PartyError> {
    let rows: Vec<(String, String)> = sqlx::query_as("SELECT site, identity FROM verified_peers WHERE federation = ?1")
        .bind(federation.to_string())
        .fetch_all(conn)
        .await
        .at("read verified peers")?;
    rows.iter().map(|(site, key)| Ok((parse(site, "site")?, parse(key, "identity")?))).collect()
}

/// All vouches of a federation that are kept here.
const ALL: &str = "SELECT document FROM vouches WHERE federation = ?1";
/// Those of members that were verified here; no other counts, however many there are.
const OF_VERIFIED: &str = "SELECT document FROM vouches WHERE federation = ?1
                           AND by_site IN (SELECT site FROM verified_peers WHERE federation = ?1)";

/// Vouches that were checked when they came.
async fn vouches(
    conn: &mut SqliteConnection,
    federation: FederationId,
    which: &'static str,
) -> Result<Vec<Vouch>, PartyError> {
    let rows: Vec<Vec<u8>> =
        sqlx::query_scalar(which).bind(federation.to_string()).fetch_all(conn).await.at("read vouches")?;
    rows.iter().map(|bytes| Ok(Signed::<Vouch>::from_bytes(bytes)?.document.into_inner())).collect()
}

/// Who compared the words of a verified member, and when.
async fn compared(
    conn: &mut SqliteConnection,
    federation: FederationId,
) -> Result<BTreeMap<SiteId, WordsCompared>, PartyError> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT v.site, p.name, v.at FROM verified_peers v JOIN persons p ON p.id = v.by_person WHERE v.federation = ?1",
    )
    .bind(federation.to_string())
    .fetch_all(conn)
    .await
    .at("read verified peers")?;
    let read = |(site, by, at): (String, String, i64)| {
        Ok((parse(&site, "site")?, WordsCompared { by, at: Timestamp::from_millis(at) }))
    };
    rows.into_iter().map(read).collect()
}

/// When verifications ended that were not given again, by what names have in common ([`text::name_key`]).
async fn revoked(
    conn: &mut SqliteConnection,
    federation: FederationId,
) -> Result<BTreeMap<String, Timestamp>, PartyError> {
    let rows: Vec<(String, i64)> = sqlx::query_as("SELECT name, at FROM revoked_peers WHERE federation = ?1")
        .bind(federation.to_string())
        .fetch_all(conn)
        .await
        .at("read verified peers")?;
    Ok(rows.into_iter().map(|(name, at)| (name, Timestamp::from_millis(at))).collect())
}

/// Why a vouch counts for nothing, whoever was verified here.
fn against_vouch(membership: &Membership, vouch: &Signed<Vouch>) -> Option<&'static str> {
    let (said, members) = (&vouch.document, &membership.roster.document.members);
    let by = members.iter().find(|m| m.site == said.by);
    let is_signed = by.is_some_and(|m| vouch.signed_by(&m.identity));
    if !is_signed || said.federation != membership.federation || said.by == said.site {
        return Some("a vouch is not signed by the member that it names");
    }
    let is_member = members.iter().any(|m| holds(said, m));
    (!is_member).then_some("a vouch names nobody who is a member with that key and organisation")
}

/// Why a vouch finds no room. Each member that was verified here has its own; all others, which the coordinator may have
/// invented, share one.
async fn against_more_vouches(
    conn: &mut SqliteConnection,
    membership: &Membership,
    vouch: &Vouch,
    is_trusted: bool,
) -> Result<Option<&'static str>, PartyError> {
    let known: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM vouches WHERE federation = ?1 AND by_site = ?2 AND site = ?3")
            .bind(membership.federation.to_string())
            .bind(vouch.by.to_string())
            .bind(vouch.site.to_string())
            .fetch_one(&mut *conn)
            .await
            .at("take a vouch")?;
    if known > 0 {
        // A newer one takes its place.
        return Ok(None);
    }
    let (which, site) = match is_trusted {
        true => ("SELECT COUNT(*) FROM vouches WHERE federation = ?1 AND by_site = ?2", vouch.by),
        false => (
            "SELECT COUNT(*) FROM vouches WHERE federation = ?1 AND by_site <> ?2
             AND by_site NOT IN (SELECT site FROM verified_peers WHERE federation = ?1)",
            membership.site,
        ),
    };
    let kept: i64 = sqlx::query_scalar(which)
        .bind(membership.federation.to_string())
        .bind(site.to_string())
        .fetch_one(conn)
        .await
        .at("take a vouch")?;
    let is_full = usize::try_from(kept).is_ok_and(|kept| kept >= limits::VOUCHES);
    Ok(is_full.then_some("as many vouches as the site keeps are kept already (limit VOUCHES)"))
}

impl Engine {
    pub(super) async fn on_roster(
        &mut self,
        federation: FederationId,
        roster: Signed<Roster>,
    ) -> Result<(), PartyError> {
        let mut tx = self.store.begin("take a roster").await?;
        let membership = by_id(tx.conn(), federation).await?;
        let known = &membership.roster.document;
        let digest = roster.document.digest();
        if digest == known.digest() {
            return Ok(());
        }
        let sound = check(&roster, federation, &membership.coordinator, membership.site)
            .and_then(|()| roster.document.follows(known).map_err(|e| e.to_string()));
        if let Err(reason) = sound {
            let words = format!("a roster from the coordinator was refused: {reason}");
            if self.enters_refusal(federation) {
                self.alarm(&mut tx, Some(federation), &words).await?;
            }
            let entry = self.entry(Actor::peer(federation), Action::RosterChanged);
            let entry = entry.object(ObjectKind::Roster, digest, Some(digest));
            return self.refuse_document(tx, federation, digest, entry, &words).await;
        }
        let ended = self.end_verifications(&mut tx, &membership, &roster.document).await?;
        sqlx::query("UPDATE memberships SET roster = ?2, roster_version = ?3 WHERE federation = ?1")
            .bind(federation.to_string())
            .bind(roster.to_bytes()?)
            .bind(signed(roster.document.version))
            .execute(tx.conn())
            .await
            .at("take a roster")?;
        let entry = self.entry(Actor::peer(federation), Action::RosterChanged);
        self.enter_roster(&mut tx, federation, &entry.object(ObjectKind::Roster, digest, Some(digest))).await?;
        tx.commit().await?;
        self.notify(Notice::Federations);
        // What runs or is on the wire may rest on a key that counts for less now.
        if ended > 0 { Box::pin(self.recheck_work()).await } else { Ok(()) }
    }

    /// Ends the verification of each member whose name comes with another key now: nobody compared that one. A roster is taken
    /// all the same, since a site that lost its keys has no other way back, and nothing counts on the new key before people
    /// compared its words. There are as many alarms of this kind as keys were verified here, so that no flood hides one. Gives
    /// how many verifications ended.
    pub(super) async fn end_verifications(
        &self,
        tx: &mut Tx,
        membership: &Membership,
        roster: &Roster,
    ) -> Result<usize, PartyError> {
        let federation = membership.federation;
        // By the name that it had last: it may have been out of the roster for a while.
        let verified: Vec<(String, String, String)> =
            sqlx::query_as("SELECT site, name, identity FROM verified_peers WHERE federation = ?1")
                .bind(federation.to_string())
                .fetch_all(tx.conn())
                .await
                .at("read verified peers")?;
        let mut ended = 0;
        for (site, mut name, identity) in verified {
            // A member may rename itself and keep its key: its new name is the one to watch, and the old one is anybody's.
            let lists = [&membership.roster.document.members, &roster.members];
            let last = lists.into_iter().flatten().rfind(|m| m.identity.to_string() == identity);
            if let Some(last) = last.filter(|last| last.name != name) {
                name.clone_from(&last.name);
                sqlx::query("UPDATE verified_peers SET name = ?3 WHERE federation = ?1 AND site = ?2")
                    .bind(federation.to_string())
                    .bind(&site)
                    .bind(&name)
                    .execute(tx.conn())
                    .await
                    .at("take a roster")?;
            }
            let now = roster.members.iter().find(|m| text::name_key(&m.name) == text::name_key(&name));
            if now.is_none_or(|now| now.identity.to_string() == identity) {
                continue;
            }
            let words = format!(
                "'{name}', whose key was verified here, has another key now, and counts as asserted by the coordinator only \
                 until its words are compared anew"
            );
            self.alarm(tx, Some(federation), &words).await?;
            let entry = self.entry(Actor::peer(federation), Action::PeerRevoked);
            let entry = entry.object(ObjectKind::Site, &site, None).because(words);
            self.revoke(tx, membership, (site.as_str(), name.as_str()), &entry).await?;
            ended += 1;
        }
        Ok(ended)
    }

    /// Ends all verifications of a federation within a step, each with its entry.
    pub(crate) async fn end_all_verifications(
        &self,
        tx: &mut Tx,
        membership: &Membership,
        reason: &str,
    ) -> Result<(), PartyError> {
        let verified: Vec<(String, String)> =
            sqlx::query_as("SELECT site, name FROM verified_peers WHERE federation = ?1 ORDER BY site")
                .bind(membership.federation.to_string())
                .fetch_all(tx.conn())
                .await
                .at("read verified peers")?;
        for (site, name) in verified {
            let entry = self.entry(Actor::Engine, Action::PeerRevoked).object(ObjectKind::Site, &site, None);
            self.revoke(tx, membership, (site.as_str(), name.as_str()), &entry.because(reason)).await?;
        }
        Ok(())
    }

    /// Ends a verification within a step: the key counts as asserted by the coordinator only from now on, and this site vouches
    /// for it no more.
    async fn revoke(
        &self,
        tx: &mut Tx,
        membership: &Membership,
        (site, name): (&str, &str),
        entry: &Entry,
    ) -> Result<(), PartyError> {
        let kept = "INSERT INTO revoked_peers (federation, name, at) VALUES (?1, ?2, ?3)
                    ON CONFLICT (federation, name) DO UPDATE SET at = excluded.at";
        sqlx::query(kept)
            .bind(membership.federation.to_string())
            .bind(text::name_key(name))
            .bind(self.now().as_millis())
            .execute(tx.conn())
            .await
            .at("end a verification")?;
        sqlx::query("DELETE FROM verified_peers WHERE federation = ?1 AND site = ?2")
            .bind(membership.federation.to_string())
            .bind(site)
            .execute(tx.conn())
            .await
            .at("end a verification")?;
        sqlx::query("DELETE FROM vouches WHERE federation = ?1 AND by_site = ?2 AND site = ?3")
            .bind(membership.federation.to_string())
            .bind(membership.site.to_string())
            .bind(site)
            .execute(tx.conn())
            .await
            .at("end a verification")?;
        self.append(tx, entry).await.map(drop)
    }

    pub(super) async fn on_vouch(&mut self, federation: FederationId, vouch: Signed<Vouch>) -> Result<(), PartyError> {
        let mut tx = self.store.begin("take a vouch").await?;
        let membership = by_id(tx.conn(), federation).await?;
        let document = &vouch.document;
        let (by, site, digest) = (document.by, document.site, document.digest());
        let is_trusted = verified(tx.conn(), federation).await?.contains_key(&by);
        let fault = match against_vouch(&membership, &vouch) {
            Some(fault) => Some(fault),
            // This site kept its own when it said it. A coordinator repeats all that it has, also one that was taken back here.
            None if by == membership.site => return Ok(()),
            None => against_more_vouches(tx.conn(), &membership, document, is_trusted).await?,
        };
        if let Some(fault) = fault {
            let entry = self.entry(Actor::peer(federation), Action::PeerVouched).object(ObjectKind::Site, site, None);
            return self.refuse_document(tx, federation, digest, entry, fault).await;
        }
        let done = sqlx::query(
            "INSERT INTO vouches (federation, by_site, site, identity, document, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (federation, by_site, site) DO UPDATE SET identity = ?4, document = ?5, at = ?6
             WHERE at < ?6",
        )
        .bind(federation.to_string())
        .bind(by.to_string())
        .bind(site.to_string())
        .bind(document.identity.to_string())
        .bind(vouch.to_bytes()?)
        .bind(document.at.as_millis())
        .execute(tx.conn())
        .await
        .at("take a vouch")?;
        if done.rows_affected() > 0 {
            let entry = self.entry(Actor::peer(by), Action::PeerVouched).object(ObjectKind::Site, site, Some(digest));
            self.enter_vouch(&mut tx, federation, is_trusted, &entry).await?;
        }
        tx.commit().await?;
        self.notify(Notice::Federations);
        Ok(())
    }

    pub(crate) async fn peers(
        &mut self,
        session: Session,
        federation: FederationId,
    ) -> Result<Vec<PeerView>, PartyError> {
        self.acting(&session, "see members", &[]).await?;
        self.peer_views(federation).await
    }

    async fn peer_views(&self, federation: FederationId) -> Result<Vec<PeerView>, PartyError> {
        let mut conn = self.reader().await?;
        let membership = by_id(&mut conn, federation).await?;
        let levels = trust(&mut conn, &membership).await?;
        let vouches = vouches(&mut conn, federation, ALL).await?;
        let compared = compared(&mut conn, federation).await?;
        let revoked = revoked(&mut conn, federation).await?;
        let rows: Vec<(String, String, String)> =
            sqlx::query_as("SELECT site, identity, name FROM verified_peers WHERE federation = ?1 ORDER BY name")
                .bind(federation.to_string())
                .fetch_all(&mut *conn)
                .await
                .at("read verified peers")?;
        drop(conn);
        let members = &membership.roster.document.members;
        let name = |site: SiteId| members.iter().find(|m| m.site == site).map(|m| m.name.clone());
        let view = |m: &Member| {
            let trust = levels.get(&m.site).copied().unwrap_or(Trust::AssertedOnly);
            let is_verified = trust == Trust::VerifiedHere;
            PeerView {
                site: m.site,
                name: m.name.clone(),
                organisation: m.organisation.clone(),
                identity: m.identity,
                trust,
                vouched_by: vouches.iter().filter(|v| holds(v, m)).filter_map(|v| name(v.by)).collect(),
                vouched_here: vouches.iter().any(|v| holds(v, m) && v.by == membership.site),
                // Never before somebody typed them: they would be copied from here, and prove nothing.
                words: is_verified.then(|| words::of_key(&m.identity)),
                compared: compared.get(&m.site).filter(|_| is_verified).cloned(),
                revoked: revoked.get(&text::name_key(&m.name)).copied().filter(|_| !is_verified),
                absent: false,
            }
        };
        let mut views: Vec<PeerView> = members.iter().filter(|m| m.site != membership.site).map(view).collect();
        // Whom the coordinator leaves out stays in sight: otherwise it could keep a verification from being taken back until the
        // member is there again.
        for (site, identity, name) in rows {
            let (site, identity): (SiteId, PublicKey) = (parse(&site, "site")?, parse(&identity, "identity")?);
            if members.iter().all(|m| m.site != site) {
                views.push(PeerView {
                    site,
                    name,
                    organisation: String::new(),
                    identity,
                    trust: Trust::VerifiedHere,
                    vouched_by: Vec::new(),
                    vouched_here: false,
                    words: Some(words::of_key(&identity)),
                    compared: compared.get(&site).cloned(),
                    revoked: None,
                    absent: true,
                });
            }
        }
        Ok(views)
    }

    async fn peer_view(&self, federation: FederationId, site: SiteId) -> Result<PeerView, PartyError> {
        let views = self.peer_views(federation).await?;
        views.into_iter().find(|v| v.site == site).ok_or_else(|| PartyError::NotFound(format!("member {site}")))
    }

    pub(crate) async fn verify_peer(
        &mut self,
        session: Session,
        federation: FederationId,
        site: SiteId,
        typed: String,
    ) -> Result<PeerView, PartyError> {
        let roles = &[Role::Administrator, Role::DataSteward];
        let acting = self.acting(&session, "verify another site's key", roles).await?;
        let peer = self.peer_view(federation, site).await?;
        let mut tx = self.store.begin("verify a peer").await?;
        let entry = self.entry(acting.actor(), Action::PeerVerified).object(ObjectKind::Site, site, None);
        match words::compare(&typed, &Digest::of(peer.identity.as_bytes())) {
            words::Comparison::Same => {}
            words::Comparison::Mistyped => return Err(PartyError::Fingerprint(Words::Mistyped)),
            words::Comparison::Different => {
                let alarm = format!("the words of '{}' belong to another key than the coordinator states", peer.name);
                self.alarm(&mut tx, Some(federation), &alarm).await?;
                self.append(&mut tx, &entry.refused(&alarm)).await?;
                tx.commit().await?;
                return Err(PartyError::Fingerprint(Words::Different));
            }
        }
        sqlx::query(
            "INSERT INTO verified_peers (federation, site, identity, name, by_person, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (federation, site) DO UPDATE SET identity = ?3, name = ?4, by_person = ?5, at = ?6",
        )
        .bind(federation.to_string())
        .bind(site.to_string())
        .bind(peer.identity.to_string())
        .bind(&peer.name)
        .bind(acting.person.to_string())
        .bind(self.now().as_millis())
        .execute(tx.conn())
        .await
        .at("verify a peer")?;
        sqlx::query("DELETE FROM revoked_peers WHERE federation = ?1 AND name = ?2")
            .bind(federation.to_string())
            .bind(text::name_key(&peer.name))
            .execute(tx.conn())
            .await
            .at("verify a peer")?;
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.notify(Notice::Federations);
        self.peer_view(federation, site).await
    }

    /// A person of this site takes back that a key was verified, as where its owner lost it.
    pub(crate) async fn unverify_peer(
        &mut self,
        session: Session,
        federation: FederationId,
        site: SiteId,
        reason: String,
    ) -> Result<PeerView, PartyError> {
        let roles = &[Role::Administrator, Role::DataSteward];
        let acting = self.acting(&session, "verify another site's key", roles).await?;
        crate::requests::check_reason(&reason)?;
        let peer = self.peer_view(federation, site).await?;
        if peer.trust != Trust::VerifiedHere {
            return Err(PartyError::state("the key of that site is not verified here"));
        }
        let mut tx = self.store.begin("end a verification").await?;
        let membership = by_id(tx.conn(), federation).await?;
        let entry = self.entry(acting.actor(), Action::PeerRevoked).object(ObjectKind::Site, site, None);
        self.revoke(&mut tx, &membership, (site.to_string().as_str(), peer.name.as_str()), &entry.because(reason))
            .await?;
        tx.commit().await?;
        self.notify(Notice::Federations);
        self.recheck_work().await?;
        let found = self.peer_views(federation).await?.into_iter().find(|view| view.site == site);
        // One that is not in the roster is not in the list any more either.
        Ok(found.unwrap_or(PeerView {
            trust: Trust::AssertedOnly,
            words: None,
            compared: None,
            revoked: Some(self.now()),
            ..peer
        }))
    }

    pub(crate) async fn vouch(
        &mut self,
        session: Session,
        federation: FederationId,
        site: SiteId,
    ) -> Result<PeerView, PartyError> {
        let acting = self.acting(&session, "vouch for another site", &[Role::Administrator]).await?;
        let peer = self.peer_view(federation, site).await?;
        if peer.trust != Trust::VerifiedHere || peer.absent {
            return Err(PartyError::state("only a site whose key was verified here can be vouched for"));
        }
        let mut conn = self.reader().await?;
        let membership = by_id(&mut conn, federation).await?;
        drop(conn);
        let key = self.identity(&membership).await?;
        let vouch = Vouch {
            federation,
            by: membership.site,
            site,
            identity: peer.identity,
            organisation: peer.organisation,
            at: self.now(),
        };
        let vouch = Signed::new(vouch, &key)?;
        let mut tx = self.store.begin("vouch for a peer").await?;
        sqlx::query(
            "INSERT INTO vouches (federation, by_site, site, identity, document, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (federation, by_site, site) DO UPDATE SET identity = ?4, document = ?5, at = ?6",
        )
        .bind(federation.to_string())
        .bind(membership.site.to_string())
        .bind(site.to_string())
        .bind(peer.identity.to_string())
        .bind(vouch.to_bytes()?)
        .bind(vouch.document.at.as_millis())
        .execute(tx.conn())
        .await
        .at("vouch for a peer")?;
        let entry = self
            .entry(acting.actor(), Action::PeerVouched)
            .object(ObjectKind::Site, site, Some(vouch.document.digest()))
            .because("told to the other members");
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.say(federation, FromSite::Vouch(Box::new(vouch)));
        self.notify(Notice::Federations);
        self.peer_view(federation, site).await
    }

    /// This site's own vouches, to be said again.
    pub(crate) async fn own_vouches(&self, membership: &Membership) -> Result<Vec<Signed<Vouch>>, PartyError> {
        let rows: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT document FROM vouches WHERE federation = ?1 AND by_site = ?2")
                .bind(membership.federation.to_string())
                .bind(membership.site.to_string())
                .fetch_all(self.store.readers())
                .await
                .at("read vouches")?;
        Ok(rows.iter().map(|bytes| Signed::from_bytes(bytes)).collect::<Result<_, _>>()?)
    }
}
