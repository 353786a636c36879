//! What `login` keeps: where the coordinator is, the token, and the CA that was checked; in one file of mode 600.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::client::{Failure, FailureKind};

/// Environment variable with the path of the file.
const FILE: &str = "HOSPES_CTL_CONFIG";

/// A coordinator that one has logged in to.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Saved {
    /// URL of the coordinator.
    pub(crate) url: String,
    /// Token.
    pub(crate) token: String,
    /// The coordinator's CA certificate, PEM.
    pub(crate) ca_pem: String,
}

/// Where the file lies: `HOSPES_CTL_CONFIG`, or `hospes/ctl.json` in the user's configuration folder.
pub(crate) fn path() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(FILE) {
        return Ok(path.into());
    }
    let folder = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(Path::new(&home).join(".config"))
    });
    let folder = folder.with_context(|| format!("neither HOME nor XDG_CONFIG_HOME nor {FILE} is set"))?;
    Ok(folder.join("hospes").join("ctl.json"))
}

/// What is kept, if anything.
pub(crate) fn load(path: &Path) -> Result<Option<Saved>> {
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    if about.permissions().mode() & 0o077 != 0 {
        let path = path.display();
        let words = format!("other users can read your token in {path}: `chmod 600 {path}`, and ask for a new token");
        return Err(Failure::new(FailureKind::Usage, words).into());
    }
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let saved = serde_json::from_str(&text);
    saved.map(Some).with_context(|| format!("{} is damaged; log in again", path.display()))
}

/// Keeps it, in place of what was kept before.
pub(crate) fn save(path: &Path, saved: &Saved) -> Result<()> {
    let folder = path.parent().with_context(|| format!("{} has no folder", path.display()))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let scratch = path.with_extension("new");
    let _ = fs::remove_file(&scratch);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&scratch)?;
    file.write_all(serde_json::to_string_pretty(saved)?.as_bytes())?;
    file.sync_all()?;
    fs::rename(&scratch, path).with_context(|| format!("write {}", path.display()))?;
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Forgets it; `false` if there was nothing.
pub(crate) fn forget(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("delete {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_kept_for_its_user_only_and_forgotten_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hospes").join("ctl.json");
        assert!(load(&path).unwrap().is_none());
        let saved = Saved { url: "https://x".into(), token: "hospes_x".into(), ca_pem: "pem".into() };
        save(&path, &saved).unwrap();
        save(&path, &saved).unwrap();
        assert!(load(&path).unwrap() == Some(saved));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load(&path).err().unwrap().to_string().contains("chmod 600"));
        assert!(forget(&path).unwrap() && !forget(&path).unwrap());
    }
}
