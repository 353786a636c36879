//! The site's secrets: where they lie, and people's signing keys wrapped by their own passphrases.
//!
//! On a desktop they lie in the OS keychain (Secret Service, Keychain, Credential Manager). A server without one keeps
//! them in one encrypted file ([`sealed`]) whose passphrase comes from a systemd credential or a prompt.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyring_core::CredentialStore;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::people::Passphrase;

pub mod sealed;
pub(crate) mod wrapped;

/// Longest that the keychain may take over one secret. It asks the person at the machine where it is locked, and whoever
/// does not answer must find out why nothing goes on.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the secrets of a site lie.
#[derive(Clone)]
pub enum SecretPlace {
    /// The OS keychain, under this service name.
    Keychain {
        /// Name under which the keychain lists the secrets; one for each site on a machine.
        service: String,
    },
    /// One encrypted file, opened by a passphrase.
    File {
        /// File.
        path: PathBuf,
        /// Passphrase.
        passphrase: Passphrase,
    },
}

impl std::fmt::Debug for SecretPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Keychain { service } => write!(f, "Keychain({service})"),
            Self::File { path, .. } => write!(f, "File({})", path.display()),
        }
    }
}

/// Cost of argon2id (RFC 9106) when a passphrase becomes a key. It is stored with what it protects, so that it can grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes.
    pub passes: u32,
}

impl Default for KdfCost {
    /// RFC 9106 §4, second recommended option, with one lane: 64 MiB, three passes.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3 }
    }
}

impl KdfCost {
    /// The least that argon2 accepts for real use in tests; never in a product.
    pub const fn for_tests() -> Self {
        Self { memory_kib: 64, passes: 1 }
    }

    pub(crate) fn derive(self, passphrase: &Passphrase, salt: &[u8; 16]) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        // A file that was tampered with must not make this machine work for hours.
        if !(8..=4 * 1024 * 1024).contains(&self.memory_kib) || !(1..=64).contains(&self.passes) {
            return Err(KeyError::Damaged { what: "the cost of the passphrase".into() });
        }
        let params = argon2::Params::new(self.memory_kib, self.passes, 1, Some(32))
            .map_err(|e| KeyError::Derive { reason: e.to_string() })?;
        let mut key = Zeroizing::new([0u8; 32]);
        argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
            .hash_password_into(passphrase.bytes(), salt, key.as_mut_slice())
            .map_err(|e| KeyError::Derive { reason: e.to_string() })?;
        Ok(key)
    }
}

/// Why a secret could not be kept or read, in words that say what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no keychain at all.
    #[error(
        "this machine has no keychain that can be reached (no D-Bus session, or no Secret Service such as GNOME Keyring \
         or KWallet on it); start one, or keep the secrets in a sealed file ('hospes-site init --key-file')"
    )]
    NoKeychain,
    /// The keychain is there and will not open.
    #[error("the keychain is locked or has no default collection ({reason}); unlock it by logging in, or create one")]
    KeychainLocked {
        /// What it says.
        reason: String,
    },
    /// The keychain is there and says nothing.
    #[error(
        "the keychain did not answer within {} seconds; it may be asking for its password in a window of its own: answer \
         that, and try again. If there is none, log out of this machine and in again",
        .0.as_secs()
    )]
    KeychainSilent(Duration),
    /// The keychain failed otherwise.
    #[error("the keychain refused to {action} '{name}': {reason}")]
    Keychain {
        /// What was tried.
        action: &'static str,
        /// Name of the secret.
        name: String,
        /// What it says.
        reason: String,
    },
    /// A secret that must be there is not.
    #[error("the secret '{name}' is missing; restore the secrets that belong to this database")]
    Missing {
        /// Name of the secret.
        name: String,
    },
    /// Wrong passphrase, or a damaged file: they cannot be told apart.
    #[error("the passphrase is wrong, or {what} was damaged")]
    WrongPassphrase {
        /// What it should open.
        what: String,
    },
    /// Bytes have no known form.
    #[error("{what} is damaged")]
    Damaged {
        /// What.
        what: String,
    },
    /// The sealed file could not be read or written.
    #[error("cannot {action} the secrets in {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// File.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The credential that systemd should have passed is not there.
    #[error("systemd passed no credential '{name}'; add 'LoadCredentialEncrypted={name}:…' to the unit")]
    NoCredential {
        /// Name.
        name: String,
    },
    /// argon2 refused.
    #[error("a passphrase could not be turned into a key: {reason}")]
    Derive {
        /// Why.
        reason: String,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random numbers")]
    Randomness,
}

