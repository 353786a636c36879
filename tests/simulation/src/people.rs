//! What people of a site do at any moment, and what the site's own store then says about what may leave.

use hospes_party::simulation::Site;
use hospes_party::view::{Page, RequestState, Verdict};
use hospes_party::{PartyError, Session};
use hospes_protocol::id::StudyId;
use hospes_protocol::policy::Policy;

use crate::swarm::Act;
use crate::template::{federation, passphrase};
use crate::world::{Node, World};

impl World<'_> {
    pub(crate) async fn person(&mut self, site: usize, act: Act) {
        let study = self.template.study;
        let done = self.at_site(site, async |s| perform(s, act, study).await).await;
        let word = match &done {
            None => "no answer".to_owned(),
            Some(Ok(())) => "done".to_owned(),
            Some(Err(error)) => format!("{error}"),
        };
        self.note(Node::Site(site), format!("people: {act:?}: {word}"));
        self.cancelled |= act == Act::CancelJob;
        self.hospitals[site].held |= matches!(act, Act::Stop | Act::Pause);
        self.look(site).await;
    }

    /// Reads in the site's store why nothing derived may leave it now. Asked after whatever people did, and after each
    /// start: what counts is what was recorded, not what was asked.
    pub(crate) async fn look(&mut self, site: usize) {
        let study = self.template.study;
        let Some(session) = self.ana(site).await else { return };
        let seen = self.at_site(site, async |s| barred(s, session, study).await).await;
        if let Some(Ok(barred)) = seen {
            self.hospitals[site].barred = barred;
        }
    }

    /// The administrator's session, for questions that leave no entry; `None` if nobody can log in now.
    pub(crate) async fn ana(&mut self, site: usize) -> Option<Session> {
        if self.hospitals[site].ana.is_none() {
            let logged_in =
                self.at_site(site, async |s| s.ask(async |h| h.log_in("ana".into(), passphrase("ana")).await).await);
            let session = logged_in.await?.ok()?;
            self.hospitals[site].ana = Some(session);
        }
        self.hospitals[site].ana.clone()
    }

    /// Ends stops and pauses, so that a site hears how its runs ended.
    pub(crate) async fn end_holds(&mut self, site: usize) {
        if !self.hospitals[site].held {
            return;
        }
        for act in [Act::GoOn, Act::Unpause] {
            self.person(site, act).await;
        }
    }
}

async fn perform(site: &mut Site, act: Act, study: StudyId) -> Result<(), PartyError> {
    site.ask(async move |h| {
        let why = || "a test".to_owned();
        let who = match act {
            Act::Revoke | Act::Suspend | Act::Resume | Act::CancelJob => "sam",
            _ => "ana",
        };
        let session = h.log_in(who.into(), passphrase(who)).await?;
        match act {
            Act::Revoke => h.decide(&session, study, Verdict::Revoke { reason: why() }).await.map(drop),
            Act::Suspend => h.decide(&session, study, Verdict::Suspend { reason: why() }).await.map(drop),
            Act::Resume => h.decide(&session, study, Verdict::Resume).await.map(drop),
            Act::Tighten => h.set_policy(&session, Policy::strict().to_toml()?, passphrase("ana")).await.map(drop),
            Act::Stop => h.stop(&session, Some(why())).await,
            Act::GoOn => h.stop(&session, None).await,
            Act::Pause => h.pause(&session, federation(), Some(why())).await,
            Act::Unpause => h.pause(&session, federation(), None).await,
            Act::CancelJob => match h.jobs(&session, Page::default()).await?.first() {
                Some(job) => h.cancel_job(&session, job.job, why()).await,
                None => Ok(()),
            },
        }
    })
    .await
}

async fn barred(site: &mut Site, session: Session, study: StudyId) -> Result<Option<&'static str>, PartyError> {
    site.ask(async move |h| {
        let status = h.status().await?;
        if status.stopped.is_some() {
            return Ok(Some("everything is stopped"));
        }
        if !status.public_data {
            return Ok(Some("the policy is another"));
        }
        if status.memberships.iter().any(|m| m.paused.is_some()) {
            return Ok(Some("the federation is paused"));
        }
        let request = h.requests(&session).await?.into_iter().find(|r| r.study == study);
        Ok(match request.map(|r| r.state) {
            Some(RequestState::Active) => None,
            Some(RequestState::Suspended) => Some("the approval is suspended"),
            Some(RequestState::Revoked) => Some("the approval is revoked"),
            Some(RequestState::Expired) => Some("the approval has expired"),
            _ => Some("there is no approval"),
        })
    })
    .await
}
