//! The command line.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use hospes_party::DeviceChoice;
use hospes_party::view::{AuditFormat, SeriesBounds};
use hospes_protocol::approval::Role;

mod datasets;

pub(crate) use datasets::{DatabaseCommand, Dataset, DatasetAdd, Rows};

/// A hospital's party in a federation.
#[derive(Parser)]
#[command(name = "hospes-site", version, about, propagate_version = true)]
pub(crate) struct Arguments {
    /// The site's data folder.
    #[arg(long, global = true, env = "HOSPES_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Ask this machine's service by its socket for staff, instead of a data folder; 'run' serves that socket.
    #[arg(long, global = true, value_name = "SOCKET", num_args = 0..=1, require_equals = true,
          default_missing_value = hospes_ipc::staff::SOCKET)]
    pub(crate) staff: Option<PathBuf>,
    /// Answer in JSON, for machines.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Who you are at this site.
    #[arg(long = "as", global = true, env = "HOSPES_PERSON", value_name = "NAME")]
    pub(crate) person: Option<String>,
    /// File with your passphrase, instead of a prompt.
    #[arg(long, global = true, env = "HOSPES_PASSPHRASE_FILE", value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Lay down a new site and its first administrator.
    Init {
        /// Name of the first administrator.
        #[arg(long, value_name = "NAME")]
        administrator: String,
        /// Keep the site's keys in an encrypted file instead of the keychain of the operating system.
        #[arg(long)]
        key_file: bool,
    },
    /// Restore a site from a backup, into a data folder that has none.
    Restore {
        /// The backup.
        file: PathBuf,
        /// Keep the site's keys in an encrypted file instead of the keychain of the operating system.
        #[arg(long)]
        key_file: bool,
        /// File with the passphrase of the backup, instead of a prompt.
        #[arg(long, value_name = "FILE")]
        backup_passphrase_file: Option<PathBuf>,
    },
    /// Let a restored site go on; in operation another person signs that with `user answer`.
    ConfirmRestore,
    /// Back the site up to a new file, encrypted with a passphrase: database, keys and snapshots.
    Backup {
        /// The new file.
        file: PathBuf,
        /// File with the passphrase for the backup, instead of a prompt.
        #[arg(long, value_name = "FILE")]
        backup_passphrase_file: Option<PathBuf>,
    },
    /// Run the engine until it is told to end.
    Run {
        /// Runs of one federation that are taken at a time; a study with many settings waits for its turn.
        #[arg(long, env = "HOSPES_RUNS", value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u8).range(1..=64))]
        runs: u8,
        /// What networks are trained on, whatever `device set` says: auto takes a graphics card where it is faster, cpu none,
        /// gpu always one if it can, and a card such as discrete:0 that one.
        #[arg(long, env = "HOSPES_DEVICE", value_name = "auto|cpu|gpu|CARD")]
        device: Option<DeviceChoice>,
    },
    /// State of the site; needs nobody logged in.
    Status,
    /// Join a federation.
    Enrol(Enrol),
    /// Federations, and pausing them.
    #[command(subcommand)]
    Federation(Federation),
    /// Other members of a federation.
    #[command(subcommand)]
    Peers(Peers),
    /// People of this site.
    #[command(subcommand)]
    User(User),
    /// The site's data.
    #[command(subcommand)]
    Dataset(Dataset),
    /// Databases that rows are read from; `dataset add --sql` makes one known.
    #[command(subcommand)]
    Database(DatabaseCommand),
    /// The site's policy.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// What training may take of this machine, and when.
    #[command(subcommand)]
    Limits(LimitsCommand),
    /// What networks are trained on at this site: the processor or a graphics card.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Newer versions of Hospes: where they are looked for, and their packages. Nothing is installed.
    #[command(subcommand)]
    Updates(UpdatesCommand),
    /// When people are signed out at this site, and how wrong passphrases are slowed down.
    #[command(subcommand)]
    SignIn(SignInCommand),
    /// How the coordinators are reached: proxy, and the hospital's own CA certificates.
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Studies that were offered.
    Requests,
    /// The review of a request, in plain language.
    Show {
        /// Study, or the beginning of its id.
        study: String,
        /// On this dataset.
        #[arg(long)]
        dataset: Option<String>,
    },
    /// Compute on this machine what this site would send for a request that waits, and show it; nothing leaves.
    DryRun {
        /// Study, or the beginning of its id.
        study: String,
        /// On this dataset.
        #[arg(long)]
        dataset: Option<String>,
        /// Try, too, what somebody who reads the updates could find out about single patients.
        #[arg(long)]
        attack: bool,
        /// Stop the one that is under way, or forget what came of the last one.
        #[arg(long, conflicts_with_all = ["dataset", "attack"])]
        stop: bool,
    },
    /// The privacy officer's opinion.
    Opinion {
        /// Study.
        study: String,
        /// What you think.
        #[arg(value_enum)]
        view: View,
        /// In words.
        #[arg(long, default_value = "")]
        text: String,
    },
    /// Sign: the data steward first, then the data-access approver.
    Approve(Approve),
    /// Say no, with a reason that the requester is told.
    Refuse(Reasoned),
    /// Hold an approval.
    Suspend(Reasoned),
    /// Go on after a suspension.
    Resume {
        /// Study.
        study: String,
    },
    /// Take an approval back for good.
    Revoke(Reasoned),
    /// Release the held results of a run.
    Release {
        /// Run, or the beginning of its id.
        job: String,
    },
    /// Released models, with their cards.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Runs at this site, or the last rounds of one, with the reasons in full.
    Jobs {
        /// Run, or the beginning of its id.
        #[arg(conflicts_with = "watch")]
        run: Option<String>,
        /// Show progress until interrupted.
        #[arg(long)]
        watch: bool,
    },
    /// Sit the rounds of one run out, until you end that.
    Pause {
        /// Run, or the beginning of its id.
        job: String,
        /// Why; the coordinator is not told.
        #[arg(long, required_unless_present = "end", conflicts_with = "end")]
        reason: Option<String>,
        /// Take part again.
        #[arg(long)]
        end: bool,
    },
    /// Stop a run at this site.
    Cancel {
        /// Run, or the beginning of its id.
        job: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Everything that ever left.
    Egress,
    /// What was released of your patients, over all studies and federations, and what is left of the privacy budget.
    Privacy,
    /// Alarms that nobody acknowledged; with a number, acknowledge it.
    Alarms {
        /// Number of the alarm that you looked into.
        acknowledge: Option<i64>,
    },
    /// Stop everything at once, or go on.
    Stop {
        /// Why.
        #[arg(long, required_unless_present = "end", conflicts_with = "end")]
        reason: Option<String>,
        /// Go on.
        #[arg(long)]
        end: bool,
    },
    /// Find out what is in the way: keys, disk, clock, network.
    Doctor {
        /// Before enrolling: the invitation, to test the way to its coordinator; it is as good afterwards.
        #[arg(long)]
        invitation: Option<String>,
        /// HTTP CONNECT proxy on that way, as for `enrol`.
        #[arg(long, requires = "invitation", value_name = "URL")]
        proxy: Option<String>,
        /// File with the hospital's own CA certificates, as for `enrol`.
        #[arg(long, requires = "invitation", value_name = "FILE")]
        extra_ca: Option<PathBuf>,
        /// What networks are to be trained on, as for `run`; without it as the site is set.
        #[arg(long, env = "HOSPES_DEVICE", value_name = "auto|cpu|gpu|CARD")]
        device: Option<DeviceChoice>,
    },
    /// The audit log.
    #[command(subcommand)]
    Audit(Audit),
    /// Print completions for a shell.
    Completions {
        /// Which.
        shell: clap_complete::Shell,
    },
}

