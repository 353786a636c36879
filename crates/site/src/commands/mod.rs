//! What each command does: one or two questions to the engine, and its answer in words.

mod access;
mod audit;
mod backup;
mod data;
mod doctor;
mod dry_run;
mod federation;
pub(crate) mod limits;
mod model;
mod people;
mod privacy;
mod query;
mod run;
mod setup;
mod study;
mod updates;
mod watch;

use std::path::PathBuf;

use anyhow::{Result, bail};
use hospes_ipc::staff::Service;
use hospes_ipc::table::Secret;
use hospes_ipc::{Call, Fault, FaultCode};
use hospes_party::view::{Approach, PAGE_ITEMS, Page, Phase, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::arguments::{Arguments, Command};
use crate::engine::{Connection, Place, folder};
use crate::{output, secret};

/// A command with what it needs: the engine, who asks, and how the answer is wanted.
pub(crate) struct Asking {
    connection: Connection,
    person: Option<String>,
    passphrase_file: Option<PathBuf>,
    passphrase: Option<Secret>,
    json: bool,
}

impl Asking {
    fn new(connection: Connection, person: Option<String>, passphrase_file: Option<PathBuf>, json: bool) -> Self {
        Self { connection, person, passphrase_file, passphrase: None, json }
    }

    /// Logs the person in and asks.
    async fn ask<T: DeserializeOwned>(&mut self, call: &Call) -> Result<T> {
        if self.passphrase.is_none() {
            let Some(name) = self.person.clone() else {
                bail!(Fault::new(FaultCode::NoSession, "say who you are with --as NAME (or HOSPES_PERSON)"));
            };
            let passphrase = secret::of_person(self.passphrase_file.as_deref(), &format!("Passphrase of {name}: "))?;
            let log_in = Call::LogIn { name, passphrase: passphrase.clone() };
            self.connection.call::<serde_json::Value>(&log_in).await?;
            self.passphrase = Some(passphrase);
        }
        self.connection.call(call).await
    }

    /// Everything of a list that comes in pages.
    async fn all<T: DeserializeOwned>(&mut self, page: impl Fn(Page) -> Call) -> Result<Vec<T>> {
        let mut all: Vec<T> = Vec::new();
        loop {
            let skip = u32::try_from(all.len())?;
            let more: Vec<T> = self.ask(&page(Page { skip })).await?;
            let last = more.len() < PAGE_ITEMS as usize;
            all.extend(more);
            if last {
                return Ok(all);
            }
        }
    }

    /// The passphrase for a signature: every signature asks again, unless a file answers.
    fn sign(&self) -> Result<Secret> {
        match (&self.passphrase_file, &self.passphrase) {
            (Some(_), Some(passphrase)) => Ok(passphrase.clone()),
            (file, _) => secret::of_person(file.as_deref(), "Your passphrase, as your signature: "),
        }
    }

    /// Gives the answer to a machine, or lets `words` give it to people.
    fn answer<T: Serialize>(&self, value: &T, words: impl FnOnce(&T)) -> Result<()> {
        if self.json {
            return output::json(value);
        }
        words(value);
        Ok(())
    }
}

/// Runs the command that was typed.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let serves = matches!(arguments.command, Command::Run { .. });
    let place = match &arguments.staff {
        Some(socket) if !serves => Place::Service(Service::at(socket.clone())),
        _ => Place::Folder(folder(arguments.data)?),
    };
    match arguments.command {
        Command::Init { administrator, key_file } => {
            let file = arguments.passphrase_file.as_deref();
            return setup::init(place.folder()?, &administrator, key_file, file, arguments.json).await;
        }
        Command::Restore { file, key_file, backup_passphrase_file } => {
            let passphrase = backup_passphrase_file.as_deref();
            return backup::restore(place.folder()?, file, key_file, passphrase, arguments.json).await;
        }
        Command::Run { runs, device } => {
            let staff = arguments.staff.as_deref();
            return run::run(place.folder()?, staff, usize::from(runs), device).await;
        }
        Command::Doctor { invitation, proxy, extra_ca, device } => {
            let who = doctor::Who { person: arguments.person, passphrase_file: arguments.passphrase_file };
            let approach = invitation.map(|invitation| Approach { invitation, proxy, extra_ca });
            return doctor::doctor(place.folder()?, approach, device, who, arguments.json).await;
        }
        Command::Jobs { watch: true, .. } => {
            let who = (arguments.person, arguments.passphrase_file);
            return watch::watch(&place, who, arguments.json).await;
        }
        _ => {}
    }
    let connection = Connection::open(&place).await?;
    let mut asking = Asking::new(connection, arguments.person, arguments.passphrase_file, arguments.json);
    let result = dispatch(&mut asking, arguments.command).await;
    let closed = asking.connection.close().await;
    result.and(closed)
}

