//! Dialogs of the operating system, and what else the page asks this process for.

use std::path::PathBuf;
use std::sync::Arc;

use hospes_ipc::page::{Answered, Host, OpenPurpose, Preferences, SavePurpose};
use tauri::AppHandle;
use tauri_plugin_autostart::ManagerExt as _;
use tauri_plugin_dialog::{DialogExt as _, FilePath};
use tokio::sync::oneshot;

use crate::words::{Speech, Words};

/// The app around the page.
pub(crate) struct Desk {
    app: AppHandle,
    speech: Arc<Speech>,
}

impl Desk {
    pub(crate) fn new(app: AppHandle, speech: Arc<Speech>) -> Self {
        Self { app, speech }
    }
}

/// What to do with the answer of a dialog, and where it then comes out.
fn answered() -> (impl FnOnce(Option<FilePath>) + Send + 'static, oneshot::Receiver<Option<PathBuf>>) {
    let (answer, chosen) = oneshot::channel();
    let done = move |path: Option<FilePath>| {
        // The page may have gone meanwhile.
        let _ = answer.send(path.and_then(|path| path.into_path().ok()));
    };
    (done, chosen)
}

impl Host for Desk {
    fn open(&self, purpose: OpenPurpose) -> Answered<'_, Option<PathBuf>> {
        let words: &Words = self.speech.words();
        let title = match purpose {
            OpenPurpose::Data => words.open_data,
            OpenPurpose::Images => words.open_images,
            OpenPurpose::OptOuts => words.open_opt_outs,
            OpenPurpose::Certificates => words.open_certificates,
            OpenPurpose::Backup => words.open_backup,
        };
        let mut dialog = self.app.dialog().file().set_title(title);
        if !purpose.endings().is_empty() {
            dialog = dialog.add_filter(words.fitting_files, purpose.endings()).add_filter(words.all_files, &["*"]);
        }
        let (done, chosen) = answered();
        if purpose.is_folder() {
            dialog.pick_folder(done)
        } else {
            dialog.pick_file(done)
        }
        Box::pin(async { chosen.await.ok().flatten() })
    }

    fn save(&self, purpose: SavePurpose, suggested: String) -> Answered<'_, Option<PathBuf>> {
        let title = match purpose {
            SavePurpose::Audit => self.speech.words().save_audit,
            SavePurpose::Model => self.speech.words().save_model,
            SavePurpose::Backup => self.speech.words().save_backup,
            SavePurpose::Predictions => self.speech.words().save_predictions,
            SavePurpose::Update => self.speech.words().save_update,
            SavePurpose::Table => self.speech.words().save_table,
        };
        let (done, chosen) = answered();
        self.app.dialog().file().set_title(title).set_file_name(suggested).save_file(done);
        Box::pin(async { chosen.await.ok().flatten() })
    }

    fn prefer(&self, preferences: Preferences) -> Result<(), String> {
        let autostart = self.app.autolaunch();
        // Whether it is on already; where the system cannot say, it is set all the same.
        if autostart.is_enabled().ok() != Some(preferences.autostart) {
            let changed = if preferences.autostart { autostart.enable() } else { autostart.disable() };
            // Taking away what is not there is no failure.
            if let Err(error) = changed
                && preferences.autostart
            {
                return Err(format!("the app cannot be made to start with the machine: {error}"));
            }
        }
        self.speech.prefer(preferences);
        Ok(())
    }
}
