//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Operates a federation and its studies.
#[derive(Parser)]
#[command(name = "hospesctl", version, about, propagate_version = true)]
pub(crate) struct Arguments {
    /// How to reach the coordinator.
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Answer in JSON, for machines.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to reach the coordinator.
#[derive(Args)]
pub(crate) struct Connection {
    /// URL of the coordinator.
    #[arg(long, global = true, env = "HOSPES_URL")]
    pub(crate) url: Option<String>,
    /// File with your token.
    #[arg(long, global = true, env = "HOSPES_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The coordinator's CA certificate, PEM, as its operator gave it to you.
    #[arg(long, global = true, env = "HOSPES_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// The federation, and who you are there.
    Whoami,
    /// Invite a site; prints the invitation once.
    Invite {
        /// Name of the site, unique in the federation.
        name: String,
        /// Hours for which it is good.
        #[arg(long, default_value_t = 24)]
        hours: u32,
    },
    /// Sites of the federation.
    #[command(subcommand)]
    Sites(SitesCommand),
    /// Studies.
    #[command(subcommand)]
    Study(StudyCommand),
    /// Models.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Audit logs.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Print completions for a shell.
    Completions {
        /// Which.
        shell: clap_complete::Shell,
    },
}

/// Sites.
#[derive(Subcommand)]
pub(crate) enum SitesCommand {
    /// List them.
    List,
    /// One of them, with its certificates.
    Show {
        /// Id.
        site: String,
    },
    /// Take a site's membership back for good.
    Revoke {
        /// Id.
        site: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

/// Studies.
#[derive(Subcommand)]
pub(crate) enum StudyCommand {
    /// Check a study file without submitting it.
    Validate {
        /// YAML or JSON with `terms` and `plan`.
        file: PathBuf,
    },
    /// Submit a study: it is offered to its members.
    Submit {
        /// YAML or JSON with `terms` and `plan`.
        file: PathBuf,
    },
    /// List studies.
    List,
    /// One study, with what each site decided and its runs.
    Show {
        /// Id.
        study: String,
    },
    /// Follow a study until its run ends.
    Watch {
        /// Id.
        study: String,
    },
    /// Start a run with the sites that have approved so far.
    Start {
        /// Id.
        study: String,
    },
    /// Stop what runs of a study, or withdraw it.
    Cancel {
        /// Id.
        study: String,
        /// Why; the sites are told.
        #[arg(long)]
        reason: String,
    },
    /// Run a study's last run again from where it failed.
    Rerun {
        /// Id.
        study: String,
    },
}

/// Models.
#[derive(Subcommand)]
pub(crate) enum ModelCommand {
    /// List them.
    List,
    /// Download one (safetensors).
    Get {
        /// Digest, or its beginning.
        model: String,
        /// File to write.
        #[arg(long, short)]
        output: PathBuf,
    },
    /// The card of one: data, purpose, parties, privacy, figures, lineage.
    Card {
        /// Digest, or its beginning.
        model: String,
    },
}

/// Audit logs.
#[derive(Subcommand)]
pub(crate) enum AuditCommand {
    /// Verify an exported log, offline.
    Verify(Verify),
    /// Export the coordinator's log, JSON Lines with proofs.
    Export {
        /// File to write.
        file: PathBuf,
    },
}

/// What is verified, and what the auditor knows from elsewhere.
#[derive(Args)]
pub(crate) struct Verify {
    /// Export of a site's or the coordinator's log.
    pub(crate) file: PathBuf,
    /// Identity key that the log must be of, hexadecimal.
    #[arg(long)]
    pub(crate) origin: Vec<String>,
    /// File with a checkpoint of this log that somebody else kept; the log must contain it.
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Vec<PathBuf>,
    /// Identity key of a member whose cosignature counts, hexadecimal; without any, all count.
    #[arg(long)]
    pub(crate) member: Vec<String>,
}
