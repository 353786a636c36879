//! What is in the way: folder, disk, keys, engine, network; one sentence each, and what to ask the IT department.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use hospes_ipc::Fault;
use hospes_ipc::FaultCode;
use hospes_party::link::{Outcome, ProxyChoice, Reach, Step, diagnose_invitation};
use hospes_party::system_clock;
use hospes_party::view::{LinkView, Status};
use hospes_protocol::enrol::Invitation;

use crate::engine::Connection;
use crate::output;

/// Free space below which a site cannot work well.
const FREE_BYTES: u64 = 2 << 30;

/// Tests everything that can be tested and says what to do; fails if anything must be mended.
pub async fn doctor(folder: &Path, invitation: Option<&str>, json: bool) -> Result<()> {
    let mut steps = vec![disk(folder)];
    steps.extend(engine(folder).await);
    if let Some(invitation) = invitation {
        let invitation: Invitation =
            invitation.parse().map_err(|e| Fault::new(FaultCode::Input, format!("{e}")))?;
        let reach =
            Reach { proxy: ProxyChoice::Environment, clock: system_clock(), step: Duration::from_secs(15) };
        steps.extend(diagnose_invitation(&invitation, &reach).await);
    }
    let failed = steps.iter().filter(|step| step.outcome == Outcome::Failed).count();
    if json {
        output::json(&steps)?;
    } else {
        for step in &steps {
            let mark = match step.outcome {
                Outcome::Good => "well   ",
                Outcome::Notice => "look   ",
                Outcome::Failed => "MEND   ",
                Outcome::Skipped => "skipped",
            };
            output::say(&format!("{mark} {}: {}", step.test, step.finding));
            if let Some(request) = &step.request {
                output::say(&format!("        Ask the IT department: {request}"));
            }
        }
    }
    if failed > 0 {
        bail!(Fault::new(FaultCode::Link, format!("{failed} things have to be mended")));
    }
    Ok(())
}

fn step(test: &str, outcome: Outcome, finding: String) -> Step {
    Step { test: test.to_owned(), outcome, finding, request: None }
}

fn disk(folder: &Path) -> Step {
    match rustix::fs::statvfs(folder) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let outcome = if free < FREE_BYTES { Outcome::Notice } else { Outcome::Good };
            step("disk", outcome, format!("{} MiB are free in {}.", free >> 20, folder.display()))
        }
        Err(error) => step("disk", Outcome::Failed, format!("{} cannot be read: {error}.", folder.display())),
    }
}

/// Whether the engine answers, which takes keys, database and ledger, and how its links are.
async fn engine(folder: &Path) -> Vec<Step> {
    let mut connection = match Connection::open(folder).await {
        Ok(connection) => connection,
        Err(error) => return vec![step("engine", Outcome::Failed, format!("{error:#}."))],
    };
    let running = matches!(connection, Connection::Running(_));
    let mut steps = Vec::new();
    match connection.call::<Status>(&hospes_ipc::Call::Status {}).await {
        Ok(status) => {
            let words = if running { "runs" } else { "does not run; keys, database and ledger open well" };
            let outcome = if running { Outcome::Good } else { Outcome::Notice };
            steps.push(step("engine", outcome, format!("The engine {words}; {} ledger entries.", status.ledger.entries)));
            for membership in &status.memberships {
                let (outcome, finding) = match &membership.link {
                    LinkView::Connected { .. } => (Outcome::Good, format!("{} is connected.", membership.name)),
                    LinkView::Disconnected { reason, .. } => {
                        (Outcome::Failed, format!("{} is not connected: {reason}.", membership.name))
                    }
                    LinkView::Idle => (Outcome::Notice, format!("{} is not being dialled.", membership.name)),
                };
                steps.push(step("link", outcome, finding));
            }
        }
        Err(error) => steps.push(step("engine", Outcome::Failed, format!("{error:#}."))),
    }
    if let Err(error) = connection.close().await {
        steps.push(step("engine", Outcome::Failed, format!("{error:#}.")));
    }
    steps
}
