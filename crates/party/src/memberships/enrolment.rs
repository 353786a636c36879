//! Joining a federation, for the first time or again, and testing the way there before. What waits for the coordinator is
//! carried out outside the engine's loop.
//!
//! Which key a site joins with is decided only when it is known which federation the invitation leads to: the present one
//! where it was a member before, so that it stays the same site there, and a new one everywhere else, so that no two
//! coordinators can recognise it.

use std::path::PathBuf;

use hospes_ledger::{Action, ObjectKind};
use hospes_protocol::enrol::Invitation;
use hospes_protocol::id::{Digest, FederationId};
use hospes_protocol::sign::SecretKey;
use hospes_protocol::words;
use zeroize::{Zeroize as _, Zeroizing};

use super::way::{certificates, unusable};
use super::{ADMINISTRATOR, by_id, leaving, roster};
use crate::config::Clock;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::keys::{KeyError, random};
use crate::link::{self, ProxyChoice};
use crate::people::Session;
use crate::restored;
use crate::store::{At as _, signed};
use crate::view::{Approach, Enrolment, InvitationView, MembershipView, Notice, Words};

fn parse_invitation(text: &str) -> Result<Invitation, PartyError> {
    text.parse::<Invitation>().map_err(|e| PartyError::input("invitation", e.to_string()))
}

pub(crate) fn read_invitation(text: &str) -> Result<InvitationView, PartyError> {
    let invitation = parse_invitation(text)?;
    Ok(InvitationView { url: invitation.url, site: invitation.site, expires: invitation.expires })
}

/// How a coordinator is reached, as a person said it.
struct Way {
    proxy: Option<Zeroizing<String>>,
    extra_ca: Option<PathBuf>,
    clock: Clock,
}

impl Way {
    fn reach(&self) -> link::Reach {
        let choice = self.proxy.clone().map_or(ProxyChoice::Environment, ProxyChoice::Url);
        link::Reach::new(choice, self.clock.clone())
    }

    /// The text of the file with the hospital's own CA certificates, not yet looked at.
    async fn certificates(&self) -> Result<Option<String>, PartyError> {
        let Some(path) = self.extra_ca.clone() else { return Ok(None) };
        certificates(path).await.map(Some)
    }
}

/// An enrolment, ready to be begun.
pub(crate) struct EnrolOrder {
    invitation: Invitation,
    words: String,
    organisation: String,
    way: Way,
    again: Option<FederationId>,
}

/// An enrolment whose coordinator was reached; it was told nothing about this site yet.
pub(crate) struct Reached {
    at: link::Reached,
    organisation: String,
    proxy: Option<Zeroizing<String>>,
    extra_ca_pem: Option<String>,
    again: bool,
}

/// An enrolment that the coordinator accepted.
pub(crate) struct Joined {
    enrolled: link::Enrolled,
    organisation: String,
    identity: SecretKey,
    proxy: Option<Zeroizing<String>>,
    extra_ca_pem: Option<String>,
}

#[cfg(any(test, feature = "simulation"))]
impl Joined {
    /// As if a coordinator had answered; tests and the simulation play it.
    pub(crate) fn by_hand(enrolled: link::Enrolled, organisation: &str, identity: SecretKey) -> Self {
        Self { enrolled, organisation: organisation.to_owned(), identity, proxy: None, extra_ca_pem: None }
    }
}

impl EnrolOrder {
    /// Compares the words and finds out which federation the invitation leads to.
    pub(crate) async fn reach(self) -> Result<Reached, PartyError> {
        match words::compare(&self.words, &self.invitation.ca) {
            words::Comparison::Same => {}
            words::Comparison::Different => return Err(PartyError::Fingerprint(Words::Different)),
            words::Comparison::Mistyped => return Err(PartyError::Fingerprint(Words::Mistyped)),
        }
        let extra_ca_pem = self.way.certificates().await?;
        // A file that cannot be used is told before the invitation is used up.
        extra_ca_pem.as_deref().map(link::authorities).transpose().map_err(unusable)?;
        let at = link::Reached::by(self.invitation, &self.words, &self.way.reach())
            .await
            .map_err(|e| PartyError::Link(e.to_string()))?;
        if self.again.is_some_and(|meant| meant != at.federation()) {
            // PRIVACY: with the key of the one, the coordinator of the other would recognise this site.
            return Err(PartyError::state(
                "the invitation leads to another federation than the one to enrol in again; its coordinator was told nothing \
                 about this site, and the invitation is still good",
            ));
        }
        let (organisation, proxy) = (self.organisation, self.way.proxy);
        Ok(Reached { at, organisation, proxy, extra_ca_pem, again: self.again.is_some() })
    }
}

