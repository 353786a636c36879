//! Passphrases: from a file, or typed without an echo.

use std::io::IsTerminal as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use hospes_ipc::table::Secret;
use hospes_ipc::{Fault, FaultCode};
use hospes_party::Passphrase;
use zeroize::Zeroizing;

/// A person's passphrase.
pub(crate) fn of_person(file: Option<&Path>, prompt: &str) -> Result<Secret> {
    Ok(Secret::new(read(file, prompt)?))
}

/// A passphrase that a person chooses: long enough, and typed twice, because nobody can tell it to them again.
pub(crate) fn new_of_person(file: Option<&Path>, prompt: &str) -> Result<Secret> {
    let text = Zeroizing::new(read_twice(file, prompt)?);
    Passphrase::from(text.to_string()).check().map_err(Fault::from)?;
    Ok(Secret::new(text.to_string()))
}

/// The passphrase of a backup.
pub(crate) fn of_backup(file: Option<&Path>) -> Result<Passphrase> {
    Ok(Passphrase::from(read(file, "Passphrase of the backup: ")?))
}

/// The passphrase of a key file that is made now.
pub(crate) fn of_new_key_file() -> Result<Passphrase> {
    Ok(Passphrase::from(read_twice(None, "New passphrase of this site's key file: ")?))
}

/// The passphrase of the site's encrypted key file.
pub(crate) fn of_key_file() -> Result<Passphrase> {
    Ok(Passphrase::from(read(None, "Passphrase of this site's key file: ")?))
}

/// The same for a service, which nobody may be in front of.
pub(crate) fn of_key_file_of_service() -> Result<Passphrase, Fault> {
    if !std::io::stdin().is_terminal() {
        let words = "the service has no passphrase for its key file, and can neither make nor open this site's keys; nothing \
                     was changed. Whoever administers this machine seals one and starts the service again: systemd-ask-password -n | \
                     sudo systemd-creds encrypt --name=hospes-key-passphrase - \
                     /etc/credstore.encrypted/hospes-key-passphrase && sudo systemctl restart hospes-site";
        return Err(Fault::new(FaultCode::Keys, words));
    }
    of_key_file().map_err(|error| Fault::new(FaultCode::Keys, format!("{error:#}")))
}

fn read(file: Option<&Path>, prompt: &str) -> Result<String> {
    let fault = |words: String| Fault::new(FaultCode::Keys, words);
    if let Some(file) = file {
        let text = std::fs::read_to_string(file)
            .map(Zeroizing::new)
            .map_err(|e| fault(format!("the passphrase in {} cannot be read: {e}", file.display())))?;
        return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
    }
    if !std::io::stdin().is_terminal() {
        bail!(fault("a passphrase is needed and there is no terminal to ask on; name a file with it".into()));
    }
    rpassword::prompt_password(prompt).context("read the passphrase")
}

/// Asks twice, unless a file answers.
fn read_twice(file: Option<&Path>, prompt: &str) -> Result<String> {
    let text = Zeroizing::new(read(file, prompt)?);
    if file.is_none() {
        let again = Zeroizing::new(read(None, "The same again: ")?);
        if text != again {
            bail!(Fault::new(FaultCode::Input, "the two passphrases differ; nothing was changed, begin again"));
        }
    }
    Ok(text.to_string())
}

/// A line typed by a person.
pub(crate) fn line(prompt: &str) -> Result<String> {
    use std::io::Write as _;
    if !std::io::stdin().is_terminal() {
        bail!(Fault::new(
            FaultCode::Input,
            format!("an answer is needed and there is no terminal to ask on: {prompt}")
        ));
    }
    let mut error = std::io::stderr();
    write!(error, "{prompt}")?;
    error.flush()?;
    let mut text = String::new();
    std::io::stdin().read_line(&mut text)?;
    Ok(text.trim().to_owned())
}