/// How to join a federation.
#[derive(Args)]
pub(crate) struct Enrol {
    /// The operator's one-line invitation.
    pub(crate) invitation: String,
    /// The twelve words of the coordinator, got by a second channel; asked for where they are not given.
    #[arg(long)]
    pub(crate) words: Option<String>,
    /// Name of this organisation.
    #[arg(long)]
    pub(crate) organisation: String,
    /// HTTP CONNECT proxy, `http://[user:password@]host:port`.
    #[arg(long)]
    pub(crate) proxy: Option<String>,
    /// File with the hospital's own CA certificates, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) extra_ca: Option<PathBuf>,
    /// The federation to enrol in again, after a revocation or a lost certificate; an invitation to another is refused.
    #[arg(long, value_name = "FEDERATION")]
    pub(crate) again: Option<String>,
}

/// Federations.
#[derive(Subcommand)]
pub(crate) enum Federation {
    /// List them.
    List,
    /// Pause one.
    Pause(FederationReason),
    /// Go on.
    Resume {
        /// Federation, or the beginning of its id; may be left out where there is one.
        #[arg(long)]
        federation: Option<String>,
    },
    /// Show the twelve words of this site's key, to be read to another site's staff, and as a code to be scanned.
    Words {
        /// Federation, or the beginning of its id; may be left out where there is one.
        #[arg(long)]
        federation: Option<String>,
    },
    /// Go on with a coordinator that was restored from a backup.
    AcceptEpoch {
        /// Federation, or the beginning of its id; may be left out where there is one.
        #[arg(long)]
        federation: Option<String>,
    },
}

