//! The command line.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use hospes_ledger::report::Format;

/// Operates a federation and its studies.
///
/// Exit status: 0 done, 2 wrong usage, 3 refused by the coordinator, 4 coordinator not reachable, 5 verification failed,
/// 6 a log is whole in itself but nothing was said to tell whose it is, 1 anything else.
#[derive(Parser)]
#[command(name = "hospesctl", version, about, propagate_version = true, max_term_width = 110)]
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
    /// Keep URL, token and CA, so that they need not be said again. The token is read from --token-file or standard input.
    Login(Login),
    /// Forget what `login` kept.
    Logout,
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
    /// Invitations.
    #[command(subcommand)]
    Invitations(InvitationsCommand),
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

/// How the coordinator is known.
#[derive(Args)]
pub(crate) struct Login {
    /// The twelve words of the coordinator's CA, as its operator told them by another way than this computer.
    #[arg(long)]
    pub(crate) ca_words: Option<String>,
    /// SHA-256 of the coordinator's CA certificate, instead of the words.
    #[arg(long, conflicts_with = "ca_words")]
    pub(crate) ca_fingerprint: Option<String>,
}

/// Invitations.
#[derive(Subcommand)]
pub(crate) enum InvitationsCommand {
    /// List them.
    List,
    /// Take one back that was not used yet.
    Withdraw {
        /// Id.
        invitation: String,
    },
}

/// Sites.
#[derive(Subcommand)]
pub(crate) enum SitesCommand {
    /// List them.
    List,
    /// One of them, with its certificates.
    Show {
        /// Name or id.
        site: String,
    },
    /// Take a site's membership back: its certificates are revoked, and only a new invitation brings it back.
    Revoke {
        /// Name or id.
        site: String,
        /// Why; the site is told.
        #[arg(long)]
        reason: String,
    },
    /// Lock a site out for now.
    Suspend {
        /// Name or id.
        site: String,
        /// Why; the site is told.
        #[arg(long)]
        reason: String,
    },
    /// Let a suspended site in again.
    Resume {
        /// Name or id.
        site: String,
    },
}

/// Studies.
#[derive(Subcommand)]
pub(crate) enum StudyCommand {
    /// Check a study without submitting it, and say what would leave each site; needs no network.
    Validate(StudySource),
    /// Submit a study: it is offered to its members.
    Submit(StudySource),
    /// Print the JSON Schema of study files, for editors.
    Schema,
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
    /// Regressions of a study's last run as tables: coefficients, intervals, p values, ratios.
    Fits {
        /// Id.
        study: String,
    },
    /// Start a run with the sites that have approved so far.
    Start {
        /// Id.
        study: String,
    },
    /// Stop the run that goes on.
    Cancel {
        /// Id.
        study: String,
        /// Why; the sites are told.
        #[arg(long)]
        reason: String,
    },
    /// Take a study back: what runs of it stops, and no site is asked any more.
    Withdraw {
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

/// Where a study is written.
#[derive(Args)]
pub(crate) struct StudySource {
    /// YAML or JSON with `terms` and `plan`.
    #[arg(required_unless_present_all = ["terms", "plan"], conflicts_with_all = ["terms", "plan"])]
    pub(crate) file: Option<PathBuf>,
    /// File with the terms alone.
    #[arg(long, requires = "plan", value_name = "FILE")]
    pub(crate) terms: Option<PathBuf>,
    /// File with the plan alone.
    #[arg(long, requires = "terms", value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
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
    /// Make a report of an exported log, offline: verified first, and nothing is made of one that is not intact.
    Convert(Convert),
    /// Print the signed checkpoint of the coordinator's log as it is now, or of a site's as the coordinator saw it last.
    /// Keep it in a file somewhere else: `audit verify --checkpoint FILE` then shows what was cut, rewritten or forked.
    Checkpoint {
        /// Name or id of a site.
        #[arg(long)]
        site: Option<String>,
    },
    /// Export the coordinator's log, JSON Lines with proofs.
    Export {
        /// File to write.
        file: PathBuf,
    },
}

/// What is made of which log.
#[derive(Args)]
pub(crate) struct Convert {
    /// The log, and what the auditor knows from elsewhere.
    #[command(flatten)]
    pub(crate) log: Verify,
    /// In which form.
    #[arg(long = "as", value_name = "FORM", value_parser = form())]
    pub(crate) form: Format,
    /// Names and documents that the log refers to, as the site exported them (`hospes-site audit export FILE --form annex`).
    /// Documents count where the log has their digest.
    #[arg(long, value_name = "FILE")]
    pub(crate) annex: Option<PathBuf>,
    /// New file to write; it is printed where there is none.
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
}

/// Forms of the audit log by their names.
fn form() -> impl TypedValueParser<Value = Format> {
    let names = PossibleValuesParser::new(Format::ALL.iter().map(|form| form.as_str()));
    names.try_map(|typed| typed.parse::<Format>())
}

/// What is verified, and what the auditor knows from elsewhere.
#[derive(Args)]
pub(crate) struct Verify {
    /// Export of a site's or the coordinator's log.
    pub(crate) file: PathBuf,
    /// Identity key that the log must be of, hexadecimal, as you know it from elsewhere. A site has one in each federation.
    #[arg(long, value_name = "KEY")]
    pub(crate) origin: Vec<String>,
    /// File with a checkpoint of this log that a peer saw (`hospesctl audit checkpoint`, `hospes-site audit checkpoint
    /// --of`); the log must contain it.
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Vec<PathBuf>,
    /// Identity key of a member of the federation, hexadecimal: only their cosignatures count as witnesses, and at least
    /// one must be there.
    #[arg(long, value_name = "KEY")]
    pub(crate) member: Vec<String>,
}
