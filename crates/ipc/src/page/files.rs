//! Files that a person chose in a dialog. The page knows each by a random name; where it lies stays in this process.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultCode};
use crate::named::Named;
use crate::table::Call;

/// Most choices that are remembered; the oldest are forgotten first.
const CHOICES: usize = 32;
/// Characters of a file's name that are shown.
const NAME_CHARS: usize = 200;

/// What a file or folder is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case")]
pub enum OpenPurpose {
    /// A table to be registered as a dataset.
    Data,
    /// A folder of images with a table that names them.
    Images,
    /// A list of patients who opted out.
    OptOuts,
    /// The hospital's own CA certificates.
    Certificates,
    /// A backup to be restored.
    Backup,
}

impl OpenPurpose {
    /// Whether a folder is chosen rather than a file.
    pub fn is_folder(self) -> bool {
        self == Self::Images
    }

    /// Endings of names that fit; all if empty.
    pub fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Data => {
                &["csv", "tsv", "txt", "xlsx", "xlsm", "parquet", "ndjson", "jsonl", "npz", "sqlite", "sqlite3", "db"]
            }
            Self::Images => &[],
            Self::OptOuts => &["csv", "txt"],
            Self::Certificates => &["pem", "crt", "cer"],
            Self::Backup => &["hospes-backup"],
        }
    }
}

/// What a file is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case")]
pub enum SavePurpose {
    /// The audit log.
    Audit,
    /// A model, with its card beside it.
    Model,
    /// A backup of the site.
    Backup,
    /// What a model gives for rows of this site's data.
    Predictions,
    /// The package of a newer version of this program.
    Update,
    /// The table of a regression.
    Table,
}

/// A file or place as the page knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
pub struct Chosen {
    /// What it is called in commands; good until the person logs out.
    pub file: String,
    /// Its own name, without the folders that it lies in.
    pub name: String,
    /// Bytes, of a file that is there.
    pub bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Open(OpenPurpose),
    Save(SavePurpose),
}

/// What was chosen.
#[derive(Default)]
pub(super) struct Files(VecDeque<(String, Purpose, PathBuf)>);

/// Files that a command writes beside the chosen places, until they are whole.
#[derive(Debug)]
pub(super) struct Unfinished(Vec<Unnamed>);

#[derive(Debug)]
struct Unnamed {
    part: PathBuf,
    place: PathBuf,
}

impl Files {
    pub(super) fn open(&mut self, purpose: OpenPurpose, path: PathBuf) -> Result<Chosen, Fault> {
        self.keep(Purpose::Open(purpose), path)
    }

    pub(super) fn save(&mut self, purpose: SavePurpose, path: PathBuf) -> Result<Chosen, Fault> {
        self.keep(Purpose::Save(purpose), path)
    }

