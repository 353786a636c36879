//! Every screen of the window, on real engines, in a browser of the window's own engine: from the first start of a new site
//! to the reports of a run that four hands have signed.
//!
//! To be quick enough for every change, not everything is asked everywhere:
//! - In English, at 1280 × 800, each view is asked everything: axe finds nothing in light, nor in dark among what colours
//!   decide; every chart has a caption made from its numbers and a table of them; nothing is cut off or lies outside. Where
//!   only a part of a screen is new, axe looks at that part.
//! - In all four languages, at 1024 × 700 and at 640 × 400 (1280 × 800 at 200 %), each view fits: nothing is cut off, spills
//!   over, scrolls sideways or shows a key in place of words. Views are reached by turns in the one and in the other. The door
//!   and the first start are as wide everywhere: in all
//!   languages at 640 × 400.
//! - Journeys go by keyboard alone, and at each stop one sees where the focus is: the first start of a new site, a report of its
//!   audit log, a federation joined and words compared, both signatures, a registered dataset, results released.
//!
//! Reduced motion and forced colours are beyond what this browser can be told; `ui/test` reads the style sheets for contrast.
//! Pictures of all views are kept in the folder that `HOSPES_PICTURES` names, if it names one.

mod keyboard;
mod tour;
mod views;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use hospes_ipc::staff::Service;
use hospes_tests::federation::{ADMINISTRATOR, EXAMPLES, Federation, Site, Waiting};

use tour::{LARGE, SMALL, Tour};
use views::{
    ADMINISTRATION, Act, DOOR, FAILED, FIT, LOCKED, MENU, NEW_SITE, OVERSIGHT, SECOND, SERVICE, STEWARD, View, pictured,
};

/// The last is the one in which every view is looked at from all sides, and the journey goes.
const LANGUAGES: [&str; 4] = ["zh", "fr", "de", "en"];
/// Site that is shown.
const SITE: &str = "cleveland";
/// Who looks at what, at a site at work.
const CAST: [(&str, &[View]); 3] = [("Stefan", STEWARD), (ADMINISTRATOR, ADMINISTRATION), ("Petra", OVERSIGHT)];
/// Title of the study that waits.
const WAITING: &str = "Odds ratios of heart disease in four hospitals";
/// Charts that the views show at least: loss, a column, comparisons, ROC, calibration, precision.
const CHARTS: usize = 6;

/// Two sites of a federation at work.
struct AtWork {
    federation: Federation,
    /// What braces in the views' texts stand for.
    words: Vec<(&'static str, String)>,
    /// Invitation that nobody has used, and the words of the coordinator that gave it.
    invitation: [String; 2],
}

#[test]
fn every_screen_is_accessible_and_fits_in_all_languages() -> Result<()> {
    // The engine of the new site runs in this process.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let at_work = at_work()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut tour = Tour::begin().await?;
        let walked = walk(&mut tour, &at_work).await;
        let charts = end(tour, walked).await?;
        ensure!(charts.len() >= CHARTS, "there are more charts than {charts:?}");
        Ok(())
    })
}

/// The same of the table of a regression, which a site releases last, by keyboard: of two sites, as on the tour above, neither
/// gets it, so that the test of regressions brings the sites and the run.
pub(crate) fn the_table_of_a_regression_is_released_and_looked_at(
    federation: &Federation,
    site: &Site,
    job: &str,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut tour = Tour::begin().await?;
        tour.words = vec![("{job}", job.to_owned())];
        let walked = a_fit_is_looked_at(&mut tour, federation, site, job).await;
        let charts = end(tour, walked).await?;
        for chart in ["Effects with intervals", "Log likelihood of odds"] {
            ensure!(charts.contains(chart), "'{chart}' is not among {charts:?}");
        }
        Ok(())
    })
}

async fn a_fit_is_looked_at(tour: &mut Tour, federation: &Federation, site: &Site, job: &str) -> Result<()> {
    tour.open(&site.data, "[name=passphrase]").await?;
    tour.resize(LARGE).await?;
    keyboard::results_are_released(tour, &site.passphrase("Anna")?, WAITING).await?;
    tour.sign_out().await?;
    federation.until("the table is at the site", |_| Ok(site.act("Stefan", &["model", "card", job]).is_ok()))?;
    for language in LANGUAGES {
        tour.speak(language).await?;
        tour.sign_in("Stefan", &site.passphrase("Stefan")?).await?;
        tour.views(FIT).await?;
        tour.sign_out().await?;
    }
    Ok(())
}

/// Ends a tour, whose findings are errors; gives the titles of the charts that it saw.
async fn end(tour: Tour, walked: Result<()>) -> Result<BTreeSet<String>> {
    let Tour { window, findings, charts, .. } = tour;
    window.close().await?;
    let findings = format!("{} findings:\n{}", findings.len(), findings.join("\n"));
    walked.with_context(|| format!("the tour did not end; until then, {findings}"))?;
    ensure!(findings.starts_with("0 "), "{findings}");
    Ok(charts)
}

async fn walk(tour: &mut Tour, at_work: &AtWork) -> Result<()> {
    a_site_is_at_work(tour, at_work).await?;
    // It becomes a member, whom the site above should not show yet.
    a_new_site_is_laid_down(tour, at_work).await?;
    a_service_waits(tour, at_work.federation.folder()).await
}