/// Passphrase of the sealed file from a systemd credential (`$CREDENTIALS_DIRECTORY/<name>`), if systemd passed any.
///
/// # Errors
/// [`KeyError::NoCredential`] if the directory is there and the credential is not.
pub fn systemd_credential(name: &str) -> Result<Option<Passphrase>, KeyError> {
    let Some(folder) = std::env::var_os("CREDENTIALS_DIRECTORY") else { return Ok(None) };
    let text = std::fs::read_to_string(PathBuf::from(folder).join(name))
        .map(Zeroizing::new)
        .map_err(|_| KeyError::NoCredential { name: name.to_owned() })?;
    Ok(Some(Passphrase::from(text.trim_end_matches(['\r', '\n']).to_owned())))
}

/// Fills an array with random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(|_| KeyError::Randomness)?;
    Ok(bytes)
}

/// The opened place of secrets. Its calls block; the engine makes them outside the async threads.
#[derive(Clone)]
pub(crate) enum Vault {
    /// The OS keychain, and the name under which it lists the site's secrets.
    Keychain { store: Arc<CredentialStore>, service: Arc<str> },
    /// One encrypted file.
    File(Arc<Mutex<sealed::SealedFile>>),
}

/// A secret in memory, erased when dropped.
pub(crate) type Secret = Zeroizing<Vec<u8>>;

impl Vault {
    /// Opens the place; a sealed file must exist.
    pub(crate) async fn open(place: SecretPlace) -> Result<Self, KeyError> {
        match place {
            SecretPlace::Keychain { service } => Self::keychain(service).await,
            SecretPlace::File { path, passphrase } => {
                blocking(move || sealed::SealedFile::open(path, &passphrase).map(Self::file)).await
            }
        }
    }

    /// Makes the place; a sealed file must not exist.
    pub(crate) async fn create(place: SecretPlace, cost: KdfCost) -> Result<Self, KeyError> {
        match place {
            SecretPlace::Keychain { service } => Self::keychain(service).await,
            SecretPlace::File { path, passphrase } => {
                blocking(move || sealed::SealedFile::create(path, &passphrase, cost).map(Self::file)).await
            }
        }
    }

    fn file(file: sealed::SealedFile) -> Self {
        Self::File(Arc::new(Mutex::new(file)))
    }

    async fn keychain(service: String) -> Result<Self, KeyError> {
        let store = within(PATIENCE, keychain).await?;
        Ok(Self::Keychain { store, service: service.into() })
    }

