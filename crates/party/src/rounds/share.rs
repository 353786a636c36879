//! A machine that people work at too: when training waits, and how much of the machine it takes when it does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Days, Local, NaiveDateTime, TimeDelta, TimeZone};
use hospes_ledger::{Action, Actor, Change};
use hospes_protocol::approval::Role;
use hospes_protocol::id::{Digest, Timestamp};

use crate::audit::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::people::Session;
use crate::store::{from_json, set_setting, setting, to_json};
use crate::view::{ComputeLimits, Notice, Pause, QuietHours, Weekday};

/// Setting that holds the limits.
const SETTING: &str = "compute_limits";
/// Minutes of a day.
const DAY: u16 = 24 * 60;
/// Somebody who did something in the last two minutes is at work, in milliseconds.
const AT_WORK_MS: i64 = 2 * 60 * 1_000;
/// Between two questions to the machine whether somebody works at it, in milliseconds.
const ASK_MS: i64 = 20 * 1_000;

/// The limits in force, and what follows from them now.
pub(crate) struct Share {
    limits: ComputeLimits,
    pause: Option<Pause>,
    /// Whether the machine's login manager says that somebody works at it.
    at_work: Arc<AtomicBool>,
    asked: Timestamp,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            limits: ComputeLimits::default(),
            pause: None,
            at_work: Arc::default(),
            asked: Timestamp::from_millis(i64::MIN),
        }
    }
}

impl Share {
    /// Why nothing is computed now, if so.
    pub(crate) fn pause(&self) -> Option<Pause> {
        self.pause
    }

    pub(crate) fn limits(&self) -> &ComputeLimits {
        &self.limits
    }
}

impl ComputeLimits {
    /// Refuses what cannot be kept to.
    fn check(&self) -> Result<(), PartyError> {
        if !(5..=100).contains(&self.share) {
            return Err(PartyError::input("share", "it is between 5 and 100 percent of the machine's time"));
        }
        if self.threads == Some(0) {
            return Err(PartyError::input("threads", "training needs at least one; leave it out for all"));
        }
        let most = Self::WINDOWS;
        if self.quiet.len() > most {
            return Err(PartyError::input("quiet hours", format!("there are more than {most}; join some")));
        }
        for hours in &self.quiet {
            if hours.from >= DAY || hours.to >= DAY {
                return Err(PartyError::input("quiet hours", "a time is between 00:00 and 23:59"));
            }
            if hours.days.is_empty() {
                return Err(PartyError::input("quiet hours", "they need at least one day of the week"));
            }
        }
        Ok(())
    }

    /// Until when it is quiet, in this time zone.
    fn quiet_until<Tz: TimeZone>(&self, now: &DateTime<Tz>) -> Option<Timestamp> {
        let end = self.quiet.iter().filter_map(|hours| hours.end(now.naive_local())).max()?;
        // Where a clock is put forward over the end, it is over at the next hour that there is.
        let zone = now.timezone();
        let end = zone.from_local_datetime(&end).earliest().or_else(|| {
            let later = end.checked_add_signed(TimeDelta::hours(1))?;
            zone.from_local_datetime(&later).earliest()
        })?;
        Some(Timestamp::from_millis(end.timestamp_millis()))
    }
}

impl QuietHours {
    /// When the window ends in which this moment lies. One that ends before it begins goes on into the next day.
    fn end(&self, now: NaiveDateTime) -> Option<NaiveDateTime> {
        [now.date(), now.date().checked_sub_days(Days::new(1))?].into_iter().find_map(|day| {
            let at = |minutes: u16| day.and_hms_opt(u32::from(minutes / 60), u32::from(minutes % 60), 0);
            let (from, to) = (at(self.from)?, at(self.to)?);
            let to = if to > from { to } else { to.checked_add_days(Days::new(1))? };
            (self.days.contains(&Weekday::of(&day)) && from <= now && now < to).then_some(to)
        })
    }
}

