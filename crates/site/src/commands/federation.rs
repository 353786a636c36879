//! Federations, their members, and stopping.

use anyhow::{Context as _, Result, bail};
use hospes_ipc::{Call, Fault, FaultCode};
use hospes_party::known_sites;
use hospes_party::view::{LinkView, MembershipView, PeerView};
use hospes_protocol::approval::Trust;
use hospes_protocol::id::FederationId;
use serde_json::Value;

use super::{Asking, one_of};
use crate::arguments::{Federation, Peers};
use crate::{output, secret};

/// `federation …`
pub(crate) async fn federation(asking: &mut Asking, command: Federation) -> Result<()> {
    match command {
        Federation::List => {
            let all: Vec<MembershipView> = asking.ask(&Call::Memberships {}).await?;
            asking.answer(&all, |all| memberships(all))
        }
        Federation::Pause(pause) => {
            let federation = which(asking, pause.federation).await?;
            let answer: Value = asking.ask(&Call::Pause { federation, reason: Some(pause.reason) }).await?;
            asking.answer(&answer, |_| output::say("Paused. Nothing is computed for this federation until you resume."))
        }
        Federation::Resume { federation } => {
            let federation = which(asking, federation).await?;
            let answer: Value = asking.ask(&Call::Pause { federation, reason: None }).await?;
            asking.answer(&answer, |_| output::say("This site takes part again."))
        }
        Federation::Words { federation } => {
            let federation = which(asking, federation).await?;
            let all: Vec<MembershipView> = asking.ask(&Call::Memberships {}).await?;
            let own = all.into_iter().find(|m| m.federation == federation).context("the federation is gone")?;
            asking.answer(&own, |own| {
                output::say(&format!("Words of {} in {}:", own.site_name, own.name));
                words(&own.words);
            })
        }
        Federation::AcceptEpoch { federation } => accept_epoch(asking, federation).await,
    }
}

/// `federation accept-epoch`
async fn accept_epoch(asking: &mut Asking, typed: Option<String>) -> Result<()> {
    let federation = which(asking, typed).await?;
    let answer: Value = asking.ask(&Call::AcceptEpoch { federation }).await?;
    asking.answer(&answer, |_| output::say("This site works with the restored coordinator from now on."))
}

/// `peers …`
pub(crate) async fn peers(asking: &mut Asking, command: Peers) -> Result<()> {
    match command {
        Peers::List { federation } => {
            let federation = which(asking, federation).await?;
            let peers: Vec<PeerView> = asking.ask(&Call::Peers { federation }).await?;
            asking.answer(&peers, |peers| {
                output::table(
                    &["Site", "Organisation", "Key", "Vouched for by"],
                    peers.iter().map(|p| {
                        vec![p.name.clone(), p.organisation.clone(), trust(p.trust).into(), p.vouched_by.join(", ")]
                    }),
                );
                let members = peers.iter().filter(|p| !p.absent);
                if let Some(known) = known_sites(members.map(|p| (p.name.as_str(), p.trust))) {
                    output::say(&known);
                }
                for absent in peers.iter().filter(|p| p.absent) {
                    output::say(&format!("{} is not in the federation's roster now.", absent.name));
                }
            })
        }
        Peers::Show { site, federation } => {
            let federation = which(asking, federation).await?;
            let peer = peer(asking, federation, &site).await?;
            asking.answer(&peer, show)
        }
        Peers::Unverify { site, reason, federation } => {
            let federation = which(asking, federation).await?;
            let site = peer(asking, federation, &site).await?.site;
            let peer: PeerView = asking.ask(&Call::UnverifyPeer { federation, site, reason }).await?;
            asking.answer(&peer, |peer| output::say(&format!("The key of {} is no longer verified here.", peer.name)))
        }
        Peers::Verify { site, words, federation } => {
            let federation = which(asking, federation).await?;
            let site = peer(asking, federation, &site).await?;
            let words = match words {
                Some(words) => words,
                None => secret::line("The twelve words that the other site's staff read to you: ")?,
            };
            let peer: PeerView = asking.ask(&Call::VerifyPeer { federation, site: site.site, words }).await?;
            asking.answer(&peer, |peer| output::say(&format!("The key of {} is verified here.", peer.name)))
        }
        Peers::Vouch { site, federation } => {
            let federation = which(asking, federation).await?;
            let site = peer(asking, federation, &site).await?;
            let peer: PeerView = asking.ask(&Call::Vouch { federation, site: site.site }).await?;
            asking.answer(&peer, |peer| output::say(&format!("This site vouches for {} now.", peer.name)))
        }
    }
}

