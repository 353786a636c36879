//! Federations that the site belongs to: joining, links, pausing. Each has its own identity key, so that two
//! coordinators cannot recognise the same site.

use hospes_ledger::{Action, ObjectKind};
use hospes_protocol::approval::{Refusal, Role};
use hospes_protocol::id::{Digest, FederationId, SiteId, Timestamp};
use hospes_protocol::memo;
use hospes_protocol::message::{Decision, FromSite, RoundReply, Welcome};
use hospes_protocol::sign::{PublicKey, SecretKey, Signed};
use hospes_protocol::study::Roster;
use hospes_protocol::text::shown;
use hospes_protocol::{limits, words};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::audit::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::keys::{KeyError, Secret, random};
use crate::link::{self, ExtraCa, LinkCommand, LinkConfig, ProxyChoice, Timing};
use crate::people::Session;
use crate::rounds::Releases;
use crate::store::{At as _, parse, signed, unsigned};
use crate::updates::WayOut;
use crate::view::{LinkView, MembershipView, Notice};

mod enrolment;
mod events;
mod leaving;
pub(crate) mod roster;
mod way;

#[cfg(any(test, feature = "simulation"))]
pub(crate) use enrolment::Joined;
pub(crate) use enrolment::read_invitation;
pub(crate) use leaving::left;

const ADMINISTRATOR: &[Role] = &[Role::Administrator];
/// These alarms name no numbers: each number that a coordinator thinks of would be another alarm.
const RESTORED: &str = "the coordinator says that it was restored from a backup; no round is answered until somebody accepts \
                        that";
const CLOCKS_DIFFER: &str = "the clocks of this site and the coordinator differ too much, and no work is done meanwhile; set \
                             them";

/// A membership as the database has it.
#[derive(Clone)]
pub(crate) struct Membership {
    pub(crate) federation: FederationId,
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) site: SiteId,
    pub(crate) site_name: String,
    pub(crate) coordinator: PublicKey,
    pub(crate) epoch: Option<u64>,
    pub(crate) epoch_offered: Option<u64>,
    pub(crate) paused: Option<String>,
    pub(crate) roster: Signed<Roster>,
    /// When the coordinator's log was last known to be settled.
    pub(crate) settled: Timestamp,
    /// When somebody last cosigned this site's log.
    pub(crate) cosigned: Timestamp,
    ca_pem: String,
    chain_pem: String,
    extra_ca_pem: Option<String>,
}

/// What the engine keeps of a running link.
pub(crate) struct Link {
    pub(crate) commands: Option<mpsc::Sender<LinkCommand>>,
    pub(crate) view: LinkView,
    /// Why no work is done although there is a connection: the clocks differ too much.
    pub(crate) skew: Option<String>,
    /// The answer to a greeting that could not be written, and when it came. It is taken in again with each tick: without it
    /// the coordinator's epoch is not known, and every round would be refused.
    unwritten: Option<(Welcome, Timestamp)>,
    /// A renewed certificate, and its key with it, that could not be recorded when it came; the link uses it already. It is
    /// tried again with each tick.
    renewed: Option<(String, Zeroizing<String>)>,
    /// When this site's checkpoint was last shown, and when the coordinator's was last seen.
    pub(crate) shown: Option<Timestamp>,
    /// When it was opened.
    pub(crate) opened: Timestamp,
    /// Releases that are said again.
    pub(crate) releases: Releases,
}

impl Link {
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.view, LinkView::Connected { .. })
    }
}

impl Membership {
    fn from_row(row: &SqliteRow) -> Result<Self, PartyError> {
        let text = |column: &'static str| row.try_get::<String, _>(column).at("read a membership");
        let optional = |column: &'static str| row.try_get::<Option<String>, _>(column).at("read a membership");
        let number = |column: &'static str| row.try_get::<Option<i64>, _>(column).at("read a membership");
        let roster: Vec<u8> = row.try_get("roster").at("read a membership")?;
        Ok(Self {
            federation: parse(&text("federation")?, "federation")?,
            name: text("name")?,
            url: text("url")?,
            site: parse(&text("site")?, "site")?,
            site_name: text("site_name")?,
            coordinator: parse(&text("coordinator")?, "coordinator")?,
            epoch: number("epoch")?.map(unsigned),
            epoch_offered: number("epoch_offered")?.map(unsigned),
            paused: optional("paused")?,
            roster: memo::parsed(&roster, Signed::from_bytes)?,
            settled: Timestamp::from_millis(row.try_get("settled").at("read a membership")?),
            cosigned: Timestamp::from_millis(row.try_get("cosigned").at("read a membership")?),
            ca_pem: text("ca_pem")?,
            chain_pem: text("chain_pem")?,
            extra_ca_pem: optional("extra_ca_pem")?,
        })
    }