/// A federation and a reason.
#[derive(Args)]
pub(crate) struct FederationReason {
    /// Federation, or the beginning of its id; may be left out where there is one.
    #[arg(long)]
    pub(crate) federation: Option<String>,
    /// Why.
    #[arg(long)]
    pub(crate) reason: String,
}

/// Other members.
#[derive(Subcommand)]
pub(crate) enum Peers {
    /// List them and how their keys are trusted.
    List {
        /// Federation; may be left out where there is one.
        #[arg(long)]
        federation: Option<String>,
    },
    /// Compare the twelve words that another site's staff read out to you.
    Verify {
        /// Name of the other site.
        site: String,
        /// The words; asked for where they are not given.
        #[arg(long)]
        words: Option<String>,
        /// Federation; may be left out where there is one.
        #[arg(long)]
        federation: Option<String>,
    },
    /// How the key of one of them is known here; its words, once somebody of this site compared them.
    Show {
        /// Name of the other site.
        site: String,
        /// Federation; may be left out where there is one.
        #[arg(long)]
        federation: Option<String>,
    },
    /// Take back that a site's key was verified here.
    Unverify {
        /// Name of the other site.
        site: String,
        /// Why; it stays in the audit log.
        #[arg(long)]
        reason: String,
        /// Federation; may be left out where there is one.
        #[arg(long)]
        federation: Option<String>,
    },
    /// Vouch for a site that was verified here.
    Vouch {
        /// Name of the other site.
        site: String,
        /// Federation; may be left out where there is one.
        #[arg(long)]
        federation: Option<String>,
    },
}

/// People.
#[derive(Subcommand)]
pub(crate) enum User {
    /// List them.
    List,
    /// Add somebody; prints a one-time code to hand over.
    Add {
        /// Name for logging in.
        name: String,
        /// Roles.
        #[arg(long = "role", value_enum, required = true)]
        roles: Vec<RoleName>,
        /// The other organisation of an external signer.
        #[arg(long)]
        organisation: Option<String>,
    },
    /// Choose your passphrase with the code you were handed.
    Activate {
        /// Your name.
        name: String,
        /// The code.
        #[arg(long)]
        code: String,
    },
    /// Somebody may not act any more.
    Disable {
        /// Name.
        name: String,
    },
    /// Somebody may act again.
    Enable {
        /// Name.
        name: String,
    },
    /// Give somebody these roles and no others.
    Roles {
        /// Name.
        name: String,
        /// Roles.
        #[arg(long = "role", value_enum, required = true)]
        roles: Vec<RoleName>,
    },
    /// Somebody forgot the passphrase: their key is destroyed, and a code for a new one is printed.
    NewKey {
        /// Name.
        name: String,
    },
    /// Change your own passphrase.
    Passphrase {
        /// File with the new one, instead of a prompt.
        #[arg(long, value_name = "FILE")]
        new_file: Option<PathBuf>,
    },
    /// What waits for a second person's signature.
    Proposals,
    /// Sign what another person proposed, or turn it down.
    Answer {
        /// The proposal, or the beginning of its id.
        proposal: String,
        /// Turn it down.
        #[arg(long)]
        decline: bool,
        /// For a new key: the twelve words that its owner reads to you; asked for where they are not given.
        #[arg(long)]
        words: Option<String>,
    },
}

/// Released models.
#[derive(Subcommand)]
pub(crate) enum ModelCommand {
    /// What one should know of the model of a run before using it; fetches it, if it is not here.
    Card {
        /// Run, or the beginning of its id.
        job: String,
    },
    /// Write the model of a run to a file (safetensors), and its card beside it (FILE with the ending .card.json); fetches
    /// it, if it is not here.
    Export {
        /// Run, or the beginning of its id.
        job: String,
        /// The new file.
        file: PathBuf,
    },
    /// Write what the model of a run gives for each row of a dataset to a new CSV file, where the policy allows it
    /// (models.predict); fetches the model, if it is not here. Research use only, not for diagnosis or treatment.
    Predict {
        /// Run, or the beginning of its id.
        job: String,
        /// Name of the dataset.
        #[arg(long)]
        dataset: String,
        /// The new file.
        file: PathBuf,
    },
}

