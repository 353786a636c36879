//! `hospesctl`: the command line of operators and researchers, and the offline verifier of audit logs.
//!
//! It speaks to a coordinator's REST API and nothing else; `audit verify` and `audit convert` need no network and no coordinator.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod arguments;
mod audit;
mod client;
mod config;
mod fit;
mod fleet;
mod login;
mod model;
mod output;
mod study;
mod sweep;

use std::process::ExitCode;

use clap::Parser as _;
use hospes_protocol::study::StudyFile;

use crate::arguments::{Arguments, AuditCommand, Command, StudyCommand};
use crate::client::{Client, Failure, FailureKind};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Command::Completions { shell } = arguments.command {
        let mut command = <Arguments as clap::CommandFactory>::command();
        clap_complete::generate(shell, &mut command, "hospesctl", &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("hospesctl: another cryptographic provider was installed already");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("hospesctl: the runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hospesctl: {}", output::visible(&format!("{error:#}")));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// 2 usage, 3 refused, 4 not reachable, 5 verification failed, 6 nobody's log, 1 anything else.
fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Failure>().map(|failure| failure.kind) {
        Some(FailureKind::Usage) => 2,
        Some(FailureKind::Refused) => 3,
        Some(FailureKind::NotReachable) => 4,
        Some(FailureKind::NotVerified) => 5,
        Some(FailureKind::Unknown) => 6,
        None => 1,
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { connection, json, command } = arguments;
    match command {
        Command::Audit(AuditCommand::Verify(verify)) => audit::verify(&verify, json),
        Command::Audit(AuditCommand::Convert(convert)) => audit::convert(&convert, json),
        Command::Study(StudyCommand::Validate(source)) => study::validate(&source, json),
        Command::Study(StudyCommand::Schema) => output::json(&serde_json::from_str(&StudyFile::json_schema())?),
        Command::Login(login) => {
            let needed = || Failure::new(FailureKind::Usage, "say where the coordinator is: --url or HOSPES_URL");
            let url = connection.url.as_deref().ok_or_else(needed)?;
            login::login(&login, url, connection.token_file.as_deref(), connection.ca.as_deref(), json).await
        }
        Command::Logout => login::logout(),
        command => online(Client::new(&connection)?, command, json).await,
    }
}

/// The commands that need a coordinator.
async fn online(client: Client, command: Command, json: bool) -> anyhow::Result<()> {
    match command {
        Command::Whoami => fleet::whoami(&client, json).await,
        Command::Invite { name, hours } => fleet::invite(&client, &name, hours, json).await,
        Command::Invitations(command) => fleet::invitations(&client, command, json).await,
        Command::Sites(command) => fleet::sites(&client, command, json).await,
        Command::Study(command) => study::study(&client, command, json).await,
        Command::Model(command) => model::model(&client, command, json).await,
        Command::Audit(AuditCommand::Export { file }) => audit::export(&client, &file, json).await,
        Command::Audit(AuditCommand::Checkpoint { site }) => audit::checkpoint(&client, site.as_deref(), json).await,
        Command::Audit(AuditCommand::Verify(_) | AuditCommand::Convert(_))
        | Command::Completions { .. }
        | Command::Login(_)
        | Command::Logout => Ok(()),
    }
}
