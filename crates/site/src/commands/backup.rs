//! Backups of the site: written, restored into an empty folder, and the confirmation after that.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hospes_ipc::Call;
use hospes_ipc::settings::{self, Settings};
use hospes_party::view::{BackupMade, Outcome};
use hospes_protocol::text::in_bytes;

use super::{Asking, audit, people};
use crate::{output, secret};

/// `backup`
pub(crate) async fn backup(asking: &mut Asking, file: PathBuf, passphrase_file: Option<&Path>) -> Result<()> {
    let path = audit::new_file(file)?;
    let passphrase = secret::new_of_person(passphrase_file, "New passphrase for this backup: ")?;
    let call = Call::BackUp { path: path.clone(), passphrase };
    let made: BackupMade = asking.ask(&call).await?;
    asking.answer(&made, |made| {
        output::say(&format!(
            "The site was backed up to {}: {} entries of the log, {} datasets, {}.",
            path.display(),
            made.entries,
            made.datasets,
            in_bytes(made.bytes)
        ));
        output::say(&format!("SHA-256 {}; the log has it, too.", made.digest));
        output::say("Keep file and passphrase in different places. Nobody can open the one without the other.");
    })
}

/// `restore`
pub(crate) async fn restore(
    folder: &Path,
    file: PathBuf,
    key_file: bool,
    passphrase_file: Option<&Path>,
    json: bool,
) -> Result<()> {
    let file = std::fs::canonicalize(&file).with_context(|| format!("there is no file {}", file.display()))?;
    settings::private_folder(folder)?;
    let passphrase = secret::of_backup(passphrase_file)?;
    let place = if key_file { Settings::File } else { Settings::keychain(folder)? };
    let config = place.config(folder, std::env::current_exe()?, secret::of_new_key_file)?;
    let restored = settings::restore(folder, &place, &config, file, passphrase).await?;
    if json {
        return output::json(&restored);
    }
    output::say(&format!(
        "The site lies in {} as it was at {}, with {} entries of the log.",
        folder.display(),
        output::moment(restored.made),
        restored.entries
    ));
    output::say(
        "It connects to nobody yet. What happened since then is gone: import the opt-outs again, revoke what was",
    );
    output::say("revoked, look at the people. Then: hospes-site confirm-restore, and another person: user answer.");
    Ok(())
}

/// `confirm-restore`
pub(crate) async fn confirm(asking: &mut Asking) -> Result<()> {
    let passphrase = asking.sign()?;
    let outcome: Outcome = asking.ask(&Call::ConfirmRestore { passphrase }).await?;
    people::tell(asking, &outcome)
}