/// The policy.
#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Print it.
    Show,
    /// Set it from a file.
    Set {
        /// TOML file.
        file: PathBuf,
    },
}

/// What training may take of a machine that people work at too.
#[derive(Subcommand)]
pub(crate) enum LimitsCommand {
    /// Print it.
    Show,
    /// Set all of it: what is left out is not limited.
    Set {
        /// When nothing is computed, by the machine's wall clock: 'mon-fri 08:00-17:30'; may be given several times.
        #[arg(long, value_name = "DAYS FROM-TO", value_parser = clap::value_parser!(hospes_party::view::QuietHours))]
        quiet: Vec<hospes_party::view::QuietHours>,
        /// Percent of the time in which training computes, from 5.
        #[arg(long, default_value_t = 100)]
        share: u8,
        /// Most threads of the processor.
        #[arg(long)]
        threads: Option<u16>,
        /// Wait while somebody works at this machine or in its window.
        #[arg(long)]
        pause_while_active: bool,
    },
}

/// When people are signed out.
#[derive(Subcommand)]
pub(crate) enum SignInCommand {
    /// Print it.
    Show,
    /// Set it; what is left out stays as it is. You sign it with your passphrase.
    Set {
        /// Minutes without use after which a person is signed out, from 2 to 60.
        #[arg(long, value_name = "MINUTES")]
        idle: Option<u32>,
        /// Wrong passphrases in a row that cost no time, from 3 to 10.
        #[arg(long, value_name = "N")]
        tries: Option<u32>,
        /// Longest wait after more of them, in minutes, from 5 to 60.
        #[arg(long, value_name = "MINUTES")]
        longest_wait: Option<u32>,
    },
}

/// How coordinators are reached.
#[derive(Subcommand)]
pub(crate) enum NetworkCommand {
    /// Print it.
    Show,
    /// Try another way and keep it if every step goes well; what is left out stays as it is.
    Set(Network),
}

/// Another way to a coordinator.
#[derive(Args)]
pub(crate) struct Network {
    /// Federation, or the beginning of its id; may be left out where there is one.
    #[arg(long)]
    pub(crate) federation: Option<String>,
    /// HTTP CONNECT proxy, `http://[user:password@]host:port`.
    #[arg(long, value_name = "URL", conflicts_with = "usual_proxy")]
    pub(crate) proxy: Option<String>,
    /// No proxy named here: the one of your IT, or else what the machine's settings say.
    #[arg(long)]
    pub(crate) usual_proxy: bool,
    /// File with the hospital's own CA certificates, PEM.
    #[arg(long, value_name = "FILE", conflicts_with = "usual_ca")]
    pub(crate) extra_ca: Option<PathBuf>,
    /// No certificates named here: those of your IT, or else none.
    #[arg(long)]
    pub(crate) usual_ca: bool,
    /// Keep it also if the test fails, for this reason.
    #[arg(long, value_name = "REASON")]
    pub(crate) despite: Option<String>,
}

/// What networks are trained on.
#[derive(Subcommand)]
pub(crate) enum DeviceCommand {
    /// Print it, with the machine's graphics cards; the first look tries them, which takes seconds.
    Show,
    /// Set it, from the next work on.
    Set {
        /// auto takes a graphics card where it is faster, cpu none, gpu always one if it can, and a card such as discrete:0,
        /// as `show` lists it, that one.
        #[arg(value_name = "auto|cpu|gpu|CARD")]
        choice: DeviceChoice,
    },
}

/// Newer versions.
#[derive(Subcommand)]
pub(crate) enum UpdatesCommand {
    /// Print what is known of them.
    Show,
    /// Look for one now.
    Check,
    /// Set where they are looked for, once a day and with `check`; you sign it.
    Set {
        /// Address of the makers' file about the newest version.
        #[arg(long, value_name = "URL")]
        from: String,
        /// The makers' public key, 64 hexadecimal digits; get it by another way than the address.
        #[arg(long, value_name = "KEY")]
        key: String,
    },
    /// Look for none; you sign it.
    Off,
    /// Write the newer version's package for this machine to a new file, once its signature and digest are proven.
    Save {
        /// The new file.
        file: PathBuf,
    },
}

