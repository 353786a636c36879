//! What the hospital's IT set for this machine, in one file that only an administrator of the machine can change. Who uses
//! Hospes may be stricter than it, and never looser.
//!
//! It is read once, when the engine starts. A file that cannot be trusted or understood keeps the engine from starting:
//! whoever wrote it meant to forbid something. A value stands here only if the engine, or the window, holds to it.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use futures::FutureExt as _;
use hospes_ledger::{Action, Entry, ObjectKind};
use hospes_protocol::id::Digest;
use hospes_protocol::policy::Policy;
use hospes_protocol::text::shown;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::engine::Engine;
use crate::error::PartyError;
use crate::handle::Handle;
use crate::link;
use crate::memberships::Membership;
use crate::people::Acting;
use crate::requests::policy::{current, loosened};
use crate::rounds::DeviceChoice;
use crate::updates::Source;
use crate::view::{ComputeLimits, QuietHours, UpdateSource};

/// Most bytes of the file.
const BYTES: usize = 64 << 10;
/// Most characters of what is said about a line.
const WORDS: usize = 500;

/// Where the file lies, and who alone may change it.
#[derive(Debug, Clone)]
pub struct ManagedFile {
    path: Option<PathBuf>,
    owner: u32,
}

impl ManagedFile {
    /// The file of this machine. No argument and, on Unix, no variable moves it: whoever could, could do without it.
    pub fn of_system() -> Self {
        let path = if cfg!(windows) {
            std::env::var_os("ProgramData").map(|base| PathBuf::from(base).join("Hospes").join("managed.toml"))
        } else {
            Some(PathBuf::from("/etc/hospes/managed.toml"))
        };
        Self { path, owner: 0 }
    }

    /// No file, so that nothing is managed; for sites that are no hospital's.
    pub fn none() -> Self {
        Self { path: None, owner: 0 }
    }

    /// A file of the user with this number.
    pub fn at(path: PathBuf, owner: u32) -> Self {
        Self { path: Some(path), owner }
    }

    /// What the file says; where there is none, nothing is managed.
    ///
    /// # Errors
    /// [`PartyError::ManagedFile`] if it cannot be read, may be changed by others, or is not understood; the words name the
    /// line and say what to write.
    pub fn read(&self) -> Result<Managed, PartyError> {
        let Some(path) = &self.path else { return Ok(Managed::default()) };
        let read = match self.text(path) {
            Ok(None) => Ok(Managed::default()),
            Ok(Some(text)) => Managed::parse(&text, path),
            Err(reason) => Err(reason),
        };
        read.map_err(|reason| PartyError::ManagedFile { path: path.clone(), reason })
    }

    fn text(&self, path: &Path) -> Result<Option<String>, String> {
        let unreadable = |error: std::io::Error| {
            format!("it cannot be read ({error}); everybody on this machine must be able to read file and folder")
        };
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => return Err("it is a link or a folder; put the file itself there".to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        }
        let file = File::open(path).map_err(unreadable)?;
        self.check("it", path, &file.metadata().map_err(unreadable)?)?;
        // Whoever may change the folder could put another file in its place.
        if let Some(folder) = path.parent() {
            self.check("its folder", folder, &folder.metadata().map_err(unreadable)?)?;
        }
        let mut text = String::new();
        file.take(BYTES as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() > BYTES {
            return Err(format!("it has more than {} KiB; that is not what was meant", BYTES >> 10));
        }
        Ok(Some(text))
    }

    /// Refuses what others than its owner can change.
    #[cfg(unix)]
    fn check(&self, what: &str, path: &Path, found: &Metadata) -> Result<(), String> {
        use std::os::unix::fs::MetadataExt as _;
        let path = path.display();
        if found.uid() != self.owner {
            return Err(format!(
                "{what} belongs to the user with the number {}, who could change it: sudo chown root:root {path}",
                found.uid()
            ));
        }
        if found.mode() & 0o022 != 0 {
            return Err(format!(
                "{what} can be changed by others than its owner (mode {:03o}): sudo chmod go-w {path}",
                found.mode() & 0o777
            ));
        }
        Ok(())
    }

    /// The installer gives the file permissions that leave changing it to administrators.
    #[cfg(not(unix))]
    fn check(&self, _what: &str, _path: &Path, _found: &Metadata) -> Result<(), String> {
        let _ = self.owner;
        Ok(())
    }
}

/// What the hospital's IT set. It names no person and no study, and everybody on the machine may read it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Managed {
    /// The file; `None` where nothing is managed.
    pub file: Option<String>,
    /// The policy is at least as strict as this.
    pub policy: Option<Floor>,
    /// HTTP proxy to join a federation through, where the person names none.
    pub proxy: Option<String>,
    /// File with the hospital's own CA certificates to join a federation with, where the person names none.
    pub extra_ca: Option<PathBuf>,
    /// Federations that may be joined, by their coordinator's host or the SHA-256 of their CA; `None` for any.
    pub only: Option<Vec<String>>,
    /// Largest share of the machine's time for training, in percent.
    pub share: Option<u8>,
    /// Most threads of the processor for training.
    pub threads: Option<u16>,
    /// Hours in which nothing is computed, whatever others there are.
    pub quiet: Vec<QuietHours>,
    /// Whether training waits while somebody works at the machine.
    pub yields: bool,
    /// What networks are trained on; `None` leaves it to the site's people.
    pub device: Option<DeviceChoice>,
    /// Longest idle time of a session, in minutes.
    pub idle_minutes: Option<u32>,
    /// Fewest months for which entries of the audit log are kept.
    pub retention_months: Option<u32>,
    /// Whether models may not be written to files.
    pub no_export: bool,
    /// Whether the app starts when somebody logs in to the machine.
    pub autostart: bool,
    /// Where newer versions of this program are looked for, and nowhere else; `None` leaves it to the site's people.
    pub updates: Option<UpdateSource>,
    /// Whether nobody looks for newer versions.
    pub no_updates: bool,
    /// Digest of the file, for the ledger.
    #[serde(skip)]
    #[ts(skip)]
    digest: Option<Digest>,
}

