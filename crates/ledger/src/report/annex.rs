//! The annex of a log: names for its pseudonyms, and the documents that it has by digest.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use hospes_protocol::approval::ApprovalDocument;
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{ApprovalId, Digest, PersonId, SiteId, StudyId};
use hospes_protocol::study::Study;
use serde::{Deserialize, Serialize};

use super::{Head, ReportError, plain, spoken};
use crate::entry::{Actor, ObjectKind};
use crate::leaf::Record;

/// Names and documents that a log refers to, kept apart from it so that the log holds pseudonyms only.
///
/// Documents are believed where their digest stands in the log. Names are the site's own word, and reports say so.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Annex {
    /// People by pseudonym.
    pub people: BTreeMap<PersonId, String>,
    /// Sites and federations by id.
    pub sites: BTreeMap<SiteId, String>,
    /// Datasets by id.
    pub datasets: BTreeMap<String, String>,
    /// Studies that were offered, in their canonical bytes.
    pub studies: Vec<Canonical<Study>>,
    /// Approvals that people signed, in their canonical bytes.
    pub approvals: Vec<Canonical<ApprovalDocument>>,
}

impl Annex {
    /// Writes what the log refers to, and nothing else.
    pub(super) fn write(&self, head: &Head<'_>, out: &mut dyn Write) -> Result<(), ReportError> {
        let words = &head.words;
        let annex = Self {
            people: self.people.iter().filter(|(id, _)| words.met.contains(&id.to_string())).map(own).collect(),
            sites: self.sites.iter().filter(|(id, _)| words.met.contains(&id.to_string())).map(own).collect(),
            datasets: self.datasets.iter().filter(|(id, _)| words.met.contains(*id)).map(own).collect(),
            studies: self.studies.iter().filter(|s| words.proven.contains(&s.digest())).cloned().collect(),
            approvals: self.approvals.iter().filter(|a| words.proven.contains(&a.digest())).cloned().collect(),
        };
        let text = serde_json::to_string_pretty(&annex).map_err(std::io::Error::from)?;
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        Ok(())
    }

    /// Reads an annex.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|e| format!("this is no annex of an audit log: {e}"))
    }
}

fn own<K: Clone, V: Clone>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), value.clone())
}

/// The annex beside the log that it belongs to.
pub(super) struct Words<'a> {
    annex: &'a Annex,
    digests: BTreeSet<Digest>,
    ids: BTreeSet<String>,
    /// Documents whose digests the log has.
    proven: BTreeSet<Digest>,
    /// Names that the log has the id of.
    met: BTreeSet<String>,
    studies: BTreeMap<StudyId, &'a Canonical<Study>>,
    approvals: BTreeMap<ApprovalId, &'a Canonical<ApprovalDocument>>,
}

impl<'a> Words<'a> {
    pub(super) fn new(annex: &'a Annex) -> Self {
        let studies = annex.studies.iter().map(Canonical::digest);
        let people = annex.people.keys().map(ToString::to_string);
        let sites = annex.sites.keys().map(ToString::to_string);
        Self {
            annex,
            digests: studies.chain(annex.approvals.iter().map(Canonical::digest)).collect(),
            ids: people.chain(sites).chain(annex.datasets.keys().cloned()).collect(),
            proven: BTreeSet::new(),
            met: BTreeSet::new(),
            studies: BTreeMap::new(),
            approvals: BTreeMap::new(),
        }
    }

    /// Takes note of an id that the log has.
    pub(super) fn name(&mut self, id: String) {
        if self.ids.contains(&id) {
            self.met.insert(id);
        }
    }

    /// Takes note of what an entry refers to.
    pub(super) fn meet(&mut self, record: &Record) {
        let mut met = |id: String| self.name(id);
        record.actor.iter().chain(&record.on_behalf).for_each(|actor| met(actor.id()));
        record.egress.iter().for_each(|egress| met(egress.to.clone()));
        record.objects.iter().for_each(|object| met(object.id.clone()));
        for object in &record.objects {
            let Some(digest) = object.digest.filter(|d| self.digests.contains(d) && !self.proven.contains(d)) else {
                continue;
            };
            match object.kind {
                ObjectKind::Study => {
                    let study = self.annex.studies.iter().find(|s| s.digest() == digest);
                    self.studies.extend(study.map(|s| (s.id, s)));
                }
                ObjectKind::Approval => {
                    let approval = self.annex.approvals.iter().find(|a| a.digest() == digest);
                    self.approvals.extend(approval.map(|a| (a.id, a)));
                }
                _ => continue,
            }
            self.proven.insert(digest);
        }
    }

    /// A study whose document the log has the digest of.
    pub(super) fn study(&self, id: StudyId) -> Option<&'a Canonical<Study>> {
        self.studies.get(&id).copied()
    }

    /// An approval whose document the log has the digest of.
    pub(super) fn approval(&self, id: ApprovalId) -> Option<&'a Canonical<ApprovalDocument>> {
        self.approvals.get(&id).copied()
    }

    pub(super) fn person(&self, id: PersonId) -> Option<String> {
        self.annex.people.get(&id).map(|name| plain(name))
    }

    pub(super) fn site(&self, id: SiteId) -> Option<String> {
        self.annex.sites.get(&id).map(|name| plain(name))
    }

    pub(super) fn dataset(&self, id: &str) -> Option<String> {
        self.annex.datasets.get(id).map(|name| plain(name))
    }

    /// A receiver: a federation's name with its id, or what the entry says.
    pub(super) fn receiver(&self, to: &str) -> String {
        match to.parse().ok().and_then(|id| self.site(id)) {
            Some(name) => format!("{name} ({to})"),
            None => plain(to),
        }
    }

    /// Who, in words: name, pseudonym and role.
    pub(super) fn actor(&self, actor: &Actor) -> String {
        match actor {
            Actor::Engine => "the engine".to_owned(),
            Actor::Person { id, role, .. } => {
                let mut words = self.person(*id).map_or_else(|| id.to_string(), |name| format!("{name} ({id})"));
                if let Some(role) = role {
                    words.push_str(&format!(", {}", plain(&spoken(role))));
                }
                words
            }
            Actor::Peer { organisation, node } => {
                let name = self.site(*node).or_else(|| organisation.as_deref().map(plain));
                name.map_or_else(|| format!("peer {node}"), |name| format!("{name} ({node})"))
            }
        }
    }

    /// Whether any name was given.
    pub(super) fn has_names(&self) -> bool {
        !self.met.is_empty()
    }
}