impl Reached {
    /// The federation, fingerprint of its CA, and whether this site must have been a member before.
    pub(crate) fn federation(&self) -> (FederationId, Digest, bool) {
        (self.at.federation(), self.at.ca(), self.again)
    }

    /// Enrols with this key.
    pub(crate) async fn enrol(self, identity: SecretKey) -> Result<Joined, PartyError> {
        let enrolled = self.at.enrol(&self.organisation, &identity).await;
        let enrolled = enrolled.map_err(|e| PartyError::Link(e.to_string()))?;
        let (organisation, proxy, extra_ca_pem) = (self.organisation, self.proxy, self.extra_ca_pem);
        Ok(Joined { enrolled, organisation, identity, proxy, extra_ca_pem })
    }
}

/// A test of the way to the coordinator of an invitation, ready to be carried out.
pub(crate) struct ApproachTest {
    invitation: Invitation,
    way: Way,
}

impl ApproachTest {
    pub(crate) async fn run(self) -> Result<Vec<link::Step>, PartyError> {
        let extra_ca_pem = self.way.certificates().await?;
        Ok(link::diagnose_invitation(&self.invitation, &self.way.reach(), extra_ca_pem.as_deref()).await)
    }
}

impl Engine {
    /// The way that a person named; where they named none, that of the hospital's IT.
    fn way(&self, proxy: Option<String>, extra_ca: Option<PathBuf>) -> Way {
        let (proxy, extra_ca) = self.managed.way(proxy, extra_ca);
        Way { proxy: proxy.map(Zeroizing::new), extra_ca, clock: self.config.clock.clone() }
    }

    pub(crate) async fn enrol_order(
        &mut self,
        session: Session,
        enrolment: Enrolment,
    ) -> Result<EnrolOrder, PartyError> {
        let acting = self.acting(&session, "join a federation", ADMINISTRATOR).await?;
        let invitation = parse_invitation(&enrolment.invitation)?;
        let may = self.managed.check_federation(&invitation.url, invitation.ca);
        self.held_to(&acting, Action::Enrolled, may).await?;
        hospes_protocol::text::check_name(&enrolment.organisation).map_err(|r| PartyError::input("organisation", r))?;
        let mut conn = self.reader().await?;
        if restored::is_unconfirmed(&mut conn).await? {
            return Err(PartyError::state(
                "this site was restored from a backup; confirm that first (Settings, Backup). The invitation is still good",
            ));
        }
        if let Some(federation) = enrolment.again {
            by_id(&mut conn, federation).await?;
        }
        drop(conn);
        let way = self.way(enrolment.proxy, enrolment.extra_ca);
        let (words, organisation, again) = (enrolment.words, enrolment.organisation, enrolment.again);
        Ok(EnrolOrder { invitation, words, organisation, way, again })
    }

    /// Only an administrator may have this machine dial what an invitation names: anybody can write one.
    pub(crate) async fn approach_test(
        &mut self,
        session: Session,
        approach: Approach,
    ) -> Result<ApproachTest, PartyError> {
        self.acting(&session, "test the way to a coordinator before joining", ADMINISTRATOR).await?;
        let invitation = parse_invitation(&approach.invitation)?;
        self.managed.check_federation(&invitation.url, invitation.ca)?;
        Ok(ApproachTest { invitation, way: self.way(approach.proxy, approach.extra_ca) })
    }

    /// The key to join a federation with: the present one of a site that was a member before, else a new one. A key that is
    /// lost is replaced too, unless it was asked for: the operator decides whether a new one may have the site's name.
    pub(crate) async fn identity_for(
        &mut self,
        federation: FederationId,
        ca: Digest,
        again: bool,
    ) -> Result<SecretKey, PartyError> {
        let mut conn = self.reader().await?;
        let before = by_id(&mut conn, federation).await;
        let lost = restored::check(&mut conn, federation).await?;
        drop(conn);
        let known = match before {
            // PRIVACY: so far a coordinator only says which federation it is of. With the key of that one it would recognise
            // this site, so that it has to have its CA too, or a person has to ask for it.
            Ok(before) if !again && !link::fingerprint(&before.ca_pem).is_ok_and(|known| known == ca) => {
                return Err(PartyError::state(
                    "the coordinator says that it is of a federation where this site is known under another CA; if its \
                     operator confirms that the CA is new, enrol again with `hospes-site enrol --again`. The invitation is \
                     still good",
                ));
            }
            // Under the identity so far, its log contradicts what others have seen of it.
            Ok(_) if matches!(lost, Some(restored::Check::Lost { .. })) => return self.new_identity(),
            Ok(membership) => self.identity(&membership).await,
            Err(error) => Err(error),
        };
        match known {
            Err(PartyError::NotFound(_) | PartyError::Keys(KeyError::Missing { .. })) if !again => {}
            known => return known,
        }
        self.new_identity()
    }