impl Weekday {
    fn of(day: &impl chrono::Datelike) -> Self {
        match day.weekday() {
            chrono::Weekday::Mon => Self::Monday,
            chrono::Weekday::Tue => Self::Tuesday,
            chrono::Weekday::Wed => Self::Wednesday,
            chrono::Weekday::Thu => Self::Thursday,
            chrono::Weekday::Fri => Self::Friday,
            chrono::Weekday::Sat => Self::Saturday,
            chrono::Weekday::Sun => Self::Sunday,
        }
    }
}

impl Engine {
    /// Reads the limits that were set, at the start.
    pub(crate) async fn load_limits(&mut self) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        if let Some(text) = setting(&mut conn, SETTING).await? {
            self.share.limits = from_json(&text, SETTING)?;
        }
        drop(conn);
        self.managed.tighten(&mut self.share.limits);
        self.keep_to_limits().await
    }

    /// What training may take of this machine, and when.
    pub(crate) async fn compute_limits(&mut self, session: Session) -> Result<ComputeLimits, PartyError> {
        self.acting(&session, "see the limits of training", &[]).await?;
        Ok(self.share.limits.clone())
    }

    pub(crate) async fn set_compute_limits(
        &mut self,
        session: Session,
        limits: ComputeLimits,
    ) -> Result<(), PartyError> {
        let acting = self.acting(&session, "set the limits of training", &[Role::Administrator]).await?;
        limits.check()?;
        self.held_to(&acting, Action::SettingsChanged, self.managed.check_limits(&limits)).await?;
        let text = to_json(&limits);
        let digest = |text: &str| Some(Digest::of(text.as_bytes()));
        let mut tx = self.store.begin("set the limits of training").await?;
        let before = setting(tx.conn(), SETTING).await?;
        set_setting(tx.conn(), SETTING, Some(&text)).await?;
        let mut entry = self.entry(acting.actor(), Action::SettingsChanged).because("what training may take");
        entry.change = Some(Change { before: before.as_deref().and_then(digest), after: digest(&text) });
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.share.limits = limits;
        self.notify(Notice::Settings);
        self.keep_to_limits().await
    }

    /// Stops work for a while, or lets it go on, as time and people at the machine demand. Work that has to wait says
    /// nothing to its coordinator meanwhile: a round does not wait for this site longer than its deadline.
    pub(crate) async fn keep_to_limits(&mut self) -> Result<(), PartyError> {
        let pause = self.pause_now();
        let changed = pause.is_some() != self.share.pause.is_some();
        self.share.pause = pause;
        // Whoever works here may be waiting for a prediction; for quiet hours there is no exception.
        if let Some(turn) = self.predicting.upgrade() {
            turn.pause(matches!(pause, Some(Pause::QuietHours { .. })));
        }
        if !changed {
            return Ok(());
        }
        self.notify(Notice::Jobs);
        let running: Vec<_> = self.running().map(|(key, work)| (key.clone(), work.pause(pause.is_some()))).collect();
        for (key, _) in running.into_iter().filter(|(_, paused)| *paused) {
            let mut tx = self.store.begin("pause the work").await?;
            let row = super::RoundRow::read(tx.conn(), &key).await?;
            let (action, why) = match pause {
                Some(Pause::QuietHours { .. }) => (Action::TrainingPaused, "quiet hours"),
                Some(Pause::SomebodyWorks) => (Action::TrainingPaused, "somebody works at the machine"),
                None => (Action::TrainingResumed, "it goes on after a pause"),
            };
            let entry = self.round_entry(Actor::Engine, action, &row).because(why);
            self.append(&mut tx, &entry).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    fn pause_now(&mut self) -> Option<Pause> {
        let now = self.now();
        if !self.share.limits.quiet.is_empty() {
            let local = Local.timestamp_millis_opt(now.as_millis()).earliest();
            if let Some(until) = local.and_then(|local| self.share.limits.quiet_until(&local)) {
                return Some(Pause::QuietHours { until });
            }
        }
        if !self.share.limits.yields {
            return None;
        }
        if now.since(self.share.asked).abs() >= ASK_MS {
            self.share.asked = now;
            let (at_work, answer) = (self.share.at_work.clone(), (self.config.presence)());
            tokio::spawn(async move { at_work.store(answer.await, Ordering::Relaxed) });
        }
        let in_window = self.sessions.values().any(|s| now.since(s.last_used) <= AT_WORK_MS);
        (in_window || self.share.at_work.load(Ordering::Relaxed)).then_some(Pause::SomebodyWorks)
    }
}

/// Whether somebody works at this machine, as far as it can tell.
#[cfg(target_os = "linux")]
pub(crate) async fn somebody_works() -> bool {
    // The login manager's hint over all seats. A machine without one has no desktop.
    let ask = async {
        let bus = zbus::Connection::system().await?;
        let place = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager");
        zbus::Proxy::new(&bus, place.0, place.1, place.2).await?.get_property::<bool>("IdleHint").await
    };
    match ask.await {
        Ok(is_idle) => !is_idle,
        Err(error) => {
            tracing::debug!(%error, "the login manager does not say whether somebody works here");
            false
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) async fn somebody_works() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chrono::FixedOffset;

    use super::*;

    fn hours(days: &[Weekday], from: u16, to: u16) -> ComputeLimits {
        let quiet = vec![QuietHours { days: days.iter().copied().collect(), from, to }];
        ComputeLimits { quiet, ..ComputeLimits::default() }
    }

    /// 2026-11-27 was a Friday.
    fn at(text: &str) -> DateTime<FixedOffset> {
        DateTime::parse_from_rfc3339(&format!("2026-11-{text}:00+01:00")).unwrap()
    }

    fn until(limits: &ComputeLimits, now: &str) -> Option<DateTime<FixedOffset>> {
        let end = limits.quiet_until(&at(now))?;
        Some(at(now).timezone().timestamp_millis_opt(end.as_millis()).unwrap())
    }

    #[test]
    fn quiet_hours_are_those_of_the_wall_clock_on_their_days() {
        let office = hours(&[Weekday::Friday], 8 * 60, 17 * 60 + 30);
        assert_eq!(until(&office, "27T07:59"), None);
        assert_eq!(until(&office, "27T08:00"), Some(at("27T17:30")));
        assert_eq!(until(&office, "27T17:30"), None);
        assert_eq!(until(&office, "28T09:00"), None, "a Saturday");
    }

    #[test]
    fn quiet_hours_over_midnight_belong_to_the_day_on_which_they_begin() {
        let night = hours(&[Weekday::Friday], 22 * 60, 6 * 60);
        assert_eq!(until(&night, "27T05:00"), None, "that night began on Thursday");
        assert_eq!(until(&night, "27T23:00"), Some(at("28T06:00")));
        assert_eq!(until(&night, "28T05:59"), Some(at("28T06:00")));
        assert_eq!(until(&night, "28T22:30"), None);
        let whole_day = hours(&[Weekday::Friday], 0, 0);
        assert_eq!(until(&whole_day, "27T00:00"), Some(at("28T00:00")));
        assert_eq!(until(&whole_day, "28T00:00"), None);
    }

    #[test]
    fn limits_that_cannot_be_kept_to_are_refused() {
        assert!(ComputeLimits::default().check().is_ok());
        let with = |change: fn(&mut ComputeLimits)| {
            let mut limits = hours(&[Weekday::Monday], 0, 60);
            change(&mut limits);
            limits.check()
        };
        assert!(with(|_| ()).is_ok());
        assert!(with(|l| l.share = 4).is_err());
        assert!(with(|l| l.share = 101).is_err());
        assert!(with(|l| l.threads = Some(0)).is_err());
        assert!(with(|l| l.quiet[0].to = DAY).is_err());
        assert!(with(|l| l.quiet[0].days = BTreeSet::new()).is_err());
        assert!(with(|l| l.quiet = vec![l.quiet[0].clone(); ComputeLimits::WINDOWS + 1]).is_err());
    }
}
