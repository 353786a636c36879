//! The command line about data: where rows come from, and how they are read.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use hospes_party::view::ScanProfile;

/// The site's data.
#[derive(Subcommand)]
pub(crate) enum Dataset {
    /// Register a file, or rows of a query: freezes an encrypted copy.
    Add(DatasetAdd),
    /// Run the query of a dataset again, and register its rows as the next version.
    Again {
        /// Name.
        name: String,
    },
    /// List datasets.
    List,
    /// What a steward sees of a dataset; it does not leave.
    Profile {
        /// Name.
        name: String,
    },
    /// What is in a file, before it is registered.
    Survey {
        /// CSV, Excel (.xlsx), Parquet, NDJSON, .npz or SQLite file, or a folder of images with a table.
        #[arg(required_unless_present = "sql")]
        file: Option<PathBuf>,
        #[command(flatten)]
        rows: Rows,
        /// Sheet of an Excel workbook; its first one if none is named.
        #[arg(long)]
        sheet: Option<String>,
        #[command(flatten)]
        looking: Looking,
    },
    /// Set the Data Use Ontology terms of a dataset.
    Tag {
        /// Name.
        name: String,
        /// Term, such as DUO:0000042, or DUO:0000025=2027-12-31 with the last day of use, or MONDO:0005267 for a disease.
        #[arg(long)]
        duo: Vec<String>,
    },
    /// Remove a dataset: its copy here and the key that opens it are deleted. The file it was made from is not touched.
    Remove {
        /// Name.
        name: String,
        /// Why, for the log.
        #[arg(long)]
        reason: String,
    },
    /// Import the list of patients who opted out, one subject key a line.
    OptOut {
        /// File.
        file: PathBuf,
    },
}

// Which rows of a database are read. A doc comment here would be taken for that of the command.
#[derive(Args)]
pub(crate) struct Rows {
    /// PostgreSQL database, as postgres://ROLE@HOST:PORT/DATABASE without the password, which is asked for; or the name of a
    /// known one. The server must prove its name; for one on this machine, ?sslmode=prefer lifts that.
    #[arg(long, value_name = "URL", requires = "query", conflicts_with = "file")]
    pub(crate) sql: Option<String>,
    /// File with the query: one SELECT, of which the audit log has the SHA-256. Without --sql it is asked of the file, which
    /// is then one of SQLite.
    #[arg(long, value_name = "FILE")]
    pub(crate) query: Option<PathBuf>,
    /// File with the password of the database, instead of a prompt.
    #[arg(long, value_name = "FILE", requires = "sql")]
    pub(crate) db_password_file: Option<PathBuf>,
    /// File with the hospital's own CA certificates (PEM), if one of them signed the server's.
    #[arg(long, value_name = "FILE", requires = "sql")]
    pub(crate) ca: Option<PathBuf>,
    /// Seconds that a statement may take; 600 if not said.
    #[arg(long, value_name = "SECONDS", requires = "sql")]
    pub(crate) timeout: Option<u32>,
}

/// Databases that rows are read from.
#[derive(Subcommand)]
pub(crate) enum DatabaseCommand {
    /// List them.
    List,
    /// Test the way to one, step by step.
    Test {
        /// Name.
        name: String,
    },
    /// Forget one and its password; datasets stay.
    Forget {
        /// Name.
        name: String,
    },
}

// What means missing in a file, and how strictly identifiers are looked for. A doc comment here would be taken for that
// of the command.
#[derive(Args)]
pub(crate) struct Looking {
    /// Text of a cell that means a missing value, such as -9 or 999, in the whole table; may be given several times. Those
    /// given stand in place of the usual ones (?, NA, N/A and -9), and '' is for none but empty cells.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) missing: Vec<String>,
    /// How strictly identifiers are looked for.
    #[arg(long, value_enum, default_value = "default")]
    pub(crate) scan: Scan,
}

/// Profiles of the identifier scan, as typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Scan {
    /// Names, numbers, addresses, and dates finer than a month.
    Default,
    /// Besides, as HIPAA safe harbor asks: dates finer than a year, ages over 89, places below the state.
    HipaaSafeHarbor,
}

impl From<Scan> for ScanProfile {
    fn from(scan: Scan) -> Self {
        match scan {
            Scan::Default => Self::Default,
            Scan::HipaaSafeHarbor => Self::HipaaSafeHarbor,
        }
    }
}

/// A file to be registered.
#[derive(Args)]
pub(crate) struct DatasetAdd {
    /// CSV, Excel (.xlsx), Parquet, NDJSON, .npz or SQLite file, or a folder of PNG and JPEG images with a CSV table that
    /// names them.
    #[arg(required_unless_present = "sql")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) rows: Rows,
    /// Sheet of an Excel workbook; its first one if none is named.
    #[arg(long)]
    pub(crate) sheet: Option<String>,
    /// Name of the dataset; that of a registered one makes a new version of it.
    #[arg(long)]
    pub(crate) name: String,
    /// Column that tells patients apart; of an .npz file without one it is `subject_id`.
    #[arg(long)]
    pub(crate) subject: String,
    /// The data are public.
    #[arg(long)]
    pub(crate) public: bool,
    /// Data Use Ontology term, such as DUO:0000042, or DUO:0000025=2027-12-31 with the last day of use, or MONDO:0005267
    /// for a disease.
    #[arg(long)]
    pub(crate) duo: Vec<String>,
    /// Column that stays out.
    #[arg(long)]
    pub(crate) mask: Vec<String>,
    /// Column that the identifier scan would mask and you keep.
    #[arg(long)]
    pub(crate) keep: Vec<String>,
    #[command(flatten)]
    pub(crate) looking: Looking,
}
