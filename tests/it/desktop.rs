//! The app on somebody's desktop: one window, however often it is started; hidden when it is closed, and told of all the
//! same; started with the session where the person wants that.
//!
//! It is a window on the site of an engine that goes on by itself. Its package, its own engine and its dialogs are in
//! `journey`.

#![allow(clippy::too_many_arguments, reason = "the specification of notifications says what they are")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hospes_tests::federation::{EXAMPLES, Federation};
use hospes_tests::seat::Seat;
use hospes_tests::window::{Desktop, Window};
use serde_json::{Value, json};

/// How long a notification may take: a study comes to the site, and the app hears of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The service that shows notifications on a desktop (Desktop Notifications Specification, version 1.2).
struct Notifications(Sender<(String, String)>);

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Notifications {
    fn notify(
        &self,
        _app: String,
        _replaces: u32,
        _icon: String,
        summary: String,
        body: String,
        _actions: Vec<String>,
        _hints: HashMap<String, zbus::zvariant::OwnedValue>,
        _expires: i32,
    ) -> u32 {
        // The test may have heard enough.
        let _ = self.0.send((summary, body));
        1
    }

    fn get_capabilities(&self) -> Vec<String> {
        vec!["body".to_owned()]
    }
}

/// Shows notifications on the desktop with this bus, as long as it is held.
async fn notifications(bus: &str) -> Result<(zbus::Connection, Receiver<(String, String)>)> {
    let (told, heard) = channel();
    let service = zbus::connection::Builder::address(bus)?
        .serve_at("/org/freedesktop/Notifications", Notifications(told))?
        .name("org.freedesktop.Notifications")?
        .build()
        .await?;
    Ok((service, heard))
}

#[test]
fn one_app_tells_of_a_request_with_its_window_closed_and_starts_with_the_session_if_asked() -> Result<()> {
    let mut federation = Federation::new("sqlite")?;
    for name in ["cleveland", "hungary"] {
        federation.join_with_hearts(name)?;
    }
    let desktop = Desktop::start(Seat::here(&federation.site("cleveland")?.data)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let window = desktop.open().await?;
        window.shows("Sign in").await?;
        starts_with_the_session(&desktop, &window).await?;
        let (service, heard) = notifications(&desktop.bus()?).await?;
        desktop.close_window()?;
        federation.submit(Path::new(&format!("{EXAMPLES}/heart/plain.yaml")))?;
        let (title, words) = heard.recv_timeout(PATIENCE).context("nobody was told of the request")?;
        ensure!(title == "Hospes" && words.starts_with("A request waits for a decision."), "{title}: {words}");
        // It can be read by whoever stands before the screen.
        ensure!(!words.contains("Heart disease"), "{words}");
        desktop.start_again()?;
        window.shows("Sign in").await?;
        drop(service);
        window.close().await
    })
}

/// The entry by which desktops start programs (Desktop Application Autostart Specification) comes and goes.
async fn starts_with_the_session(desktop: &Desktop, window: &Window) -> Result<()> {
    let entries = "cat \"$HOME\"/.config/autostart/*.desktop 2> /dev/null || true";
    for wanted in [true, false] {
        let preferences = json!({
            "theme": "system", "language": null, "density": "comfortable", "autostart": wanted, "quiet": false,
        });
        let script = "const [preferences, done] = arguments; \
                      const request = { command: 'set_preferences', args: { preferences } }; \
                      window.__TAURI_INTERNALS__.invoke('call', { request }).then(() => done(null), done)";
        let refused = window.page.execute_async(script, vec![preferences]).await?;
        ensure!(refused == Value::Null, "{refused}");
        let found = desktop.seat().run(entries, &[])?;
        let starts = found.lines().any(|line| line.starts_with("Exec=") && line.contains("hospes --hidden"));
        ensure!(starts == wanted, "wanted: {wanted}\n{found}");
    }
    Ok(())
}