    fn new_identity(&self) -> Result<SecretKey, PartyError> {
        if let Some(known) = &self.config.known_keys {
            return Ok(SecretKey::from_seed(&known.identity.to_seed()));
        }
        let mut seed: [u8; 32] = random()?;
        let key = SecretKey::from_seed(&seed);
        seed.zeroize();
        Ok(key)
    }

    pub(crate) async fn join(&mut self, session: Session, joined: Joined) -> Result<MembershipView, PartyError> {
        let acting = self.acting(&session, "join a federation", ADMINISTRATOR).await?;
        let new = joined.enrolled;
        roster::check(&new.roster, new.federation, &new.coordinator, new.site)
            .map_err(|reason| PartyError::Link(format!("the roster was refused: {reason}")))?;
        for (what, name) in [("federation", &new.name), ("site", &new.site_name)] {
            hospes_protocol::text::check_name(name).map_err(|reason| {
                PartyError::Link(format!("the {what}'s name {reason}; ask its operator to mend it"))
            })?;
        }
        // Secrets first: a membership without its keys would be of no use, keys without a membership do no harm.
        let seed = Zeroizing::new(joined.identity.to_seed().to_vec());
        self.vault.keep(&format!("identity/{}", new.site), seed).await?;
        self.vault.keep(&format!("tls/{}", new.site), Zeroizing::new(new.key_pem.as_bytes().to_vec())).await?;
        match &joined.proxy {
            Some(url) => {
                self.vault.keep(&format!("proxy/{}", new.site), Zeroizing::new(url.as_bytes().to_vec())).await?;
            }
            None => self.vault.destroy(&format!("proxy/{}", new.site)).await?,
        }
        let mut tx = self.store.begin("join a federation").await?;
        match by_id(tx.conn(), new.federation).await {
            Ok(before) if before.site != new.site => restored::forget(tx.conn(), new.federation).await?,
            Ok(_) | Err(PartyError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        sqlx::query(
            "INSERT INTO memberships (federation, name, url, site, site_name, organisation, coordinator, ca_pem,
                                      chain_pem, extra_ca_pem, roster, roster_version, settled, cosigned, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?13, ?13)
             ON CONFLICT (federation) DO UPDATE SET url = ?3, site = ?4, site_name = ?5, organisation = ?6,
                ca_pem = ?8, chain_pem = ?9, extra_ca_pem = ?10, roster = ?11, roster_version = ?12",
        )
        .bind(new.federation.to_string())
        .bind(&new.name)
        .bind(&new.url)
        .bind(new.site.to_string())
        .bind(&new.site_name)
        .bind(&joined.organisation)
        .bind(new.coordinator.to_string())
        .bind(&new.ca_pem)
        .bind(&new.chain_pem)
        .bind(&joined.extra_ca_pem)
        .bind(new.roster.to_bytes()?)
        .bind(signed(new.roster.document.version))
        .bind(self.now().as_millis())
        .execute(tx.conn())
        .await
        .at("join a federation")?;
        leaving::come_back(tx.conn(), new.federation).await?;
        // Where the site was a member before, this roster may have a name that was verified with another key.
        let membership = by_id(tx.conn(), new.federation).await?;
        self.end_verifications(&mut tx, &membership, &membership.roster.document).await?;
        let entry = self
            .entry(acting.actor(), Action::Enrolled)
            .object(ObjectKind::Federation, new.federation, None)
            .object(ObjectKind::Site, new.site, None);
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.close_link(new.federation).await;
        self.forget_renewed(new.federation);
        self.open_links().await?;
        self.notify(Notice::Federations);
        let mut views = self.membership_views().await?;
        let at = views.iter().position(|v| v.federation == new.federation);
        at.map(|i| views.swap_remove(i)).ok_or_else(|| PartyError::NotFound("membership".into()))
    }
}
