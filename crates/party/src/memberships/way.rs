//! The way to a coordinator after joining: the proxy, and the hospital's own CA certificates. Another one is tried first,
//! beside the link that is up. It is kept, and the link opened anew over it, if every step goes well, or where an
//! administrator says why it shall be kept all the same; otherwise nothing changes.

use std::path::PathBuf;

use futures::FutureExt as _;
use hospes_ledger::{Action, Change, ObjectKind};
use hospes_protocol::id::{Digest, FederationId, PersonId};
use hospes_protocol::text::shown;
use zeroize::Zeroizing;

use super::{ADMINISTRATOR, Membership, all, leaving};
use crate::audit::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::handle::Handle;
use crate::link::{self, ExtraCa, LinkConfig, Outcome, ProxyChoice, Step};
use crate::people::Session;
use crate::requests;
use crate::store::At as _;
use crate::view::{NewAuthorities, NewProxy, NewWay, Notice, WayTried, WayView};

/// What it is called where a role is refused.
const ACTION: &str = "change how a coordinator is reached";

/// A part of the way that stays, or becomes another one or none.
enum Part<T> {
    Keep,
    Set(Option<T>),
}

/// A way that is to be tried, outside the loop.
struct WayTrial {
    person: PersonId,
    federation: FederationId,
    config: LinkConfig,
    /// Whether the test may open a session of its own.
    session: bool,
    proxy: Part<Zeroizing<String>>,
    extra_ca: Part<PathBuf>,
    despite: Option<String>,
}

/// A way that was tried.
struct TriedWay {
    person: PersonId,
    federation: FederationId,
    proxy: Part<Zeroizing<String>>,
    extra_ca: Part<String>,
    despite: Option<String>,
    steps: Vec<Step>,
}

/// The text of a file with the hospital's own CA certificates, not yet looked at.
pub(super) async fn certificates(path: PathBuf) -> Result<String, PartyError> {
    let read = tokio::task::spawn_blocking(move || link::read_certificates(&path)).await;
    read.map_err(|_| PartyError::Stopped)?.map_err(unusable)
}

/// A file that is of no use as such.
pub(super) fn unusable(error: link::LinkError) -> PartyError {
    PartyError::input("extra_ca", error.to_string())
}

impl WayTrial {
    async fn run(self) -> Result<TriedWay, PartyError> {
        let Self { person, federation, mut config, session, proxy, extra_ca, despite } = self;
        let extra_ca = match extra_ca {
            Part::Keep => Part::Keep,
            Part::Set(None) => Part::Set(None),
            Part::Set(Some(path)) => {
                let pem = certificates(path).await?;
                link::authorities(&pem).map_err(unusable)?;
                Part::Set(Some(pem))
            }
        };
        if let Part::Set(pem) = &extra_ca {
            config.extra_ca = pem.clone().map_or(ExtraCa::None, ExtraCa::Pem);
        }
        let steps = link::diagnose(&config, 0, session).await;
        Ok(TriedWay { person, federation, proxy, extra_ca, despite, steps })
    }
}

impl TriedWay {
    /// The first step that failed.
    fn failed(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.outcome == Outcome::Failed)
    }
}

/// A way in words for the log, without a password.
fn words(proxy: Option<&str>, extra_ca_pem: Option<&str>) -> String {
    let proxy = match proxy.map(link::proxy_address) {
        None => "no proxy of its own".to_owned(),
        Some(Ok((address, false))) => format!("proxy {address}"),
        Some(Ok((address, true))) => format!("proxy {address} with a password"),
        Some(Err(_)) => "a proxy that cannot be used".to_owned(),
    };
    let authorities = match extra_ca_pem {
        None => "no certificates of the hospital's own".to_owned(),
        Some(pem) => format!("the hospital's own certificates {}", Digest::of(pem.as_bytes()).short()),
    };
    format!("{proxy}, {authorities}")
}

impl Engine {
    async fn ways(&mut self, session: Session) -> Result<Vec<WayView>, PartyError> {
        self.inside(&session, "see how coordinators are reached", &[]).await?;
        let mut conn = self.reader().await?;
        let mut ways = Vec::new();
        for membership in all(&mut conn).await? {
            // The keys of its link are destroyed, and its proxy with them.
            if leaving::left(&mut conn, membership.federation).await?.is_none() {
                ways.push(self.way_view(membership).await?);
            }
        }
        Ok(ways)
    }

    async fn way_view(&self, membership: Membership) -> Result<WayView, PartyError> {
        let proxy = self.proxy_of(&membership).await?;
        // What cannot be used is said in its place: it can still be changed.
        let address = |url: &Zeroizing<String>| link::proxy_address(url).unwrap_or_else(|e| (e.to_string(), false));
        let (proxy, has_credentials) = match proxy.as_ref().map(address) {
            Some((address, has_credentials)) => (Some(address), has_credentials),
            None => (None, false),
        };
        let authorities = membership.extra_ca_pem.as_deref().map(link::named_authorities).transpose();
        Ok(WayView {
            federation: membership.federation,
            name: shown(&membership.name, 200),
            url: membership.url,
            proxy,
            has_credentials,
            authorities: authorities.map_err(unusable)?.unwrap_or_default(),
        })
    }

