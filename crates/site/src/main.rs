//! `hospes-site`: the party without a window, for servers, Kubernetes and scripts.
//!
//! `run` is the engine; every other command speaks to it over its local socket, or opens the engine for one question
//! where it is not running. Answers are for people; `--json` gives them to machines.

mod arguments;
mod commands;
mod engine;
mod output;
mod secret;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use hospes_ipc::FaultCode;

use crate::arguments::{Arguments, Command};

fn main() -> ExitCode {
    // Files of patients are read in this process too, when they are registered.
    hospes_party::forbid_core_dumps();
    if std::env::args_os().nth(1).is_some_and(|first| first == "worker") {
        return hospes_party::worker();
    }
    let arguments = Arguments::parse();
    // Everything that this process makes is its owner's alone.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    if let Command::Completions { shell } = arguments.command {
        let mut script = Vec::new();
        let mut command = <Arguments as clap::CommandFactory>::command();
        clap_complete::generate(shell, &mut command, "hospes-site", &mut script);
        output::raw(&script);
        return ExitCode::SUCCESS;
    }
    logs(&arguments);
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        output::complain("another cryptographic provider was installed already");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(&format!("the runtime cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(commands::run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("{error:#}"));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// 2 usage, 3 refused, 4 not reachable, 5 verification failed, 6 keychain or passphrase, 1 anything else.
fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<hospes_ipc::Fault>().map(|fault| fault.code) {
        Some(FaultCode::Command | FaultCode::Input) => 2,
        Some(FaultCode::Denied | FaultCode::Refused | FaultCode::State) => 3,
        Some(FaultCode::Link | FaultCode::NotRunning) => 4,
        Some(FaultCode::Fingerprint | FaultCode::Ledger) => 5,
        Some(FaultCode::Keys | FaultCode::LogIn | FaultCode::NoSession) => 6,
        _ => 1,
    }
}

fn logs(arguments: &Arguments) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("HOSPES_LOG");
    let filter = filter.unwrap_or_else(|_| "warn,hospes_party=info,hospes_ipc=info".into());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let builder = builder.with_ansi(std::io::stderr().is_terminal());
    if arguments.json { builder.json().init() } else { builder.init() }
}
