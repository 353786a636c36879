//! Passphrases: from a file, from systemd, or typed without an echo.

use std::io::IsTerminal as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use hospes_ipc::table::Secret;
use hospes_party::Passphrase;
use hospes_party::keys::systemd_credential;

/// Environment variable with the file that opens the site's key file.
const KEY_PASSPHRASE_FILE: &str = "HOSPES_KEY_PASSPHRASE_FILE";
/// Name of the systemd credential that opens the site's key file.
const CREDENTIAL: &str = "hospes-key-passphrase";

/// A person's passphrase.
pub(crate) fn of_person(file: Option<&Path>, prompt: &str) -> Result<Secret> {
    Ok(Secret::new(read(file, prompt)?))
}

/// The passphrase of the site's encrypted key file.
pub(crate) fn of_key_file() -> Result<Passphrase> {
    if let Some(passphrase) = systemd_credential(CREDENTIAL)? {
        return Ok(passphrase);
    }
    let file = std::env::var_os(KEY_PASSPHRASE_FILE);
    Ok(Passphrase::from(read(file.as_deref().map(Path::new), "Passphrase of this site's key file: ")?))
}

fn read(file: Option<&Path>, prompt: &str) -> Result<String> {
    if let Some(file) = file {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("read the passphrase in {}", file.display()))?;
        return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
    }
    if !std::io::stdin().is_terminal() {
        bail!("a passphrase is needed and there is no terminal to ask on; name a file with it");
    }
    rpassword::prompt_password(prompt).context("read the passphrase")
}

/// A line typed by a person.
pub(crate) fn line(prompt: &str) -> Result<String> {
    use std::io::Write as _;
    if !std::io::stdin().is_terminal() {
        bail!("an answer is needed and there is no terminal to ask on: {prompt}");
    }
    let mut error = std::io::stderr();
    write!(error, "{prompt}")?;
    error.flush()?;
    let mut text = String::new();
    std::io::stdin().read_line(&mut text)?;
    Ok(text.trim().to_owned())
}
