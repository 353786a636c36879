//! A series: the versions of one dataset, each a snapshot of its own.
//!
//! A version is registered under the name of the one before, with the same subject key, the same types of the columns
//! that both have, the same cells that mean *missing*, and the same tag *public*. An approval binds the snapshot of one
//! version, or the series: then a run takes the newest version that is there when it begins, if that one keeps to what
//! was signed. For any other version the approval is given again, after a review that shows what changed.

use std::collections::{BTreeMap, BTreeSet};

use hospes_cohort::schema::{ColumnKind, Schema};
use hospes_cohort::source::Format;
use hospes_protocol::id::DatasetId;
use hospes_protocol::text::shown;
use sqlx::sqlite::SqliteConnection;

use super::Dataset;
use crate::error::PartyError;
use crate::store::At as _;
use crate::view::{Fact, NewDataset};

/// Where a new version stands in its series.
#[derive(Clone, Copy)]
pub(super) struct Successor {
    pub(super) former: DatasetId,
    pub(super) series: DatasetId,
    pub(super) version: u32,
}

/// The version before a new dataset of this name, if there is one.
pub(super) fn former<'d>(datasets: &'d [Dataset], name: &str) -> Option<&'d Dataset> {
    datasets.iter().find(|d| d.name == name)
}

/// Checks that a file continues a series: everything that an approval of a version rests on besides its rows.
pub(super) fn check_continues(
    former: &Dataset,
    new: &NewDataset,
    schema: &Schema,
    format: &Format,
) -> Result<(), PartyError> {
    let before = &former.document;
    let refuse = |words: String| {
        let words = format!("a dataset has this name already, and {words}; register this under another name");
        Err(PartyError::input("name", words))
    };
    if before.schema.subject != new.subject {
        return refuse(format!("its patients are told apart by '{}'", before.schema.subject));
    }
    if before.public != new.public {
        return refuse(format!("it is {}tagged public", if before.public { "" } else { "not " }));
    }
    // Where it is asked may change with the hospital's servers; an approval of the series notices.
    let text = |format: &Format| format.query.as_ref().map(|query| query.text.clone());
    if text(&before.format) != text(format) {
        return refuse(match text(&before.format) {
            Some(_) => "its rows come from another query".to_owned(),
            None => "its rows come from a file and not from a query".to_owned(),
        });
    }
    let set = |markers: &[String]| markers.iter().cloned().collect::<BTreeSet<String>>();
    if set(&before.format.missing) != set(&format.missing) {
        let meant = super::marker_words(&before.format.missing);
        return refuse(format!("its missing values are {meant}, which must mean missing here too, and nothing else"));
    }
    let kinds: BTreeMap<&str, ColumnKind> = kept(schema);
    let changed = before.schema.columns.iter().find(|c| {
        let here = kinds.get(c.name.as_str());
        c.name != before.schema.subject && here.is_some_and(|kind| *kind != c.kind)
    });
    match changed {
        Some(column) => refuse(format!("its column '{}' is {}", column.name, column.kind.word())),
        None => Ok(()),
    }
}

fn kept(schema: &Schema) -> BTreeMap<&str, ColumnKind> {
    schema.columns.iter().filter(|c| !c.masked).map(|c| (c.name.as_str(), c.kind)).collect()
}

/// Gives the former version a name of its own, so that the new one can have its name.
pub(super) async fn set_aside(conn: &mut SqliteConnection, name: &str, successor: Successor) -> Result<(), PartyError> {
    let step = "register a dataset";
    let aside = format!("{name} (version {})", successor.version - 1);
    hospes_protocol::text::check_name(&aside).map_err(|words| PartyError::input("name", words))?;
    let taken: Option<String> = sqlx::query_scalar("SELECT id FROM datasets WHERE name = ?1")
        .bind(&aside)
        .fetch_optional(&mut *conn)
        .await
        .at(step)?;
    if taken.is_some() {
        return Err(PartyError::input(
            "name",
            format!("the name '{aside}', which the former version would get, is taken"),
        ));
    }
    sqlx::query("UPDATE datasets SET name = ?2 WHERE id = ?1")
        .bind(successor.former.to_string())
        .bind(&aside)
        .execute(conn)
        .await
        .at(step)?;
    Ok(())
}

/// Versions that no other one follows.
pub(crate) fn newest(datasets: &[Dataset]) -> impl Fn(&Dataset) -> bool + use<> {
    let mut last: BTreeMap<DatasetId, u32> = BTreeMap::new();
    for dataset in datasets {
        let version = last.entry(dataset.series).or_default();
        *version = dataset.version.max(*version);
    }
    move |dataset| last.get(&dataset.series) == Some(&dataset.version)
}

/// The newest version of a series that is there.
pub(crate) async fn newest_of(conn: &mut SqliteConnection, series: DatasetId) -> Result<Option<Dataset>, PartyError> {
    let sql = "SELECT * FROM datasets WHERE series = ?1 AND removed IS NULL ORDER BY version DESC LIMIT 1";
    let row = sqlx::query(sql).bind(series.to_string()).fetch_optional(conn).await.at("read a dataset")?;
    row.as_ref().map(Dataset::from_row).transpose()
}

/// What changed from one version to the next, for the review.
///
/// Numbers of rows and patients and names of columns, for the site's own people.
pub(crate) fn difference(former: &Dataset, now: &Dataset) -> Vec<Fact> {
    let change = |what: &str, before: u64, after: u64| {
        let sign = if after >= before { "+" } else { "−" };
        Fact::new(what, format!("{before} before, {after} now ({sign}{})", after.abs_diff(before)))
    };
    let (before, after) = (former.columns(), now.columns());
    let names = |columns: BTreeSet<&String>| match columns.is_empty() {
        true => "none".to_owned(),
        false => columns.into_iter().map(|c| shown(c, 100)).collect::<Vec<_>>().join(", "),
    };
    vec![
        Fact::new("Version", format!("{}, registered {}; the one before: {}", now.version, now.at, former.at)),
        change("Rows, against the version before", former.document.rows, now.document.rows),
        change("Patients, against the version before", former.document.subjects, now.document.subjects),
        Fact::new("Columns that are new", names(after.difference(&before).collect())),
        Fact::new("Columns that are gone", names(before.difference(&after).collect())),
    ]
}
