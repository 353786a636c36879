//! The keychain of the operating system: asked one question at a time, on a thread of its own, and not without end.
//!
//! Where it is locked it asks the person at the machine, and its clients wait for the answer for ever. Whoever asks here
//! waits for a limited time; a thread that hangs is then left behind, and what it was to do must not happen behind
//! everybody's back: an old secret would take the place of a newer one. So who changes a secret needs the *turn*, which lies
//! where both sides reach it. Who gives up takes it away: what has not begun never begins. A change that had begun keeps
//! the turn, so that nothing is read or changed meanwhile, and is taken back when the keychain answers.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use keyring_core::{CredentialStore, Entry, Error};
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{KeyError, Secret};

/// Longest that the keychain may take over one question, with the wait for an earlier one.
const PATIENCE: Duration = Duration::from_secs(30);

/// One question at a time.
type Turns = Arc<tokio::sync::Mutex<()>>;
type Turn = OwnedMutexGuard<()>;

/// Turns for each name under which a site's secrets lie. The whole process has them: a site that is opened anew meets the
/// threads that its last opening left behind.
static TURNS: LazyLock<Mutex<HashMap<String, Turns>>> = LazyLock::new(Mutex::default);

/// The secrets of one site in the keychain.
#[derive(Clone)]
pub(crate) struct Keychain {
    store: Arc<CredentialStore>,
    /// Name under which it lists them.
    service: Arc<str>,
    turns: Turns,
    patience: Duration,
}

impl Keychain {
    /// Reaches the keychain, anew: one that was not there at the last attempt, or hung, may be by now.
    pub(super) async fn open(service: String) -> Result<Self, KeyError> {
        let turns = turns_of(&service);
        let reach = |asked: Asked<Arc<CredentialStore>>| {
            asked.answer(store());
        };
        let store = ask(turns.clone(), PATIENCE, reach).await?;
        Ok(Self { store, service: service.into(), turns, patience: PATIENCE })
    }

    /// The same that is waited for no longer than this.
    pub(super) fn waited_for(self, patience: Duration) -> Self {
        Self { patience: self.patience.min(patience), ..self }
    }

    pub(super) async fn find(&self, name: &str) -> Result<Option<Secret>, KeyError> {
        let item = self.item(name);
        let read = move |asked: Asked<Option<Secret>>| {
            asked.answer(item.read());
        };
        ask(self.turns.clone(), self.patience, read).await
    }

    /// Keeps a secret under this name, or with `None` destroys the one that is there.
    pub(super) async fn change(&self, name: &str, to: Option<Secret>) -> Result<(), KeyError> {
        let item = self.item(name);
        ask(self.turns.clone(), self.patience, move |asked| item.change(to, asked)).await
    }

    fn item(&self, name: &str) -> Item {
        Item { store: self.store.clone(), service: self.service.clone(), name: name.to_owned() }
    }
}

/// One secret in the keychain. Its calls block.
struct Item {
    store: Arc<CredentialStore>,
    service: Arc<str>,
    name: String,
}

impl Item {
    fn entry(&self) -> keyring_core::Result<Entry> {
        self.store.build(&self.service, &self.name, None)
    }

    fn read(&self) -> Result<Option<Secret>, KeyError> {
        match self.entry().and_then(|entry| entry.get_secret()) {
            Ok(secret) => Ok(Some(Zeroizing::new(secret))),
            Err(Error::NoEntry) => Ok(None),
            Err(error) => Err(self.error("read", &error)),
        }
    }

    fn write(&self, to: Option<&Secret>) -> Result<(), KeyError> {
        let Some(secret) = to else {
            return match self.entry().and_then(|entry| entry.delete_credential()) {
                Ok(()) | Err(Error::NoEntry) => Ok(()),
                Err(error) => Err(self.error("delete", &error)),
            };
        };
        let kept = self.entry().and_then(|entry| entry.set_secret(secret));
        kept.map_err(|error| self.error("keep", &error))
    }