/// A profile that a policy is measured by. The profile for public data is none: it is the loosest there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Floor {
    /// [`Policy::strict`].
    Strict,
    /// [`Policy::datashield`].
    Datashield,
}

impl Floor {
    fn policy(self) -> Policy {
        match self {
            Self::Strict => Policy::strict(),
            Self::Datashield => Policy::datashield(),
        }
    }
}

impl std::fmt::Display for Floor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Datashield => "datashield",
        })
    }
}

impl Managed {
    fn parse(text: &str, path: &Path) -> Result<Self, String> {
        let written: Written = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|at| text.bytes().take(at.start).filter(|byte| *byte == b'\n').count() + 1);
            let words = shown(error.message(), WORDS);
            line.map_or(words.clone(), |line| format!("line {line}: {words}"))
        })?;
        let Written { policy, joining, compute, sessions, audit, models, window, updates } = written;
        Ok(Self {
            file: Some(path.display().to_string()),
            policy: policy.at_least,
            proxy: joining.proxy.map(|proxy| proxy.0),
            extra_ca: joining.extra_ca.map(|file| file.0),
            only: joining.only.map(|places| places.into_iter().map(|place| place.0).collect()),
            share: compute.most_share_percent.map(|share| share.0),
            threads: compute.most_threads.map(|threads| threads.0),
            quiet: compute.quiet.0,
            yields: compute.pause_while_active,
            device: compute.device,
            idle_minutes: sessions.most_idle_minutes.map(|minutes| minutes.0),
            retention_months: audit.least_retention_months.map(|months| months.0),
            no_export: models.export == Some(false),
            autostart: window.autostart,
            no_updates: matches!(updates, WrittenUpdates::Off),
            updates: match updates {
                WrittenUpdates::From(source) => Some(source),
                WrittenUpdates::Open | WrittenUpdates::Off => None,
            },
            digest: Some(Digest::of(text.as_bytes())),
        })
    }

    /// Each value that is set, as a sentence.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        words.extend(self.policy.map(|floor| format!("The policy is at least as strict as '{floor}'.")));
        words.extend(self.proxy.as_ref().map(|url| format!("The proxy {url} is used where none is named at joining.")));
        words.extend(self.extra_ca.as_ref().map(|file| {
            format!("The certificates in {} are used where no others are named at joining.", file.display())
        }));
        words.extend(self.only.as_ref().map(|only| match only.as_slice() {
            [] => "No federation may be joined.".to_owned(),
            only => format!("Only these federations may be joined: {}.", only.join(", ")),
        }));
        words.extend(self.share.map(|most| format!("Training takes at most {most} % of the time.")));
        words.extend(self.threads.map(|most| format!("Training uses at most {most} threads of the processor.")));
        words.extend(self.quiet.iter().map(|hours| format!("Training waits in quiet hours: {hours}.")));
        words.extend(self.yields.then(|| "Training waits while somebody works at this machine.".to_owned()));
        words.extend(self.device.map(|device| format!("Networks are trained on {}.", device.words())));
        words.extend(self.idle_minutes.map(|most| format!("A session ends after at most {most} idle minutes.")));
        words.extend(
            self.retention_months
                .map(|least| format!("Entries of the audit log are kept for at least {least} months.")),
        );
        words.extend(self.no_export.then(|| "Models are not written to files.".to_owned()));
        words.extend(self.autostart.then(|| "The app starts when somebody logs in.".to_owned()));
        words.extend(self.updates.as_ref().map(|source| format!("Updates are looked for at {}.", source.url)));
        words.extend(self.no_updates.then(|| "Nobody looks for updates.".to_owned()));
        words
    }

    /// Whether both set the same values, whatever else is written in their files.
    pub fn says_the_same(&self, other: &Self) -> bool {
        Self { digest: other.digest, ..self.clone() } == *other
    }

    fn refusal(&self, words: impl std::fmt::Display) -> PartyError {
        let file = self.file.as_deref().unwrap_or_default();
        PartyError::Managed(format!("{words}; that is set by your IT, in {file}"))
    }

    /// What a policy allows that the IT does not, in words.
    pub(crate) fn below(&self, policy: &Policy) -> Vec<String> {
        self.policy.map(|floor| loosened(&floor.policy(), policy)).unwrap_or_default()
    }

    pub(crate) fn check_policy(&self, policy: &Policy) -> Result<(), PartyError> {
        let below = self.below(policy);
        let Some(floor) = self.policy.filter(|_| !below.is_empty()) else { return Ok(()) };
        Err(self.refusal(format!(
            "the policy must be at least as strict as '{floor}', and it is looser in this: {}",
            below.join("; ")
        )))
    }

    /// Why no work is done for a federation, in words that may go to its coordinator: what this site joined or allowed
    /// before the file said otherwise.
    pub(crate) fn against(&self, membership: &Membership, policy: &Policy) -> Option<&'static str> {
        if !self.lets_join(&membership.url, membership.ca()) {
            return Some("the IT of this hospital does not let this site take part in the federation");
        }
        let is_below = !self.below(policy).is_empty();
        is_below.then_some("the IT of this hospital demands a stricter policy than this site has")
    }

    pub(crate) fn check_limits(&self, limits: &ComputeLimits) -> Result<(), PartyError> {
        if let Some(most) = self.share.filter(|most| limits.share > *most) {
            return Err(self.refusal(format!("training may take at most {most} percent of the time")));
        }
        if let Some(most) = self.threads.filter(|most| limits.threads.is_none_or(|threads| threads > *most)) {
            return Err(self.refusal(format!("training may use at most {most} threads")));
        }
        if let Some(hours) = self.quiet.iter().find(|hours| !limits.quiet.contains(hours)) {
            return Err(self.refusal(format!("the quiet hours {hours} must stay")));
        }
        if self.yields && !limits.yields {
            return Err(self.refusal("training must wait while somebody works at this machine"));
        }
        Ok(())
    }

    pub(crate) fn check_device(&self, choice: DeviceChoice) -> Result<(), PartyError> {
        match self.device.filter(|fixed| *fixed != choice) {
            Some(fixed) => Err(self.refusal(format!("networks are trained on {}", fixed.words()))),
            None => Ok(()),
        }
    }

    /// Takes the stricter of both, value by value.
    pub(crate) fn tighten(&self, limits: &mut ComputeLimits) {
        limits.share = self.share.map_or(limits.share, |most| limits.share.min(most));
        limits.threads = match (limits.threads, self.threads) {
            (Some(threads), Some(most)) => Some(threads.min(most)),
            (threads, most) => threads.or(most),
        };
        for hours in &self.quiet {
            if !limits.quiet.contains(hours) {
                limits.quiet.push(hours.clone());
            }
        }
        limits.yields |= self.yields;
    }

    pub(crate) fn check_retention(&self, months: Option<u32>) -> Result<(), PartyError> {
        match (self.retention_months, months) {
            (Some(least), Some(months)) if months < least => {
                Err(self.refusal(format!("entries of the audit log must be kept for at least {least} months")))
            }
            _ => Ok(()),
        }
    }

    /// Months for which entries are kept; `None` is for good.
    pub(crate) fn at_least_kept(&self, months: Option<u32>) -> Option<u32> {
        months.map(|months| months.max(self.retention_months.unwrap_or(0)))
    }

    fn lets_join(&self, url: &str, ca: Option<Digest>) -> bool {
        let Some(only) = &self.only else { return true };
        let host = link::host(url).map(|host| host.to_ascii_lowercase());
        let ca = ca.map(|ca| ca.to_string());
        only.iter().any(|place| host.as_ref() == Some(place) || ca.as_ref() == Some(place))
    }

    pub(crate) fn check_federation(&self, url: &str, ca: Digest) -> Result<(), PartyError> {
        if self.lets_join(url, Some(ca)) {
            return Ok(());
        }
        let url = shown(url, WORDS);
        Err(self.refusal(format!("the federation of {url} (CA {ca}) is none of those that this site may join")))
    }

    /// Proxy and file of certificates to join with: what the person named, else what the IT set.
    pub(crate) fn way(&self, proxy: Option<String>, extra_ca: Option<PathBuf>) -> (Option<String>, Option<PathBuf>) {
        (proxy.or_else(|| self.proxy.clone()), extra_ca.or_else(|| self.extra_ca.clone()))
    }

    /// Whether people have no say in where updates are looked for.
    pub(crate) fn decides_updates(&self) -> bool {
        self.no_updates || self.updates.is_some()
    }

    pub(crate) fn check_updates(&self, source: Option<&UpdateSource>) -> Result<(), PartyError> {
        if !self.decides_updates() || self.updates.as_ref() == source {
            return Ok(());
        }
        match &self.updates {
            Some(fixed) => Err(self.refusal(format!("updates are looked for at {}", fixed.url))),
            None => Err(self.refusal("nobody looks for updates here")),
        }
    }

    pub(crate) fn check_export(&self) -> Result<(), PartyError> {
        if self.no_export { Err(self.refusal("models may not be written to files")) } else { Ok(()) }
    }

    /// Idle time after which a session ends, where it would be this, in milliseconds.
    pub(crate) fn idle_ms(&self, ms: i64) -> i64 {
        self.idle_minutes.map_or(ms, |most| ms.min(i64::from(most) * 60_000))
    }

    /// An entry that also says which file is in force.
    pub(crate) fn named_in(&self, entry: Entry) -> Entry {
        match self.digest {
            Some(digest) => entry.object(ObjectKind::Settings, "managed", Some(digest)),
            None => entry,
        }
    }
}

