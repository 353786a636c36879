//! Datasets, opt-outs and the policy.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use hospes_ipc::Call;
use hospes_party::view::{DatasetView, NewDataset, OptOutReport, Outcome, ProfileView, SurveyView};
use serde_json::Value;

use super::{Asking, one_of, people, query};
use crate::arguments::{Dataset, DatasetAdd, PolicyCommand};
use crate::output;

/// `dataset …`
pub(crate) async fn dataset(asking: &mut Asking, command: Dataset) -> Result<()> {
    match command {
        Dataset::Add(add) => self::add(asking, add).await,
        Dataset::List => {
            let all: Vec<DatasetView> = asking.ask(&Call::Datasets {}).await?;
            asking.answer(&all, |all| list(all))
        }
        Dataset::Profile { name } => {
            let all: Vec<DatasetView> = asking.ask(&Call::Datasets {}).await?;
            let dataset = one_of("dataset", &name, &all, |d| vec![d.name.clone(), d.id.to_string()])?.id;
            let profile: ProfileView = asking.ask(&Call::Profile { dataset }).await?;
            if asking.json {
                return output::json(&profile);
            }
            output::say("This does not leave.");
            list(std::slice::from_ref(&profile.dataset));
            output::json(&profile.profile)
        }
        Dataset::Again { name } => {
            let all: Vec<DatasetView> = asking.ask(&Call::Datasets {}).await?;
            let dataset = one_of("dataset", &name, &all, |d| vec![d.name.clone(), d.id.to_string()])?.id;
            let dataset: DatasetView = asking.ask(&Call::ReadAgain { dataset }).await?;
            asking.answer(&dataset, registered)
        }
        Dataset::Survey { file, rows, sheet, looking } => {
            let (missing, scan) = (chosen(looking.missing), Some(looking.scan.into()));
            let (path, query) = query::source(asking, file, rows).await?;
            let call = Call::Survey { path, sheet, missing, scan, query };
            let survey: SurveyView = asking.ask(&call).await?;
            asking.answer(&survey, describe)
        }
        Dataset::Tag { name, duo } => {
            let all: Vec<DatasetView> = asking.ask(&Call::Datasets {}).await?;
            let dataset = one_of("dataset", &name, &all, |d| vec![d.name.clone(), d.id.to_string()])?.id;
            let dataset: DatasetView = asking.ask(&Call::TagDataset { dataset, duo }).await?;
            asking.answer(&dataset, |dataset| {
                output::say(&format!("'{}' is tagged: {}", dataset.name, dataset.duo.join(", ")));
            })
        }
        Dataset::Remove { name, reason } => {
            let all: Vec<DatasetView> = asking.ask(&Call::Datasets {}).await?;
            let dataset = one_of("dataset", &name, &all, |d| vec![d.name.clone(), d.id.to_string()])?.id;
            let answer: Value = asking.ask(&Call::RemoveDataset { dataset, reason }).await?;
            asking.answer(&answer, |_| output::say(&format!("'{name}' is removed; its copy and its key are gone.")))
        }
        Dataset::OptOut { file } => {
            let path = absolute(file)?;
            let report: OptOutReport = asking.ask(&Call::ImportOptOuts { path }).await?;
            asking.answer(&report, |report| {
                output::say(&format!(
                    "{} patients are on the opt-out list; {} of them are in registered datasets and will not be used.",
                    report.listed, report.affected
                ));
            })
        }
    }
}

/// Texts that mean missing, where any were named; the engine passes over an empty one.
fn chosen(missing: Vec<String>) -> Option<Vec<String>> {
    (!missing.is_empty()).then_some(missing)
}

