//! Rules of signing in as the site's administrator sets them: when a session ends by itself, and how wrong passphrases are
//! slowed down. Within the bounds of [`SignInRules`], and never looser than the hospital's IT allows.

use std::ops::RangeInclusive;

use futures::FutureExt as _;
use hospes_ledger::{Action, Change, ObjectKind};
use hospes_protocol::approval::Role;
use hospes_protocol::id::Digest;

use super::{Passphrase, Session};
use crate::audit::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::handle::Handle;
use crate::managed::Managed;
use crate::store::{from_json, set_setting, setting, to_json};
use crate::view::{Notice, SignInRules};

/// Setting that holds the rules.
const SETTING: &str = "sign_in_rules";
/// A minute, in milliseconds.
const MINUTE_MS: i64 = 60 * 1_000;

impl SignInRules {
    /// Those of a site at which nobody has set any, where sessions end after this time without use.
    pub(crate) fn unset(idle_ms: i64) -> Self {
        Self { idle_minutes: u32::try_from(idle_ms / MINUTE_MS).unwrap_or(u32::MAX), ..Self::default() }
    }

    /// Time without use after which a session ends, in milliseconds.
    pub(crate) fn idle_ms(&self) -> i64 {
        i64::from(self.idle_minutes) * MINUTE_MS
    }

    /// Wait after so many wrong passphrases, in milliseconds: none for the first ones, then 1 s, 2 s, 4 s …
    pub(crate) fn wait_ms(&self, failures: i64) -> i64 {
        match failures - i64::from(self.tries) {
            n if n <= 0 => 0,
            n => (1_000i64 << (n - 1).min(20)).min(i64::from(self.longest_wait_minutes) * MINUTE_MS),
        }
    }

    /// Refuses what lies outside of the bounds. Where the IT ends sessions sooner than they allow, that may be set too.
    fn check(&self, managed: &Managed) -> Result<(), PartyError> {
        let idle = Self::IDLE_MINUTES;
        let least_idle = managed.idle_minutes.map_or(*idle.start(), |most| most.min(*idle.start()));
        within("idle_minutes", "minutes", self.idle_minutes, &(least_idle..=*idle.end()))?;
        within("tries", "wrong passphrases", self.tries, &Self::TRIES)?;
        within("longest_wait_minutes", "minutes", self.longest_wait_minutes, &Self::LONGEST_WAIT_MINUTES)
    }

    fn words(&self) -> String {
        let Self { idle_minutes, tries, longest_wait_minutes } = self;
        format!(
            "sessions end after {idle_minutes} idle minutes; {tries} wrong passphrases are free, and the wait after more \
             grows to {longest_wait_minutes} minutes"
        )
    }
}

fn within(place: &'static str, what: &str, number: u32, range: &RangeInclusive<u32>) -> Result<(), PartyError> {
    if range.contains(&number) {
        return Ok(());
    }
    let words = format!("{number} cannot be: from {} to {} {what}", range.start(), range.end());
    Err(PartyError::input(place, words))
}

impl Engine {
    /// Reads the rules that were set, at the start.
    pub(crate) async fn load_sign_in_rules(&mut self) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        if let Some(text) = setting(&mut conn, SETTING).await? {
            self.sign_in = from_json(&text, SETTING)?;
        }
        drop(conn);
        self.managed.tighten_sign_in(&mut self.sign_in);
        Ok(())
    }

    async fn sign_in_rules(&mut self, session: Session) -> Result<SignInRules, PartyError> {
        self.acting(&session, "see settings", &[]).await?;
        Ok(self.sign_in)
    }

    /// They are signed: a window that was left open must not be what loosens the rule against that.
    async fn set_sign_in_rules(
        &mut self,
        session: Session,
        rules: SignInRules,
        passphrase: Passphrase,
    ) -> Result<(), PartyError> {
        let acting = self.inside(&session, "set when people are signed out", &[Role::Administrator]).await?;
        rules.check(&self.managed)?;
        self.held_to(&acting, Action::SettingsChanged, self.managed.check_sign_in(&rules)).await?;
        drop(self.unlock(acting.person, passphrase).await?);
        let before = self.sign_in;
        let digest = |rules: &SignInRules| Some(Digest::of(to_json(rules).as_bytes()));
        let mut tx = self.store.begin("set the rules of signing in").await?;
        set_setting(tx.conn(), SETTING, Some(&to_json(&rules))).await?;
        let mut entry = self
            .entry(acting.signing(), Action::SettingsChanged)
            .object(ObjectKind::Settings, "sign-in", None)
            .because(format!("{}. Before: {}", rules.words(), before.words()));
        entry.change = Some(Change { before: digest(&before), after: digest(&rules) });
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.sign_in = rules;
        self.notify(Notice::Settings);
        // When one's own session ends is told with who one is.
        self.notify(Notice::People);
        Ok(())
    }
}

impl Handle {
    /// When people are signed out, and how wrong passphrases are slowed down: what counts, with what the IT set.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn sign_in_rules(&self, session: &Session) -> Result<SignInRules, PartyError> {
        let s = session.clone();
        self.ask(move |e| e.sign_in_rules(s).boxed()).await
    }

    /// Sets that, at once and also for sessions that are open (administrator, who gives the passphrase).
    ///
    /// # Errors
    /// [`PartyError::Input`] outside of the bounds, [`PartyError::Managed`] for what the IT does not allow,
    /// [`PartyError::LogIn`] for a wrong passphrase, [`PartyError::Denied`].
    pub async fn set_sign_in_rules(
        &self,
        session: &Session,
        rules: SignInRules,
        passphrase: Passphrase,
    ) -> Result<(), PartyError> {
        let s = session.clone();
        self.ask(move |e| e.set_sign_in_rules(s, rules, passphrase).boxed()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end_at_the_longest() {
        let rules = SignInRules::default();
        assert_eq!([1, 3, 4, 5, 6].map(|failures| rules.wait_ms(failures)), [0, 0, 1_000, 2_000, 4_000]);
        assert_eq!(rules.wait_ms(1_000), 15 * MINUTE_MS);
        let loosest = SignInRules { idle_minutes: 60, tries: 10, longest_wait_minutes: 5 };
        assert_eq!([10, 11, 1_000].map(|failures| loosest.wait_ms(failures)), [0, 1_000, 5 * MINUTE_MS]);
    }

    #[test]
    fn what_nobody_may_set_names_its_place_and_its_bounds() {
        let rules = SignInRules::default();
        for (wrong, place, words) in [
            (SignInRules { idle_minutes: 1, ..rules }, "idle_minutes", "from 2 to 60 minutes"),
            (SignInRules { idle_minutes: 61, ..rules }, "idle_minutes", "from 2 to 60 minutes"),
            (SignInRules { tries: 2, ..rules }, "tries", "from 3 to 10 wrong passphrases"),
            (SignInRules { tries: 11, ..rules }, "tries", "from 3 to 10 wrong passphrases"),
            (SignInRules { longest_wait_minutes: 4, ..rules }, "longest_wait_minutes", "from 5 to 60 minutes"),
            (SignInRules { longest_wait_minutes: 61, ..rules }, "longest_wait_minutes", "from 5 to 60 minutes"),
        ] {
            let said = wrong.check(&Managed::default()).unwrap_err().to_string();
            assert!(said.starts_with(place) && said.contains(words), "{said}");
        }
        let mut strict = Managed::default();
        strict.idle_minutes = Some(1);
        assert!(SignInRules { idle_minutes: 1, ..rules }.check(&strict).is_ok());
    }
}
