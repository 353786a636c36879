//! The site's secrets: where they lie, and people's signing keys wrapped by their own passphrases.
//!
//! On a desktop they lie in the OS keychain (Secret Service, Keychain, Credential Manager). A server without one keeps
//! them in one encrypted file ([`sealed`]) whose passphrase comes from a systemd credential or a prompt.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zeroize::Zeroizing;

use self::keychain::Keychain;
use crate::people::Passphrase;

mod keychain;
pub mod sealed;
pub(crate) mod wrapped;

#[cfg(test)]
pub(crate) use keychain::tests::Drawer;

/// Longest wait for a keychain that left the last question unanswered. The engine does nothing else meanwhile, and one that
/// is well again answers at once.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);

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
    /// What is shipped. A build for development derives at the least that OWASP's cheat sheet on passwords takes, 19 MiB and two
    /// passes, a fifth of that: its tests start dozens of whole sites, whose people sign in hundreds of times.
    fn default() -> Self {
        if cfg!(debug_assertions) { Self { memory_kib: 19 * 1024, passes: 2 } } else { Self::SHIPPED }
    }
}

impl KdfCost {
    /// RFC 9106 §4, second recommended option, with one lane: 64 MiB, three passes.
    pub const SHIPPED: Self = Self { memory_kib: 64 * 1024, passes: 3 };

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
        "the keychain did not answer within {} seconds, and nothing was changed in it; it may be asking for its password in \
         a window of its own: answer that, and try again. If there is none, log out of this machine and in again",
        .0.as_secs()
    )]
    KeychainSilent(Duration),
    /// The keychain says nothing about a change that it has begun.
    #[error(
        "the keychain did not end a change of a secret within {} seconds; the change is taken back as soon as it answers, \
         and until then no secret is read or kept. It may be asking for its password in a window of its own: answer that, \
         and try again. If there is none, end this program and start it again",
        .0.as_secs()
    )]
    KeychainHalfway(Duration),
    /// The keychain is still at something that was asked before.
    #[error(
        "the keychain has not answered an earlier question within {} seconds, so that this one was not asked and nothing \
         was changed; it may be asking for its password in a window of its own: answer that, and try again. If there is \
         none, end this program and start it again",
        .0.as_secs()
    )]
    KeychainBusy(Duration),
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

impl KeyError {
    /// Whether it is the keychain that did not answer.
    fn is_silence(&self) -> bool {
        matches!(self, Self::KeychainSilent(_) | Self::KeychainHalfway(_) | Self::KeychainBusy(_))
    }

    /// Whether it is the keychain that did not answer or refused.
    pub(crate) fn is_of_keychain(&self) -> bool {
        let refused = matches!(self, Self::NoKeychain | Self::KeychainLocked { .. } | Self::Keychain { .. });
        refused || self.is_silence()
    }
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
    /// The OS keychain.
    Keychain(Keychain, Arc<Known>),
    /// One encrypted file.
    File(Arc<Mutex<sealed::SealedFile>>),
}

/// A secret in memory, erased when dropped.
pub(crate) type Secret = Zeroizing<Vec<u8>>;

/// What is known of a keychain without asking it.
#[derive(Default)]
pub(crate) struct Known {
    /// What the engine needs all the time, as the sealed file has all secrets in memory.
    secrets: Mutex<HashMap<String, Secret>>,
    /// Whether it left the last question unanswered.
    is_silent: AtomicBool,
}

impl Known {
    async fn find(&self, keychain: Keychain, name: &str) -> Result<Option<Secret>, KeyError> {
        let known = lock(&self.secrets).get(name).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let found = self.heard(self.patient(keychain).find(name).await)?;
        if let Some(secret) = found.as_ref().filter(|_| is_always_needed(name)) {
            lock(&self.secrets).insert(name.to_owned(), secret.clone());
        }
        Ok(found)
    }

    async fn change(&self, keychain: Keychain, name: &str, to: Option<Secret>) -> Result<(), KeyError> {
        // Before it is asked: after a change that was given up, only the keychain knows what is in it.
        lock(&self.secrets).remove(name);
        self.heard(self.patient(keychain).change(name, to).await)
    }

