//! What somebody does in the window by keyboard alone. At every stop one has to see where the focus is.

use std::path::Path;

use anyhow::{Result, ensure};
use hospes_tests::federation::{EXAMPLES, Federation};
use hospes_tests::window::Key;

use super::tour::Tour;
use super::views::FIRST_RUN;
use super::{LANGUAGES, SITE, WAITING};

/// Passphrase of a new site's first person, and of its key file.
const OWN: &str = "the first passphrase of Ada";
const OF_THE_KEYS: &str = "what opens the new key file";
/// Forms of the audit log: the one that is chosen at first, and one to print.
const WITH_PROOFS: &str = "With proofs (JSON Lines)";
const TO_PRINT: &str = "Report to print";
/// Forms that there are, at most.
const FORMS: usize = 12;

/// Somebody comes to the door, which is shown.
async fn comes_in(tour: &mut Tour, person: &str, passphrase: &str) -> Result<()> {
    // The name has the focus when the door is shown.
    let first = tour.stop().await?;
    ensure!(first.name == "name", "the door begins elsewhere: {first:?}");
    tour.window.type_here(person).await?;
    types(tour, "passphrase", passphrase).await?;
    tour.key(Key::Enter).await?;
    tour.wait("nav").await
}

/// Types into the field with this name.
async fn types(tour: &mut Tour, field: &str, text: &str) -> Result<()> {
    tour.tab_to(field, |stop| stop.name == field).await?;
    tour.window.type_here(text).await
}

/// Presses a button, and waits for what comes then.
async fn goes_on(tour: &mut Tour, button: &str, then: &str) -> Result<()> {
    tour.tab_to(button, |stop| stop.words == button).await?;
    tour.key(Key::Enter).await?;
    tour.wait(then).await
}

/// The first start of a new site, up to its home screen; each step is looked at where the keyboard has led.
pub(super) async fn a_site_is_laid_down(tour: &mut Tour) -> Result<()> {
    let [language, restore, person, keys] = FIRST_RUN;
    tour.at_the_door(&language, &LANGUAGES).await?;
    tour.at_the_door(&restore, &LANGUAGES).await?;
    goes_on(tour, "Back", "main input[value=en]").await?;
    goes_on(tour, "Continue", "[name=again]").await?;
    tour.at_the_door(&person, &LANGUAGES).await?;
    types(tour, "name", "Ada").await?;
    types(tour, "passphrase", OWN).await?;
    types(tour, "again", OWN).await?;
    goes_on(tour, "Continue", "main input[value=file]").await?;
    tour.tab_to("where the keys are kept", |stop| stop.kind == "radio").await?;
    tour.key(Key::Down).await?;
    let stop = tour.stop().await?;
    tour.see(&stop);
    ensure!(stop.words.starts_with("In an encrypted key file"), "the arrow does not lead to the key file: {stop:?}");
    types(tour, "key", OF_THE_KEYS).await?;
    types(tour, "keyAgain", OF_THE_KEYS).await?;
    tour.at_the_door(&keys, &LANGUAGES).await?;
    goes_on(tour, "Set up this site", "nav").await
}

/// The administrator takes a report of the audit log, which is on the screen, out into a folder.
pub(super) async fn a_report_is_taken_out(tour: &mut Tour, to: &Path) -> Result<()> {
    let report = to.join("report.html");
    tour.tab_to("the form", |stop| stop.words == WITH_PROOFS).await?;
    tour.key(Key::Enter).await?;
    tour.wait("[role=option]").await?;
    let mut form = tour.stop().await?;
    for _ in 0..FORMS {
        tour.see(&form);
        if form.words.starts_with(TO_PRINT) {
            break;
        }
        tour.key(Key::Down).await?;
        form = tour.stop().await?;
    }
    ensure!(form.words.starts_with(TO_PRINT), "the arrow does not lead to the report: {form:?}");
    tour.key(Key::Enter).await?;
    tour.host()?.choose(report.clone());
    tour.tab_to("the export", |stop| stop.words == "Choose a place and export").await?;
    tour.key(Key::Enter).await?;
    tour.window.shows("written to report.html").await?;
    let report = std::fs::read_to_string(report)?;
    ensure!(report.contains("<html") && report.contains("The log is whole"), "no report for people: {report}");
    Ok(())
}

