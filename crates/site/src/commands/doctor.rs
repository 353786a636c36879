//! What is in the way: folder, disk, keys, engine, network; one sentence each, and what to ask the IT department.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use hospes_ipc::{Call, Fault, FaultCode};
use hospes_party::link::{Outcome, ProxyChoice, Reach, Step, diagnose_invitation, read_certificates};
use hospes_party::view::{Approach, DeviceSetting, LinkView, MembershipView, Status};
use hospes_party::{DeviceChoice, Managed, ManagedFile, chosen_card, probe_cards, system_clock};
use hospes_protocol::enrol::Invitation;

use super::Asking;
use crate::engine::{Connection, Place};
use crate::output;

/// Free space below which a site cannot work well.
const FREE_BYTES: u64 = 2 << 30;

/// Who asks; only somebody of the site may have its connections tested.
pub(crate) struct Who {
    /// Name.
    pub(crate) person: Option<String>,
    /// File with the passphrase.
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// Tests everything that can be tested and says what to do; fails if anything must be mended.
pub(crate) async fn doctor(
    folder: &Path,
    approach: Option<Approach>,
    chosen: Option<DeviceChoice>,
    who: Who,
    json: bool,
) -> Result<()> {
    let mut steps = vec![disk(folder)];
    let managed = managed(&mut steps);
    let (found, set) = engine(folder, who, &managed).await;
    let choice = managed.device.or(chosen).or(set).unwrap_or_default();
    steps.push(tokio::task::spawn_blocking(move || device(choice)).await?);
    steps.extend(found);
    if let Some(Approach { invitation, proxy, extra_ca }) = approach {
        let (proxy, extra_ca) = (proxy.or(managed.proxy), extra_ca.or(managed.extra_ca));
        let approach = Approach { invitation, proxy, extra_ca };
        steps.extend(before_joining(approach).await?);
    }
    let failed = steps.iter().filter(|step| step.outcome == Outcome::Failed).count();
    if json {
        output::json(&steps)?;
    } else {
        say(&steps);
    }
    if failed > 0 {
        bail!(Fault::new(FaultCode::Link, format!("{failed} of {} steps failed", steps.len())));
    }
    Ok(())
}

/// Steps for people, each with how it went.
pub(super) fn say(steps: &[Step]) {
    for step in steps {
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

/// Each step of the way to the coordinator of an invitation, which neither a site nor an engine is needed for.
async fn before_joining(approach: Approach) -> Result<Vec<Step>> {
    let wrong = |words: String| Fault::new(FaultCode::Input, words);
    let invitation: Invitation = approach.invitation.parse().map_err(|e| wrong(format!("{e}")))?;
    let certificates = approach.extra_ca.as_deref().map(read_certificates).transpose();
    let certificates = certificates.map_err(|e| wrong(format!("{e}")))?;
    let proxy = approach.proxy.map_or(ProxyChoice::Environment, |url| ProxyChoice::Url(url.into()));
    let reach = Reach { proxy, clock: system_clock(), step: Duration::from_secs(15) };
    Ok(diagnose_invitation(&invitation, &reach, certificates.as_deref()).await)
}

fn step(test: &str, outcome: Outcome, finding: String) -> Step {
    Step { test: test.to_owned(), outcome, finding, request: None }
}

/// What the hospital's IT set, one sentence each; nothing where its file cannot be used, which then is to be mended.
fn managed(steps: &mut Vec<Step>) -> Managed {
    let read = ManagedFile::of_system().read();
    match &read {
        Ok(Managed { file: None, .. }) => {
            steps.push(step("managed", Outcome::Good, "Your IT has set nothing for this machine.".to_owned()));
        }
        Ok(managed) => {
            let file = managed.file.as_deref().unwrap_or_default();
            let said = managed.words().into_iter().map(|words| format!("{words} Set by your IT, in {file}."));
            steps.extend(said.map(|finding| step("managed", Outcome::Good, finding)));
        }
        Err(error) => steps.push(step("managed", Outcome::Failed, format!("{error}."))),
    }
    read.unwrap_or_default()
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

/// What training will run on: tries the cards, which takes seconds.
fn device(choice: DeviceChoice) -> Step {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let processor = format!("Training uses the processor with {threads} threads");
    if choice == DeviceChoice::Processor {
        return step("device", Outcome::Good, format!("{processor}, as chosen."));
    }
    let probed = std::env::current_exe().map_err(|e| e.to_string()).and_then(|me| probe_cards(&me, choice));
    match probed.as_deref().map_err(String::clone).and_then(|probed| chosen_card(probed, choice)) {
        Ok(tried) => {
            let rest = if choice.asks_for_card() { "Every network" } else { "What is large enough to be worth it" };
            let finding = format!(
                "{rest} is trained on {}, {:.1} times as fast as the processor on a small network of convolutions, and equal \
                 to it within {:.0e}.",
                tried.name, tried.speed, tried.deviation
            );
            step("device", Outcome::Good, finding)
        }
        // Asked for, a card that is not there is worth a look.
        Err(why) => {
            let outcome = if choice.asks_for_card() { Outcome::Notice } else { Outcome::Good };
            step("device", outcome, format!("{processor}: {why}."))
        }
    }
}

/// Whether the engine answers, which takes keys, database and ledger, and how its links are; for somebody of the site
/// also each step of the way to every coordinator. And what networks are trained on, if it says so.
async fn engine(folder: &Path, who: Who, managed: &Managed) -> (Vec<Step>, Option<DeviceChoice>) {
    let connection = match Connection::open(&Place::Folder(folder.to_owned())).await {
        Ok(connection) => connection,
        Err(error) => return (vec![step("engine", Outcome::Failed, format!("{error:#}."))], None),
    };
    let running = matches!(connection, Connection::Running(_));
    let mut asking = Asking::new(connection, who.person, who.passphrase_file, false);
    let mut steps = Vec::new();
    match asking.connection.call::<Status>(&Call::Status {}).await {
        Ok(status) => {
            let words = if running { "runs" } else { "does not run; keys, database and ledger open well" };
            let outcome = if running { Outcome::Good } else { Outcome::Notice };
            steps.push(step(
                "engine",
                outcome,
                format!("The engine {words}; {} ledger entries.", status.ledger.entries),
            ));
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
    match asking.connection.call::<Managed>(&Call::Managed {}).await {
        Ok(held) if !held.says_the_same(managed) => {
            let finding = "What your IT set has changed since the engine started; start it again.".to_owned();
            steps.push(step("managed", Outcome::Notice, finding));
        }
        Ok(_) => {}
        Err(error) => steps.push(step("managed", Outcome::Failed, format!("{error:#}."))),
    }
    // A service of an older version does not know the question.
    let device = asking.connection.call::<DeviceSetting>(&Call::DeviceSetting {}).await.ok();
    if asking.person.is_some() {
        match ways(&mut asking).await {
            Ok(ways) => steps.extend(ways),
            Err(error) => steps.push(step("way", Outcome::Failed, format!("{error:#}."))),
        }
    }
    if let Err(error) = asking.connection.close().await {
        steps.push(step("engine", Outcome::Failed, format!("{error:#}.")));
    }
    (steps, device.map(|device| device.choice))
}

/// Each step of the way to every coordinator.
async fn ways(asking: &mut Asking) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for membership in asking.ask::<Vec<MembershipView>>(&Call::Memberships {}).await? {
        let way: Vec<Step> = asking.ask(&Call::Diagnose { federation: membership.federation }).await?;
        steps.extend(way.into_iter().map(|s| Step { test: format!("{} of {}", s.test, membership.name), ..s }));
    }
    Ok(steps)
}
