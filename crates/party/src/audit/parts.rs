//! What an entry of the log says part by part, with the names that this site knows for the ids in it.

use std::collections::HashMap;

use hospes_ledger::{Actor, Field, Object, ObjectKind, Record};
use hospes_protocol::id::{Digest, StudyId};
use hospes_protocol::text::shown;
use sqlx::SqliteConnection;

use crate::error::PartyError;
use crate::requests;
use crate::store::At as _;
use crate::view::{AuditErased, AuditObject, AuditParts, AuditSent};

/// Names that this site knows for ids of its log. What it does not know has none: nothing is guessed.
pub(super) struct Names<'c> {
    conn: &'c mut SqliteConnection,
    /// A page names few things again and again.
    known: HashMap<(ObjectKind, String), Option<String>>,
}

impl<'c> Names<'c> {
    pub(super) fn new(conn: &'c mut SqliteConnection) -> Self {
        Self { conn, known: HashMap::new() }
    }

    /// The name of this thing.
    pub(super) async fn of(&mut self, kind: ObjectKind, id: &str) -> Result<Option<String>, PartyError> {
        let key = (kind, id.to_owned());
        if let Some(name) = self.known.get(&key) {
            return Ok(name.clone());
        }
        let name = self.find(kind, id).await?;
        self.known.insert(key, name.clone());
        Ok(name)
    }

    async fn find(&mut self, kind: ObjectKind, id: &str) -> Result<Option<String>, PartyError> {
        let sql = match kind {
            // Also of one that was removed.
            ObjectKind::Dataset => "SELECT name FROM datasets WHERE id = ?1",
            ObjectKind::Person => "SELECT name FROM persons WHERE id = ?1",
            ObjectKind::Federation => "SELECT name FROM memberships WHERE federation = ?1",
            ObjectKind::Site => "SELECT site_name FROM memberships WHERE site = ?1",
            ObjectKind::Study => "SELECT study FROM studies WHERE study = ?1",
            ObjectKind::Job => "SELECT study FROM jobs WHERE job = ?1",
            ObjectKind::Approval => "SELECT study FROM approvals WHERE id = ?1",
            _ => return Ok(None),
        };
        let found: Option<String> = sqlx::query_scalar(sql)
            .bind(id.to_owned())
            .fetch_optional(&mut *self.conn)
            .await
            .at("name what the log is about")?;
        let Some(found) = found else { return Ok(None) };
        let by_study = matches!(kind, ObjectKind::Study | ObjectKind::Job | ObjectKind::Approval);
        Ok(if by_study { self.title(&found).await } else { Some(shown(&found, 200)) })
    }

    /// A study that cannot be read has no title; the log can be read all the same.
    async fn title(&mut self, study: &str) -> Option<String> {
        let study: StudyId = study.parse().ok()?;
        let offered = requests::study(self.conn, study).await.ok()?;
        Some(shown(&offered.study.terms.title, 200))
    }

    async fn object(&mut self, kind: ObjectKind, id: &str, digest: Option<Digest>) -> Result<AuditObject, PartyError> {
        Ok(AuditObject { kind, id: id.to_owned(), name: self.of(kind, id).await?, digest })
    }

    /// The parts of an entry.
    pub(super) async fn parts(&mut self, record: &Record, on_behalf: Option<String>) -> Result<AuditParts, PartyError> {
        let mut about = Vec::with_capacity(record.objects.len());
        for Object { kind, id, digest } in &record.objects {
            about.push(self.object(*kind, id, *digest).await?);
        }
        let named = [
            (ObjectKind::Study, record.purpose.study.map(|id| id.to_string())),
            (ObjectKind::Job, record.purpose.job.map(|id| id.to_string())),
            (ObjectKind::Approval, record.purpose.approval.map(|id| id.to_string())),
        ];
        let mut purpose = Vec::new();
        for (kind, id) in named {
            if let Some(id) = id {
                purpose.push(self.object(kind, &id, None).await?);
            }
        }
        let sent = match &record.egress {
            Some(egress) => {
                let name = self.of(ObjectKind::Federation, &egress.to).await?;
                Some(AuditSent { to: egress.to.clone(), name, digest: egress.digest })
            }
            None => None,
        };
        let key = match &record.actor {
            Some(Actor::Person { key, .. }) => *key,
            _ => None,
        };
        let erased =
            |(field, rule): &(Field, String)| AuditErased { part: field.as_str().to_owned(), rule: rule.clone() };
        Ok(AuditParts {
            who: record.actor.as_ref().filter(|actor| **actor != Actor::Engine).map(Actor::id),
            key,
            on_behalf,
            about,
            purpose,
            reason: record.reason.clone(),
            before: record.change.and_then(|change| change.before),
            after: record.change.and_then(|change| change.after),
            sent,
            software: record.engine.as_ref().map(|engine| engine.version.clone()),
            device: record.engine.as_ref().and_then(|engine| engine.device.clone()),
            erased: record.erased.iter().map(erased).collect(),
        })
    }
}