/// `peers show`
fn show(peer: &PeerView) {
    output::say(&format!("{} ({}): its key is {}.", peer.name, peer.organisation, trust(peer.trust)));
    if peer.absent {
        output::say("It is not in the federation's roster now.");
    }
    if let Some(compared) = &peer.compared {
        output::say(&format!("{} compared its words on {}.", compared.by, output::moment(compared.at)));
    }
    if let Some(at) = peer.revoked {
        let at = output::moment(at);
        output::say(&format!(
            "It is no longer verified since {at}: it changed, or somebody of this site took that back."
        ));
    }
    match &peer.words {
        Some(compared) => words(compared),
        None => output::say(&format!(
            "Nobody of this site compared its words. Ask its staff for them by telephone or in person, then: \
             hospes-site peers verify '{}'",
            peer.name
        )),
    }
}

/// Words to be read out, and the same as a code where there is a screen.
fn words(words: &str) {
    output::say(words);
    output::code(words);
}

/// `stop`
pub(crate) async fn stop(asking: &mut Asking, reason: Option<String>) -> Result<()> {
    let stops = reason.is_some();
    let answer: Value = asking.ask(&Call::Stop { reason }).await?;
    asking.answer(&answer, |_| {
        output::say(if stops { "Everything is stopped." } else { "The stop has ended." });
    })
}

/// The memberships in a table.
pub(crate) fn memberships(all: &[MembershipView]) {
    if all.is_empty() {
        return output::say("This site belongs to no federation yet: hospes-site enrol …");
    }
    let link = |m: &MembershipView| match (&m.paused, &m.link) {
        (Some(reason), _) => format!("paused: {reason}"),
        (None, LinkView::Connected { since }) => format!("connected since {}", output::moment(*since)),
        (None, LinkView::Disconnected { reason, .. }) => format!("not connected: {reason}"),
        (None, LinkView::Idle) => "not running".into(),
    };
    output::table(
        &["Federation", "Here", "Members", "Link", "Words of this site"],
        all.iter().map(|m| vec![m.name.clone(), m.site_name.clone(), m.members.to_string(), link(m), m.words.clone()]),
    );
}

/// How a key is trusted, in words.
pub(crate) const fn trust(trust: Trust) -> &'static str {
    match trust {
        Trust::VerifiedHere => "verified here",
        Trust::VouchedFor => "vouched for",
        Trust::AssertedOnly => "asserted by the coordinator only",
    }
}

/// The federation that was typed, or the only one.
pub(crate) async fn which(asking: &mut Asking, typed: Option<String>) -> Result<FederationId> {
    let all: Vec<MembershipView> = asking.ask(&Call::Memberships {}).await?;
    match (typed, all.as_slice()) {
        (Some(typed), all) => {
            let found = one_of("federation", &typed, all, |m| vec![m.federation.to_string(), m.name.clone()])?;
            Ok(found.federation)
        }
        (None, [only]) => Ok(only.federation),
        (None, []) => bail!(Fault::new(FaultCode::State, "this site belongs to no federation yet")),
        (None, _) => bail!(Fault::new(FaultCode::Input, "this site belongs to several federations; name one")),
    }
}

pub(crate) async fn peer(asking: &mut Asking, federation: FederationId, typed: &str) -> Result<PeerView> {
    let peers: Vec<PeerView> = asking.ask(&Call::Peers { federation }).await?;
    Ok(one_of("site", typed, &peers, |p| vec![p.name.clone(), p.site.to_string()])?.clone())
}
