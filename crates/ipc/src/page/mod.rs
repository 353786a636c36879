//! What a web page's requests pass through, in the app's window and in the loopback host of tests alike.
//!
//! A page gives commands of two tables: the engine's ([`crate::table`]), which go on over the local socket, and those of
//! the window itself ([`WindowCall`]), which are carried out here. It names no files: a person chooses one in a dialog of
//! this process, and the page gets a random name for it, which is put back into the path here (invariant I6).

mod files;
mod preferences;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hospes_party::view::Notice;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use files::{Chosen, OpenPurpose, SavePurpose};
pub use preferences::{Density, Language, Preferences, PreferencesFile, Theme};

use crate::command::commands;
use crate::fault::{Fault, FaultCode};
use crate::local::{EngineState, Local, NewKeys, StartStep};
use crate::router::read;
use crate::socket::Client;
use crate::table::{Call, Secret};
use files::Files;

/// Characters of a name that a page suggests for a file.
const SUGGESTED_CHARS: usize = 120;
/// Between two attempts to hear what changes.
const LISTEN: Duration = Duration::from_millis(500);

/// What comes of asking the person something, later.
pub type Answered<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The process around the page: it shows dialogs, which the page cannot.
pub trait Host: Send + Sync + 'static {
    /// Asks for a file, or a folder, to be opened; `None` if the person closes the dialog.
    fn open(&self, purpose: OpenPurpose) -> Answered<'_, Option<PathBuf>>;
    /// Asks for a place to write a file to, with a name to begin with.
    fn save(&self, purpose: SavePurpose, suggested: String) -> Answered<'_, Option<PathBuf>>;
    /// Makes preferences hold that are about more than the page: starting with the machine, and the language of
    /// notifications.
    ///
    /// # Errors
    /// In words, if the system does not let it.
    fn prefer(&self, preferences: Preferences) -> Result<(), String>;
}

/// The window, the engine behind it, and where its parts come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
pub struct About {
    /// Name and version of the window.
    pub software: String,
    /// Where the engine is.
    pub engine: EngineState,
    /// What it is at while it starts.
    pub step: StartStep,
    /// The site's data folder, shown to whoever must find it for a backup; where the service is away, that of a site of this
    /// account.
    pub folder: String,
    /// Where a site of this account lies, or would: for trying out beside a service.
    pub own_folder: String,
}

/// A page and what it may do.
pub struct Page {
    host: Box<dyn Host>,
    local: Arc<Local>,
    preferences: PreferencesFile,
    client: tokio::sync::Mutex<Option<Arc<Client>>>,
    files: Mutex<Files>,
}

commands! {
    /// A command to the window itself: `{"command": "choose_file", "args": {"purpose": "data"}}`.
    enum WindowCall, list WINDOW_COMMANDS, on Page;

    /// Asks for a file or folder in a dialog; null if the person closes it. The page learns its name, never its place.
    "choose_file" ChooseFile { purpose: OpenPurpose } -> Option<Chosen>,
        reads [], changes [],
        |w| match w.host.open(purpose).await {
            Some(path) => Some(w.files().open(purpose, path)?),
            None => None,
        };
    /// Asks for a place to write a file to, in a dialog; null if the person closes it.
    "choose_place" ChoosePlace { purpose: SavePurpose, suggested: String } -> Option<Chosen>,
        reads [], changes [],
        |w| match w.host.save(purpose, plain_name(&suggested)).await {
            Some(path) => Some(w.files().save(purpose, path)?),
            None => None,
        };
    /// How the window looks and behaves on this machine.
    "preferences" ReadPreferences {} -> Preferences,
        reads [Settings], changes [],
        |w| w.preferences.read();
    /// Changes that.
    "set_preferences" SetPreferences { preferences: Preferences } -> (),
        reads [], changes [Settings],
        |w| {
            w.preferences.check(preferences)?;
            let host = w.host.prefer(preferences);
            host.map_err(|words| Fault::new(FaultCode::State, words))?;
            w.preferences.write(preferences)?;
        };
    /// Versions, and where the engine is.
    "about" About {} -> About,
        reads [Settings], changes [],
        |w| About {
            software: hospes_party::SOFTWARE.to_owned(),
            engine: w.local.state(),
            step: w.local.step(),
            folder: w.local.shown_folder().display().to_string(),
            own_folder: w.local.own_folder().display().to_string(),
        };
    /// Lays down this machine's site with its first administrator, where there is none, and starts its engine.
    "initialise" Initialise { administrator: String, passphrase: Secret, keys: NewKeys } -> (),
        reads [], changes [Settings, People, Audit],
        |w| w.local.initialise(administrator, passphrase.passphrase(), keys).await?;
    /// Restores this machine's site from a backup that was chosen, where there is none, and starts its engine.
    "restore" Restore { file: String, passphrase: Secret, keys: NewKeys } -> (),
        reads [], changes [Settings, People, Audit],
        |w| {
            let file = w.files().backup(&file)?;
            w.local.restore(file, passphrase.passphrase(), keys).await?;
        };
    /// Opens the site's key file, where it waits for its passphrase.
    "unlock" Unlock { passphrase: Secret } -> (),
        reads [], changes [Settings],
        |w| w.local.unlock(passphrase.passphrase()).await?;
    /// Tries once more to start an engine that did not start.
    "start_engine" StartEngine {} -> (),
        reads [], changes [Settings],
        |w| w.local.try_again()?;
    /// Takes a site of this account although the machine has a service, for trying out.
    "try_here" TryHere {} -> (),
        reads [], changes [Settings],
        |w| w.local.try_here().await?;
}