    fn keep(&mut self, purpose: Purpose, path: PathBuf) -> Result<Chosen, Fault> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|e| Fault::new(FaultCode::Store, e.to_string()))?;
        let file = format!("file-{}", data_encoding::HEXLOWER.encode(&random));
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let bytes = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file).map(|m| m.len());
        let chosen = Chosen { file: file.clone(), name: hospes_protocol::text::shown(&name, NAME_CHARS), bytes };
        if self.0.len() == CHOICES {
            self.0.pop_front();
        }
        self.0.push_back((file, purpose, path));
        Ok(chosen)
    }

    /// Forgets everything: who logs in next chose none of it.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Puts the files that were chosen where a command of the page names them. A command may name nothing else: it could
    /// read and write whatever the engine can (invariant I6).
    pub(super) fn put_into(&self, call: &mut Call) -> Result<Option<Unfinished>, Fault> {
        if let Call::ExportModel { path, card, .. } = call {
            return self.with_card(path, card).map(Some);
        }
        let mut unfinished = None;
        for named in call.files() {
            match named {
                Named::Opened(path, purposes) => {
                    *path = self.find(path, |p| matches!(p, Purpose::Open(p) if purposes.contains(p)))?;
                }
                Named::New(path, purpose) => unfinished = Some(self.saved(path, purpose)?),
            }
        }
        Ok(unfinished)
    }

    /// The backup that was chosen to be restored.
    pub(super) fn backup(&self, name: &str) -> Result<PathBuf, Fault> {
        self.find(Path::new(name), |p| *p == Purpose::Open(OpenPurpose::Backup))
    }

    fn saved(&self, path: &mut PathBuf, purpose: SavePurpose) -> Result<Unfinished, Fault> {
        let place = self.find(path, |p| *p == Purpose::Save(purpose))?;
        // The dialog asked whether a file that is there may be replaced; it is, once the new one is whole.
        let file = Unnamed::beside(place);
        path.clone_from(&file.part);
        Ok(Unfinished(vec![file]))
    }

    /// A model and its card. The person chose the one place; the card's follows from it.
    fn with_card(&self, path: &mut PathBuf, card: &mut PathBuf) -> Result<Unfinished, Fault> {
        if path != card {
            return Err(Fault::new(FaultCode::Denied, "the card of a model lies beside it, and nowhere else"));
        }
        let place = self.find(path, |p| *p == Purpose::Save(SavePurpose::Model))?;
        let beside = place.with_extension("card.json");
        // Who agreed that the model is replaced has the card replaced with it; nobody was asked about a card alone.
        if beside.symlink_metadata().is_ok() && place.symlink_metadata().is_err() {
            let name = beside.file_name().unwrap_or_default().to_string_lossy();
            let words = format!("the card would be {name}, which is there already; choose another name for the model");
            return Err(Fault::new(FaultCode::Input, words));
        }
        let (model, beside) = (Unnamed::beside(place), Unnamed::beside(beside));
        path.clone_from(&model.part);
        card.clone_from(&beside.part);
        Ok(Unfinished(vec![beside, model]))
    }

    fn find(&self, name: &Path, fits: impl Fn(&Purpose) -> bool) -> Result<PathBuf, Fault> {
        let known = self.0.iter().find(|(file, purpose, _)| Path::new(file) == name && fits(purpose));
        let words = "the page named a file that nobody chose for this; choose it again";
        known.map(|(_, _, path)| path.clone()).ok_or_else(|| Fault::new(FaultCode::Denied, words))
    }
}

impl Unfinished {
    /// Puts the files in their places, or takes them away.
    pub(super) fn end(self, done: bool) -> Result<(), Fault> {
        let mut ended = Ok(());
        for file in self.0 {
            if done && ended.is_ok() {
                ended = file.name();
            }
            // One that has its name is not there any more, and a command that failed may have left none.
            let _ = std::fs::remove_file(&file.part);
        }
        ended
    }
}

impl Unnamed {
    fn beside(place: PathBuf) -> Self {
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        Self { part: place.with_file_name(name), place }
    }

