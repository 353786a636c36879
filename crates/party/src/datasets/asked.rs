//! What rows are read from, and the entry in the log without which no query is asked: a survey counts rows exactly, so that
//! nobody is to ask a database about one person again and again unseen.

use std::path::PathBuf;

use hospes_cohort::source::sql::{self, OpenQuery, Query, TIMEOUT_S};
use hospes_cohort::source::{Limits, Reading, Source};
use hospes_ledger::{Action, ObjectKind};
use hospes_protocol::id::DatasetId;

use crate::audit::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::people::Acting;
use crate::view::AskedQuery;

/// Where rows are read from, with all that it takes.
pub(super) enum RowSource {
    File(PathBuf),
    Query {
        database: sql::Database,
        /// The database as people here call it.
        named: String,
        query: Query,
        timeout_s: u32,
    },
}

/// An opened source.
pub(super) enum Opened {
    File(PathBuf),
    Query(Box<OpenQuery>),
}

impl RowSource {
    /// Opens it for whoever follows the reading; it blocks.
    pub(super) fn open(self, followed: &Reading) -> Result<Opened, PartyError> {
        Ok(match self {
            Self::File(path) => Opened::File(path),
            Self::Query { database, query, timeout_s, .. } => {
                let open = OpenQuery::open(database, &query.text, timeout_s, Limits::default())?;
                Opened::Query(Box::new(open.followed_by(followed.clone())))
            }
        })
    }
}

impl Opened {
    pub(super) fn source(&self) -> Source<'_> {
        match self {
            Self::File(path) => path.into(),
            Self::Query(open) => (&**open).into(),
        }
    }
}

/// What rows of a query are read for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// To say what is in them.
    Survey,
    /// To register them, as the version after this one where there is one.
    Register(Option<DatasetId>),
}

impl Engine {
    /// What it takes to read rows: of a file, its path; of a query, the database with its password.
    pub(super) async fn row_source(&self, path: PathBuf, query: Option<&AskedQuery>) -> Result<RowSource, PartyError> {
        let Some(asked) = query else { return Ok(RowSource::File(path)) };
        let (database, named, timeout_s) = match asked.database {
            Some(id) => self.server_of(id).await?,
            None => (sql::Database::Sqlite(path), "a file of SQLite".to_owned(), TIMEOUT_S),
        };
        let query = database.query(&asked.text)?;
        Ok(RowSource::Query { database, named, query, timeout_s })
    }

    /// Enters that the rows of a query are about to be read, by whom, from where and for what. Of the query the log has the
    /// digest: its text may name a patient, and stands in the document of what is registered, which can be removed. Where
    /// this fails, nothing may be read.
    pub(super) async fn enter_query(
        &self,
        acting: &Acting,
        from: &RowSource,
        purpose: Purpose,
    ) -> Result<(), PartyError> {
        let RowSource::Query { named, query, .. } = from else { return Ok(()) };
        let digest = query.digest();
        let entry = self.entry(acting.actor(), Action::DatabaseQueried);
        let entry = match purpose {
            Purpose::Survey => entry.because(format!("the query {digest} in {named}, to see what is in its rows")),
            Purpose::Register(former) => {
                let entry = entry.because(format!("the query {digest} in {named}, to register its rows"));
                match former {
                    Some(former) => entry.object(ObjectKind::Dataset, former, None),
                    None => entry,
                }
            }
        };
        self.record("enter a query", &entry).await
    }
}