impl Page {
    /// A page in front of an engine.
    pub fn new(host: impl Host, local: Arc<Local>, preferences: PreferencesFile) -> Self {
        let (client, files) = (tokio::sync::Mutex::new(None), Mutex::new(Files::default()));
        Self { host: Box::new(host), local, preferences, client, files }
    }

    /// The engine behind the page.
    pub fn local(&self) -> &Arc<Local> {
        &self.local
    }

    /// Runs one command of the page.
    ///
    /// # Errors
    /// The [`Fault`] to be shown. [`FaultCode::Denied`] for a command that names a file which nobody chose.
    pub async fn call(&self, request: Value) -> Result<Value, Fault> {
        let name = request.get("command").and_then(Value::as_str).unwrap_or_default();
        if WINDOW_COMMANDS.iter().any(|command| command.name == name) {
            return read::<WindowCall>(request)?.ask(self).await;
        }
        let mut call = Call::read(request)?;
        let unfinished = self.files().put_into(&mut call)?;
        let logs_out = matches!(call, Call::LogOut { .. });
        let answer = self.request(call).await;
        if let Some(unfinished) = unfinished {
            unfinished.end(answer.is_ok())?;
        }
        let ended = answer.as_ref().is_err_and(|fault| fault.code == FaultCode::NoSession);
        if logs_out || ended {
            self.files().forget();
        }
        answer
    }

    async fn request(&self, call: Call) -> Result<Value, Fault> {
        let client = self.client().await?;
        let answer = client.carry_out(call).await;
        if client.is_closed() {
            // The next command connects again; whoever was logged in has to log in again.
            let mut kept = self.client.lock().await;
            if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, &client)) {
                *kept = None;
                self.files().forget();
            }
        }
        answer
    }

    async fn client(&self) -> Result<Arc<Client>, Fault> {
        let mut client = self.client.lock().await;
        if let Some(connected) = client.as_ref() {
            // One to the service is none to an engine that a person chose beside it.
            if !connected.is_closed() && connected.hands_over == self.local.is_with_service() {
                return Ok(connected.clone());
            }
            self.files().forget();
        }
        let connected = Arc::new(self.local.client().await.map_err(|away| self.why_away(away))?);
        *client = Some(connected.clone());
        Ok(connected)
    }

    /// Why there is no engine, in words that fit its state.
    fn why_away(&self, away: Fault) -> Fault {
        match self.local.state() {
            EngineState::Starting => Fault::new(FaultCode::NotRunning, "the engine is starting"),
            EngineState::NotSetUp => Fault::new(FaultCode::NotRunning, "this machine has no site yet"),
            EngineState::Locked => Fault::new(FaultCode::NotRunning, "the site's key file waits for its passphrase"),
            EngineState::Failed { fault } => Fault { code: FaultCode::NotRunning, ..fault },
            EngineState::ServiceAway { why } => Fault::new(FaultCode::NotRunning, why.words()),
            EngineState::Service | EngineState::Here => away,
        }
    }

    /// Tells what changes, until nobody listens: `tell` gets `None` where everything may have changed, and says whether it
    /// wants more.
    pub async fn watch(&self, tell: impl Fn(Option<Notice>) -> bool) {
        let mut states = self.local.states();
        loop {
            if let Ok(mut notices) = self.local.notices().await {
                if !tell(None) {
                    return;
                }
                loop {
                    let notice = tokio::select! {
                        notice = notices.next() => match notice {
                            Ok(notice) => notice,
                            Err(_) => break,
                        },
                        // Reading a notice cannot be broken off and gone on with; the stream is begun anew.
                        Ok(()) = states.changed() => break,
                    };
                    if !tell(notice) {
                        return;
                    }
                }
            }
            // The engine went away or is not there yet; the page asks again and shows what it is told.
            if !tell(None) {
                return;
            }
            let _ = tokio::time::timeout(LISTEN, states.changed()).await;
        }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // Nothing that could be half done happens while it is held.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that a page suggests, as one that can stand for nothing but a file in the folder that the person chooses.
fn plain_name(suggested: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ') { c } else { '-' };
    let name: String = suggested.chars().take(SUGGESTED_CHARS).map(plain).collect();
    name.trim_start_matches(['.', ' ']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::plain_name;

    #[test]
    fn a_suggested_name_leads_nowhere() {
        assert_eq!(plain_name("audit 2026-03.jsonl"), "audit 2026-03.jsonl");
        assert_eq!(plain_name("../../etc/passwd"), "-..-etc-passwd");
        assert_eq!(plain_name("a\\b\u{202e}gnp.exe"), "a-b-gnp.exe");
        assert!(plain_name(&"x".repeat(1_000)).len() <= 120);
    }
}
