//! Files that a person chose in a dialog. The page knows each by a random name; where it lies stays in this process.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultCode};
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
}

impl OpenPurpose {
    /// Whether a folder is chosen rather than a file.
    pub fn is_folder(self) -> bool {
        self == Self::Images
    }

    /// Endings of names that fit; all if empty.
    pub fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Data => &["csv", "tsv", "txt", "xlsx", "xlsm", "parquet", "ndjson", "jsonl", "npz"],
            Self::Images => &[],
            Self::OptOuts => &["csv", "txt"],
            Self::Certificates => &["pem", "crt", "cer"],
        }
    }
}

/// What a file is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case")]
pub enum SavePurpose {
    /// The audit log.
    Audit,
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

/// A file that a command writes beside the chosen place, until it is whole.
#[derive(Debug)]
pub(super) struct Unfinished {
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
        use OpenPurpose::{Certificates, Data, Images, OptOuts};
        match call {
            Call::Survey { path, .. } | Call::Sheets { path } => self.opened(path, &[Data, Images])?,
            Call::AddDataset { dataset } => self.opened(&mut dataset.path, &[Data, Images])?,
            Call::ImportOptOuts { path } => self.opened(path, &[OptOuts])?,
            Call::Enrol { enrolment } => {
                if let Some(path) = &mut enrolment.extra_ca {
                    self.opened(path, &[Certificates])?;
                }
            }
            Call::ExportAudit { path, .. } => return self.saved(path, SavePurpose::Audit).map(Some),
            _ => {}
        }
        Ok(None)
    }

    fn opened(&self, path: &mut PathBuf, purposes: &[OpenPurpose]) -> Result<(), Fault> {
        let fits = |purpose: &Purpose| matches!(purpose, Purpose::Open(p) if purposes.contains(p));
        *path = self.find(path, fits)?;
        Ok(())
    }

    fn saved(&self, path: &mut PathBuf, purpose: SavePurpose) -> Result<Unfinished, Fault> {
        let place = self.find(path, |p| *p == Purpose::Save(purpose))?;
        // The dialog asked whether a file that is there may be replaced; it is, once the new one is whole.
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let part = place.with_file_name(name);
        path.clone_from(&part);
        Ok(Unfinished { part, place })
    }

    fn find(&self, name: &Path, fits: impl Fn(&Purpose) -> bool) -> Result<PathBuf, Fault> {
        let known = self.0.iter().find(|(file, purpose, _)| Path::new(file) == name && fits(purpose));
        let words = "the page named a file that nobody chose for this; choose it again";
        known.map(|(_, _, path)| path.clone()).ok_or_else(|| Fault::new(FaultCode::Denied, words))
    }
}

impl Unfinished {
    /// Puts the file in its place, or takes it away.
    pub(super) fn end(self, done: bool) -> Result<(), Fault> {
        if !done {
            // A command that failed may have left none.
            let _ = std::fs::remove_file(&self.part);
            return Ok(());
        }
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
            let mut call = Call::Survey { path: name.into(), sheet: None };
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
        assert!(refused(Call::Survey { path: place.file.into(), sheet: None }));
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
}