    fn name(&self) -> Result<(), Fault> {
        std::fs::rename(&self.part, &self.place).map_err(|error| {
            let name = self.place.file_name().unwrap_or_default().to_string_lossy();
            Fault::new(FaultCode::Store, format!("{name} cannot be put in its place: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_oldest_choices_are_forgotten_and_all_when_asked() {
        let mut files = Files::default();
        let names: Vec<String> = (0..=CHOICES)
            .map(|i| files.open(OpenPurpose::Data, format!("/data/{i}.csv").into()).unwrap().file)
            .collect();
        let survey = |files: &Files, name: &str| {
            let mut call = Call::Survey { path: name.into(), sheet: None, missing: None, scan: None, query: None };
            files.put_into(&mut call).map(|_| call)
        };
        assert_eq!(survey(&files, &names[0]).unwrap_err().code, FaultCode::Denied);
        let Call::Survey { path, .. } = survey(&files, &names[CHOICES]).unwrap() else { panic!("another command") };
        assert_eq!(path, Path::new("/data/32.csv"));
        files.forget();
        assert_eq!(survey(&files, &names[CHOICES]).unwrap_err().code, FaultCode::Denied);
    }

    #[test]
    fn a_file_chosen_for_one_purpose_is_good_for_no_other() {
        let mut files = Files::default();
        let data = files.open(OpenPurpose::Data, "/data/a.csv".into()).unwrap();
        let place = files.save(SavePurpose::Audit, "/data/log.jsonl".into()).unwrap();
        let refused = |mut call: Call| files.put_into(&mut call).unwrap_err().code == FaultCode::Denied;
        assert!(refused(Call::ImportOptOuts { path: data.file.clone().into() }));
        assert!(refused(Call::ExportAudit {
            federation: None,
            kind: hospes_party::view::AuditFormat::JsonLines,
            path: data.file.into()
        }));
        assert!(refused(Call::Survey {
            path: place.file.clone().into(),
            sheet: None,
            missing: None,
            scan: None,
            query: None
        }));
        let at = hospes_protocol::id::Timestamp::from_millis(1);
        let job = hospes_protocol::id::JobId::new(at, [1; 10]);
        let dataset = hospes_protocol::id::DatasetId::new(at, [1; 10]);
        let predict = |file: &str| Call::Predict { job, dataset, path: file.into() };
        assert!(refused(predict(&place.file)));
        let table = |file: &str| Call::ExportTable { job, task: "odds".into(), path: file.into() };
        assert!(refused(table(&place.file)));
        let csv = files.save(SavePurpose::Table, "/data/odds.csv".into()).unwrap();
        assert_eq!(files.put_into(&mut predict(&csv.file)).unwrap_err().code, FaultCode::Denied);
        assert!(files.put_into(&mut table(&csv.file)).unwrap().is_some());
        let rows = files.save(SavePurpose::Predictions, "/data/scores.csv".into()).unwrap();
        let mut call = predict(&rows.file);
        files.put_into(&mut call).unwrap().unwrap();
        let Call::Predict { path, .. } = call else { panic!("another command") };
        assert!(path.starts_with("/data") && path != Path::new("/data/scores.csv"), "{}", path.display());
    }

    #[test]
    fn what_is_written_takes_its_place_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("log.jsonl");
        std::fs::write(&place, "old").unwrap();
        let mut files = Files::default();
        let chosen = files.save(SavePurpose::Audit, place.clone()).unwrap();
        assert_eq!((chosen.name.as_str(), chosen.bytes), ("log.jsonl", Some(3)));
        for (done, expected) in [(false, "old"), (true, "new")] {
            let mut call = Call::ExportAudit {
                federation: None,
                kind: hospes_party::view::AuditFormat::JsonLines,
                path: chosen.file.clone().into(),
            };
            let unfinished = files.put_into(&mut call).unwrap().unwrap();
            let Call::ExportAudit { path, .. } = call else { panic!("another command") };
            std::fs::write(path, "new").unwrap();
            unfinished.end(done).unwrap();
            assert_eq!(std::fs::read_to_string(&place).unwrap(), expected);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_card_lies_beside_its_model_and_replaces_nothing_that_nobody_was_asked_about() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("heart.safetensors");
        let mut files = Files::default();
        let chosen = files.save(SavePurpose::Model, place.clone()).unwrap().file;
        let job = hospes_protocol::id::JobId::new(hospes_protocol::id::Timestamp::from_millis(1), [1; 10]);
        let call = |path: &str, card: &str| Call::ExportModel { job, path: path.into(), card: card.into() };
        let refused = files.put_into(&mut call(&chosen, "/etc/motd")).unwrap_err();
        assert_eq!(refused.code, FaultCode::Denied, "the page named the card's place");
        let audit = files.save(SavePurpose::Audit, place.clone()).unwrap().file;
        assert_eq!(files.put_into(&mut call(&audit, &audit)).unwrap_err().code, FaultCode::Denied);

        let write = |files: &Files, done: bool| {
            let mut call = call(&chosen, &chosen);
            let unfinished = files.put_into(&mut call)?.unwrap();
            let Call::ExportModel { path, card, .. } = call else { panic!("another command") };
            std::fs::write(path, "weights").unwrap();
            std::fs::write(card, "card").unwrap();
            unfinished.end(done)
        };
        write(&files, false).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        write(&files, true).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!((read("heart.safetensors"), read("heart.card.json")), ("weights".into(), "card".into()));
        // The dialog asked about the model that is there.
        write(&files, true).unwrap();
        std::fs::remove_file(&place).unwrap();
        let refused = write(&files, true).unwrap_err();
        assert_eq!(refused.code, FaultCode::Input);
        assert!(refused.words.contains("heart.card.json"), "{refused}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