    /// Fingerprint of the federation's CA.
    pub(crate) fn ca(&self) -> Option<Digest> {
        link::fingerprint(&self.ca_pem).ok()
    }

    /// Name of a secret of this membership.
    pub(crate) fn secret(&self, what: &str) -> String {
        format!("{what}/{}", self.site)
    }
}

pub(crate) async fn all(conn: &mut SqliteConnection) -> Result<Vec<Membership>, PartyError> {
    let rows = sqlx::query("SELECT * FROM memberships ORDER BY at").fetch_all(conn).await.at("read memberships")?;
    rows.iter().map(Membership::from_row).collect()
}

pub(crate) async fn by_id(conn: &mut SqliteConnection, id: FederationId) -> Result<Membership, PartyError> {
    let row = sqlx::query("SELECT * FROM memberships WHERE federation = ?1")
        .bind(id.to_string())
        .fetch_optional(conn)
        .await
        .at("read a membership")?;
    Membership::from_row(&row.ok_or_else(|| PartyError::NotFound(format!("federation {id} here")))?)
}

/// A diagnosis, ready to be carried out outside the loop.
pub(crate) struct Diagnosis {
    config: LinkConfig,
    session: bool,
}

impl Diagnosis {
    pub(crate) async fn run(self) -> Vec<link::Step> {
        link::diagnose(&self.config, 0, self.session).await
    }
}

impl Engine {
    /// This site's identity key in a federation.
    pub(crate) async fn identity(&self, membership: &Membership) -> Result<SecretKey, PartyError> {
        let name = membership.secret("identity");
        let seed = self.vault.read(&name).await?;
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(
            seed.as_slice().try_into().map_err(|_| KeyError::Damaged { what: format!("the secret '{name}'") })?,
        );
        Ok(SecretKey::from_seed(&seed))
    }

    /// The proxy that was named for a membership.
    async fn proxy_of(&self, membership: &Membership) -> Result<Option<Zeroizing<String>>, PartyError> {
        let name = membership.secret("proxy");
        let url = self.vault.find(&name).await?;
        url.map(|url| text(&name, &url)).transpose().map_err(PartyError::from)
    }

    async fn link_config(&self, membership: &Membership) -> Result<LinkConfig, PartyError> {
        let tls = membership.secret("tls");
        let key_pem = text(&tls, &self.vault.read(&tls).await?)?;
        let proxy = self.proxy_of(membership).await?.map_or(ProxyChoice::Environment, ProxyChoice::Url);
        Ok(LinkConfig {
            federation: membership.federation,
            coordinator: membership.coordinator,
            site: membership.site,
            urls: vec![membership.url.clone()],
            ca_pem: membership.ca_pem.clone(),
            chain_pem: membership.chain_pem.clone(),
            key_pem,
            proxy,
            extra_ca: membership.extra_ca_pem.clone().map_or(ExtraCa::None, ExtraCa::Pem),
            epoch: membership.epoch.unwrap_or(0),
            software: crate::SOFTWARE.to_owned(),
            clock: self.config.clock.clone(),
            jitter_seed: u64::from_le_bytes(random()?),
            timing: Timing::default(),
        })
    }

    /// How servers that are no coordinators are reached: as coordinators are, or else as the IT set it.
    pub(crate) async fn way_out(&self) -> Result<WayOut, PartyError> {
        let mut conn = self.reader().await?;
        let memberships = all(&mut conn).await?;
        drop(conn);
        let (proxy, file) = self.managed.way(None, None);
        let mut proxy = proxy.map(Zeroizing::new);
        for membership in &memberships {
            let name = membership.secret("proxy");
            if let Some(url) = self.vault.find(&name).await? {
                let damaged = |_| KeyError::Damaged { what: format!("the secret '{name}'") };
                proxy = Some(Zeroizing::new(String::from_utf8(url.to_vec()).map_err(damaged)?));
                break;
            }
        }
        let proxy = proxy.map_or(ProxyChoice::Environment, ProxyChoice::Url);
        let own = memberships.into_iter().filter_map(|membership| membership.extra_ca_pem).collect();
        Ok(WayOut { proxy, own, file, clock: self.config.clock.clone() })
    }

