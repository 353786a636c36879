//! The audit log, and everything that ever left.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use hospes_ipc::{Call, Fault, FaultCode};
use hospes_party::view::{
    AlarmView, AuditExport, AuditFormat, AuditPage, AuditQuery, EgressView, LOG_IS_INTACT, MembershipView, Outcome,
    Protection, Status,
};

use super::{Asking, federation, people};
use crate::arguments::Audit;
use crate::output;

/// `audit …`
pub(crate) async fn audit(asking: &mut Asking, command: Audit) -> Result<()> {
    match command {
        Audit::List { limit, before } => {
            let query = AuditQuery { before, limit, ..AuditQuery::default() };
            let page: AuditPage = asking.ask(&Call::Audit { query }).await?;
            asking.answer(&page, |page| {
                output::table(
                    &["No.", "When", "Who", "What", "Outcome", "Detail"],
                    page.entries.iter().map(|e| {
                        vec![
                            e.sequence.to_string(),
                            output::moment(e.at),
                            e.actor.clone(),
                            e.action.replace('_', " "),
                            e.outcome.clone(),
                            e.detail.clone(),
                        ]
                    }),
                );
            })
        }
        Audit::Verify => {
            let sentences: Vec<String> = asking.ask(&Call::VerifyAudit {}).await?;
            asking.answer(&sentences, |sentences| sentences.iter().for_each(|s| output::say(s)))?;
            if sentences.first().is_none_or(|first| first != LOG_IS_INTACT) {
                bail!(Fault::new(FaultCode::Ledger, "the log does not verify; keep a copy, and tell the auditor"));
            }
            Ok(())
        }
        Audit::Export { file, form, federation } => {
            let path = new_file(file)?;
            let federation = match federation {
                Some(typed) => Some(federation::which(asking, Some(typed)).await?),
                None => None,
            };
            let call = Call::ExportAudit { federation, kind: form, path: path.clone() };
            let export: AuditExport = asking.ask(&call).await?;
            let memberships: Vec<MembershipView> = asking.ask(&Call::Memberships {}).await?;
            let signed = memberships.iter().find(|m| federation.is_none_or(|f| f == m.federation));
            let key = signed.and_then(|m| m.identity).map_or_else(|| "KEY".to_owned(), |key| key.to_string());
            asking.answer(&export, |export| {
                output::say(&format!("{} entries were written to {} as {}.", export.entries, path.display(), export.format));
                output::say(&format!("SHA-256 {}; the log has it, too.", export.digest));
                if let Some(finding) = &export.finding {
                    output::say(&format!("The log is NOT intact: {finding}. Keep the file, and tell the auditor."));
                }
                if export.format != AuditFormat::JsonLines {
                    output::say("It proves nothing by itself. What proves it: the log with proofs, --form jsonl.");
                    return;
                }
                output::say(&format!("Verify them anywhere with: hospesctl audit verify FILE --origin {key}"));
                output::say(
                    "An auditor takes the key, the members' keys (--member) and a peer's checkpoint (--checkpoint) from \
                     somebody else than whoever gives the file.",
                );
            })
        }
        Audit::Retention { months, forever } => retention(asking, months, forever).await,
        Audit::Checkpoint { of: Some(whose), federation } => {
            let federation = federation::which(asking, federation).await?;
            let origin = match whose.as_str() {
                "coordinator" => federation,
                "self" => {
                    let memberships: Vec<MembershipView> = asking.ask(&Call::Memberships {}).await?;
                    let here = memberships.iter().find(|m| m.federation == federation);
                    here.context("this site does not belong to the federation any more")?.site
                }
                name => federation::peer(asking, federation, name).await?.site,
            };
            let note: String = asking.ask(&Call::CheckpointNote { federation, origin }).await?;
            asking.answer(&note, |note| output::say(note.trim_end()))
        }
        Audit::Checkpoint { of: None, .. } => {
            let status: Status = asking.connection.call(&Call::Status {}).await?;
            asking.answer(&status.ledger, |ledger| {
                output::say(&format!("{} entries, root {}", ledger.entries, ledger.root));
                for witnessed in &ledger.witnessed {
                    output::say(&witnessed.words);
                }
            })
        }
    }
}

async fn retention(asking: &mut Asking, months: Option<u32>, forever: bool) -> Result<()> {
    let now: Option<u32> = asking.ask(&Call::AuditRetention {}).await?;
    if months.is_none() && !forever {
        return asking.answer(&now, |months| match months {
            Some(months) => output::say(&format!("What can tell of a person is erased after {months} months.")),
            None => output::say("Entries are kept for good."),
        });
    }
    let passphrase = asking.sign()?;
    let outcome: Outcome = asking.ask(&Call::SetAuditRetention { months, passphrase }).await?;
    people::tell(asking, &outcome)
}

/// `alarms`
pub(crate) async fn alarms(asking: &mut Asking, acknowledge: Option<i64>) -> Result<()> {
    if let Some(alarm) = acknowledge {
        let answer: serde_json::Value = asking.ask(&Call::Acknowledge { alarm }).await?;
        return asking.answer(&answer, |_| output::say("Acknowledged; the alarm stays in the audit log."));
    }
    let all: Vec<AlarmView> = asking.ask(&Call::Alarms {}).await?;
    asking.answer(&all, |all| {
        if all.is_empty() {
            return output::say("There is no alarm.");
        }
        let row = |a: &AlarmView| vec![a.id.to_string(), output::moment(a.at), a.words.clone()];
        output::table(&["No.", "When", "What happened"], all.iter().map(row));
    })
}

/// `egress`
pub(crate) async fn egress(asking: &mut Asking) -> Result<()> {
    let all: Vec<EgressView> = asking.all(|page| Call::Egress { page }).await?;
    asking.answer(&all, |all| {
        output::table(
            &["When", "What", "Round", "Bytes", "State", "Protection", "Digest"],
            all.iter().map(|e| {
                vec![
                    output::moment(e.at),
                    e.kind.clone(),
                    format!("{} {}", e.round.task, e.round.round),
                    e.bytes.to_string(),
                    e.state.clone(),
                    protection(e).to_owned(),
                    e.digest.short(),
                ]
            }),
        );
        let sent: u64 = all.iter().filter(|e| e.state == "sent").map(|e| e.bytes).sum();
        output::say(&format!("{sent} bytes left in all."));
        let let_go = all.iter().filter(|e| e.state != "sent" && e.left.is_some());
        let maybe: u64 = let_go.map(|e| e.bytes).sum();
        if maybe > 0 {
            output::say(&format!("Up to {maybe} bytes more may have left: they were let go, and no receipt came."));
        }
    })
}

/// With which protection something leaves, in words.
fn protection(of: &EgressView) -> &'static str {
    match (of.protection, of.public_data) {
        (Protection::Unmasked, false) => "none: the coordinator can read it",
        (Protection::Unmasked, true) => "none: the coordinator can read it; PUBLIC DATA",
        (Protection::Masked, false) => "masked: the coordinator can read the sum only",
        (Protection::Masked, true) => "masked: the coordinator can read the sum only; PUBLIC DATA",
    }
}

/// The engine may run in another folder than this command.
pub(super) fn new_file(file: PathBuf) -> Result<PathBuf> {
    let name = file.file_name().context("name a file")?.to_owned();
    let folder = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => std::env::current_dir()?,
    };
    Ok(std::fs::canonicalize(&folder).with_context(|| format!("there is no folder {}", folder.display()))?.join(name))
}
