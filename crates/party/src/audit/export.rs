//! Exports of the audit log: the log in the native form is written inside the engine's loop, what is made of it outside,
//! and the entry about it is written before the file gets its name.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek as _, Write};
use std::path::{Path, PathBuf};

use hospes_ledger::report::{self, Annex, Format, ReportError};
use hospes_ledger::{Action, Expectations, ObjectKind, Report, verify};
use hospes_protocol::approval::{ApprovalDocument, Role};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::FederationId;
use hospes_protocol::sign::Signed;
use hospes_protocol::study::Study;
use sqlx::sqlite::SqliteConnection;

use super::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::new_file::{Hashing, Part, free};
use crate::people::Session;
use crate::store::At as _;
use crate::view::AuditExport;
use crate::{datasets, memberships, people};

/// Who may export the log.
pub(super) const EXPORTERS: &[Role] = &[Role::Auditor, Role::PrivacyOfficer, Role::Administrator];

/// An export that is under way.
pub(crate) struct Exporting {
    session: Session,
    format: Format,
    path: PathBuf,
    log: File,
    expected: Expectations,
    annex: Annex,
}

/// A file that is written and has no name yet.
pub(crate) struct Written {
    session: Session,
    format: Format,
    path: PathBuf,
    part: Part,
    range: String,
    export: AuditExport,
}

impl Engine {
    /// Writes the log in the native form, and gathers what a report says besides.
    pub(crate) async fn begin_export(
        &mut self,
        session: Session,
        federation: Option<FederationId>,
        format: Format,
        path: PathBuf,
    ) -> Result<Exporting, PartyError> {
        self.acting(&session, "export the audit log", EXPORTERS).await?;
        free(&path)?;
        let mut conn = self.reader().await?;
        let memberships = memberships::all(&mut conn).await?;
        let membership = match federation {
            Some(id) => {
                let found = memberships.iter().find(|m| m.federation == id);
                Some(found.ok_or_else(|| PartyError::NotFound(format!("federation {id} here")))?)
            }
            None => memberships.first(),
        };
        let annex = annex(&mut conn, &memberships).await?;
        drop(conn);
        let expected = match membership {
            Some(membership) => self.expected_of(membership).await?,
            None => Expectations::default(),
        };
        let log = self.export_to_scratch(membership.map(|m| m.federation)).await?;
        Ok(Exporting { session, format, path, log, expected, annex })
    }

    /// Enters the export in the log, and then gives the file its name.
    pub(crate) async fn finish_export(&mut self, written: Written) -> Result<AuditExport, PartyError> {
        let Written { session, format, path, part, range, export } = written;
        let acting = self.acting(&session, "export the audit log", EXPORTERS).await?;
        let entry = self
            .entry(acting.actor(), Action::AuditExported)
            .object(ObjectKind::Export, format, Some(export.digest))
            .because(&range);
        self.name_entered("export the audit log", entry, vec![(part, &path)]).await?;
        Ok(export)
    }
}

impl Exporting {
    /// Makes the file, beside its place and under another name.
    pub(crate) fn write(self) -> Result<Written, PartyError> {
        let Self { session, format, path, log, expected, annex } = self;
        let fail = |source| PartyError::file("write", &path, source);
        let part = Part::create(&path).map_err(fail)?;
        let (report, digest, bytes) = {
            let mut out = Hashing::new(BufWriter::new(part.file()));
            let mut log = BufReader::new(log);
            let report = match format {
                Format::JsonLines => copied(&mut log, &expected, &mut out).map_err(fail)?,
                _ => report::write(format, &mut log, &expected, &annex, &mut out)
                    .map_err(|error| not_made(error, &path))?,
            };
            let (digest, bytes) = out.ended();
            (report, digest, bytes)
        };
        part.file().sync_all().map_err(fail)?;
        let root = report.root.map(|r| r.to_string()).unwrap_or_default();
        let mut range = format!("{} entries from the first, root {root}", report.size);
        let finding = report.finding.map(|finding| finding.to_string());
        if let Some(finding) = &finding {
            range.push_str(&format!("; the log is NOT intact: {finding}"));
        }
        let export = AuditExport { format, entries: report.size, bytes, digest, finding };
        Ok(Written { session, format, path, part, range, export })
    }
}

/// The log as it is, also where it is not intact any more: then it is the evidence.
fn copied(log: &mut BufReader<File>, expected: &Expectations, out: &mut dyn Write) -> io::Result<Report> {
    let report = verify(log, expected)?;
    log.rewind()?;
    io::copy(log, out)?;
    out.flush()?;
    Ok(report)
}

/// Names and documents that the log may refer to.
async fn annex(conn: &mut SqliteConnection, memberships: &[memberships::Membership]) -> Result<Annex, PartyError> {
    let mut annex = Annex::default();
    for person in people::all(conn).await? {
        annex.people.insert(person.id, person.name);
    }
    for membership in memberships {
        for member in &membership.roster.document.members {
            annex.sites.insert(member.site, format!("{}, {}", member.name, member.organisation));
        }
        annex.sites.insert(membership.federation, membership.name.clone());
        annex.sites.insert(membership.site, membership.site_name.clone());
    }
    for (id, name) in datasets::names(conn).await? {
        annex.datasets.insert(id, name);
    }
    let documents: Vec<Vec<u8>> = sqlx::query_scalar("SELECT document FROM studies ORDER BY at, study")
        .fetch_all(&mut *conn)
        .await
        .at("read studies")?;
    for bytes in documents {
        annex.studies.push(Signed::<Study>::from_bytes(&bytes)?.document);
    }
    let documents: Vec<Vec<u8>> = sqlx::query_scalar("SELECT document FROM approvals ORDER BY at, id")
        .fetch_all(&mut *conn)
        .await
        .at("read approvals")?;
    for bytes in documents {
        annex.approvals.push(Canonical::<ApprovalDocument>::parse(&bytes)?);
    }
    Ok(annex)
}

fn not_made(error: ReportError, path: &Path) -> PartyError {
    match error {
        ReportError::Io(source) => PartyError::file("write", path, source),
        other => PartyError::state(other.to_string()),
    }
}