#[test]
fn the_gallery_shows_every_view_and_no_other() -> Result<()> {
    let gallery = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images");
    let text = std::fs::read_to_string(gallery.join("README.md"))?;
    let names: Vec<&str> = pictured().collect();
    for name in &names {
        for theme in ["light", "dark"] {
            let picture = format!("{name}-{theme}.png");
            ensure!(text.contains(&picture) && gallery.join(&picture).exists(), "the gallery does not show {picture}");
        }
    }
    for file in std::fs::read_dir(gallery)? {
        let file = file?.file_name().into_string().ok().context("a name that is no text")?;
        let name = file.trim_end_matches(".png").trim_end_matches("-light").trim_end_matches("-dark");
        ensure!(file == "README.md" || names.contains(&name), "{file} is a picture of nothing that the window shows");
    }
    Ok(())
}

/// Two hospitals, a run that has ended, its model released and fetched, and a further study that waits.
fn at_work() -> Result<AtWork> {
    let federation = Federation::of("sqlite", &[SITE, "hungary"])?;
    let study = federation.submit(Path::new(&format!("{EXAMPLES}/heart/plain.yaml")))?;
    for site in &federation.sites {
        site.approve(&study)?;
    }
    let answer = federation.finished(&study)?;
    let run = answer["jobs"].as_array().and_then(|jobs| jobs.last()).context("no run")?;
    ensure!(run["state"] == "success", "{answer:#}");
    let job = run["job"].as_str().context("no id of the run")?.to_owned();
    for site in &federation.sites {
        federation.until("the results are held", |_| Ok(site.act("Anna", &["jobs"])?[0]["held"] == true))?;
        site.act("Anna", &["release", &job])?;
    }
    let site = federation.site(SITE)?;
    federation.until("the model is here", |_| Ok(site.act("Stefan", &["model", "card", &job]).is_ok()))?;
    let study = federation.submit(Path::new(&format!("{EXAMPLES}/heart/regression.yaml")))?;
    let dataset = site.act("Stefan", &["dataset", "list"])?[0]["id"].as_str().context("no dataset")?.to_owned();
    let member = site.status()?["memberships"][0]["federation"].as_str().context("no federation")?.to_owned();
    let invited = federation.ctl(&["invite", "winterthur"])?;
    let part = |name: &str| invited[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
    let invitation = [part("invitation")?, part("ca_words")?];
    let policy = std::fs::read_to_string(format!("{EXAMPLES}/policies/strict.toml"))?;
    let words = vec![
        ("{study}", study),
        ("{job}", job),
        ("{dataset}", dataset),
        ("{federation}", member),
        ("{invitation}", invitation[0].clone()),
        ("{policy}", policy),
    ];
    Ok(AtWork { federation, words, invitation })
}

/// The door of a machine without a site, the wizard that lays one down, its empty screens, how it comes into a federation, and
/// what stands in its way.
async fn a_new_site_is_laid_down(tour: &mut Tour, at_work: &AtWork) -> Result<()> {
    let folder = at_work.federation.folder();
    let data = folder.join("new");
    std::fs::create_dir(&data)?;
    tour.open(&data, "main form").await?;
    tour.resize(LARGE).await?;
    keyboard::a_site_is_laid_down(tour).await?;
    tour.views(NEW_SITE).await?;
    tour.resize(LARGE).await?;
    keyboard::a_report_is_taken_out(tour, folder).await?;
    let [invitation, words] = &at_work.invitation;
    keyboard::a_federation_is_joined(tour, &at_work.federation, invitation, words).await?;
    tour.host()?.page().local().stop().await;

    // Nobody has typed the passphrase of its key file yet.
    tour.open(&data, "[name=key]").await?;
    tour.at_the_door(&LOCKED, &LANGUAGES).await?;
    tour.host()?.page().local().stop().await;

    let broken = folder.join("broken");
    std::fs::create_dir(&broken)?;
    std::fs::write(broken.join("site.toml"), "no settings")?;
    tour.open(&broken, "main [role=alert]").await?;
    tour.at_the_door(&FAILED, &LANGUAGES).await
}

/// The door of a machine whose service waits for its first person.
async fn a_service_waits(tour: &mut Tour, folder: &Path) -> Result<()> {
    let service = Waiting::start(&folder.join("service"))?;
    let own = folder.join("beside");
    std::fs::create_dir(&own)?;
    tour.open_beside(&own, Some(Service::at(service.socket.clone())), "main input[value=en]").await?;
    for view in SERVICE {
        tour.at_the_door(view, &LANGUAGES).await?;
    }
    Ok(())
}

/// A site of a federation: what its people see, the signature of one of them by keyboard alone, and what the next one sees.
async fn a_site_is_at_work(tour: &mut Tour, at_work: &AtWork) -> Result<()> {
    let site = at_work.federation.site(SITE)?;
    tour.words.clone_from(&at_work.words);
    tour.open(&site.data, "[name=passphrase]").await?;
    for view in DOOR {
        tour.at_the_door(view, &LANGUAGES).await?;
    }
    // Back from the code to the name.
    tour.act(&[Act::Press("main form button[type=button]", 0)]).await?;
    for language in LANGUAGES {
        tour.speak(language).await?;
        for (person, views) in CAST {
            tour.sign_in(person, &site.passphrase(person)?).await?;
            tour.views(views).await?;
            if (person, language) == ("Stefan", "en") {
                tour.resize(SMALL).await?;
                tour.examine(&MENU).await?;
            }
            tour.sign_out().await?;
        }
    }
    tour.resize(LARGE).await?;
    keyboard::a_request_is_signed(tour, &site.passphrase("Stefan")?).await?;
    tour.sign_out().await?;
    tour.sign_in("Anna", &site.passphrase("Anna")?).await?;
    tour.views(SECOND).await?;
    tour.resize(LARGE).await?;
    keyboard::a_request_is_signed_second(tour, &site.passphrase("Anna")?).await?;
    tour.sign_out().await?;
    tour.sign_in("Stefan", &site.passphrase("Stefan")?).await?;
    keyboard::a_dataset_is_registered(tour).await
}
