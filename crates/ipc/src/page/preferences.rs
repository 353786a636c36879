//! How the window looks and behaves for this person on this machine: nobody else's business, so the engine does not know.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use hospes_party::ManagedFile;
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultCode};

/// Most bytes of the file.
const BYTES: u64 = 16 << 10;

/// Looks and behaviour of the window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(default, deny_unknown_fields)]
pub struct Preferences {
    /// Light or dark.
    pub theme: Theme,
    /// Language; `None` for the system's.
    pub language: Option<Language>,
    /// How close things stand.
    pub density: Density,
    /// Whether the app starts when the person logs in to the machine.
    pub autostart: bool,
    /// Whether notifications are left out.
    pub quiet: bool,
}

/// Light or dark.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case")]
pub enum Theme {
    /// As the system.
    #[default]
    System,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

/// How close things stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case")]
pub enum Density {
    /// With room.
    #[default]
    Comfortable,
    /// Close.
    Compact,
}

/// A language of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// English.
    En,
    /// German.
    De,
    /// French.
    Fr,
    /// Chinese.
    Zh,
}

impl Language {
    /// The language that a locale such as `de_AT.UTF-8` asks for; English for any other.
    pub fn of_locale(locale: &str) -> Self {
        match locale.get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("de") => Self::De,
            Some("fr") => Self::Fr,
            Some("zh") => Self::Zh,
            _ => Self::En,
        }
    }
}

impl Preferences {
    /// The language, chosen or the system's.
    pub fn language(&self) -> Language {
        let set = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let system = || set("LC_ALL").or_else(|| set("LC_MESSAGES")).or_else(|| set("LANG")).unwrap_or_default();
        self.language.unwrap_or_else(|| Language::of_locale(&system()))
    }
}

/// The file in which a person's preferences are kept.
#[derive(Debug, Clone)]
pub struct PreferencesFile {
    path: PathBuf,
    starts: bool,
}

impl PreferencesFile {
    /// Kept at this place.
    pub fn at(path: PathBuf) -> Self {
        Self { path, starts: false }
    }

    /// The same on a machine whose IT has the app start at log-in, or leaves that to the person.
    #[must_use]
    pub fn starting(self, starts: bool) -> Self {
        Self { starts, ..self }
    }

    /// Whether the hospital's IT has the app start at log-in, whatever the person chooses.
    pub fn starts(&self) -> bool {
        self.starts
    }

    /// In the user's own configuration folder, if the system names one.
    pub fn of_user() -> Option<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let base = if cfg!(windows) {
            set("APPDATA")
        } else if cfg!(target_os = "macos") {
            set("HOME").map(|home| home.join("Library/Application Support"))
        } else {
            set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))
        };
        // A file of the IT that cannot be used keeps the engine from starting, and that says why.
        let starts = ManagedFile::of_system().read().is_ok_and(|managed| managed.autostart);
        base.map(|base| Self::at(base.join("hospes").join("window.toml")).starting(starts))
    }

    /// What is kept. A file that is damaged counts as none: the window must open all the same.
    pub fn read(&self) -> Preferences {
        let kept = self.parse().unwrap_or_else(|why| {
            tracing::warn!(path = %self.path.display(), why, "the preferences cannot be read; the usual ones are used");
            Preferences::default()
        });
        Preferences { autostart: kept.autostart || self.starts, ..kept }
    }

    /// Refuses what the hospital's IT does not leave to the person.
    ///
    /// # Errors
    /// [`FaultCode::Refused`].
    pub fn check(&self, preferences: Preferences) -> Result<(), Fault> {
        if self.starts && !preferences.autostart {
            let words = "the app must start when somebody logs in; that is set by your IT";
            return Err(Fault::new(FaultCode::Refused, words));
        }
        Ok(())
    }

    fn parse(&self) -> Result<Preferences, String> {
        let file = match std::fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Preferences::default()),
            Err(error) => return Err(error.to_string()),
        };
        let mut text = String::new();
        file.take(BYTES).read_to_string(&mut text).map_err(|e| e.to_string())?;
        toml::from_str(&text).map_err(|e| e.message().to_owned())
    }

    /// Keeps these, as a whole or not at all.
    ///
    /// # Errors
    /// [`FaultCode::Store`] if they cannot be written.
    pub fn write(&self, preferences: Preferences) -> Result<(), Fault> {
        let fault = |why: String| Fault::new(FaultCode::Store, format!("the preferences cannot be kept: {why}"));
        let text = toml::to_string(&preferences).map_err(|e| fault(e.to_string()))?;
        self.replace(text.as_bytes()).map_err(|e| fault(e.to_string()))
    }

    fn replace(&self, bytes: &[u8]) -> std::io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let part = self.path.with_extension(format!("{}.part", std::process::id()));
        let mut file = std::fs::File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, &self.path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_a_damaged_file_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = PreferencesFile::at(folder.path().join("deep/window.toml"));
        assert_eq!(file.read(), Preferences::default());
        let chosen =
            Preferences { theme: Theme::Dark, language: Some(Language::Zh), autostart: true, ..Default::default() };
        file.write(chosen).unwrap();
        assert_eq!(file.read(), chosen);
        for damaged in ["theme = \"mauve\"", "what = 1", "\u{0}", &"x".repeat(1 << 20)] {
            std::fs::write(&file.path, damaged).unwrap();
            assert_eq!(file.read(), Preferences::default(), "{}", &damaged[..1]);
        }
    }

    #[test]
    fn what_the_it_set_is_shown_and_cannot_be_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = PreferencesFile::at(folder.path().join("window.toml")).starting(true);
        assert!(file.read().autostart);
        let refused = file.check(Preferences::default()).unwrap_err();
        assert!(refused.code == FaultCode::Refused && refused.words.contains("set by your IT"), "{refused}");
        assert!(file.check(file.read()).is_ok());
        // Whatever was kept before.
        file.write(Preferences::default()).unwrap();
        assert!(file.read().autostart);
    }

    #[test]
    fn locales_lead_to_languages() {
        let of = Language::of_locale;
        assert_eq!(
            [of("de_AT.UTF-8"), of("fr"), of("zh_TW"), of("C"), of("")].map(|l| format!("{l:?}")),
            ["De", "Fr", "Zh", "En", "En"]
        );
    }
}