    /// A secret that may be missing.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<Secret>, KeyError> {
        let name = name.to_owned();
        match self.clone() {
            Self::Keychain { store, service } => {
                let read = move || match store.build(&service, &name, None).and_then(|entry| entry.get_secret()) {
                    Ok(secret) => Ok(Some(Zeroizing::new(secret))),
                    Err(keyring_core::Error::NoEntry) => Ok(None),
                    Err(e) => Err(keychain_error("read", &name, &e)),
                };
                within(PATIENCE, read).await
            }
            Self::File(file) => blocking(move || Ok(lock(&file).find(&name))).await,
        }
    }

    /// A secret that must be there.
    pub(crate) async fn read(&self, name: &str) -> Result<Secret, KeyError> {
        self.find(name).await?.ok_or_else(|| KeyError::Missing { name: name.to_owned() })
    }

    /// Keeps a secret, durably before this returns.
    pub(crate) async fn keep(&self, name: &str, secret: Secret) -> Result<(), KeyError> {
        let name = name.to_owned();
        match self.clone() {
            Self::Keychain { store, service } => {
                let keep = move || {
                    let kept = store.build(&service, &name, None).and_then(|entry| entry.set_secret(&secret));
                    kept.map_err(|e| keychain_error("keep", &name, &e))
                };
                within(PATIENCE, keep).await
            }
            Self::File(file) => blocking(move || lock(&file).keep(&name, secret)).await,
        }
    }

    /// Destroys a secret; one that is not there is fine.
    pub(crate) async fn destroy(&self, name: &str) -> Result<(), KeyError> {
        let name = name.to_owned();
        match self.clone() {
            Self::Keychain { store, service } => {
                let destroy =
                    move || match store.build(&service, &name, None).and_then(|entry| entry.delete_credential()) {
                        Ok(()) | Err(keyring_core::Error::NoEntry) => Ok(()),
                        Err(e) => Err(keychain_error("delete", &name, &e)),
                    };
                within(PATIENCE, destroy).await
            }
            Self::File(file) => blocking(move || lock(&file).destroy(&name)).await,
        }
    }
}

fn lock(file: &Mutex<sealed::SealedFile>) -> MutexGuard<'_, sealed::SealedFile> {
    // A panic while the lock was held left at worst an older copy in memory; the file itself is replaced atomically.
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The keychain of the operating system, reached anew: one that was not there at the last attempt, or hung, may be by now.
fn keychain() -> Result<Arc<CredentialStore>, KeyError> {
    #[cfg(target_os = "macos")]
    let store = apple_native_keyring_store::keychain::Store::new();
    #[cfg(windows)]
    let store = windows_native_keyring_store::Store::new();
    #[cfg(all(unix, not(target_os = "macos")))]
    let store = zbus_secret_service_keyring_store::Store::new();
    match store {
        Ok(store) => Ok(store),
        Err(error) => {
            tracing::warn!(%error, "the keychain cannot be reached");
            Err(KeyError::NoKeychain)
        }
    }
}

fn keychain_error(action: &'static str, name: &str, error: &keyring_core::Error) -> KeyError {
    match error {
        keyring_core::Error::NoDefaultStore => KeyError::NoKeychain,
        keyring_core::Error::NoStorageAccess(reason) => KeyError::KeychainLocked { reason: reason.to_string() },
        other => KeyError::Keychain { action, name: name.to_owned(), reason: other.to_string() },
    }
}

/// Files are read and written, and passphrases become keys, outside the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    let lost = |_| KeyError::Damaged { what: "the thread that opens secrets".into() };
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}

/// Asks the keychain, whose clients block, for no longer than this. A thread that it leaves hanging is one of its own: the
/// runtime would wait for it at its end. Whoever tries again opens the keychain anew and waits for nobody either.
async fn within<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    let lost = || KeyError::Damaged { what: "the keychain's client".into() };
    let (done, answer) = oneshot::channel();
    // Whoever asked may have stopped waiting.
    let asks = move || drop(done.send(work()));
    std::thread::Builder::new().name("keychain".into()).spawn(asks).map_err(|_| lost())?;
    match tokio::time::timeout(patience, answer).await {
        Ok(answered) => answered.map_err(|_| lost())?,
        Err(_) => Err(KeyError::KeychainSilent(patience)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn a_keychain_that_says_nothing_is_not_waited_for_and_the_words_say_what_to_do() {
        let (answer, question) = std::sync::mpsc::channel::<()>();
        let hangs = move || question.recv().map_err(|_| KeyError::NoKeychain);
        let silent = within(Duration::from_millis(50), hangs).await.unwrap_err();
        assert!(matches!(silent, KeyError::KeychainSilent(_)), "{silent:?}");
        assert!(KeyError::KeychainSilent(PATIENCE).to_string().contains("within 30 seconds; it may be asking"));
        drop(answer);
        assert_eq!(within(PATIENCE, || Ok(7)).await.unwrap(), 7);
    }
}
