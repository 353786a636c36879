//! Newer versions of this program: looked for where an administrator or the hospital's IT said, believed only under the
//! makers' signature, fetched for a person, and never installed by Hospes itself, which has no right to (ADR 0028).
//!
//! What was heard last under a key is kept, so that nobody can show an older manifest again, also after the site looked
//! under another key meanwhile. The version that runs is kept too: the
//! first start of another one is entered in the log.

mod machine;

use std::path::PathBuf;

use futures::FutureExt as _;
use hospes_ledger::{Action, Actor, Change, ObjectKind};
use hospes_protocol::approval::Role;
use hospes_protocol::id::{Digest, Timestamp};
use hospes_protocol::limits;
use hospes_protocol::release::{Manifest, Package, Version};
use hospes_protocol::sign::PublicKey;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::audit::Because as _;
use crate::config::Clock;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::handle::{Handle, in_background};
use crate::link::{FetchError, Fetcher, Place, ProxyChoice, read_certificates};
use crate::new_file::{Hashing, Part, free};
use crate::people::{Passphrase, Session};
use crate::store::{from_json, set_setting, setting, to_json};
use crate::view::{Notice, UpdateFound, UpdatePackage, UpdateSaved, UpdateSource, UpdatesView};

/// Setting that says where newer versions are looked for.
const SOURCE: &str = "updates";
/// Settings with what was heard last, one for each key.
const FOUND: &str = "update_found";
/// Setting with the version that ran last.
pub(crate) const INSTALLED: &str = "software";
/// Between two looks for a newer version, in milliseconds: a day.
const EVERY_MS: i64 = 24 * 3_600 * 1_000;
/// Most characters of an address: the log has it in full, beside the one before it and both keys.
const URL_CHARS: usize = 300;
const ADMINISTRATOR: &[Role] = &[Role::Administrator];

/// What the engine remembers of its looks for newer versions.
#[derive(Default)]
pub(crate) struct Updates {
    looking: Option<(Source, JoinHandle<Result<Manifest, Trouble>>)>,
    tried: Option<Timestamp>,
    trouble: Option<String>,
}

/// A source that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    place: Place,
    key: PublicKey,
}

impl Source {
    /// Reads what a person or the IT wrote.
    ///
    /// # Errors
    /// Which part is wrong, and what to write.
    pub(crate) fn parse(written: &UpdateSource) -> Result<Self, (&'static str, String)> {
        let unfit = |wrong: String| ("address of updates", wrong);
        let place = Place::parse(&written.url).map_err(|wrong| unfit(wrong.to_owned()))?;
        let url = written.url.trim();
        if url.len() > URL_CHARS || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(unfit(format!("write at most {URL_CHARS} characters, all of them ASCII and none a space")));
        }
        let key: Result<PublicKey, String> = written.key.trim().to_ascii_lowercase().parse();
        let key = key.map_err(|wrong| ("key of updates", wrong))?;
        Ok(Self { place, key })
    }

    /// The same in one way of writing it, in which it is kept and entered.
    fn settled(written: &UpdateSource) -> Result<UpdateSource, (&'static str, String)> {
        let key = Self::parse(written)?.key.to_string();
        Ok(UpdateSource { url: written.url.trim().to_owned(), key })
    }
}

/// What was heard last under one key.
#[derive(Serialize, Deserialize)]
struct Found {
    heard: Timestamp,
    manifest: Manifest,
}

/// Why nothing was heard.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The file did not come.
    Away(String),
    /// What came is not to be followed.
    Unfit(String),
}

impl From<FetchError> for Trouble {
    fn from(error: FetchError) -> Self {
        let words = error.to_string();
        match error {
            FetchError::Redirect { .. } | FetchError::TooLong { .. } => Self::Unfit(words),
            _ => Self::Away(words),
        }
    }
}

/// How this site reaches servers that are no coordinators.
#[derive(Clone)]
pub(crate) struct WayOut {
    pub(crate) proxy: ProxyChoice,
    /// The hospital's own CAs, as federations were joined with them.
    pub(crate) own: Vec<String>,
    /// The file of the IT with further ones.
    pub(crate) file: Option<PathBuf>,
    pub(crate) clock: Clock,
}

impl WayOut {
    async fn fetcher(self) -> Result<Fetcher, Trouble> {
        let mut own = self.own;
        if let Some(path) = self.file {
            let read = in_background(move || Ok(read_certificates(&path))).await;
            let pem = read.map_err(|e| Trouble::Away(e.to_string()))?.map_err(|e| Trouble::Away(e.to_string()))?;
            own.push(pem);
        }
        let own = (!own.is_empty()).then(|| own.join("\n"));
        Fetcher::new(self.proxy, own, &self.clock).map_err(|e| Trouble::Away(e.to_string()))
    }
}

