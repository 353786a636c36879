//! `hospes-coordinator`: makes a coordinator, runs it, and makes the first tokens.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use hospes_coordinator::audit::Audit;
use hospes_coordinator::config::{self, Home, Settings};
use hospes_coordinator::enrol::{create_token, revoke_token};
use hospes_coordinator::keyfile::Passphrase;
use hospes_coordinator::serve::{Coordinator, rest};
use hospes_coordinator::store::{Role, Store};
use hospes_coordinator::{Error, system_clock};
use hospes_protocol::words;
use tracing_subscriber::EnvFilter;

/// Runs the coordinator of a Hospes federation.
///
/// Key files are sealed with a passphrase if one is given by HOSPES_PASSPHRASE_FILE, a systemd credential named
/// 'passphrase', or HOSPES_PASSPHRASE.
#[derive(Parser)]
#[command(name = "hospes-coordinator", version, max_term_width = 110)]
struct Arguments {
    /// Data folder.
    #[arg(long, global = true, env = "HOSPES_COORDINATOR_DATA", default_value = "/var/lib/hospes-coordinator")]
    data: PathBuf,
    /// How log lines are written (to standard error; RUST_LOG says how many).
    #[arg(long, global = true, value_enum, default_value_t = LogForm::Text)]
    log: LogForm,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogForm {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a new federation: data folder, identity key, certificate authority, settings, database.
    Init {
        /// Name of the federation, for people.
        #[arg(long)]
        name: String,
        /// URL under which sites reach the coordinator, https://host:port.
        #[arg(long)]
        url: String,
        /// Address and port on which to listen.
        #[arg(long, default_value = "0.0.0.0:8443")]
        listen: SocketAddr,
        /// `sqlite`, or the URL of a PostgreSQL database. HOSPES_DATABASE stands in for it at every start.
        #[arg(long, default_value = "sqlite")]
        database: String,
        /// Another DNS name or IP address for the server's certificate. May be given several times.
        #[arg(long = "server-name")]
        server_names: Vec<String>,
    },
    /// Runs the coordinator until it is told to stop.
    Serve {
        /// Start a new incarnation: needed once after the database was restored from a backup, so that sites do not
        /// take what happens now for what happened then.
        #[arg(long)]
        new_epoch: bool,
    },
    /// Tokens of operators and researchers.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Prints the OpenAPI document.
    Openapi,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Makes a token and prints it; it cannot be shown again.
    Create {
        /// Name of the person or program that will hold it.
        name: String,
        /// What it allows: operator or researcher.
        #[arg(long)]
        role: Role,
        /// Days after which it ends; without this it ends when it is revoked.
        #[arg(long)]
        days: Option<u32>,
    },
    /// Lists tokens.
    List,
    /// Revokes a token.
    Revoke {
        /// Its name.
        name: String,
    },
}

fn main() -> ExitCode {
    // Whatever this process makes is for its own user's eyes: database, models, staged uploads.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let arguments = Arguments::parse();
    start_log(arguments.log);
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return fail(ExitCode::FAILURE, "the TLS library was set up twice");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(ExitCode::FAILURE, &error.to_string()),
    };
    match runtime.block_on(Box::pin(run(arguments))) {
        Ok(code) => code,
        Err(error) => fail(exit_code(&error), &causes(&error)),
    }
}

/// 3: settings or keys; 4: database; 5: port, folder or database in use; 1: anything else. (2 is clap's, for usage.)
fn exit_code(error: &Error) -> ExitCode {
    match error {
        Error::Config(_) | Error::Sealed { .. } | Error::File { .. } => ExitCode::from(3),
        Error::Database { .. } | Error::Schema(_) | Error::Corrupt { .. } | Error::Ledger(_) => ExitCode::from(4),
        Error::Listen { .. } | Error::Occupied(_) => ExitCode::from(5),
        _ => ExitCode::FAILURE,
    }
}