/// A signature.
#[derive(Args)]
pub(crate) struct Approve {
    /// Study, or the beginning of its id.
    pub(crate) study: String,
    /// Dataset; may be left out where only one has the columns.
    #[arg(long)]
    pub(crate) dataset: Option<String>,
    /// Runs that the approval allows.
    #[arg(long, default_value_t = 1)]
    pub(crate) runs: u32,
    /// Approve later versions of the dataset too, and not this snapshot alone: registered under its name, with the same
    /// columns and types, and as many patients as `--patients` says. What two runs differ in can tell about the few patients
    /// in whom their versions differ.
    #[arg(long)]
    pub(crate) series: bool,
    /// Fewest and most patients of a later version, those who opted out among them; without it as the review suggests.
    #[arg(long, requires = "series", value_name = "FEWEST..MOST", value_parser = patients)]
    pub(crate) patients: Option<SeriesBounds>,
    /// A number that may differ, and between what: `tasks.train.params.optimizer.sgd.lr=0.0001..0.01`.
    #[arg(long = "range", value_name = "PLACE=MIN..MAX")]
    pub(crate) ranges: Vec<String>,
    /// Results need no person to release them.
    #[arg(long)]
    pub(crate) release_automatically: bool,
    /// What you have read, by the whole digest that `show` printed: for the first signature the one under *Read*, for the
    /// second that of the approval. Without it the review is shown and a person is asked.
    #[arg(long)]
    pub(crate) digest: Option<String>,
    /// Give the first signature anew, in place of the one that waits for a second.
    #[arg(long)]
    pub(crate) again: bool,
    /// Do not ask whether you are sure.
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// A study and a reason.
#[derive(Args)]
pub(crate) struct Reasoned {
    /// Study, or the beginning of its id.
    pub(crate) study: String,
    /// Why.
    #[arg(long)]
    pub(crate) reason: String,
}

/// The audit log.
#[derive(Subcommand)]
pub(crate) enum Audit {
    /// The newest entries.
    List {
        /// How many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Only entries before this number.
        #[arg(long, value_name = "NUMBER")]
        before: Option<u64>,
    },
    /// Verify all of it.
    Verify,
    /// Write it to a new file: with proofs, or as a report for people or other systems.
    Export {
        /// File.
        file: PathBuf,
        /// In which form. `jsonl` has the proofs, and everything else can be made of it without this site: `hospesctl
        /// audit convert`; `annex` has the names and documents that the log refers to.
        #[arg(long, value_name = "FORM", default_value = "jsonl", value_parser = form())]
        form: AuditFormat,
        /// Federation whose identity signs it; may be left out where there is one.
        #[arg(long)]
        federation: Option<String>,
    },
    /// After how many months what can tell of a person is erased from its entries; without either option, says so.
    Retention {
        /// Months, at least 12. Fewer than before needs a second person's signature.
        #[arg(long, conflicts_with = "forever")]
        months: Option<u32>,
        /// Keep all of it for good.
        #[arg(long)]
        forever: bool,
    },
    /// Size and root of the log now, and who witnessed it; with --of, the signed note of a log as it was seen here last,
    /// to keep in a file for `hospesctl audit verify --checkpoint FILE`.
    Checkpoint {
        /// Whose log: `self`, `coordinator`, or a member's name or id.
        #[arg(long, value_name = "WHOSE")]
        of: Option<String>,
        /// Federation; may be left out where there is one.
        #[arg(long, requires = "of")]
        federation: Option<String>,
    },
}

/// Forms of the audit log by their names.
fn form() -> impl TypedValueParser<Value = AuditFormat> {
    let names = PossibleValuesParser::new(AuditFormat::ALL.iter().map(|form| form.as_str()));
    names.try_map(|typed| typed.parse::<AuditFormat>())
}

/// Fewest and most patients of a version, as typed.
fn patients(text: &str) -> Result<SeriesBounds, String> {
    let wrong = || format!("'{text}' is not of the form 280..450");
    let (fewest, most) = text.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong());
    let bounds = SeriesBounds { fewest: number(fewest)?, most: number(most)? };
    if bounds.fewest > bounds.most { Err(wrong()) } else { Ok(bounds) }
}

/// Roles, as typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleName {
    /// Installs, enrols, manages people.
    Administrator,
    /// Registers data; first signature.
    DataSteward,
    /// Second signature.
    DataAccessApprover,
    /// Opinions, suspension.
    PrivacyOfficer,
    /// Reads.
    Auditor,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Administrator => Self::Administrator,
            RoleName::DataSteward => Self::DataSteward,
            RoleName::DataAccessApprover => Self::DataAccessApprover,
            RoleName::PrivacyOfficer => Self::PrivacyOfficer,
            RoleName::Auditor => Self::Auditor,
        }
    }
}

/// The privacy officer's view, as typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum View {
    /// Agrees.
    Agree,
    /// Agrees with the conditions in the text.
    Conditions,
    /// Objects.
    Object,
}