/// What is in a file, in words.
fn describe(survey: &SurveyView) {
    output::say(&format!("{} rows, {}.", survey.rows, survey.format));
    if let (Some(sheet), [_, _, ..]) = (&survey.sheet, survey.sheets.as_slice()) {
        let all = survey.sheets.join("', '");
        output::say(&format!("This is sheet '{sheet}'. Choose one with --sheet: '{all}'."));
    }
    let mut markers = survey.missing.iter().map(|marker| format!("'{marker}'")).collect::<Vec<_>>();
    markers.insert(0, "empty cells".into());
    output::say(&format!("Missing are: {}. Others are named with --missing.", markers.join(", ")));
    let gaps = |column: &str, is_missing: bool| {
        let here = survey.gaps.iter().filter(move |gap| gap.column == column && gap.is_missing == is_missing);
        here.map(|gap| {
            let marker = if gap.marker.is_empty() { "empty" } else { gap.marker.as_str() };
            format!("{marker}: {}", gap.cells)
        })
        .collect::<Vec<_>>()
        .join(", ")
    };
    output::table(
        &["Column", "Type", "Missing", "Stays out", "Why"],
        survey.columns.iter().map(|c| {
            let masked = if c.masked { "yes" } else { "no" };
            vec![c.name.clone(), kind(c.kind), gaps(&c.name, true), masked.into(), c.findings.join("; ")]
        }),
    );
    for column in &survey.columns {
        let asked = gaps(&column.name, false);
        if !asked.is_empty() {
            output::say(&format!("Column '{}': does this mean missing? {asked}. It is read as a value.", column.name));
        }
    }
}

async fn add(asking: &mut Asking, add: DatasetAdd) -> Result<()> {
    let (path, query) = query::source(asking, add.file, add.rows).await?;
    let dataset = NewDataset {
        name: add.name,
        path,
        query,
        sheet: add.sheet,
        missing: chosen(add.looking.missing),
        scan: add.looking.scan.into(),
        subject: add.subject,
        kinds: BTreeMap::new(),
        mask: add.mask.into_iter().collect(),
        keep: add.keep.into_iter().collect(),
        public: add.public,
        duo: add.duo,
    };
    let dataset: DatasetView = asking.ask(&Call::AddDataset { dataset }).await?;
    asking.answer(&dataset, registered)
}

/// What was registered, in words.
fn registered(dataset: &DatasetView) {
    if dataset.version > 1 {
        output::say(&format!(
            "This is version {} of '{}'. Approvals name the version before; review and approve again for this one.",
            dataset.version, dataset.name
        ));
    }
    output::say(&format!(
        "'{}' is registered: {} rows of {} patients, frozen as snapshot {}.",
        dataset.name,
        dataset.rows,
        dataset.subjects,
        dataset.snapshot.short()
    ));
    for column in dataset.columns.iter().filter(|c| c.masked) {
        output::say(&format!("Column '{}' stays out: {}", column.name, column.findings.join("; ")));
    }
}

/// A column's type in the word that is used everywhere else for it.
fn kind(kind: impl serde::Serialize) -> String {
    serde_json::to_value(kind).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn list(all: &[DatasetView]) {
    output::table(
        &["Name", "Patients", "Rows", "Columns", "Public", "Snapshot", "Registered"],
        all.iter().map(|d| {
            vec![
                d.name.clone(),
                format!("{} of {}", d.subjects_left, d.subjects),
                d.rows.to_string(),
                d.columns.iter().filter(|c| !c.masked).count().to_string(),
                if d.public { "yes".into() } else { "no".into() },
                d.snapshot.short(),
                output::moment(d.at),
            ]
        }),
    );
}

/// `policy …`
pub(crate) async fn policy(asking: &mut Asking, command: PolicyCommand) -> Result<()> {
    match command {
        PolicyCommand::Show => {
            let text: String = asking.ask(&Call::Policy {}).await?;
            asking.answer(&text, |text| output::say(text))
        }
        PolicyCommand::Set { file } => {
            let toml = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            let _: String = asking.ask(&Call::Policy {}).await?;
            let passphrase = asking.sign()?;
            let outcome: Outcome = asking.ask(&Call::SetPolicy { toml, passphrase }).await?;
            people::tell(asking, &outcome)
        }
    }
}

/// The engine may run in another folder than this command.
pub(super) fn absolute(file: PathBuf) -> Result<PathBuf> {
    std::fs::canonicalize(&file).with_context(|| format!("there is no file {}", file.display()))
}
