//! A coordinator that lies: it tells a site that agreed to a sum of another set of inputs, and colludes with the other sites
//! in that. Everything else it does as it should, so that what a site makes of the lie stands out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hospes_privacy::secagg::{Consent, Relay, Sent};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{Digest, RoundKey, SiteId};
use hospes_protocol::message::{FromSite, SecureMessage, ToSite};
use hospes_protocol::sign::Signature;

use crate::run::site_of;
use crate::template::site_key;
use crate::world::{Event, Node, World};

/// What it knows, and whom it lied to.
#[derive(Default)]
pub(crate) struct Liar {
    rosters: BTreeMap<RoundKey, Vec<SiteId>>,
    /// Whose inputs really count.
    sums: BTreeMap<RoundKey, Vec<u32>>,
    /// Once after a site's consent, and once after it revealed shares.
    lied: BTreeSet<(usize, RoundKey, bool)>,
}

impl Liar {
    /// The coordinator told somebody of a round.
    pub(crate) fn told(&mut self, message: &ToSite) {
        match message {
            ToSite::RoundOpen(header) => {
                let roster = header.document.roster.iter().map(|entry| entry.site).collect();
                self.rosters.insert(header.document.key(), roster);
            }
            ToSite::Relay { round, message } => {
                if let Ok(Relay::Inputs(set)) = Relay::from_bytes(message.bytes()) {
                    self.sums.insert(round.clone(), set);
                }
            }
            _ => {}
        }
    }

    /// Signatures of these members under a set, as they would be once all of them agreed to it.
    fn consents(&self, round: &RoundKey, sid: Digest, set: &[u32]) -> Option<Vec<(u32, Signature)>> {
        let roster = self.rosters.get(round)?;
        // As members name a set.
        let mut named = b"hospes/secagg/set/v1\0".to_vec();
        named.extend_from_slice(sid.as_bytes());
        named.extend(set.iter().flat_map(|party| party.to_be_bytes()));
        let included = Digest::of(&named);
        let sign = |party: &u32| {
            let site = site_of(*roster.get(*party as usize)?)?;
            let consent = Canonical::new(Consent { sid, from: *party, included }).ok()?;
            Some((*party, site_key(site).sign(&consent.digest())))
        };
        set.iter().map(sign).collect()
    }
}

impl World<'_> {
    /// Lies to a site that just said something in a round with secure aggregation.
    pub(crate) fn lie_about_sums(&mut self, site: usize, said: &FromSite) {
        let FromSite::SecureStep { round, message } = said else { return };
        if !self.lies || self.calm {
            return;
        }
        let (sid, me, has_revealed) = match Sent::from_bytes(message.bytes()) {
            Ok(Sent::Consent(signed)) => (signed.document.sid, signed.document.from, false),
            Ok(Sent::Reveal(signed)) => (signed.document.sid, signed.document.from, true),
            _ => return,
        };
        let Some(session) = self.hospitals[site].session else { return };
        let Some(mut set) = self.liar.sums.get(round).filter(|set| set.len() > 2).cloned() else { return };
        // Whoever refuses is not waited for any more, and would reveal nothing that could be asked for twice.
        if !has_revealed && !self.rng.per_mille(300) {
            return;
        }
        if !self.liar.lied.insert((site, round.clone(), has_revealed)) {
            return;
        }
        let others: Vec<u32> = set.iter().copied().filter(|party| *party != me).collect();
        let gone = others[self.rng.index(others.len())];
        set.retain(|party| *party != gone);
        let Some(consents) = self.liar.consents(round, sid, &set) else { return };
        let about = crate::truth::short(round);
        self.note(Node::Coordinator, format!("lies to {} about {about}", Node::Site(site).name()));
        // Before anybody can hear how the round ended.
        for (wait, relay) in [(1, Relay::Inputs(set)), (2, Relay::Consents(consents))] {
            let Ok(bytes) = relay.to_bytes() else { return };
            let message = Arc::new(ToSite::Relay { round: round.clone(), message: SecureMessage::new(bytes) });
            self.after(wait, Event::ToSite { session, message });
        }
    }
}
