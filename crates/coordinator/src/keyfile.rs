//! Key files: mode 600, and sealed by a passphrase where one is given (argon2id, ChaCha20-Poly1305).
//!
//! The passphrase comes from the environment or from a credential file, never from the command line, where other
//! users of the machine can read it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use crate::{Error, random};

/// First word of a key file.
const MAGIC: &str = "hospes-key/v1";
/// Longest key file in bytes.
const FILE_BYTES: u64 = 64 << 10;
/// Environment variable with the passphrase.
pub const PASSPHRASE: &str = "HOSPES_PASSPHRASE";
/// Environment variable with the path of a file that holds the passphrase.
pub const PASSPHRASE_FILE: &str = "HOSPES_PASSPHRASE_FILE";

/// A passphrase. Its `Debug` shows nothing.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Wraps a passphrase.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// From `HOSPES_PASSPHRASE_FILE`, systemd's credential `passphrase`, or `HOSPES_PASSPHRASE`; `None` if none is set.
    ///
    /// # Errors
    /// [`Error::File`] if a file was named and cannot be read.
    pub fn from_environment() -> Result<Option<Self>, Error> {
        let credential = || {
            let path = Path::new(&std::env::var_os("CREDENTIALS_DIRECTORY")?).join("passphrase");
            path.exists().then(|| path.into_os_string())
        };
        if let Some(path) = std::env::var_os(PASSPHRASE_FILE).or_else(credential) {
            let text = Zeroizing::new(fs::read_to_string(&path).map_err(Error::file("read", &path))?);
            return Ok(Some(Self::new(text.trim_end_matches(['\r', '\n']).to_owned())));
        }
        Ok(std::env::var(PASSPHRASE).ok().filter(|p| !p.is_empty()).map(Self::new))
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase")
    }
}

/// Writes a key file that does not exist yet; `what` is bound into the seal, so that files cannot be swapped.
///
/// # Errors
/// [`Error::File`] if it exists or cannot be written.
pub fn write(path: &Path, what: &str, secret: &[u8], passphrase: Option<&Passphrase>) -> Result<(), Error> {
    let line = match passphrase {
        None => Zeroizing::new(format!("{MAGIC} {what} plain {}\n", *Zeroizing::new(HEXLOWER.encode(secret)))),
        Some(passphrase) => {
            let (salt, nonce) = (random::<16>()?, random::<12>()?);
            let cipher = cipher(passphrase, &salt, path)?;
            let sealed = cipher
                .encrypt(&Nonce::from(nonce), Payload { msg: secret, aad: what.as_bytes() })
                .map_err(|_| sealed(path, "cannot be sealed"))?;
            let (salt, nonce, sealed) = (HEXLOWER.encode(&salt), HEXLOWER.encode(&nonce), HEXLOWER.encode(&sealed));
            Zeroizing::new(format!("{MAGIC} {what} argon2id-chacha20poly1305 {salt} {nonce} {sealed}\n"))
        }
    };
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(Error::file("create", path))?;
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(Error::file("write", path))
}

/// Opens a key file.
///
/// # Errors
/// [`Error::Sealed`] if others can read the file, if a passphrase is missing or wrong, or if the file is damaged.
pub fn read(path: &Path, what: &str, passphrase: Option<&Passphrase>) -> Result<Zeroizing<Vec<u8>>, Error> {
    let about = fs::metadata(path).map_err(Error::file("read", path))?;
    if about.permissions().mode() & 0o077 != 0 {
        return Err(sealed(
            path,
            "other users can read this key; say `chmod 600` and, if it was copied, make a new one",
        ));
    }
    if about.len() > FILE_BYTES {
        return Err(sealed(path, "this is no key file"));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(Error::file("read", path))?);
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let hex = |word: &str| HEXLOWER.decode(word.as_bytes()).map_err(|_| sealed(path, "the key file is damaged"));
    match words.as_slice() {
        [MAGIC, kind, ..] if *kind != what => Err(sealed(path, &format!("this is the key '{kind}', not '{what}'"))),
        [MAGIC, _, "plain", body] => hex(body).map(Zeroizing::new),
        [MAGIC, _, "argon2id-chacha20poly1305", salt, nonce, body] => {
            let Some(passphrase) = passphrase else {
                let reason = format!("needs a passphrase: set {PASSPHRASE_FILE}, {PASSPHRASE} or a systemd credential");
                return Err(sealed(path, &reason));
            };
            let nonce: [u8; 12] = hex(nonce)?.try_into().map_err(|_| sealed(path, "the key file is damaged"))?;
            cipher(passphrase, &hex(salt)?, path)?
                .decrypt(&Nonce::from(nonce), Payload { msg: &hex(body)?, aad: what.as_bytes() })
                .map(Zeroizing::new)
                .map_err(|_| sealed(path, "the passphrase is wrong, or the file was altered"))
        }
        _ => Err(sealed(path, "this is no key file of this version")),
    }
}

fn cipher(passphrase: &Passphrase, salt: &[u8], path: &Path) -> Result<ChaCha20Poly1305, Error> {
    // RFC 9106 §4, second recommended option, with one lane. So much memory also goes back to the system at once.
    let mut key = Zeroizing::new([0u8; 32]);
    argon2::Params::new(64 * 1024, 3, 1, Some(key.len()))
        .and_then(|cost| {
            let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, cost);
            argon2.hash_password_into(passphrase.0.as_bytes(), salt, &mut *key)
        })
        .map_err(|e| sealed(path, &format!("the passphrase cannot be used: {e}")))?;
    Ok(ChaCha20Poly1305::new(&Key::from(*key)))
}

fn sealed(path: &Path, reason: &str) -> Error {
    Error::Sealed { path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_opens_only_with_its_passphrase_its_name_and_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        let passphrase = Passphrase::new("correct horse".into());
        write(&path, "identity", b"secret", Some(&passphrase)).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains(&HEXLOWER.encode(b"secret")));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(**read(&path, "identity", Some(&passphrase)).unwrap(), *b"secret");
        assert!(read(&path, "identity", None).unwrap_err().to_string().contains("needs a passphrase"));
        assert!(read(&path, "identity", Some(&Passphrase::new("wrong".into()))).is_err());
        assert!(read(&path, "ca", Some(&passphrase)).is_err());
        let renamed = fs::read_to_string(&path).unwrap().replace("identity", "ca");
        fs::write(&path, renamed).unwrap();
        assert!(read(&path, "ca", Some(&passphrase)).is_err(), "a renamed key file was taken");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_and_none_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        write(&path, "identity", b"secret", None).unwrap();
        assert!(matches!(write(&path, "identity", b"other", None), Err(Error::File { .. })));
        assert_eq!(**read(&path, "identity", None).unwrap(), *b"secret");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path, "identity", None).unwrap_err().to_string().contains("chmod 600"));
    }
}