    /// Starts a link for every membership that is neither paused nor linked.
    pub(crate) async fn open_links(&mut self) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let memberships = all(&mut conn).await?;
        // What this site says to a coordinator, also of decisions, may be what it was before they were changed.
        let is_held = crate::restored::is_unconfirmed(&mut conn).await?;
        drop(conn);
        let now = self.now();
        for membership in memberships {
            let link = self.links.entry(membership.federation).or_insert_with(|| Link {
                commands: None,
                view: LinkView::Idle,
                skew: None,
                unwritten: None,
                renewed: None,
                shown: None,
                opened: now,
                releases: Releases::default(),
            });
            if self.config.connect && !is_held && membership.paused.is_none() && link.commands.is_none() {
                let config = self.link_config(&membership).await?;
                self.enter_found(&membership, &config.key_pem).await?;
                let commands = (self.config.spawn_link)(config, self.link_events.clone());
                if let Some(link) = self.links.get_mut(&membership.federation) {
                    (link.commands, link.opened) = (Some(commands), now);
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn close_link(&mut self, federation: FederationId) {
        if let Some(link) = self.links.get_mut(&federation) {
            link.view = LinkView::Idle;
            link.unwritten = None;
            if let Some(commands) = link.commands.take() {
                let _ = commands.try_send(LinkCommand::Close);
            }
        }
    }

    /// Greets anew where the clocks differed: only a greeting says what time it is there, and the clock may be right now.
    pub(crate) async fn greet_anew(&mut self) -> Result<(), PartyError> {
        let differs = |link: &Link| link.skew.is_some() && matches!(link.view, LinkView::Connected { .. });
        let differing: Vec<_> = self.links.iter().filter(|(_, l)| differs(l)).map(|(of, _)| *of).collect();
        for federation in &differing {
            self.close_link(*federation).await;
        }
        if differing.is_empty() { Ok(()) } else { self.open_links().await }
    }

    pub(crate) async fn close_links(&mut self) {
        for federation in self.links.keys().copied().collect::<Vec<_>>() {
            self.close_link(federation).await;
        }
    }

    /// Gives a link something to do. What does not fit in now is owed and said again after the next connection.
    pub(crate) fn command(&mut self, federation: FederationId, command: LinkCommand) {
        let Some(commands) = self.links.get(&federation).and_then(|l| l.commands.as_ref()) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = commands.try_send(command) {
            tracing::warn!(%federation, "the link is busy; the message is repeated after the next connection");
        }
    }

    /// Sends a control message.
    pub(crate) fn say(&mut self, federation: FederationId, message: FromSite) {
        self.count_control(federation, true, kind_of(&message));
        self.command(federation, LinkCommand::Send(outward(message)));
    }

    pub(crate) async fn membership_views(&self) -> Result<Vec<MembershipView>, PartyError> {
        let mut conn = self.reader().await?;
        let memberships = all(&mut conn).await?;
        let mut views = Vec::with_capacity(memberships.len());
        for m in memberships {
            let own = m.roster.document.members.iter().find(|member| member.site == m.site);
            views.push(MembershipView {
                federation: m.federation,
                words: own.map(|o| words::of_key(&o.identity)).unwrap_or_default(),
                identity: own.map(|o| o.identity),
                link: self.link_view(m.federation),
                roster: m.roster.document.version,
                members: u32::try_from(m.roster.document.members.len()).unwrap_or(u32::MAX),
                name: shown(&m.name, 200),
                url: m.url,
                site: m.site,
                site_name: shown(&m.site_name, 200),
                paused: m.paused,
                epoch_offered: m.epoch_offered,
                left: leaving::left(&mut conn, m.federation).await?,
            });
        }
        Ok(views)
    }

    pub(crate) async fn memberships(&mut self, session: Session) -> Result<Vec<MembershipView>, PartyError> {
        self.acting(&session, "see federations", &[]).await?;
        self.membership_views().await
    }

    pub(crate) async fn pause(
        &mut self,
        session: Session,
        federation: FederationId,
        reason: Option<String>,
    ) -> Result<(), PartyError> {
        let roles = &[Role::Administrator, Role::PrivacyOfficer];
        let acting = self.acting(&session, "pause a federation", roles).await?;
        let mut tx = self.store.begin("pause a federation").await?;
        by_id(tx.conn(), federation).await?;
        if leaving::left(tx.conn(), federation).await?.is_some() {
            return Err(PartyError::state("this site has left the federation; join it again with an invitation"));
        }
        reason.as_deref().map_or(Ok(()), crate::requests::check_reason)?;
        sqlx::query("UPDATE memberships SET paused = ?2 WHERE federation = ?1")
            .bind(federation.to_string())
            .bind(&reason)
            .execute(tx.conn())
            .await
            .at("pause a federation")?;
        let words = reason.as_ref().map_or("the pause was ended".to_owned(), |r| format!("paused: {r}"));
        let entry = self
            .entry(acting.actor(), Action::SettingsChanged)
            .object(ObjectKind::Federation, federation, None)
            .because(words);
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.notify(Notice::Federations);
        if reason.is_some() {
            self.recheck_work().await?;
            self.close_link(federation).await;
            return Ok(());
        }
        self.open_links().await
    }

    pub(crate) async fn accept_epoch(&mut self, session: Session, federation: FederationId) -> Result<(), PartyError> {
        let roles = &[Role::Administrator, Role::DataSteward];
        let acting = self.acting(&session, "accept a restored coordinator", roles).await?;
        let mut tx = self.store.begin("accept an epoch").await?;
        let membership = by_id(tx.conn(), federation).await?;
        let Some(epoch) = membership.epoch_offered else {
            return Err(PartyError::state("the coordinator has not said that it was restored"));
        };
        set_epoch(tx.conn(), federation, Some(epoch), None).await?;
        let entry = self
            .entry(acting.actor(), Action::SettingsChanged)
            .object(ObjectKind::Federation, federation, None)
            .because(format!("epoch {epoch} of the coordinator accepted"));
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.notify(Notice::Federations);
        Ok(())
    }

    pub(crate) async fn diagnosis(
        &mut self,
        session: Session,
        federation: FederationId,
    ) -> Result<Diagnosis, PartyError> {
        self.acting(&session, "test a connection", &[]).await?;
        let membership = self.dialled(federation).await?;
        // A site has one session at a time; a second one would end the link's.
        let session = self.links.get(&federation).is_none_or(|l| l.commands.is_none());
        Ok(Diagnosis { config: self.link_config(&membership).await?, session })
    }

    /// A membership whose coordinator may be dialled.
    async fn dialled(&self, federation: FederationId) -> Result<Membership, PartyError> {
        let mut conn = self.reader().await?;
        let membership = by_id(&mut conn, federation).await?;
        if leaving::left(&mut conn, federation).await?.is_some() {
            return Err(PartyError::state("this site has left the federation; there is no connection to test"));
        }
        if crate::restored::is_unconfirmed(&mut conn).await? {
            return Err(PartyError::state(
                "this site was restored from a backup; confirm that first (Settings, Backup)",
            ));
        }
        Ok(membership)
    }

    /// What a session begins with: who is at the other end, which epoch, whether the clocks agree.
    pub(crate) async fn on_welcome(&mut self, federation: FederationId, welcome: Welcome) -> Result<(), PartyError> {
        let now = self.now();
        self.take_welcome(federation, welcome, now).await
    }

    /// Takes in answers to greetings that could not be written when they came, as on a full disk.
    pub(crate) async fn tick_welcomes(&mut self) {
        let owed = self.links.iter().filter_map(|(of, link)| Some((*of, link.unwritten.clone()?)));
        for (federation, (welcome, at)) in owed.collect::<Vec<_>>() {
            if let Err(error) = self.take_welcome(federation, welcome, at).await {
                // It stays owed; whatever else the tick does is tried all the same.
                tracing::warn!(%federation, %error, "the answer to a greeting cannot be written yet");
            }
        }
    }

    async fn take_welcome(
        &mut self,
        federation: FederationId,
        welcome: Welcome,
        now: Timestamp,
    ) -> Result<(), PartyError> {
        if let Some(link) = self.links.get_mut(&federation) {
            link.unwritten = Some((welcome.clone(), now));
        }
        let mut tx = self.store.begin("begin a session").await?;
        let membership = by_id(tx.conn(), federation).await?;
        if welcome.identity != membership.coordinator || welcome.federation != federation {
            let words = "somebody who is not the coordinator answered for it; the session was not used";
            self.alarm(&mut tx, Some(federation), words).await?;
            self.enter_greeting(&mut tx, federation, Action::PeerRefused, words).await?;
            tx.commit().await?;
            self.close_link(federation).await;
            return Ok(());
        }
        match membership.epoch {
            None => set_epoch(tx.conn(), federation, Some(welcome.epoch), None).await?,
            Some(epoch) if epoch == welcome.epoch => {}
            Some(epoch) => {
                set_epoch(tx.conn(), federation, Some(epoch), Some(welcome.epoch)).await?;
                if let Some(link) = self.links.get_mut(&federation) {
                    // What it had heard may be lost there.
                    link.releases = Releases::default();
                }
                self.alarm(&mut tx, Some(federation), RESTORED).await?;
                let words = format!("{RESTORED} (epoch {epoch} before, {} now)", welcome.epoch);
                self.enter_greeting(&mut tx, federation, Action::SettingsChanged, &words).await?;
            }
        }
        let skew = welcome.at.since(now);
        let skew = (skew.abs() > limits::CLOCK_SKEW_MS).then(|| {
            format!("the clocks of this site and the coordinator differ by {} minutes; set them", skew.abs() / 60_000)
        });
        if let Some(words) = &skew {
            self.alarm(&mut tx, Some(federation), CLOCKS_DIFFER).await?;
            self.enter_greeting(&mut tx, federation, Action::ClockAnomaly, words).await?;
        }
        tx.commit().await?;
        if let Some(link) = self.links.get_mut(&federation) {
            link.view = LinkView::Connected { since: now };
            link.skew = skew;
            link.unwritten = None;
            link.shown = None;
        }
        self.notify(Notice::Federations);
        self.repeat_what_is_owed(federation).await
    }
}

/// A secret that is text.
fn text(name: &str, secret: &Secret) -> Result<Zeroizing<String>, KeyError> {
    let text = String::from_utf8(secret.to_vec()).map(Zeroizing::new);
    text.map_err(|_| KeyError::Damaged { what: format!("the secret '{name}'") })
}

async fn set_epoch(
    conn: &mut SqliteConnection,
    federation: FederationId,
    epoch: Option<u64>,
    offered: Option<u64>,
) -> Result<(), PartyError> {
    sqlx::query("UPDATE memberships SET epoch = ?2, epoch_offered = ?3 WHERE federation = ?1")
        .bind(federation.to_string())
        .bind(epoch.map(signed))
        .bind(offered.map(signed))
        .execute(conn)
        .await
        .at("set an epoch")?;
    Ok(())
}

/// A message as it leaves the site: no refusal in it tells more of the data than that they stand against something.
fn outward(message: FromSite) -> FromSite {
    match message {
        FromSite::Reserved { job, refusal } => FromSite::Reserved { job, refusal: refusal.map(Refusal::outward) },
        FromSite::Decision { study, decision: Decision::Refused(refusal) } => {
            FromSite::Decision { study, decision: Decision::Refused(refusal.outward()) }
        }
        FromSite::RoundReply { round, reply: RoundReply::Refused(refusal) } => {
            FromSite::RoundReply { round, reply: RoundReply::Refused(refusal.outward()) }
        }
        FromSite::RoundReply { round, reply: RoundReply::Withdrawn(refusal) } => {
            FromSite::RoundReply { round, reply: RoundReply::Withdrawn(refusal.outward()) }
        }
        other => other,
    }
}

/// Name of a control message's kind, for the summary.
fn kind_of(message: &FromSite) -> &'static str {
    match message {
        FromSite::Hello(_) => "hello",
        FromSite::Heartbeat { .. } => "heartbeat",
        FromSite::Decision { .. } => "decision",
        FromSite::Reserved { .. } => "reserved",
        FromSite::RoundReply { .. } => "round reply",
        FromSite::Progress { .. } => "progress",
        FromSite::Release { .. } => "release",
        FromSite::SecureStep { .. } => "secure aggregation",
        FromSite::Vouch(_) => "vouch",
        FromSite::Witness(_) => "witness",
        FromSite::Goodbye => "goodbye",
    }
}
