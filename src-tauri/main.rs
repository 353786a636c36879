//! The desktop app. No logic here: see `lib.rs`.

#![cfg_attr(not(debug_assertions), windows_subsystem = "windows")]

use std::process::ExitCode;

fn main() -> ExitCode {
    hospes_ipc::forbid_core_dumps();
    // Where no service is installed beside the app, it works on data in child processes of itself.
    if std::env::args_os().nth(1).is_some_and(|first| first == "worker") {
        return hospes_ipc::worker();
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("HOSPES_LOG");
    let filter =
        filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,hospes_party=info,hospes_ipc=info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::warn!("another cryptographic provider was installed already");
    }
    match hospes::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