    /// The keychain, waited for as it has deserved.
    fn patient(&self, keychain: Keychain) -> Keychain {
        match self.is_silent.load(Ordering::Relaxed) {
            true => keychain.waited_for(SHORT_PATIENCE),
            false => keychain,
        }
    }

    fn heard<T>(&self, answer: Result<T, KeyError>) -> Result<T, KeyError> {
        let is_silent = answer.as_ref().is_err_and(|error| error.is_silence());
        self.is_silent.store(is_silent, Ordering::Relaxed);
        answer
    }
}

/// Whether a secret is used all the time. Each of these stays what it is once it is made: with the data key everything here
/// is sealed, and a site's id is its identity key's.
fn is_always_needed(name: &str) -> bool {
    name == crate::datasets::DATA_KEY || name.starts_with("identity/")
}

impl Vault {
    /// Opens the place; a sealed file must exist.
    pub(crate) async fn open(place: SecretPlace) -> Result<Self, KeyError> {
        match place {
            SecretPlace::Keychain { service } => Keychain::open(service).await.map(Self::keychain),
            SecretPlace::File { path, passphrase } => {
                blocking(move || sealed::SealedFile::open(path, &passphrase).map(Self::file)).await
            }
        }
    }

    /// Makes the place; a sealed file must not exist.
    pub(crate) async fn create(place: SecretPlace, cost: KdfCost) -> Result<Self, KeyError> {
        match place {
            SecretPlace::Keychain { service } => Keychain::open(service).await.map(Self::keychain),
            SecretPlace::File { path, passphrase } => {
                blocking(move || sealed::SealedFile::create(path, &passphrase, cost).map(Self::file)).await
            }
        }
    }

    fn keychain(keychain: Keychain) -> Self {
        Self::Keychain(keychain, Arc::default())
    }

    fn file(file: sealed::SealedFile) -> Self {
        Self::File(Arc::new(Mutex::new(file)))
    }

    /// The same with a keychain that is waited for this long.
    #[cfg(test)]
    pub(crate) fn waited_for(&self, patience: Duration) -> Self {
        match self.clone() {
            Self::Keychain(keychain, _) => Self::keychain(keychain.waited_for(patience)),
            file => file,
        }
    }

    /// A secret that may be missing.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<Secret>, KeyError> {
        match self.clone() {
            Self::Keychain(keychain, known) => known.find(keychain, name).await,
            Self::File(file) => {
                let name = name.to_owned();
                blocking(move || Ok(lock(&file).find(&name))).await
            }
        }
    }

    /// A secret that must be there.
    pub(crate) async fn read(&self, name: &str) -> Result<Secret, KeyError> {
        self.find(name).await?.ok_or_else(|| KeyError::Missing { name: name.to_owned() })
    }

    /// Keeps a secret, durably before this returns. Where this fails it is not kept, or not for longer than
    /// [`KeyError::KeychainHalfway`] says.
    pub(crate) async fn keep(&self, name: &str, secret: Secret) -> Result<(), KeyError> {
        match self.clone() {
            Self::Keychain(keychain, known) => known.change(keychain, name, Some(secret)).await,
            Self::File(file) => {
                let name = name.to_owned();
                blocking(move || lock(&file).keep(&name, secret)).await
            }
        }
    }

    /// Destroys a secret; one that is not there is fine.
    pub(crate) async fn destroy(&self, name: &str) -> Result<(), KeyError> {
        match self.clone() {
            Self::Keychain(keychain, known) => known.change(keychain, name, None).await,
            Self::File(file) => {
                let name = name.to_owned();
                blocking(move || lock(&file).destroy(&name)).await
            }
        }
    }
}

fn lock<T>(memory: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held left at worst an older copy in memory; the file itself is replaced atomically.
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Files are read and written, and passphrases become keys, outside the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    let lost = |_| KeyError::Damaged { what: "the thread that opens secrets".into() };
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}
