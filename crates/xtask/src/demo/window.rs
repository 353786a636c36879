//! The demo with the app: three hospitals have signed, the fourth one's staff decide in its window.

use std::io::BufRead as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::cast::{APPROVER, OFFICER, STEWARD};
use super::federation::Federation;
use super::process::Daemon;
use super::site::Site;
use super::{each, say, text};

/// Time between two looks at how far the study is.
const LOOK: Duration = Duration::from_secs(1);

/// Whether a window can be opened on this machine.
pub(super) fn has_display() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(any(windows, target_os = "macos")) || set("DISPLAY") || set("WAYLAND_DISPLAY")
}

/// What can be done in the window, for whoever sits before it.
pub(super) fn explain(site: &Site<'_>) {
    say(&format!(
        "The window of {} is open. Its engine runs beside it, as a service would.",
        site.hospital.organisation
    ));
    say("In it, sign in as one of its staff; the study's request waits under 'Requests':");
    for (person, does) in [
        (&OFFICER, "the privacy officer, may give an opinion"),
        (&STEWARD, "the data steward, reviews the study, answers the questions and signs first"),
        (&APPROVER, "the data-access approver, signs second, and releases the results at the end"),
    ] {
        say(&format!("  {:<7} passphrase '{}': {does}", person.name, person.passphrase));
    }
    say("'Federations' has the other hospitals, whose words the administrator compared, and the words of this one.");
    say("Training begins with the second signature; 'Jobs' shows it. Then release the results under 'Models'.");
    say("To end the demo, press Enter here, or quit Hospes in its tray.");
}

/// Waits until the study is trained and the hospital in the window has released its results; gives the model, or
/// `None` if whoever sits there ended the demo before.
///
/// # Errors
/// If the run fails, or the coordinator does not answer.
pub(super) fn follow(
    federation: &Federation<'_>,
    others: &[Site<'_>],
    (app, enter): (&mut Daemon, &Enter),
    study: &str,
) -> Result<Option<String>> {
    let mut told = String::new();
    let mut released = false;
    loop {
        if enter.is_pressed() || app.has_ended()? {
            return Ok(None);
        }
        let shown = federation.asked("researcher", &["study", "show", study])?;
        let run = shown["jobs"].as_array().and_then(|runs| runs.last()).cloned().unwrap_or_default();
        let state = text(&run["state"]);
        if matches!(state, "failed" | "timeout" | "cancelled") {
            bail!("the run ended as {state}: {}", text(&run["reason"]));
        }
        let step = match state {
            "success" => "trained; the results wait for their release in the window",
            "" | "waiting" => "waiting for both signatures in the window",
            _ => "signed by all four; it trains",
        };
        if told != step {
            say(step);
            step.clone_into(&mut told);
        }
        if state == "success" {
            let (job, model) = (text(&run["job"]).to_owned(), text(&run["model"]).to_owned());
            if !released {
                each(others, |site| site.release_when_held(&job))?;
                released = true;
            }
            if federation.asked("researcher", &["model", "card", &model]).is_ok() {
                return Ok(Some(model));
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// The Enter key of the terminal.
pub(super) struct Enter(Arc<OnceLock<bool>>);

impl Enter {
    /// Listens to it from now on.
    pub(super) fn listen() -> Self {
        let heard = Arc::new(OnceLock::new());
        let tell = heard.clone();
        // Where there is no terminal, the input ends at once.
        std::thread::spawn(move || tell.set(matches!(std::io::stdin().lock().lines().next(), Some(Ok(_)))));
        Self(heard)
    }

    fn is_pressed(&self) -> bool {
        self.0.get() == Some(&true)
    }

    /// Waits until it is pressed, or nobody can press it, or the app is quit.
    ///
    /// # Errors
    /// If the system does not say whether the app runs.
    pub(super) fn wait(&self, app: &mut Daemon) -> Result<()> {
        while self.0.get().is_none() && !app.has_ended()? {
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Site<'_> {
    /// Opens the app on this hospital.
    ///
    /// # Errors
    /// If it does not start, or ends at once because another Hospes is open on this screen.
    pub(super) fn window(&self) -> Result<Daemon> {
        let (mut command, log) = self.app();
        let mut app = Daemon::start("the app", &mut command, &log)?;
        std::thread::sleep(Duration::from_secs(3));
        if app.has_ended()? {
            bail!("the app ended at once; if Hospes is open on this screen, quit it in its tray first\n{}", app.tail());
        }
        Ok(app)
    }

    fn release_when_held(&self, job: &str) -> Result<()> {
        let held = self.wait_for_held().with_context(|| format!("{} holds no results", self.hospital.name))?;
        anyhow::ensure!(held == job, "{} holds the results of another run than {job}", self.hospital.name);
        self.release(job)
    }
}