/// A look for a newer version, to be carried out outside the loop.
pub(crate) struct Look {
    source: Source,
    way: WayOut,
}

impl Look {
    async fn run(self) -> Result<Manifest, Trouble> {
        let Self { source, way } = self;
        let mut bytes = Vec::new();
        way.fetcher().await?.get(&source.place, limits::RELEASE_BYTES as u64, &mut bytes).await?;
        Manifest::open(&bytes, &source.key).map_err(|wrong| Trouble::Unfit(wrong.to_string()))
    }
}

/// A package on its way to a file.
pub(crate) struct Saving {
    place: Place,
    way: WayOut,
    version: String,
    package: Package,
    path: PathBuf,
}

impl Saving {
    /// Fetches it and gives the file its name, if it is the one that was signed.
    async fn run(self) -> Result<UpdateSaved, PartyError> {
        let Self { place, way, version, package, path } = self;
        let fail = |source| PartyError::file("write", &path, source);
        let away = |trouble: Trouble| match trouble {
            Trouble::Away(words) => PartyError::Link(words),
            Trouble::Unfit(reason) => PartyError::Update { reason },
        };
        let fetcher = way.fetcher().await.map_err(away)?;
        let part = Part::create(&path).map_err(fail)?;
        let mut into = Hashing::new(part.file());
        match fetcher.get(&place, package.bytes, &mut into).await {
            Ok(_) => {}
            Err(FetchError::Write(source)) => return Err(fail(source)),
            Err(other) => return Err(away(other.into())),
        }
        let (digest, bytes) = into.ended();
        if (digest, bytes) != (package.sha256, package.bytes) {
            let file = &package.file;
            let reason =
                format!("{file} is not the file that the makers signed (its SHA-256 is {digest}); it was deleted");
            return Err(PartyError::Update { reason });
        }
        let to = path.clone();
        let named = move || part.file().sync_all().and_then(|()| part.keep(&to));
        in_background(move || Ok(named())).await?.map_err(fail)?;
        Ok(UpdateSaved { version, bytes, digest })
    }
}