    /// Changes it, unless whoever asked gave up before; takes that back if they give up meanwhile.
    fn change(&self, to: Option<Secret>, asked: Asked<()>) {
        // First, since it is here that a keychain which is locked asks for its password: nothing has begun by then.
        let before = match self.read() {
            Ok(before) => before,
            Err(error) => {
                asked.answer(Err(error));
                return;
            }
        };
        let Some(turn) = asked.begin() else { return };
        if !asked.answer(self.write(to.as_ref()))
            && let Err(error) = self.write(before.as_ref())
        {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a change of the keychain that was given up was not taken back"
            );
        }
        drop(turn);
    }

    fn error(&self, action: &'static str, error: &Error) -> KeyError {
        match error {
            Error::NoDefaultStore => KeyError::NoKeychain,
            Error::NoStorageAccess(reason) => KeyError::KeychainLocked { reason: reason.to_string() },
            other => KeyError::Keychain { action, name: self.name.clone(), reason: other.to_string() },
        }
    }
}

fn turns_of(service: &str) -> Turns {
    locked(&TURNS).entry(service.to_owned()).or_default().clone()
}

fn store() -> Result<Arc<CredentialStore>, KeyError> {
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

/// The turn until one of two takes it: the thread that begins a change, or whoever gives up.
#[derive(Clone)]
struct Leave(Arc<Mutex<Option<Turn>>>);

impl Leave {
    fn take(&self) -> Option<Turn> {
        locked(&self.0).take()
    }
}

/// Whoever asks, as long as they wait; the turn is theirs again however that ends.
struct Asking(Leave);

impl Drop for Asking {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

/// A question, as the thread has it that answers.
struct Asked<T> {
    leave: Leave,
    asker: oneshot::Sender<Result<T, KeyError>>,
}

impl<T> Asked<T> {
    /// The turn, for a change; nothing if whoever asked has given up.
    fn begin(&self) -> Option<Turn> {
        self.leave.take()
    }

    /// Answers; whether somebody heard it.
    fn answer(self, answer: Result<T, KeyError>) -> bool {
        self.asker.send(answer).is_ok()
    }
}

/// Asks on a thread of its own: the runtime would wait at its end for one that hangs.
async fn ask<T: Send + 'static>(
    turns: Turns,
    patience: Duration,
    work: impl FnOnce(Asked<T>) + Send + 'static,
) -> Result<T, KeyError> {
    let lost = || KeyError::Damaged { what: "the keychain's client".into() };
    let until = Instant::now() + patience;
    let turn = tokio::time::timeout_at(until, turns.lock_owned()).await;
    let turn = turn.map_err(|_| KeyError::KeychainBusy(patience))?;
    let asking = Asking(Leave(Arc::new(Mutex::new(Some(turn)))));
    let (asker, mut answer) = oneshot::channel();
    let asked = Asked { leave: asking.0.clone(), asker };
    std::thread::Builder::new().name("keychain".into()).spawn(move || work(asked)).map_err(|_| lost())?;
    if let Ok(answered) = tokio::time::timeout_at(until, &mut answer).await {
        return answered.map_err(|_| lost())?;
    }
    // From here on the thread hears that nobody waits. It may have answered just before.
    answer.close();
    if let Ok(answered) = answer.try_recv() {
        return answered;
    }
    match asking.0.take() {
        Some(_) => Err(KeyError::KeychainSilent(patience)),
        None => Err(KeyError::KeychainHalfway(patience)),
    }
}

fn locked<T>(what: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing that could be half done happens while it is held.
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::any::Any;
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc;

    use keyring_core::Credential;
    use keyring_core::api::{CredentialApi, CredentialStoreApi};

    use super::*;
    use crate::keys::{Known, SHORT_PATIENCE, Vault};

    const SOON: Duration = Duration::from_millis(100);
    const LOOK: Duration = Duration::from_millis(5);

    /// A keychain that says nothing where a test wants it.
    #[derive(Default)]
    pub(crate) struct Drawer {
        kept: Mutex<BTreeMap<String, Vec<u8>>>,
        hangs: Mutex<HashMap<&'static str, mpsc::Receiver<()>>>,
        is_stuck: AtomicBool,
        at_once: AtomicUsize,
        most: AtomicUsize,
    }

    impl Drawer {
        /// A vault on it that waits for so long.
        pub(crate) fn vault(self: &Arc<Self>, patience: Duration) -> Vault {
            Vault::Keychain(keychain(self).waited_for(patience), Arc::default())
        }

        pub(crate) fn put(&self, name: &str, secret: &[u8]) {
            locked(&self.kept).insert(name.to_owned(), secret.to_vec());
        }

        pub(crate) fn holds(&self, name: &str) -> bool {
            locked(&self.kept).contains_key(name)
        }

        /// Every call hangs for as long as this holds.
        pub(crate) fn stick(&self, is_stuck: bool) {
            self.is_stuck.store(is_stuck, Ordering::SeqCst);
        }

        /// Waits until a call hangs.
        pub(crate) async fn stuck(&self) {
            while self.at_once.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(LOOK).await;
            }
        }

        /// The next call of this name hangs until what comes back is dropped.
        fn hang(&self, call: &'static str) -> mpsc::Sender<()> {
            let (release, held) = mpsc::channel();
            locked(&self.hangs).insert(call, held);
            release
        }

        /// Waits until it hangs there.
        async fn hung(&self, call: &'static str) {
            while locked(&self.hangs).contains_key(call) {
                tokio::time::sleep(LOOK).await;
            }
        }

        fn at<T>(&self, call: &'static str, work: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> T {
            let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            let hangs = locked(&self.hangs).remove(call);
            if let Some(held) = hangs {
                // Its end is what is waited for.
                let _ = held.recv();
            }
            while self.is_stuck.load(Ordering::SeqCst) {
                std::thread::sleep(LOOK);
            }
            let done = work(&mut locked(&self.kept));
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            done
        }
    }

    struct Slow(Arc<Drawer>);

    impl CredentialStoreApi for Slow {
        fn vendor(&self) -> String {
            "a test".to_owned()
        }
        fn id(&self) -> String {
            "slow".to_owned()
        }
        fn build(&self, _: &str, user: &str, _: Option<&HashMap<&str, &str>>) -> keyring_core::Result<Entry> {
            Ok(Entry::new_with_credential(Arc::new(Slot { drawer: self.0.clone(), name: user.to_owned() })))
        }
        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    struct Slot {
        drawer: Arc<Drawer>,
        name: String,
    }

    impl CredentialApi for Slot {
        fn set_secret(&self, secret: &[u8]) -> keyring_core::Result<()> {
            self.drawer.at("set", |kept| drop(kept.insert(self.name.clone(), secret.to_vec())));
            Ok(())
        }
        fn get_secret(&self) -> keyring_core::Result<Vec<u8>> {
            self.drawer.at("get", |kept| kept.get(&self.name).cloned()).ok_or(Error::NoEntry)
        }
        fn delete_credential(&self) -> keyring_core::Result<()> {
            self.drawer.at("delete", |kept| kept.remove(&self.name)).map(drop).ok_or(Error::NoEntry)
        }
        fn get_credential(&self) -> keyring_core::Result<Option<Arc<Credential>>> {
            Ok(None)
        }
        fn get_specifiers(&self) -> Option<(String, String)> {
            None
        }
        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    fn keychain(drawer: &Arc<Drawer>) -> Keychain {
        let (store, turns) = (Arc::new(Slow(drawer.clone())), Turns::default());
        Keychain { store, service: "a site".into(), turns, patience: PATIENCE }
    }

    fn secret(text: &str) -> Option<Secret> {
        Some(Zeroizing::new(text.as_bytes().to_vec()))
    }

    async fn found(keychain: &Keychain, name: &str) -> Option<String> {
        let found = keychain.find(name).await.unwrap();
        found.map(|secret| String::from_utf8(secret.to_vec()).unwrap())
    }

    /// Waits for the threads that were left behind.
    async fn ended(keychain: &Keychain) {
        while Arc::strong_count(&keychain.store) > 1 {
            tokio::time::sleep(LOOK).await;
        }
    }

    #[tokio::test]
    async fn a_change_that_was_given_up_before_it_began_never_comes_and_holds_nobody_up() {
        let drawer = Arc::default();
        let keychain = keychain(&drawer);
        keychain.change("data-key", secret("old")).await.unwrap();
        let hangs = drawer.hang("get");
        let silent = keychain.clone().waited_for(SOON).change("data-key", secret("late")).await.unwrap_err();
        assert!(matches!(silent, KeyError::KeychainSilent(_)), "{silent:?}");
        drawer.hung("get").await;
        // Another attempt, beside the thread that still hangs.
        keychain.change("data-key", secret("new")).await.unwrap();
        drop(hangs);
        ended(&keychain).await;
        assert_eq!(found(&keychain, "data-key").await.as_deref(), Some("new"));
        // Nor does one hold anybody up who asked and is gone.
        let hangs = drawer.hang("get");
        assert!(tokio::time::timeout(SOON, keychain.find("data-key")).await.is_err());
        drawer.hung("get").await;
        keychain.change("data-key", None).await.unwrap();
        assert_eq!(found(&keychain, "data-key").await, None);
        drop(hangs);
        let words = KeyError::KeychainSilent(PATIENCE).to_string();
        assert!(words.contains("within 30 seconds, and nothing was changed in it"), "{words}");
    }

    #[tokio::test]
    async fn a_change_that_was_given_up_halfway_is_taken_back_before_anything_else_is_asked() {
        let drawer = Arc::default();
        let keychain = keychain(&drawer);
        let soon = keychain.clone().waited_for(SOON);
        keychain.change("data-key", secret("old")).await.unwrap();
        for (name, to, call, expected) in [
            ("data-key", secret("late"), "set", Some("old")),
            ("data-key", None, "delete", Some("old")),
            ("another", secret("late"), "set", None),
        ] {
            let hangs = drawer.hang(call);
            let halfway = loop {
                match soon.change(name, to.clone()).await {
                    // Its thread came too late to begin.
                    Err(KeyError::KeychainSilent(_)) => {}
                    other => break other.unwrap_err(),
                }
            };
            assert!(matches!(halfway, KeyError::KeychainHalfway(_)), "{call}: {halfway:?}");
            let busy = soon.find(name).await.unwrap_err();
            assert!(matches!(busy, KeyError::KeychainBusy(_)), "{call}: {busy:?}");
            drop(hangs);
            assert_eq!(found(&keychain, name).await.as_deref(), expected, "{call}");
        }
        keychain.change("data-key", secret("new")).await.unwrap();
        assert_eq!(found(&keychain, "data-key").await.as_deref(), Some("new"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn questions_are_asked_one_after_the_other_also_by_a_site_that_was_opened_anew() {
        let drawer = Arc::default();
        let keychain = keychain(&drawer);
        let names: Vec<String> = (0..16).map(|n| n.to_string()).collect();
        let changes = names.iter().map(|name| keychain.change(name, secret(name)));
        futures::future::try_join_all(changes).await.unwrap();
        assert_eq!(drawer.most.load(Ordering::SeqCst), 1);
        assert_eq!(locked(&drawer.kept).len(), 16);
        assert!(Arc::ptr_eq(&turns_of("a site"), &turns_of("a site")));
        assert!(!Arc::ptr_eq(&turns_of("a site"), &turns_of("another")));
    }

    #[tokio::test]
    async fn what_is_always_needed_is_asked_for_once_and_a_keychain_that_was_silent_is_waited_for_briefly() {
        let drawer = Arc::default();
        let (keychain, known) = (keychain(&drawer), Known::default());
        for name in ["data-key", "another"] {
            keychain.change(name, secret(name)).await.unwrap();
            assert!(known.find(keychain.clone(), name).await.unwrap().is_some());
        }
        drawer.stick(true);
        let soon = keychain.clone().waited_for(SOON);
        assert!(known.find(soon.clone(), "data-key").await.unwrap().is_some());
        assert_eq!(known.patient(keychain.clone()).patience, PATIENCE);
        let silent = known.find(soon, "another").await;
        assert!(matches!(silent, Err(KeyError::KeychainSilent(_))));
        assert_eq!(known.patient(keychain.clone()).patience, SHORT_PATIENCE);
        drawer.stick(false);
        ended(&keychain).await;
        assert!(known.find(keychain.clone(), "another").await.unwrap().is_some());
        assert_eq!(known.patient(keychain.clone()).patience, PATIENCE);
        // And what is destroyed is not in memory either.
        known.change(keychain.clone(), "data-key", None).await.unwrap();
        assert!(known.find(keychain, "data-key").await.unwrap().is_none());
    }
}
