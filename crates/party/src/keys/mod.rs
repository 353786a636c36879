//! The site's secrets: where they lie, and people's signing keys wrapped by their own passphrases.
//!
//! On a desktop they lie in the OS keychain (Secret Service, Keychain, Credential Manager). A server without one keeps
//! them in one encrypted file ([`sealed`]) whose passphrase comes from a systemd credential or a prompt.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use zeroize::Zeroizing;

use crate::people::Passphrase;

pub mod sealed;
pub(crate) mod wrapped;

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
pub(crate) struct Vault(Arc<Mutex<Inner>>);

enum Inner {
    Keychain { service: String },
    File(sealed::SealedFile),
}

/// A secret in memory, erased when dropped.
pub(crate) type Secret = Zeroizing<Vec<u8>>;

impl Vault {
    /// Opens the place; a sealed file must exist.
    pub(crate) async fn open(place: SecretPlace) -> Result<Self, KeyError> {
        blocking(move || match place {
            SecretPlace::Keychain { service } => Self::keychain(service),
            SecretPlace::File { path, passphrase } => {
                Ok(Self::of(Inner::File(sealed::SealedFile::open(path, &passphrase)?)))
            }
        })
        .await
    }

    /// Makes the place; a sealed file must not exist.
    pub(crate) async fn create(place: SecretPlace, cost: KdfCost) -> Result<Self, KeyError> {
        blocking(move || match place {
            SecretPlace::Keychain { service } => Self::keychain(service),
            SecretPlace::File { path, passphrase } => {
                Ok(Self::of(Inner::File(sealed::SealedFile::create(path, &passphrase, cost)?)))
            }
        })
        .await
    }

    fn of(inner: Inner) -> Self {
        Self(Arc::new(Mutex::new(inner)))
    }

    fn keychain(service: String) -> Result<Self, KeyError> {
        if keyring::Entry::store_status().is_err() {
            return Err(KeyError::NoKeychain);
        }
        Ok(Self::of(Inner::Keychain { service }))
    }

    /// A secret that may be missing.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<Secret>, KeyError> {
        let (this, name) = (self.clone(), name.to_owned());
        blocking(move || match &*this.lock() {
            Inner::Keychain { service } => match keyring::Entry::new(service, &name).and_then(|e| e.get_secret()) {
                Ok(secret) => Ok(Some(Zeroizing::new(secret))),
                Err(keyring::Error::NoEntry) => Ok(None),
                Err(e) => Err(keychain_error("read", &name, &e)),
            },
            Inner::File(file) => Ok(file.find(&name)),
        })
        .await
    }

    /// A secret that must be there.
    pub(crate) async fn read(&self, name: &str) -> Result<Secret, KeyError> {
        self.find(name).await?.ok_or_else(|| KeyError::Missing { name: name.to_owned() })
    }

    /// Keeps a secret, durably before this returns.
    pub(crate) async fn keep(&self, name: &str, secret: Secret) -> Result<(), KeyError> {
        let (this, name) = (self.clone(), name.to_owned());
        blocking(move || match &mut *this.lock() {
            Inner::Keychain { service } => keyring::Entry::new(service, &name)
                .and_then(|e| e.set_secret(&secret))
                .map_err(|e| keychain_error("keep", &name, &e)),
            Inner::File(file) => file.keep(&name, secret),
        })
        .await
    }

    /// Destroys a secret; one that is not there is fine.
    pub(crate) async fn destroy(&self, name: &str) -> Result<(), KeyError> {
        let (this, name) = (self.clone(), name.to_owned());
        blocking(move || match &mut *this.lock() {
            Inner::Keychain { service } => {
                match keyring::Entry::new(service, &name).and_then(|e| e.delete_credential()) {
                    Ok(()) | Err(keyring::Error::NoEntry) => Ok(()),
                    Err(e) => Err(keychain_error("delete", &name, &e)),
                }
            }
            Inner::File(file) => file.destroy(&name),
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock was held left at worst an older copy in memory; the file itself is replaced atomically.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn keychain_error(action: &'static str, name: &str, error: &keyring::Error) -> KeyError {
    match error {
        keyring::Error::NoDefaultStore => KeyError::NoKeychain,
        keyring::Error::NoStorageAccess(reason) => KeyError::KeychainLocked { reason: reason.to_string() },
        other => KeyError::Keychain { action, name: name.to_owned(), reason: other.to_string() },
    }
}

/// Secret Service is reached through a blocking client that must not run on an async thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| KeyError::Damaged { what: "the keychain client".into() })?
}