async fn dispatch(asking: &mut Asking, command: Command) -> Result<()> {
    match command {
        Command::Status => status(asking).await,
        Command::Enrol(enrol) => setup::enrol(asking, enrol).await,
        Command::Federation(command) => federation::federation(asking, command).await,
        Command::Peers(command) => federation::peers(asking, command).await,
        Command::User(command) => people::user(asking, command).await,
        Command::Dataset(command) => data::dataset(asking, command).await,
        Command::Database(command) => query::database(asking, command).await,
        Command::Policy(command) => data::policy(asking, command).await,
        Command::Limits(command) => limits::limits(asking, command).await,
        Command::Device(command) => limits::device(asking, command).await,
        Command::Updates(command) => updates::updates(asking, command).await,
        Command::SignIn(command) => access::sign_in(asking, command).await,
        Command::Network(command) => access::network(asking, command).await,
        Command::Requests => study::requests(asking).await,
        Command::Show { study, dataset } => study::show(asking, &study, dataset).await,
        Command::DryRun { study, stop: true, .. } => dry_run::stop(asking, &study).await,
        Command::DryRun { study, dataset, attack, .. } => dry_run::dry_run(asking, &study, dataset, attack).await,
        Command::Opinion { study, view, text } => study::opinion(asking, &study, view, text).await,
        Command::Approve(approve) => study::approve(asking, approve).await,
        Command::Refuse(reasoned) => study::refuse(asking, reasoned).await,
        Command::Suspend(reasoned) => study::suspend(asking, reasoned).await,
        Command::Resume { study } => study::resume(asking, &study).await,
        Command::Revoke(reasoned) => study::revoke(asking, reasoned).await,
        Command::Release { job } => study::release(asking, &job).await,
        Command::Model(command) => model::model(asking, command).await,
        Command::Jobs { run: Some(run), .. } => study::run(asking, &run).await,
        Command::Jobs { .. } => study::jobs(asking).await,
        // Without `--end` there is a reason: the parser asks for it.
        Command::Pause { job, reason, .. } => study::pause(asking, &job, reason).await,
        Command::Cancel { job, reason } => study::cancel(asking, &job, reason).await,
        Command::Egress => audit::egress(asking).await,
        Command::Privacy => privacy::privacy(asking).await,
        Command::Alarms { acknowledge } => audit::alarms(asking, acknowledge).await,
        // Without `--end` there is a reason: the parser asks for it.
        Command::Stop { reason, .. } => federation::stop(asking, reason).await,
        Command::Audit(command) => audit::audit(asking, command).await,
        Command::Backup { file, backup_passphrase_file } => {
            backup::backup(asking, file, backup_passphrase_file.as_deref()).await
        }
        Command::ConfirmRestore => backup::confirm(asking).await,
        Command::Init { .. }
        | Command::Restore { .. }
        | Command::Run { .. }
        | Command::Doctor { .. }
        | Command::Completions { .. } => Ok(()),
    }
}

async fn status(asking: &mut Asking) -> Result<()> {
    let status: Status = asking.connection.call(&Call::Status {}).await?;
    asking.answer(&status, |status| {
        if status.phase == Phase::Empty {
            output::say("Nobody has set this site up yet.");
        }
        if status.public_data {
            output::say("PUBLIC DATA: this site accepts only datasets tagged public.");
        }
        if let Some(reason) = &status.stopped {
            output::say(&format!("Everything is stopped: {reason}"));
        }
        output::say(&format!(
            "{} · policy {} · {} requests wait · {} rounds under way · {} items wait to leave · {} ledger entries",
            status.software, status.policy, status.waiting, status.working, status.outbox, status.ledger.entries
        ));
        federation::memberships(&status.memberships);
        for witnessed in &status.ledger.witnessed {
            output::say(&format!("Ledger: {}", witnessed.words));
        }
        for alarm in &status.alarms {
            output::say(&format!("ALARM {} ({}): {}", alarm.id, output::moment(alarm.at), alarm.words));
        }
    })
}

/// The one of these whose id or name begins with what was typed.
fn one_of<'a, T>(what: &str, typed: &str, items: &'a [T], name: impl Fn(&T) -> Vec<String>) -> Result<&'a T> {
    let fits: Vec<&T> = items.iter().filter(|item| name(item).iter().any(|n| n.starts_with(typed))).collect();
    let exact = items.iter().find(|item| name(item).iter().any(|n| n == typed));
    match (exact, fits.as_slice()) {
        (Some(item), _) => Ok(item),
        (None, [item]) => Ok(*item),
        (None, []) => {
            bail!(Fault::new(FaultCode::NotFound, format!("there is no {what} '{typed}'")))
        }
        (None, several) => bail!(Fault::new(
            FaultCode::Input,
            format!("'{typed}' fits {} of them; type more of the {what}", several.len())
        )),
    }
}