fn causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn fail(code: ExitCode, message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "hospes-coordinator: {message}");
    code
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn start_log(form: LogForm) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let builder = builder.with_ansi(std::io::stderr().is_terminal());
    match form {
        LogForm::Text => builder.init(),
        LogForm::Json => builder.json().flatten_event(true).init(),
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    let Arguments { data, command, .. } = arguments;
    match command {
        Command::Openapi => {
            let _ = std::io::stdout().write_all(rest::openapi().as_bytes());
            Ok(ExitCode::SUCCESS)
        }
        Command::Init { name, url, listen, database, server_names } => {
            let mut settings = Settings::new(&name, &url, listen, &database)?;
            settings.server_names = server_names;
            init(data, settings).await
        }
        Command::Serve { new_epoch } => serve(data, new_epoch).await,
        Command::Token(command) => token(data, command).await,
    }
}

async fn init(data: PathBuf, settings: Settings) -> Result<ExitCode, Error> {
    let passphrase = Passphrase::from_environment()?;
    let home = Home::create(&data, settings, passphrase.as_ref(), (system_clock())())?;
    home.create_store().await?.close().await;
    say(&format!("federation   {} ({})", home.settings.name, home.federation()));
    say(&format!("data folder  {}", data.display()));
    say(&format!("CA           {}", home.ca.fingerprint()));
    say(&format!("             {}", words::of_digest(&home.ca.fingerprint())));
    if passphrase.is_none() {
        say("note         the key files are protected by the folder's permissions only; no passphrase was given");
    }
    say("next         hospes-coordinator token create NAME --role operator, then hospes-coordinator serve");
    Ok(ExitCode::SUCCESS)
}

async fn serve(data: PathBuf, new_epoch: bool) -> Result<ExitCode, Error> {
    let told_to_stop = told_to_stop();
    let home = Home::open(&data, Passphrase::from_environment()?.as_ref())?;
    if new_epoch {
        // Not while another process works in the old one.
        let _lock = home.lock()?;
        let store = home.store().await?;
        let epoch = config::new_epoch(&store).await?;
        store.close().await;
        tracing::warn!(epoch, "a new incarnation starts");
    }
    let settings = home.settings.schedule.clone();
    let mut coordinator = Coordinator::launch(home, system_clock(), settings).await?;
    say(&format!("listening on {}", coordinator.address()));
    tokio::select! {
        () = told_to_stop => {}
        ended = coordinator.ended() => {
            ended?;
            return Ok(fail(ExitCode::FAILURE, "the schedule ended"));
        }
    }
    tracing::info!("stopping");
    coordinator.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Waits for the order to stop, which is heard from now on, also while everything starts.
fn told_to_stop() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

async fn token(data: PathBuf, command: TokenCommand) -> Result<ExitCode, Error> {
    let home = Home::open(&data, Passphrase::from_environment()?.as_ref())?;
    let store = home.store().await?;
    let (audit, now) = (Audit::default(), (system_clock())());
    let refused = match command {
        TokenCommand::Create { name, role, days } => {
            let expires = days.map(|days| now.plus_millis(i64::from(days) * 86_400_000));
            match create_token(&store, &audit, now, &name, role, expires).await? {
                Ok(token) => {
                    say(&token);
                    None
                }
                Err(rejection) => Some(rejection),
            }
        }
        TokenCommand::List => {
            list_tokens(&store).await?;
            None
        }
        TokenCommand::Revoke { name } => revoke_token(&store, &audit, now, &name).await?.err(),
    };
    store.close().await;
    Ok(refused.map_or(ExitCode::SUCCESS, |rejection| fail(ExitCode::from(3), &rejection.message)))
}

async fn list_tokens(store: &Store) -> Result<(), Error> {
    for token in store.tokens().await? {
        let state = match (token.revoked, token.expires) {
            (Some(at), _) => format!("revoked {at}"),
            (None, Some(at)) => format!("until {at}"),
            (None, None) => "valid".to_owned(),
        };
        say(&format!("{:<24} {:<11} made {}  {state}", token.caller.name, token.caller.role.as_str(), token.created));
    }
    Ok(())
}
