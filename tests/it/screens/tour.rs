//! A walk through the page in a browser, and what is looked at on the way.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use hospes_ipc::staff::Service;
use hospes_tests::devhost::Devhost;
use hospes_tests::federation::EXAMPLES;
use hospes_tests::program;
use hospes_tests::window::{Key, Window};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::views::{Act, View};

/// What the page is asked through: `[verb, what it takes, callback]`.
const ASK: &str = "const [verb, given, done] = arguments; \
    Promise.resolve().then(() => window.tour[verb](...given)) \
      .then((found) => done({ found: found ?? null }), (error) => done({ wrong: `${verb}: ${error.message ?? error}` }))";
/// Most stops on the way from one to another, so that a focus which goes in circles ends.
const STOPS: usize = 80;
/// A page on a usual screen, in CSS pixels.
pub(super) const LARGE: (i64, i64) = (1280, 800);
/// The smallest screen on which everything has to fit side by side.
const MIDDLE: (i64, i64) = (1024, 700);
/// The first one at 200 %: zoom leaves a page half the pixels. It is as narrow as the app's window can be.
pub(super) const SMALL: (i64, i64) = (640, 400);

/// A browser, the page that it shows, and what was found out about it so far.
pub(super) struct Tour {
    pub(super) window: Window,
    /// Everything that is not as it should be.
    pub(super) findings: Vec<String>,
    /// Titles of all charts that were seen.
    pub(super) charts: BTreeSet<String>,
    /// What braces in the views' texts stand for.
    pub(super) words: Vec<(&'static str, String)>,
    host: Option<Devhost>,
    language: &'static str,
    size: (i64, i64),
    pictures: Option<PathBuf>,
    /// What is put into each page: axe, and the verbs that it is asked with.
    script: String,
    /// Parts of the catalogues.
    parts: Vec<String>,
}

/// Where the keyboard is.
#[derive(Debug, Deserialize)]
pub(super) struct Stop {
    /// Role, type of input or name of the element.
    pub(super) kind: String,
    /// Of a field.
    pub(super) name: String,
    /// What it is called.
    pub(super) words: String,
    /// Whether one sees that the focus is there.
    marked: bool,
    in_sight: bool,
    /// Whether the window itself has the focus.
    focused: bool,
}

impl Tour {
    pub(super) async fn begin() -> Result<Self> {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ui");
        let axe = page.join("node_modules/axe-core/axe.min.js");
        let axe = std::fs::read_to_string(&axe).with_context(|| format!("read {}", axe.display()))?;
        let mut parts = Vec::new();
        for file in std::fs::read_dir(page.join("src/i18n/en"))? {
            let name = file?.path();
            parts.extend(name.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        }
        Ok(Self {
            window: Window::browser().await?,
            findings: Vec::new(),
            charts: BTreeSet::new(),
            words: Vec::new(),
            host: None,
            language: "en",
            size: LARGE,
            pictures: std::env::var_os("HOSPES_PICTURES").map(PathBuf::from),
            script: format!("{axe}\n;{}", include_str!("page.js")),
            parts,
        })
    }

    /// Opens the page on the site whose data lie in a folder, and waits until it shows something.
    pub(super) async fn open(&mut self, data: &Path, shows: &str) -> Result<()> {
        self.open_beside(data, None, shows).await
    }

    /// The same on a machine with this service.
    pub(super) async fn open_beside(&mut self, data: &Path, service: Option<Service>, shows: &str) -> Result<()> {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ui/dist-devhost");
        let host = Devhost::start_beside(data, &page, program("hospes-site")?, service, 0).await?;
        self.window.page.goto(host.url()).await.context("open the page")?;
        self.host = Some(host);
        self.window.page.execute(&self.script, vec![json!(self.parts)]).await.context("put the tour into the page")?;
        self.wait(shows).await?;
        // Whatever the machine speaks.
        self.speak("en").await
    }

    pub(super) fn host(&self) -> Result<&Devhost> {
        self.host.as_ref().context("no page is open")
    }

    /// Asks the page something.
    async fn ask<T: DeserializeOwned>(&self, verb: &str, given: Value) -> Result<T> {
        let mut answer = self.window.page.execute_async(ASK, vec![json!(verb), given]).await?;
        if let Some(wrong) = answer["wrong"].as_str() {
            bail!("{wrong}");
        }
        Ok(serde_json::from_value(answer["found"].take())?)
    }

    /// Waits until the page shows what a selector finds.
    pub(super) async fn wait(&self, selector: &str) -> Result<()> {
        self.ask("wait", json!([selector])).await
    }

    pub(super) async fn act(&self, acts: &[Act]) -> Result<()> {
        self.go(None, acts).await?;
        Ok(())
    }

    /// What is wrong with the way there.
    async fn go(&self, place: Option<&str>, acts: &[Act]) -> Result<Vec<String>> {
        let mut done = Vec::new();
        for act in acts {
            done.push(match *act {
                Act::Press(selector, at) => json!(["press", selector, at]),
                Act::Fill(name, text) => json!(["fill", name, self.filled(text)]),
                Act::Await(selector) => json!(["wait", selector]),
                Act::OpenFile => {
                    self.host()?.choose(format!("{EXAMPLES}/heart/cleveland.csv").into());
                    json!(["press", "main form button[type=button]", 0])
                }
            });
        }
        self.ask("reach", json!([place.map(|place| self.filled(place)), done])).await
    }

    /// A text with what its braces stand for.
    fn filled(&self, text: &str) -> String {
        self.words.iter().fold(text.to_owned(), |text, (name, word)| text.replace(name, word))
    }

    /// Speaks another language, chosen at the door.
    pub(super) async fn speak(&mut self, language: &'static str) -> Result<()> {
        self.ask::<Vec<String>>("reach", json!([null, [["speak", language]]])).await?;
        self.language = language;
        Ok(())
    }

    pub(super) async fn sign_in(&self, person: &str, passphrase: &str) -> Result<()> {
        let acts = json!([
            ["fill", "name", person],
            ["fill", "passphrase", passphrase],
            ["press", "main form button[type=submit]", 0],
            ["wait", "nav"]
        ]);
        self.ask::<Vec<String>>("reach", json!([null, acts])).await.with_context(|| format!("sign in as {person}"))?;
        Ok(())
    }

    pub(super) async fn sign_out(&self) -> Result<()> {
        self.act(&[Act::Press("header button", 0), Act::Await("[name=passphrase]")]).await
    }

    pub(super) async fn resize(&mut self, size: (i64, i64)) -> Result<()> {
        self.window.resize(size.0, size.1).await?;
        self.size = size;
        self.ask("rest", json!([])).await
    }

    async fn reach(&mut self, view: &View) -> Result<()> {
        let found = self.go(view.place, view.acts).await.with_context(|| format!("reach {}", self.where_is(view)))?;
        self.note(view, found);
        Ok(())
    }

    /// Looks at views whether everything fits, and in English at everything else, too.
    pub(super) async fn views(&mut self, views: &[View]) -> Result<()> {
        if self.language == "en" {
            self.resize(LARGE).await?;
            for view in views {
                self.examine(view).await?;
            }
        }
        // Each is reached once, in one size, and measured in both; the next is reached in the size that this one was left in.
        let mut sizes = [SMALL, MIDDLE];
        for view in views {
            sizes.reverse();
            self.resize(sizes[0]).await?;
            self.reach(view).await?;
            self.measure(view).await?;
            self.resize(sizes[1]).await?;
            self.measure(view).await?;
        }
        Ok(())
    }

    /// Looks at a view of the door, which is as wide in every window, and where the language is chosen on the spot.
    pub(super) async fn at_the_door(&mut self, view: &View, languages: &[&'static str]) -> Result<()> {
        self.examine(view).await?;
        self.resize(SMALL).await?;
        for language in languages.iter().copied() {
            self.speak(language).await?;
            self.measure(view).await?;
        }
        self.resize(LARGE).await
    }

    /// A view from all sides: pictures where they are wanted, charts, axe in light, colours in dark, and whether it fits.
    pub(super) async fn examine(&mut self, view: &View) -> Result<()> {
        self.reach(view).await?;
        self.picture(view).await.with_context(|| self.where_is(view))?;
        let charts: Charts = self.ask("figures", json!([])).await.with_context(|| self.where_is(view))?;
        self.note(view, charts.found);
        self.charts.extend(charts.titles);
        for (theme, only_colours) in [("light", false), ("dark", true)] {
            self.wear(theme).await?;
            let found: Vec<String> =
                self.ask("judge", json!([view.part, only_colours])).await.with_context(|| self.where_is(view))?;
            self.note(view, found.into_iter().map(|finding| format!("{theme}: {finding}")).collect());
        }
        self.wear("light").await?;
        self.measure(view).await
    }

    async fn measure(&mut self, view: &View) -> Result<()> {
        let found = self.ask("measure", json!([self.language])).await?;
        self.note(view, found);
        Ok(())
    }

    async fn wear(&self, theme: &str) -> Result<()> {
        self.ask("wear", json!([theme])).await
    }

    /// Keeps pictures where somebody wants to look.
    async fn picture(&self, view: &View) -> Result<()> {
        let Some(folder) = &self.pictures else { return Ok(()) };
        if !view.name.starts_with(|first: char| first.is_ascii_digit()) {
            return Ok(());
        }
        std::fs::create_dir_all(folder)?;
        if let Some(part) = view.part {
            self.ask::<()>("show", json!([part])).await?;
        }
        for theme in ["light", "dark"] {
            self.wear(theme).await?;
            std::fs::write(folder.join(format!("{}-{theme}.png", view.name)), self.window.picture().await?)?;
        }
        Ok(())
    }

    fn where_is(&self, view: &View) -> String {
        format!("{} ({}, {} × {})", view.name, self.language, self.size.0, self.size.1)
    }

    fn note(&mut self, view: &View, found: Vec<String>) {
        let place = self.where_is(view);
        self.findings.extend(found.into_iter().map(|finding| format!("{place}: {finding}")));
    }

    /// Where the keyboard is now.
    pub(super) async fn stop(&self) -> Result<Stop> {
        self.ask("stop", json!([])).await
    }

    pub(super) async fn key(&self, key: Key) -> Result<()> {
        self.window.key(key).await?;
        self.ask("rest", json!([])).await
    }

    /// Presses Tab until the keyboard is where it should be. At every stop on the way one has to see where that is.
    pub(super) async fn tab_to(&mut self, what: &str, is_there: impl Fn(&Stop) -> bool) -> Result<()> {
        let mut passed = Vec::new();
        for _ in 0..STOPS {
            self.key(Key::Tab).await?;
            let stop = self.stop().await?;
            ensure!(stop.focused, "the window does not have the focus: {stop:?}");
            self.see(&stop);
            if is_there(&stop) {
                return Ok(());
            }
            passed.push(format!("{} '{}'", stop.kind, stop.words));
        }
        bail!("Tab does not lead to {what}, but over\n{}", passed.join("\n"))
    }

    /// Notes a stop at which one does not see that the keyboard is there.
    pub(super) fn see(&mut self, stop: &Stop) {
        if !(stop.marked && stop.in_sight) {
            self.findings.push(format!("by keyboard: the focus cannot be seen: {stop:?}"));
        }
    }
}

/// Charts of a view.
#[derive(Deserialize)]
struct Charts {
    found: Vec<String>,
    titles: Vec<String>,
}
