//! The real window: the app under Xvfb, inside a session bus of its own, driven through WebKitWebDriver; or in its place a
//! browser of the same engine.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
use fantoccini::elements::Element;
pub use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;

use crate::program;

/// How long anything on the page may take to appear: a software-rendered window on two busy cores.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time for the page to come to rest after it was scrolled.
const SETTLE: Duration = Duration::from_millis(150);

/// How often a window is asked for another size until its page has the one that is wanted.
const RESIZES: usize = 4;

/// A window of the app, or of a browser.
pub struct Window {
    /// The page.
    pub page: Client,
    // Dropped in this order: driver (and with it the app), then the screen.
    _driver: Killed,
    _screen: Killed,
    _home: tempfile::TempDir,
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Window {
    /// Opens the app on the party whose data lie in `data`.
    ///
    /// # Errors
    /// If Xvfb, the driver or the app cannot be started.
    pub async fn open(data: &Path) -> Result<Self> {
        let own = |driver: &mut Command| {
            driver.env("HOSPES_DATA", data).env("TAURI_AUTOMATION", "true").env("TAURI_WEBVIEW_AUTOMATION", "true");
        };
        Self::start(&program("hospes")?, &[], own).await
    }

    /// Opens a browser of the engine that the app's window is made of, on an empty page.
    ///
    /// # Errors
    /// If Xvfb, the driver or the browser cannot be started.
    pub async fn browser() -> Result<Self> {
        Self::start(&minibrowser()?, &["--automation"], |_| {}).await
    }

    async fn start(shell: &Path, arguments: &[&str], own: impl FnOnce(&mut Command)) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let (screen, display) = screen()?;
        let port = free_port()?;
        let mut driver = Command::new("dbus-run-session");
        driver
            .args(["--", "WebKitWebDriver", "--host=127.0.0.1", &format!("--port={port}")])
            .env("DISPLAY", display)
            .env("HOME", home.path())
            .env("XDG_RUNTIME_DIR", home.path())
            .env("WEBKIT_DISABLE_DMABUF_RENDERER", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        own(&mut driver);
        let driver = Killed(driver.spawn().context("start WebKitWebDriver under dbus-run-session")?);
        let page = connect(port, shell, arguments).await?;
        Ok(Self { page, _driver: driver, _screen: screen, _home: home })
    }

    /// Makes the page this large, in CSS pixels, whatever its window has around it.
    ///
    /// # Errors
    /// If the page does not become that large.
    pub async fn resize(&self, width: i64, height: i64) -> Result<()> {
        let [mut inner @ .., outer_width, outer_height] = self.sizes().await?;
        let (mut wide, mut high) = (outer_width, outer_height);
        for _ in 0..RESIZES {
            if inner == [width, height] {
                return Ok(());
            }
            (wide, high) = (wide + width - inner[0], high + height - inner[1]);
            let window = self.page.set_window_size(u32::try_from(wide)?, u32::try_from(high)?);
            window.await.context("resize the window")?;
            // The page follows its window a little later.
            for _ in 0..20 {
                let [now @ .., _, _] = self.sizes().await?;
                inner = now;
                if inner == [width, height] {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        }
        anyhow::bail!("the page is {inner:?} and does not become {width} × {height}")
    }

    /// Width and height of the page, and of its window.
    async fn sizes(&self) -> Result<[i64; 4]> {
        let script = "return [innerWidth, innerHeight, outerWidth, outerHeight].map(Math.round).join(' ')";
        let sizes = self.page.execute(script, Vec::new()).await?;
        let sizes = sizes.as_str().unwrap_or_default().split(' ').map(str::parse).collect::<Result<Vec<i64>, _>>();
        <[i64; 4]>::try_from(sizes.context("the page's sizes")?).ok().context("four sizes")
    }

    /// Presses and releases a key, wherever the focus is.
    ///
    /// # Errors
    /// If the driver does not do it.
    pub async fn key(&self, key: Key) -> Result<()> {
        let value = char::from(key);
        let keys = KeyActions::new("keyboard".to_owned());
        let pressed = keys.then(KeyAction::Down { value }).then(KeyAction::Up { value });
        self.page.perform_actions(pressed).await.context("press a key")
    }

    /// Types where the focus is.
    ///
    /// # Errors
    /// If nothing there can be typed into.
    pub async fn type_here(&self, text: &str) -> Result<()> {
        self.page.active_element().await?.send_keys(text).await.context("type")
    }

    /// Waits until the page shows this text.
    ///
    /// # Errors
    /// With what the page shows instead.
    pub async fn shows(&self, text: &str) -> Result<()> {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            let shown = self.text().await?;
            if shown.contains(text) {
                return Ok(());
            }
            anyhow::ensure!(std::time::Instant::now() < end, "the page does not show '{text}' but:\n{shown}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// All text of the page.
    ///
    /// # Errors
    /// If the page cannot be asked.
    pub async fn text(&self) -> Result<String> {
        let text = self.page.execute("return document.body.innerText", Vec::new()).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Types into the field with this name.
    ///
    /// # Errors
    /// If there is no such field.
    pub async fn type_into(&self, name: &str, text: &str) -> Result<()> {
        let selector = format!("[name='{name}']");
        let field = self.page.wait().at_most(PATIENCE).for_element(Locator::Css(&selector)).await?;
        field.clear().await?;
        field.send_keys(text).await.context("type")
    }

    /// Presses the button with this text.
    ///
    /// # Errors
    /// If there is no such button.
    pub async fn press(&self, text: &str) -> Result<()> {
        let path = format!("//button[normalize-space()='{text}']");
        let button = self.page.wait().at_most(PATIENCE).for_element(Locator::XPath(&path)).await;
        self.click(button.with_context(|| format!("find the button '{text}'"))?).await
    }

    /// Clicks in the middle of the window: where the page still scrolls, a press can begin on a button and end beside it.
    async fn click(&self, element: Element) -> Result<()> {
        let script = "arguments[0].scrollIntoView({ block: 'center', behavior: 'instant' })";
        self.page.execute(script, vec![serde_json::to_value(&element)?]).await.context("scroll")?;
        tokio::time::sleep(SETTLE).await;
        element.click().await.context("click")
    }

    /// Turns to the part of the page with this name.
    ///
    /// # Errors
    /// If there is none.
    pub async fn turn_to(&self, text: &str) -> Result<()> {
        let path = format!("//*[@role='tab'][normalize-space()='{text}']");
        let tab = self.page.wait().at_most(PATIENCE).for_element(Locator::XPath(&path)).await;
        self.click(tab.with_context(|| format!("find the tab '{text}'"))?).await
    }

    /// Follows the link with this text.
    ///
    /// # Errors
    /// If there is no such link.
    pub async fn follow(&self, text: &str) -> Result<()> {
        let path = format!("//a[normalize-space()='{text}' or starts-with(normalize-space(), '{text}')]");
        let link = self.page.wait().at_most(PATIENCE).for_element(Locator::XPath(&path)).await;
        self.click(link.with_context(|| format!("find the link '{text}'"))?).await
    }

    /// Chooses the same answer to every question on the page.
    ///
    /// # Errors
    /// If there is none.
    pub async fn answer_all(&self, answer: &str) -> Result<()> {
        let path = format!("//label[normalize-space()='{answer}']");
        self.page.wait().at_most(PATIENCE).for_element(Locator::XPath(&path)).await.context("find a question")?;
        for label in self.page.find_all(Locator::XPath(&path)).await? {
            self.click(label).await.context("answer")?;
        }
        Ok(())
    }

    /// Lets the page try what it may not do; `port`: where somebody listens on this machine. What came of each, by name.
    ///
    /// # Errors
    /// If the page cannot be asked.
    pub async fn attempts(&self, port: u16) -> Result<BTreeMap<String, String>> {
        let answers = self.page.execute_async(include_str!("attempts.js"), vec![json!(port)]).await?;
        serde_json::from_value(answers).context("the attempts' answers")
    }

    /// A picture of the window, PNG.
    ///
    /// # Errors
    /// If the driver gives none.
    pub async fn picture(&self) -> Result<Vec<u8>> {
        self.page.screenshot().await.context("take a picture")
    }

    /// Closes the window.
    ///
    /// # Errors
    /// If the driver does not answer.
    pub async fn close(self) -> Result<()> {
        self.page.clone().close().await.context("close the window")
    }
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
    anyhow::ensure!(!number.trim().is_empty(), "Xvfb ended before it opened a screen");
    Ok((screen, format!(":{}", number.trim())))
}

/// The browser that comes with the engine of the app's window; distributions put it into different folders.
fn minibrowser() -> Result<PathBuf> {
    let own = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let folders = [own.as_str(), "/usr/libexec", "/usr/lib64", "/usr/lib"];
    let mut places = folders.iter().map(|folder| Path::new(folder).join("webkit2gtk-4.1/MiniBrowser"));
    places.find(|place| place.exists()).context("there is no MiniBrowser, which comes with WebKitGTK 4.1")
}

async fn connect(port: u16, shell: &Path, arguments: &[&str]) -> Result<Client> {
    let capabilities = json!({ "webkitgtk:browserOptions": { "binary": shell, "args": arguments } });
    let serde_json::Value::Object(capabilities) = capabilities else { anyhow::bail!("no capabilities") };
    let url = format!("http://127.0.0.1:{port}");
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let mut builder = ClientBuilder::new(HttpConnector::new());
        match builder.capabilities(capabilities.clone()).connect(&url).await {
            Ok(client) => return Ok(client),
            // The driver may not listen yet.
            Err(error) if std::time::Instant::now() > end => return Err(error).context("open the window"),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// A port that was free a moment ago.
///
/// # Errors
/// If there is none.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