impl Engine {
    /// Enters it where another version of the program opens this site than the last time.
    pub(crate) async fn note_version(&self) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let before = setting(&mut conn, INSTALLED).await?;
        drop(conn);
        if before.as_deref() == Some(crate::SOFTWARE) {
            return Ok(());
        }
        let before = before.unwrap_or_else(|| "an earlier version".to_owned());
        let mut tx = self.store.begin("note the version of the program").await?;
        set_setting(tx.conn(), INSTALLED, Some(crate::SOFTWARE)).await?;
        let entry = self.entry(Actor::Engine, Action::UpdateInstalled);
        let entry =
            entry.object(ObjectKind::Software, crate::SOFTWARE, None).because(format!("{before} ran here before"));
        self.append(&mut tx, &entry).await?;
        tx.commit().await
    }

    /// What is set, by the IT or by people.
    async fn update_source(&self) -> Result<Option<UpdateSource>, PartyError> {
        if self.managed.decides_updates() {
            return Ok(self.managed.updates.clone());
        }
        let mut conn = self.reader().await?;
        setting(&mut conn, SOURCE).await?.map(|text| from_json(&text, SOURCE)).transpose()
    }

    /// What was heard last from the makers with this key.
    async fn heard(&self, key: &PublicKey) -> Result<Option<Found>, PartyError> {
        let mut conn = self.reader().await?;
        setting(&mut conn, &found_under(key)).await?.map(|text| from_json(&text, FOUND)).transpose()
    }

    async fn updates_view(&self) -> Result<UpdatesView, PartyError> {
        let source = self.update_source().await?;
        let parsed = source.as_ref().and_then(|written| Source::parse(written).ok());
        let found = match &parsed {
            Some(source) => self.heard(&source.key).await?,
            None => None,
        };
        Ok(UpdatesView {
            running: running().to_string(),
            source,
            by_it: self.managed.decides_updates(),
            found: found.as_ref().map(shown),
            tried: self.updates.tried,
            trouble: self.updates.trouble.clone(),
        })
    }

    pub(crate) async fn updates(&mut self, session: Session) -> Result<UpdatesView, PartyError> {
        self.acting(&session, "see updates", &[]).await?;
        self.updates_view().await
    }

    /// It is signed: whoever sets the key decides whose program this site is offered.
    pub(crate) async fn set_updates(
        &mut self,
        session: Session,
        source: Option<UpdateSource>,
        passphrase: Passphrase,
    ) -> Result<(), PartyError> {
        let acting = self.inside(&session, "set where updates are looked for", ADMINISTRATOR).await?;
        let source = source.as_ref().map(Source::settled).transpose();
        let source = source.map_err(|(place, reason)| PartyError::input(place, reason))?;
        self.held_to(&acting, Action::SettingsChanged, self.managed.check_updates(source.as_ref())).await?;
        drop(self.unlock(acting.person, passphrase).await?);
        let text = source.as_ref().map(to_json);
        let digest = |text: &String| Digest::of(text.as_bytes());
        let mut tx = self.store.begin("set where updates are looked for").await?;
        let before = setting(tx.conn(), SOURCE).await?;
        let former: Option<UpdateSource> = before.as_deref().map(|text| from_json(text, SOURCE)).transpose()?;
        set_setting(tx.conn(), SOURCE, text.as_deref()).await?;
        let words = format!("updates are looked for {}. Before: {}", told(source.as_ref()), told(former.as_ref()));
        let entry = self.entry(acting.signing(), Action::SettingsChanged);
        let mut entry = entry.object(ObjectKind::Settings, "updates", None).because(words);
        entry.change = Some(Change { before: before.as_ref().map(digest), after: text.as_ref().map(digest) });
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        // What is under way was asked of another.
        self.updates = Updates::default();
        self.notify(Notice::Settings);
        Ok(())
    }

    async fn look(&mut self, source: Source) -> Result<Look, PartyError> {
        self.updates.tried = Some(self.now());
        Ok(Look { source, way: self.way_out().await? })
    }

    pub(crate) async fn begin_look(&mut self, session: Session) -> Result<(Source, Look), PartyError> {
        self.acting(&session, "look for updates", ADMINISTRATOR).await?;
        let written = self.update_source().await?;
        let written = written.ok_or_else(|| PartyError::state("no address is set at which updates are looked for"))?;
        let source = Source::parse(&written).map_err(|(place, reason)| PartyError::input(place, reason))?;
        Ok((source.clone(), self.look(source).await?))
    }

    /// Keeps what was heard, if it leads forward; enters what is not to be followed.
    async fn hear(&mut self, source: &Source, answer: Result<Manifest, Trouble>) -> Result<(), PartyError> {
        let trouble = match answer {
            Ok(manifest) => self.follow(source, manifest).await?,
            Err(trouble) => Some(trouble),
        };
        self.updates.trouble = trouble.as_ref().map(|trouble| match trouble {
            Trouble::Away(words) => words.clone(),
            Trouble::Unfit(words) => format!("what was found is not followed: {words}"),
        });
        if let Some(Trouble::Unfit(words)) = trouble {
            self.refuse_update(&words).await?;
        }
        self.notify(Notice::Settings);
        Ok(())
    }

    async fn refuse_update(&self, words: &str) -> Result<(), PartyError> {
        let entry = self.entry(Actor::Engine, Action::UpdateInstalled).refused(words);
        self.record("refuse an update", &entry).await
    }

    async fn follow(&mut self, source: &Source, manifest: Manifest) -> Result<Option<Trouble>, PartyError> {
        let heard = self.now();
        let seen = self.heard(&source.key).await?;
        if let Err(unfit) = manifest.judge(&running(), seen.as_ref().map(|seen| &seen.manifest), heard) {
            return Ok(Some(Trouble::Unfit(unfit.to_string())));
        }
        let found = to_json(&Found { heard, manifest });
        let mut tx = self.store.begin("keep what was heard of updates").await?;
        set_setting(tx.conn(), &found_under(&source.key), Some(&found)).await?;
        tx.commit().await?;
        Ok(None)
    }

    pub(crate) async fn end_look(
        &mut self,
        source: Source,
        answer: Result<Manifest, Trouble>,
    ) -> Result<UpdatesView, PartyError> {
        // Somebody may have set another meanwhile.
        let now = self.update_source().await?.and_then(|written| Source::parse(&written).ok());
        if now.as_ref() == Some(&source) {
            self.hear(&source, answer).await?;
        }
        self.updates_view().await
    }

    pub(crate) async fn begin_saving(&mut self, session: Session, path: PathBuf) -> Result<Saving, PartyError> {
        self.acting(&session, "fetch an update", ADMINISTRATOR).await?;
        free(&path)?;
        let none =
            || PartyError::state("there is no newer version with a package for this machine; look for updates first");
        let written = self.update_source().await?.ok_or_else(none)?;
        let source = Source::parse(&written).map_err(|(place, reason)| PartyError::input(place, reason))?;
        let found = self.heard(&source.key).await?.ok_or_else(none)?;
        // It was good when it was heard; by now it may be past its time, or the newer version may run already.
        let judged = found.manifest.judge(&running(), None, self.now());
        judged.map_err(|unfit| PartyError::Update { reason: unfit.to_string() })?;
        let package = machine::package(&found.manifest).filter(|_| is_newer(&found.manifest)).ok_or_else(none)?.clone();
        let (place, version) = (source.place.beside(&package.file), found.manifest.version.to_string());
        Ok(Saving { place, way: self.way_out().await?, version, package, path })
    }

    /// Looks once a day, where somebody said where, and takes in what came of it.
    pub(crate) async fn tick_updates(&mut self) -> Result<(), PartyError> {
        if let Some((source, look)) = self.updates.looking.take_if(|(_, look)| look.is_finished()) {
            let answer = look.await.unwrap_or_else(|_| Err(Trouble::Away("the look was broken off".to_owned())));
            self.end_look(source, answer).await?;
        }
        if !self.config.connect || self.updates.looking.is_some() {
            return Ok(());
        }
        let Some(source) = self.update_source().await?.and_then(|written| Source::parse(&written).ok()) else {
            return Ok(());
        };
        let heard = self.heard(&source.key).await?.map(|found| found.heard);
        let last = self.updates.tried.max(heard);
        if last.is_none_or(|last| self.now().since(last).abs() >= EVERY_MS) {
            let look = self.look(source.clone()).await?;
            self.updates.looking = Some((source, tokio::spawn(look.run())));
        }
        Ok(())
    }
}