    async fn way_trial(
        &mut self,
        session: Session,
        way: NewWay,
        despite: Option<String>,
    ) -> Result<WayTrial, PartyError> {
        let acting = self.inside(&session, ACTION, ADMINISTRATOR).await?;
        despite.as_deref().map_or(Ok(()), requests::check_reason)?;
        let membership = self.dialled(way.federation).await?;
        let (usual_proxy, usual_ca) = self.managed.way(None, None);
        let proxy = match way.proxy {
            NewProxy::Keep => Part::Keep,
            NewProxy::Usual => Part::Set(usual_proxy.map(Zeroizing::new)),
            NewProxy::Url(url) => Part::Set(Some(Zeroizing::new(url))),
        };
        let extra_ca = match way.extra_ca {
            NewAuthorities::Keep => Part::Keep,
            NewAuthorities::Usual => Part::Set(usual_ca),
            NewAuthorities::File(path) => Part::Set(Some(path)),
        };
        let mut config = self.link_config(&membership).await?;
        if let Part::Set(url) = &proxy {
            // No reason keeps what is no address.
            url.as_deref().map(|url| link::proxy_address(url)).transpose().map_err(wrong_proxy)?;
            config.proxy = url.clone().map_or(ProxyChoice::Environment, ProxyChoice::Url);
        }
        // A site has one session at a time; a second one would end the link's.
        let session = self.links.get(&way.federation).is_none_or(|l| l.commands.is_none());
        let (person, federation) = (acting.person, way.federation);
        Ok(WayTrial { person, federation, config, session, proxy, extra_ca, despite })
    }

    async fn keep_way(&mut self, tried: TriedWay) -> Result<WayTried, PartyError> {
        let acting = self.inside_still(tried.person, ACTION, ADMINISTRATOR).await?;
        let membership = self.dialled(tried.federation).await?;
        let before = self.proxy_of(&membership).await?;
        let proxy = match &tried.proxy {
            Part::Keep => before.clone(),
            Part::Set(url) => url.clone(),
        };
        let extra_ca = match &tried.extra_ca {
            Part::Keep => membership.extra_ca_pem.clone(),
            Part::Set(pem) => pem.clone(),
        };
        let was = words(before.as_ref().map(|url| url.as_str()), membership.extra_ca_pem.as_deref());
        let becomes = words(proxy.as_ref().map(|url| url.as_str()), extra_ca.as_deref());
        let entry = self.entry(acting.actor(), Action::SettingsChanged);
        let mut entry = entry.object(ObjectKind::Federation, tried.federation, None);
        let verdict = match (tried.failed(), &tried.despite) {
            (None, _) => "every step of the test went well".to_owned(),
            (Some(step), Some(reason)) => format!("the test failed at '{}', kept all the same: {reason}", step.test),
            (Some(step), None) => {
                let entry = entry.failed(format!("{becomes}: not kept, the test failed at '{}'", step.test));
                self.record("note a way that was not kept", &entry).await?;
                return Ok(WayTried { steps: tried.steps, kept: false });
            }
        };
        let digest = |words: &str| Some(Digest::of(words.as_bytes()));
        entry.change = Some(Change { before: digest(&was), after: digest(&becomes) });
        let entry = entry.because(format!("{becomes} (before: {was}); {verdict}"));
        let mut tx = self.store.begin("change the way to a coordinator").await?;
        sqlx::query("UPDATE memberships SET extra_ca_pem = ?2 WHERE federation = ?1")
            .bind(tried.federation.to_string())
            .bind(&extra_ca)
            .execute(tx.conn())
            .await
            .at("change the way to a coordinator")?;
        self.append(&mut tx, &entry).await?;
        // The vault goes first, because its write is the one that may fail.
        self.keep_proxy(&membership, proxy.as_ref()).await?;
        if let Err(error) = tx.commit().await {
            self.keep_proxy(&membership, before.as_ref()).await?;
            return Err(error);
        }
        self.close_link(tried.federation).await;
        self.open_links().await?;
        self.notify(Notice::Federations);
        Ok(WayTried { steps: tried.steps, kept: true })
    }

    async fn keep_proxy(&self, membership: &Membership, url: Option<&Zeroizing<String>>) -> Result<(), PartyError> {
        let name = membership.secret("proxy");
        match url {
            Some(url) => self.vault.keep(&name, Zeroizing::new(url.as_bytes().to_vec())).await?,
            None => self.vault.destroy(&name).await?,
        }
        Ok(())
    }
}

fn wrong_proxy(error: link::LinkError) -> PartyError {
    PartyError::input("proxy", error.to_string())
}

impl Handle {
    /// How the coordinators of all federations are reached that this site has not left.
    ///
    /// # Errors
    /// [`PartyError::NoSession`], [`PartyError::Denied`].
    pub async fn ways(&self, session: &Session) -> Result<Vec<WayView>, PartyError> {
        let s = session.clone();
        self.ask(move |e| e.ways(s).boxed()).await
    }

    /// Tries another way to a federation's coordinator, and keeps it if every step of the test went well, or all the same
    /// where a reason is given (administrator). What is kept is used at once: the link is opened anew.
    ///
    /// # Errors
    /// [`PartyError::Input`] for a proxy or a file of certificates that cannot be used, [`PartyError::State`] for a
    /// federation that was left, [`PartyError::NotFound`], [`PartyError::Denied`].
    pub async fn set_way(
        &self,
        session: &Session,
        way: NewWay,
        despite: Option<String>,
    ) -> Result<WayTried, PartyError> {
        let s = session.clone();
        let trial = self.ask(move |e| e.way_trial(s, way, despite).boxed()).await?;
        let tried = trial.run().await?;
        self.ask(move |e| e.keep_way(tried).boxed()).await
    }
}
