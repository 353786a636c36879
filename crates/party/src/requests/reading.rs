//! What people read before they sign, and whether they may: a signature is for what was read, and nobody gives one for
//! a study of their own.

use hospes_protocol::approval::{Opinion, Role};
use hospes_protocol::canon::{Canonical, Document};
use hospes_protocol::id::Digest;
use hospes_protocol::look::are_alike;
use hospes_protocol::sign::PublicKey;
use hospes_protocol::study::Requester;
use hospes_protocol::text::{name_key, shown};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteConnection;

use super::sign::Case;
use crate::error::PartyError;
use crate::people;
use crate::view::{Finding, PersonState, Reading};

/// A part of what was read. It is only hashed, and compared here; nobody signs or sends it.
#[derive(Serialize, Deserialize)]
struct Part<T> {
    part: String,
    what: T,
}

impl<T: Serialize + DeserializeOwned> Document for Part<T> {
    const KIND: &'static str = "reading";
    const VERSION: u32 = 1;
}

fn digest<T: Serialize + DeserializeOwned>(part: &str, what: T) -> Result<Digest, PartyError> {
    Ok(Canonical::new(Part { part: part.to_owned(), what })?.digest())
}

impl Case {
    /// Everything that a first signature binds, besides what its signer chooses and when: the envelope is made of it.
    pub(super) fn reading(&self, opinion: Option<&Opinion>) -> Result<Reading, PartyError> {
        let data = self.dataset().map(|d| {
            let snapshot = d.document.digest();
            (d.id, d.name.clone(), snapshot, d.series, d.version, d.subjects_left, d.duo.clone())
        });
        let study = self.offered.study.digest();
        let data = digest("data", data)?;
        let sites = digest("sites", self.peers())?;
        let policy = self.policy.digest()?;
        let opinion = digest("opinion", opinion.cloned())?;
        let digest = digest("all", [study, data, sites, policy, opinion])?;
        Ok(Reading { digest, study, data, sites, policy, opinion })
    }
}

/// What changed since it was read, in words, if anything did.
pub(super) fn changed(read: &Reading, now: &Reading) -> Option<String> {
    if read == now {
        return None;
    }
    let parts = [
        (read.study == now.study, "the study"),
        (read.data == now.data, "the dataset"),
        (read.sites == now.sites, "the other sites, or how their keys are known"),
        (read.policy == now.policy, "the policy"),
        (read.opinion == now.opinion, "the privacy officer's opinion"),
    ];
    let others: Vec<&str> = parts.iter().filter(|(is_same, _)| !is_same).map(|(_, what)| *what).collect();
    let what = if others.is_empty() { "all of it".to_owned() } else { others.join("; ") };
    Some(format!("what would be signed is not what you have read (changed: {what}); read it again"))
}

/// Why nobody with this key may sign a study, if so: they ask for it themselves.
pub(super) fn own_study(requester: &Requester, key: Option<PublicKey>) -> Option<&'static str> {
    (key.is_some() && key == requester.key)
        .then_some("the study is yours: its requester signed it with your key; somebody else must sign for this site")
}

/// Which of the people who sign here seems to be the requester: by the key they cannot sign, by the name people judge.
pub(super) async fn own_studies(
    conn: &mut SqliteConnection,
    requester: &Requester,
) -> Result<Vec<Finding>, PartyError> {
    let name = name_key(&requester.name);
    let mut found = Vec::new();
    for person in people::all(conn).await? {
        let signs = person.roles.contains(&Role::DataSteward) || person.roles.contains(&Role::DataAccessApprover);
        if !signs || person.state == PersonState::Disabled {
            continue;
        }
        let who = shown(&person.name, 100);
        let words = if own_study(requester, person.key).is_some() {
            format!("'{who}', who signs here, is the requester by their key, and cannot sign this study")
        } else if !name.is_empty() && name_key(&person.name) == name {
            format!("'{who}', who signs here, has the name of the requester; if it is them, somebody else must sign")
        } else if are_alike(&person.name, &requester.name) {
            format!(
                "'{who}', who signs here, has a name that looks like the requester's, with other letters; if it is them, \
                 somebody else must sign"
            )
        } else {
            continue;
        };
        found.push(Finding { rule: "requester".into(), refuses: false, words });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_named_and_a_digest_that_fits_nothing_is_refused() {
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        let read = Reading { digest: a, study: a, data: a, sites: a, policy: a, opinion: a };
        assert_eq!(changed(&read, &read), None);
        let said = changed(&read, &Reading { digest: b, policy: b, opinion: b, ..read }).unwrap();
        assert!(said.contains("(changed: the policy; the privacy officer's opinion)"), "{said}");
        assert!(changed(&read, &Reading { digest: b, ..read }).is_some());
    }
}