impl Handle {
    /// What is known of newer versions of this program.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn updates(&self, session: &Session) -> Result<UpdatesView, PartyError> {
        let s = session.clone();
        self.ask(move |e| e.updates(s).boxed()).await
    }

    /// Sets where newer versions are looked for, once a day and when somebody asks, and under which key they are believed;
    /// `None`: nowhere (administrator, who gives the passphrase).
    ///
    /// # Errors
    /// [`PartyError::Input`] for an address or a key that is none, [`PartyError::Managed`] where the hospital's IT decided it,
    /// [`PartyError::LogIn`] for a wrong passphrase, [`PartyError::Denied`].
    pub async fn set_updates(
        &self,
        session: &Session,
        source: Option<UpdateSource>,
        passphrase: Passphrase,
    ) -> Result<(), PartyError> {
        let s = session.clone();
        self.ask(move |e| e.set_updates(s, source, passphrase).boxed()).await
    }

    /// Looks for a newer version now (administrator). What came of it stands in the answer: also that nobody could be
    /// reached, or that what came is not to be followed, which the log has then, too.
    ///
    /// # Errors
    /// [`PartyError::State`] where no address is set, [`PartyError::Denied`].
    pub async fn check_updates(&self, session: &Session) -> Result<UpdatesView, PartyError> {
        let s = session.clone();
        let (source, look) = self.ask(move |e| e.begin_look(s).boxed()).await?;
        let answer = look.run().await;
        self.ask(move |e| e.end_look(source, answer).boxed()).await
    }

    /// Writes the newer version's package for this machine to a new file, which gets its name once it is proven to be the
    /// one that the makers signed (administrator). Nothing is installed.
    ///
    /// # Errors
    /// [`PartyError::Update`] if it is another file, which the log has then, too; [`PartyError::Link`] if it did not come,
    /// [`PartyError::State`] if there is none; [`PartyError::File`], also if the file exists; [`PartyError::DiskFull`],
    /// [`PartyError::Denied`].
    pub async fn save_update(&self, session: &Session, path: PathBuf) -> Result<UpdateSaved, PartyError> {
        let s = session.clone();
        let saving = self.ask(move |e| e.begin_saving(s, path).boxed()).await?;
        let saved = saving.run().await;
        if let Err(PartyError::Update { reason }) = &saved {
            let reason = reason.clone();
            self.ask(move |e| async move { e.refuse_update(&reason).await }.boxed()).await?;
        }
        saved
    }
}

/// The setting with what was heard under a key.
fn found_under(key: &PublicKey) -> String {
    format!("{FOUND}/{key}")
}

/// Where updates are looked for, as the log has it.
fn told(source: Option<&UpdateSource>) -> String {
    source.map_or_else(|| "nowhere".to_owned(), |of| format!("at {}, under the key {}", of.url, of.key))
}

/// The version that runs.
fn running() -> Version {
    // Unwrap safety: cargo takes no version of another form.
    #[allow(clippy::unwrap_used)]
    env!("CARGO_PKG_VERSION").parse().unwrap()
}

fn is_newer(manifest: &Manifest) -> bool {
    manifest.version.cmp_precedence(&running()).is_gt()
}

fn shown(found: &Found) -> UpdateFound {
    let Found { heard, manifest } = found;
    let package = machine::package(manifest).map(|package| UpdatePackage {
        file: package.file.clone(),
        bytes: package.bytes,
        digest: package.sha256,
        command: machine::command(package),
    });
    UpdateFound {
        version: manifest.version.to_string(),
        is_newer: is_newer(manifest),
        notes: manifest.notes.clone(),
        issued: manifest.issued,
        heard: *heard,
        package,
    }
}