impl Engine {
    /// Enters it where somebody asked for more than the IT allows.
    pub(crate) async fn held_to(
        &self,
        acting: &Acting,
        action: Action,
        checked: Result<(), PartyError>,
    ) -> Result<(), PartyError> {
        let Err(refused) = checked else { return Ok(()) };
        let entry = self.managed.named_in(self.entry(acting.actor(), action).refused(&refused));
        self.record("refuse what the IT does not allow", &entry).await?;
        Err(refused)
    }

    /// A policy that was set before the IT demanded a stricter one: no work is done under it, and people must know why.
    pub(crate) async fn warn_of_policy(&self) -> Result<(), PartyError> {
        if self.managed.policy.is_none() {
            return Ok(());
        }
        let mut tx = self.store.begin("compare the policy with what the IT set").await?;
        let policy = current(tx.conn()).await?;
        if let Err(refused) = self.managed.check_policy(&policy) {
            let words = format!("No work is done until somebody sets another policy: {refused}");
            self.alarm(&mut tx, None, &words).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

impl Handle {
    /// What the hospital's IT set; needs no session.
    ///
    /// # Errors
    /// [`PartyError::Stopped`].
    pub async fn managed(&self) -> Result<Managed, PartyError> {
        self.ask(|engine| std::future::ready(Ok(engine.managed.clone())).boxed()).await
    }
}

/// The file as it is written. What a value may be is said by its type, so that an error has its line.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    policy: WrittenPolicy,
    joining: WrittenJoining,
    compute: WrittenCompute,
    sessions: WrittenSessions,
    audit: WrittenAudit,
    models: WrittenModels,
    window: WrittenWindow,
    updates: WrittenUpdates,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenPolicy {
    at_least: Option<Floor>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenJoining {
    proxy: Option<Proxy>,
    extra_ca: Option<WholePath>,
    only: Option<Vec<Place>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenCompute {
    most_share_percent: Option<Share>,
    most_threads: Option<Threads>,
    quiet: Quiet,
    pause_while_active: bool,
    device: Option<DeviceChoice>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenSessions {
    most_idle_minutes: Option<Minutes>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenAudit {
    least_retention_months: Option<Months>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenModels {
    export: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenWindow {
    autostart: bool,
}

/// Where updates are looked for; the address and the key of who signs them go together.
#[derive(Default, Deserialize)]
#[serde(try_from = "WrittenSource")]
enum WrittenUpdates {
    #[default]
    Open,
    Off,
    From(UpdateSource),
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenSource {
    from: Option<String>,
    key: Option<String>,
}

impl TryFrom<WrittenSource> for WrittenUpdates {
    type Error = String;
    fn try_from(written: WrittenSource) -> Result<Self, String> {
        match (written.from, written.key) {
            (None, None) => Ok(Self::Open),
            (Some(from), None) if from == "off" => Ok(Self::Off),
            (Some(url), Some(key)) => {
                let source = UpdateSource { url, key };
                Source::parse(&source).map_err(|(place, wrong)| format!("{place}: {wrong}"))?;
                Ok(Self::From(source))
            }
            _ => Err(
                "write from = \"off\" alone, or from = \"https://…\" with key = \"…\", the key that signs the updates"
                    .to_owned(),
            ),
        }
    }
}

/// A number of the file with what it may be.
macro_rules! number {
    ($name:ident($kind:ty), $range:expr, $what:literal) => {
        #[derive(Deserialize)]
        #[serde(try_from = "i64")]
        struct $name($kind);

        impl TryFrom<i64> for $name {
            type Error = String;
            fn try_from(number: i64) -> Result<Self, String> {
                let range: std::ops::RangeInclusive<$kind> = $range;
                let found = <$kind>::try_from(number).ok().filter(|number| range.contains(number));
                let wrong = || format!("{number} cannot be: write {} from {} to {}", $what, range.start(), range.end());
                found.map(Self).ok_or_else(wrong)
            }
        }
    };
}

number!(Share(u8), 5..=100, "percent");
number!(Threads(u16), 1..=1_024, "threads");
number!(Minutes(u32), 1..=1_440, "minutes");
number!(Months(u32), hospes_ledger::Retention::MONTHS, "months");

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Proxy(String);

impl TryFrom<String> for Proxy {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.contains('@') {
            return Err(
                "everybody on this machine can read this file: leave name and password of the proxy out; who joins \
                        types them"
                    .to_owned(),
            );
        }
        let is_address = |uri: http::Uri| {
            let is_bare = matches!(uri.path(), "" | "/");
            uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty()) && is_bare
        };
        if text.parse::<http::Uri>().is_ok_and(is_address) {
            Ok(Self(text))
        } else {
            Err("write http://host:port".to_owned())
        }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "PathBuf")]
struct WholePath(PathBuf);

impl TryFrom<PathBuf> for WholePath {
    type Error = &'static str;
    fn try_from(path: PathBuf) -> Result<Self, &'static str> {
        if path.is_absolute() { Ok(Self(path)) } else { Err("write the whole path of a PEM file, from the root on") }
    }
}

/// A coordinator's host, or the SHA-256 of a federation's CA.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Place(String);

impl TryFrom<String> for Place {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        // As openssl prints it, too.
        let plain = text.to_ascii_lowercase();
        if let Ok(ca) = plain.replace(':', "").parse::<Digest>() {
            return Ok(Self(ca.to_string()));
        }
        match link::host(&format!("https://{plain}")) {
            Some(host) if host == plain => Ok(Self(host)),
            _ => Err(format!(
                "'{}' is neither a host such as coordinator.example.org, without https:// and port, nor the SHA-256 of a \
                 federation's CA certificate, 64 hexadecimal digits",
                shown(&text, 100)
            )),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(try_from = "Vec<String>")]
struct Quiet(Vec<QuietHours>);

impl TryFrom<Vec<String>> for Quiet {
    type Error = String;
    fn try_from(texts: Vec<String>) -> Result<Self, String> {
        if texts.len() > ComputeLimits::WINDOWS {
            return Err(format!("there are more than {} quiet hours; join some", ComputeLimits::WINDOWS));
        }
        texts.iter().map(|text| text.parse()).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn user() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    /// What is said of a file with this text.
    fn said(text: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("managed.toml");
        std::fs::write(&path, text).expect("the file is written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("its mode is set");
        ManagedFile::at(path, user()).read().map_or_else(|wrong| wrong.to_string(), |read| read.words().join(" "))
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line_and_what_to_write() {
        for (text, line, words) in [
            ("[policy]\nat_most = \"strict\"", 2, "at_least"),
            ("\n[polices]", 2, "expected one of `policy`"),
            ("[policy]\nat_least = \"lax\"", 2, "`strict` or `datashield`"),
            ("[joining]\n\nproxy = \"http://me:secret@proxy:3128\"", 3, "leave name and password of the proxy out"),
            ("[joining]\nproxy = \"socks5://proxy:1080\"", 2, "write http://host:port"),
            ("[joining]\nextra_ca = \"ca.pem\"", 2, "the whole path"),
            ("[joining]\nonly = [\"https://coordinator.example\"]", 2, "without https://"),
            ("[joining]\nonly = [\"coordinator.example:443\"]", 2, "without https:// and port"),
            ("[compute]\nmost_share_percent = 0", 2, "write percent from 5 to 100"),
            ("[compute]\nmost_threads = -1", 2, "write threads from 1 to 1024"),
            ("[compute]\nquiet = [\"always\"]", 2, "mon-fri 08:00-17:30"),
            ("[compute]\ndevice = \"the fast one\"", 2, "write auto, cpu, gpu, or a card"),
            ("[sessions]\nmost_idle_minutes = \"5\"", 2, "invalid type"),
            ("[audit]\nleast_retention_months = 11", 2, "write months from 12 to 1200"),
            ("[models]\npredict = true", 2, "unknown field `predict`"),
            ("[window]\nautostart = true\nautostart = true", 3, "duplicate key"),
            ("not TOML", 1, ""),
        ] {
            let said = said(text);
            assert!(said.contains(&format!("line {line}: ")) && said.contains(words), "{text}: {said}");
        }
    }

    #[test]
    fn the_example_that_packages_ship_sets_nothing_and_holds_a_good_value_of_every_key() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/managed.toml");
        let example = std::fs::read_to_string(path).unwrap();
        assert_eq!(said(&example), "");
        // Values stand right behind the mark, prose after a blank.
        let set: String = example
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(value) if !value.starts_with(' ') => format!("{value}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let read = Managed::parse(&set, &folder.path().join("managed.toml")).unwrap();
        assert_eq!(read.words().len(), 14, "{:?}", read.words());
    }

    #[test]
    fn a_file_that_others_can_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("managed.toml");
        let file = ManagedFile::at(path.clone(), user());
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let refused = |file: &ManagedFile| file.read().unwrap_err().to_string();
        assert_eq!(file.read().unwrap(), Managed::default());
        std::fs::write(&path, "[models]\nexport = false\n").unwrap();
        mode(&path, 0o644);
        assert!(file.read().unwrap().no_export);
        let of_another = ManagedFile::at(path.clone(), user() + 1);
        assert!(refused(&of_another).contains("chown root:root"), "{}", refused(&of_another));
        for loose in [0o664, 0o646] {
            mode(&path, loose);
            assert!(refused(&file).contains("chmod go-w"), "{}", refused(&file));
        }
        mode(&path, 0o644);
        mode(folder.path(), 0o777);
        assert!(refused(&file).contains("its folder"), "{}", refused(&file));
        mode(folder.path(), 0o700);
        let link = folder.path().join("link.toml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(refused(&ManagedFile::at(link, user())).contains("it is a link"));
        for (bytes, words) in [(vec![b'#'; BYTES + 1], "more than 64 KiB"), (vec![0xff, 0xfe], "cannot be read")] {
            std::fs::write(&path, bytes).unwrap();
            assert!(refused(&file).contains(words), "{}", refused(&file));
        }
    }

    #[test]
    fn a_federation_is_named_by_host_or_by_its_authority() {
        let ca = Digest::of(b"ca");
        let colons: Vec<String> = ca.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
        let text = format!("[joining]\nonly = [\"Coordinator.example\", \"{}\"]", colons.join(":"));
        let managed = Managed::parse(&text, Path::new("managed.toml")).unwrap();
        let other = Digest::of(b"other");
        assert!(managed.check_federation("https://coordinator.example:8443", other).is_ok());
        assert!(managed.check_federation("https://COORDINATOR.example/", other).is_ok());
        assert!(managed.check_federation("https://elsewhere.example", ca).is_ok());
        for url in ["https://coordinator.example.evil", "https://evil/coordinator.example", "coordinator.example"] {
            let refused = managed.check_federation(url, other).unwrap_err().to_string();
            assert!(refused.contains("set by your IT, in managed.toml"), "{refused}");
        }
        assert!(Managed::default().check_federation("https://anywhere", other).is_ok());
    }
}