/// The administrator of a site without a federation joins one, and compares the words of another member's key.
pub(super) async fn a_federation_is_joined(
    tour: &mut Tour,
    federation: &Federation,
    invitation: &str,
    coordinator: &str,
) -> Result<()> {
    tour.tab_to("the federations", |stop| stop.kind == "a" && stop.words == "Federations").await?;
    tour.key(Key::Enter).await?;
    goes_on(tour, "Join a federation", "[name=invitation]").await?;
    tour.tab_to("the invitation", |stop| stop.name == "invitation").await?;
    // Nobody types it: it comes out of a message.
    tour.window.paste("invitation", invitation).await?;
    goes_on(tour, "Read it", "[name=words]").await?;
    types(tour, "words", coordinator).await?;
    types(tour, "organisation", "Winterthur clinic").await?;
    goes_on(tour, "Join a federation", "main table button").await?;
    goes_on(tour, &format!("Compare words: {SITE}"), "[role=dialog] [name=words]").await?;
    types(tour, "words", &federation.site(SITE)?.words()?).await?;
    tour.tab_to("the comparison", |stop| stop.words == "Compare").await?;
    tour.key(Key::Enter).await?;
    tour.window.shows("Verified here").await
}

/// A data steward signs in, finds the request, reads its five parts, answers five questions and signs.
pub(super) async fn a_request_is_signed(tour: &mut Tour, passphrase: &str) -> Result<()> {
    comes_in(tour, "Stefan", passphrase).await?;
    tour.tab_to("the request", |stop| stop.kind == "a" && stop.words == WAITING).await?;
    tour.key(Key::Enter).await?;
    tour.wait("main [role=tablist]").await?;
    tour.tab_to("the five parts", |stop| stop.kind == "tab").await?;
    for part in ["People", "Setting", "Data", "What leaves"] {
        tour.key(Key::Right).await?;
        let stop = tour.stop().await?;
        tour.see(&stop);
        ensure!(stop.kind == "tab" && stop.words.starts_with(part), "the arrow does not lead to {part}: {stop:?}");
        tour.wait("main [role=tab][aria-selected=true]:focus").await?;
    }
    for _ in 0..5 {
        tour.tab_to("a question", |stop| stop.kind == "radio" && stop.words == "Yes").await?;
        tour.key(Key::Space).await?;
    }
    types(tour, "signing", passphrase).await?;
    tour.tab_to("the signature", |stop| stop.words == "Sign as data steward").await?;
    tour.key(Key::Enter).await?;
    tour.window.shows("Stefan signed as data steward").await
}

/// The request is on the screen, and a data-access approver signs it.
pub(super) async fn a_request_is_signed_second(tour: &mut Tour, passphrase: &str) -> Result<()> {
    tour.tab_to("the five parts", |stop| stop.kind == "tab").await?;
    types(tour, "signing", passphrase).await?;
    tour.tab_to("the signature", |stop| stop.words == "Sign as data-access approver").await?;
    tour.key(Key::Enter).await?;
    tour.window.shows("Anna signed as data-access approver").await
}

/// A data steward goes from the home screen to a registered dataset, step by step.
pub(super) async fn a_dataset_is_registered(tour: &mut Tour) -> Result<()> {
    tour.tab_to("the datasets", |stop| stop.kind == "a" && stop.words == "Datasets").await?;
    tour.key(Key::Enter).await?;
    tour.window.shows("Register a dataset").await?;
    goes_on(tour, "Register a dataset", "main form").await?;
    tour.host()?.choose(format!("{EXAMPLES}/heart/{SITE}.csv").into());
    tour.tab_to("the file", |stop| stop.words == "Choose a file").await?;
    tour.key(Key::Enter).await?;
    tour.window.shows("The file can be read").await?;
    goes_on(tour, "Continue", "main [aria-haspopup=listbox]").await?;
    tour.tab_to("the subject", |stop| stop.words == "Choose a column").await?;
    tour.key(Key::Enter).await?;
    tour.wait("[role=option]").await?;
    tour.key(Key::Enter).await?;
    goes_on(tour, "Continue", "[name=dataset]").await?;
    types(tour, "dataset", "by keyboard").await?;
    goes_on(tour, "Continue", "main form dl").await?;
    goes_on(tour, "Register this dataset", "main [role=tablist]").await
}

/// A data-access approver signs in, and releases the results of a study, which are held.
pub(super) async fn results_are_released(tour: &mut Tour, passphrase: &str, study: &str) -> Result<()> {
    comes_in(tour, "Anna", passphrase).await?;
    tour.window.shows("Results wait for your release").await?;
    tour.tab_to("the results", |stop| stop.kind == "a" && stop.words == study).await?;
    tour.key(Key::Enter).await?;
    tour.window.shows("Release the results").await?;
    goes_on(tour, "Release the results", "[role=dialog]").await?;
    tour.tab_to("the answer", |stop| stop.words == "Release the results").await?;
    tour.key(Key::Enter).await?;
    tour.window.shows("This site released the results").await
}
