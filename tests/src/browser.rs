//! A browser of the engine that the app's window is made of, under a screen and a session bus of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use fantoccini::Client;

use crate::window::{connect, free_port};

/// What a browser runs on.
pub(crate) struct Own {
    // Dropped in this order: the driver, and with it the browser, then the screen.
    _driver: Killed,
    _screen: Killed,
    display: String,
    _home: tempfile::TempDir,
}

impl Own {
    /// Runs a shell script with its arguments on the browser's screen; what it printed.
    ///
    /// # Errors
    /// With what it said, if it did not end well.
    pub(crate) fn run(&self, script: &str, arguments: &[&str]) -> Result<String> {
        let mut shell = Command::new("sh");
        shell.args(["-eu", "-c", script, "sh"]).args(arguments).env("DISPLAY", &self.display);
        let output = shell.output().context("start a shell")?;
        ensure!(output.status.success(), "a script failed:\n{script}\n{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts one, on an empty page.
///
/// # Errors
/// If Xvfb, the driver or the browser cannot be started.
pub(crate) async fn start() -> Result<(Client, Own)> {
    let home = tempfile::tempdir()?;
    let (screen, display) = screen()?;
    let port = free_port()?;
    let mut driver = Command::new("dbus-run-session");
    driver
        .args(["--", "WebKitWebDriver", "--host=127.0.0.1", &format!("--port={port}")])
        .env("DISPLAY", &display)
        .env("HOME", home.path())
        .env("XDG_RUNTIME_DIR", home.path())
        .env("WEBKIT_DISABLE_DMABUF_RENDERER", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let driver = Killed(driver.spawn().context("start WebKitWebDriver under dbus-run-session")?);
    let page = connect(port, &minibrowser()?, &["--automation"]).await?;
    Ok((page, Own { _driver: driver, _screen: screen, display, _home: home }))
}

/// A screen of its own; Xvfb chooses the number and writes it to its output.
fn screen() -> Result<(Killed, String)> {
    let mut xvfb = Command::new("Xvfb");
    xvfb.args(["-displayfd", "1", "-screen", "0", "1280x900x24", "-nolisten", "tcp"]);
    let mut child = xvfb.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("start Xvfb")?;
    let output = child.stdout.take().context("Xvfb has no output")?;
    let screen = Killed(child);
    let mut number = String::new();
    BufReader::new(output.take(32)).read_line(&mut number)?;
    ensure!(!number.trim().is_empty(), "Xvfb ended before it opened a screen");
    Ok((screen, format!(":{}", number.trim())))
}

/// The browser that comes with the engine of the app's window; distributions put it into different folders.
fn minibrowser() -> Result<PathBuf> {
    let own = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let folders = [own.as_str(), "/usr/libexec", "/usr/lib64", "/usr/lib"];
    let mut places = folders.iter().map(|folder| Path::new(folder).join("webkit2gtk-4.1/MiniBrowser"));
    places.find(|place| place.exists()).context("there is no MiniBrowser, which comes with WebKitGTK 4.1")
}
