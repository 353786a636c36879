//! The files that commands name. Whoever stands between a person and the engine puts others in their place: the page knows
//! chosen files by random names ([`crate::page`]), and to another account's engine files are handed over
//! ([`crate::handed`]).

use std::path::PathBuf;

use hospes_party::view::{AskedQuery, NewAuthorities};

use crate::page::{OpenPurpose, SavePurpose};
use crate::table::Call;

/// A file that a command names.
pub(crate) enum Named<'a> {
    /// A file or folder that is there, of one of these kinds.
    Opened(&'a mut PathBuf, &'static [OpenPurpose]),
    /// A file that the command makes.
    New(&'a mut PathBuf, SavePurpose),
}

impl Call {
    /// Every file that the command names. One that is missing here would reach the engine as whoever asks named it.
    pub(crate) fn files(&mut self) -> Vec<Named<'_>> {
        use OpenPurpose::{Backup, Data, Images, OptOuts};
        match self {
            // A query on a server reads no file, and the engine looks at no path beside it.
            Self::Survey { query, .. } if on_server(query.as_ref()) => Vec::new(),
            Self::AddDataset { dataset } if on_server(dataset.query.as_ref()) => Vec::new(),
            Self::Survey { path, .. } | Self::Sheets { path } => vec![Named::Opened(path, &[Data, Images])],
            Self::AddDataset { dataset } => vec![Named::Opened(&mut dataset.path, &[Data, Images])],
            Self::AddDatabase { database, .. } => certificates(&mut database.extra_ca),
            Self::ImportOptOuts { path } => vec![Named::Opened(path, &[OptOuts])],
            Self::RestoreSite { path, .. } => vec![Named::Opened(path, &[Backup])],
            Self::Enrol { enrolment } => certificates(&mut enrolment.extra_ca),
            Self::DiagnoseInvitation { approach } => certificates(&mut approach.extra_ca),
            Self::SetWay { way, .. } => match &mut way.extra_ca {
                NewAuthorities::File(path) => vec![Named::Opened(path, &[OpenPurpose::Certificates])],
                NewAuthorities::Keep | NewAuthorities::Usual => Vec::new(),
            },
            Self::ExportAudit { path, .. } => vec![Named::New(path, SavePurpose::Audit)],
            Self::BackUp { path, .. } => vec![Named::New(path, SavePurpose::Backup)],
            Self::Predict { path, .. } => vec![Named::New(path, SavePurpose::Predictions)],
            Self::SaveUpdate { path } => vec![Named::New(path, SavePurpose::Update)],
            Self::ExportTable { path, .. } => vec![Named::New(path, SavePurpose::Table)],
            Self::ExportModel { path, card, .. } => {
                vec![Named::New(path, SavePurpose::Model), Named::New(card, SavePurpose::Model)]
            }
            _ => Vec::new(),
        }
    }
}

fn on_server(query: Option<&AskedQuery>) -> bool {
    query.is_some_and(|query| query.database.is_some())
}

fn certificates(file: &mut Option<PathBuf>) -> Vec<Named<'_>> {
    file.iter_mut().map(|path| Named::Opened(path, &[OpenPurpose::Certificates])).collect()
}

#[cfg(test)]
mod tests {
    /// The compiler does not ask for a new command here, so this does.
    #[test]
    fn every_path_of_the_table_is_named() {
        let (_, table) = include_str!("table.rs").split_once("commands! {").expect("there is a table");
        let paths = table.matches("PathBuf").count();
        assert_eq!(paths, 10, "a command with a path was added or taken away; Call::files must know it");
        // Arguments that hold a path within, by their types.
        let inside = [
            "dataset: NewDataset",
            "database: NewDatabase",
            "enrolment: Enrolment",
            "approach: Approach",
            "way: NewWay",
        ];
        assert!(inside.iter().all(|argument| table.matches(argument).count() == 1), "{inside:?}");
    }
}
