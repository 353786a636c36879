//! Every screen of the window, after a run: axe finds nothing in light and in dark, and in all four languages nothing is cut
//! off or lies outside the window, at its size, at 1024 × 700, and at twice the size.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hospes_tests::federation::{ADMINISTRATOR, EXAMPLES, Federation};
use hospes_tests::window::Window;
use serde_json::{Value, json};

/// Screens that have a place of their own; others are found behind the links on them.
const PLACES: &[&str] = &[
    "/",
    "/requests",
    "/approvals",
    "/jobs",
    "/models",
    "/datasets",
    "/datasets/new",
    "/egress",
    "/federations",
    "/federations/join",
    "/audit",
    "/nowhere",
];
/// Lists of which the first entry's own screen is looked at too.
const LISTS: &[&str] = &["/requests", "/jobs", "/models", "/datasets", "/federations"];
const OVERFLOWS: &str = include_str!("screens.js");
const AXE: &str = "const done = arguments[arguments.length - 1]; \
    axe.run(document, { resultTypes: ['violations'] }).then( \
      (all) => done(all.violations.map((v) => `${v.id}: ${v.nodes.map((n) => `${n.target} ${n.failureSummary}`).join(' | ')}`)), \
      (error) => done([`axe: ${error}`]))";

#[test]
fn every_screen_is_accessible_and_fits_in_all_languages() -> Result<()> {
    let federation = Federation::hearts("sqlite")?;
    let study = federation.submit(Path::new(&format!("{EXAMPLES}/heart/study.yaml")))?;
    for site in &federation.sites {
        site.approve(&study)?;
    }
    federation.finished(&study)?;
    // Another request waits.
    federation.submit(Path::new(&format!("{EXAMPLES}/heart/regression.yaml")))?;
    let site = federation.site("cleveland")?;
    let axe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ui/node_modules/axe-core/axe.min.js");
    let axe = std::fs::read_to_string(&axe).with_context(|| format!("read {}", axe.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut tour = Tour { window: Window::open(&site.data).await?, findings: Vec::new(), axe };
        tour.sign_in("Stefan", &site.passphrase("Stefan")?).await?;
        let places = tour.places().await?;
        ensure!(places.len() == PLACES.len() + LISTS.len(), "a list has no entry: {places:?}");
        for theme in ["light", "dark"] {
            tour.wear(theme).await?;
            for place in &places {
                tour.go(place).await?;
                tour.ask_axe(&format!("{theme} {place}")).await?;
                tour.picture(&format!("{theme}{}", place.replace('/', "-"))).await?;
            }
        }
        tour.wear("light").await?;
        for language in ["en", "de", "fr", "zh"] {
            tour.speak(language).await?;
            tour.sign_in(ADMINISTRATOR, &site.passphrase(ADMINISTRATOR)?).await?;
            for part in ["people", "policy", "machine", "account", "window", "stop", "about"] {
                tour.go(&format!("/settings/{part}")).await?;
                tour.measure(&format!("{language} settings/{part}")).await?;
                if language == "en" {
                    tour.ask_axe(&format!("settings/{part}")).await?;
                }
            }
            tour.sign_out().await?;
            tour.sign_in("Stefan", &site.passphrase("Stefan")?).await?;
            for (width, height) in [(1100, 760), (1024, 700), (550, 380)] {
                tour.window.page.set_window_size(width, height).await?;
                for place in &places {
                    tour.go(place).await?;
                    tour.measure(&format!("{language} {width}×{height} {place}")).await?;
                    if width == 1024 {
                        tour.picture(&format!("{language}{}", place.replace('/', "-"))).await?;
                    }
                }
            }
            tour.window.page.set_window_size(1100, 760).await?;
            tour.sign_out().await?;
            tour.measure(&format!("{language} sign-in")).await?;
        }
        tour.ask_axe("sign-in").await?;
        let findings = tour.findings;
        tour.window.close().await?;
        ensure!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
        Ok(())
    })
}

/// A walk through the window.
struct Tour {
    window: Window,
    findings: Vec<String>,
    axe: String,
}

impl Tour {
    async fn sign_in(&self, person: &str, passphrase: &str) -> Result<()> {
        self.window.type_into("name", person).await?;
        self.window.type_into("passphrase", passphrase).await?;
        self.window.submit().await?;
        self.window.has("nav").await
    }

    async fn sign_out(&self) -> Result<()> {
        self.window.page.execute("document.querySelector('header button').click()", Vec::new()).await?;
        self.window.has("[name=passphrase]").await
    }

    async fn wear(&self, theme: &str) -> Result<()> {
        self.window.page.execute("document.documentElement.dataset.theme = arguments[0]", vec![json!(theme)]).await?;
        Ok(())
    }

    /// Begins again in another language.
    async fn speak(&self, language: &str) -> Result<()> {
        let script = "localStorage.setItem('hospes.language', arguments[0]); location.reload()";
        self.window.page.execute(script, vec![json!(language)]).await?;
        self.window.has("[name=passphrase]").await
    }

    /// All screens, those of single things too.
    async fn places(&self) -> Result<Vec<String>> {
        let mut places: Vec<String> = PLACES.iter().map(|place| (*place).to_owned()).collect();
        for list in LISTS {
            self.go(list).await?;
            let script = "const at = `#${arguments[0]}/`; \
                const links = [...document.querySelectorAll('main a')].map((a) => a.getAttribute('href')); \
                return links.find((link) => link.startsWith(at) && !link.endsWith('/join')) ?? null";
            let link = self.window.page.execute(script, vec![json!(list)]).await?;
            places.extend(link.as_str().map(|link| link.trim_start_matches('#').to_owned()));
        }
        Ok(places)
    }

    /// Goes to a screen and waits until it has come to rest.
    async fn go(&self, place: &str) -> Result<()> {
        self.window.page.execute("location.hash = arguments[0]", vec![json!(format!("#{place}"))]).await?;
        let mut before = String::new();
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(120)).await;
            let now = self.window.text().await?;
            if now == before && !now.is_empty() {
                return Ok(());
            }
            before = now;
        }
        anyhow::bail!("{place} does not come to rest")
    }

    async fn ask_axe(&mut self, place: &str) -> Result<()> {
        self.window.page.execute(&format!("if (!window.axe) {{ {} }}", self.axe), Vec::new()).await?;
        let found = self.window.page.execute_async(AXE, Vec::new()).await?;
        self.note(place, &found)
    }

    async fn measure(&mut self, place: &str) -> Result<()> {
        let found = self.window.page.execute(OVERFLOWS, Vec::new()).await?;
        self.note(place, &found)
    }

    fn note(&mut self, place: &str, found: &Value) -> Result<()> {
        let found = found.as_array().with_context(|| format!("{place}: no list but {found}"))?;
        self.findings.extend(found.iter().map(|finding| format!("{place}: {}", finding.as_str().unwrap_or_default())));
        Ok(())
    }

    /// Keeps a picture where somebody wants to look.
    async fn picture(&self, name: &str) -> Result<()> {
        let Some(folder) = std::env::var_os("HOSPES_PICTURES") else { return Ok(()) };
        let name: String = name.chars().take(40).collect();
        Ok(std::fs::write(PathBuf::from(folder).join(format!("{name}.png")), self.window.picture().await?)?)
    }
}
