//! Everything that the window shows: where it is, and what is pressed and typed to see it.

/// Something that the window shows.
#[derive(Clone, Copy)]
pub(super) struct View {
    /// What it is called. One whose name begins with a number has pictures of that name in `docs/images`.
    pub(super) name: &'static str,
    /// Where it is; without a place it goes on from the view before.
    pub(super) place: Option<&'static str>,
    /// What is done there, in order.
    pub(super) acts: &'static [Act],
    /// What is new in comparison with the view before, by its selector; all of it where nothing is named.
    pub(super) part: Option<&'static str>,
}

/// What somebody does on the page. Braces in a text stand for what is known only when the sites have been set up.
#[derive(Clone, Copy)]
pub(super) enum Act {
    /// Presses what a selector finds; with a number, the one after so many others.
    Press(&'static str, usize),
    /// Fills the field with this name.
    Fill(&'static str, &'static str),
    /// Chooses the file of data in the dialog that a button opens, the first one of the form.
    OpenFile,
    /// Waits for something.
    Await(&'static str),
}

use Act::{Await, Fill, OpenFile, Press};

const SUBMIT: Act = Press("main form button[type=submit]", 0);
const BACK: Act = Press("main form button[type=button]", 1);
/// Buttons of a form or screen by what they are for; the page's style sheets give them these names.
const PRIMARY: &str = "main button[class*=_primary_]";
const DANGER: &str = "main button[class*=_danger_]";
const TAB: &str = "main [role=tab]";

const DIALOG: Option<&str> = Some("[role=dialog]");
const FORM: Option<&str> = Some("main form");
const PANEL: Option<&str> = Some("main [role=tabpanel]");
/// What few want in place of a new site.
const RESTORE: Act = Press("main button[class*=_quiet_]", 0);
/// What is decided about a request, below all that is to be read.
const DECISION: Option<&str> = Some("main section:last-of-type");

const fn at(name: &'static str, place: &'static str) -> View {
    View { name, place: Some(place), acts: &[], part: None }
}

/// At the same place as the view before, after these acts.
const fn then(name: &'static str, acts: &'static [Act], part: Option<&'static str>) -> View {
    View { name, place: None, acts, part }
}

impl View {
    const fn after(self, acts: &'static [Act]) -> Self {
        Self { acts, ..self }
    }
}

/// Before anybody is signed in.
pub(super) const DOOR: &[View] =
    &[then("01-sign-in", &[], None), then("02-sign-in-code", &[Press("main form button[type=button]", 0)], None)];

/// The first start on a machine, step by step; the last two are reached and filled by keyboard.
pub(super) const FIRST_RUN: [View; 4] = [
    then("03-first-run-language", &[], None),
    then("04-restore", &[RESTORE, OpenFile], None),
    then("05-first-run-person", &[], None),
    then("06-first-run-keys", &[], None),
];

/// The same where a service waits for its first person, as far as it differs.
pub(super) const SERVICE: &[View] = &[
    then("58-service-language", &[], None),
    then("59-service-restore", &[RESTORE, OpenFile], None),
    then(
        "60-service-keys",
        &[
            BACK,
            SUBMIT,
            Fill("name", "Ada"),
            Fill("passphrase", "the first passphrase of Ada"),
            Fill("again", "the first passphrase of Ada"),
            SUBMIT,
        ],
        None,
    ),
];

/// A site at which nothing is yet; its administrator sees it first.
pub(super) const NEW_SITE: &[View] = &[
    at("07-new-site", "/"),
    at("requests of a new site", "/requests"),
    at("approvals of a new site", "/approvals"),
    at("jobs of a new site", "/jobs"),
    at("models of a new site", "/models"),
    at("datasets of a new site", "/datasets"),
    at("egress of a new site", "/egress"),
    at("privacy ledger of a new site", "/privacy"),
    at("federations of a new site", "/federations"),
    at("audit log of a new site", "/audit"),
];

pub(super) const LOCKED: View = then("08-locked", &[], None);
pub(super) const FAILED: View = then("09-failed", &[], None);

/// What a data steward sees.
pub(super) const STEWARD: &[View] = &[
    at("10-home", "/"),
    at("11-requests", "/requests"),
    at("12-review", "/requests/{study}"),
    then("13-review-project", &[], PANEL),
    then("14-review-people", &[Press(TAB, 1)], PANEL),
    then("15-review-setting", &[Press(TAB, 2)], PANEL),
    then("16-review-data", &[Press(TAB, 3)], PANEL),
    then("17-review-output", &[Press(TAB, 4)], PANEL),
    then("18-review-first-signature", &[], DECISION),
    at("21-approvals", "/approvals"),
    then("22-approvals-revoke", &[Press(DANGER, 0)], DIALOG),
    at("23-jobs", "/jobs"),
    at("24-job", "/jobs/{job}"),
    then("25-job-loss", &[], Some("main figure")),
    at("26-models", "/models"),
    at("27-model", "/models/{job}"),
    then("28-model-compared", &[], PANEL),
    then("29-model-judged", &[Press(TAB, 1)], PANEL),
    at("30-datasets", "/datasets"),
    at("31-dataset", "/datasets/{dataset}"),
    then("32-dataset-terms", &[Press(TAB, 1)], PANEL),
    then("33-dataset-uses", &[Press(TAB, 2)], PANEL),
    then("34-dataset-versions", &[Press(TAB, 3)], PANEL),
    at("35-register-file", "/datasets/new").after(&[OpenFile]),
    then("36-register-columns", &[SUBMIT], FORM),
    then("37-register-use", &[Press("main [aria-haspopup=listbox]", 0), Press("[role=option]", 0), SUBMIT], FORM),
    then("38-register-check", &[Fill("dataset", "heart"), SUBMIT], FORM),
    at("39-egress", "/egress"),
    at("62-privacy", "/privacy").after(&[Await("main figure")]),
    at("40-federations", "/federations"),
    at("44-audit", "/audit"),
    at("47-settings-policy", "/settings/policy"),
    then(
        "48-settings-policy-changed",
        &[Fill("policy", "{policy}"), Await("main section[aria-label] table")],
        Some("main section[aria-label]"),
    ),
    at("52-settings-account", "/settings/account"),
    at("53-settings-window", "/settings/window"),
    at("55-settings-about", "/settings/about").after(&[Await("main [role=table]")]),
    at("56-nothing-here", "/nowhere"),
];

/// The released table of a regression, and the run that ended with it.
pub(super) const FIT: &[View] = &[
    at("table of a regression", "/models/{job}").after(&[Await("main figure")]),
    at("run of a regression", "/jobs/{job}").after(&[Await("main figure")]),
];

/// What an administrator sees of it besides.
pub(super) const ADMINISTRATION: &[View] = &[
    at("41-federation", "/federations/{federation}"),
    at("42-join", "/federations/join"),
    then("43-join-words", &[Fill("invitation", "{invitation}"), SUBMIT, Await("[name=words]")], None),
    at("45-settings-people", "/settings/people"),
    then("46-settings-person", &[Press(PRIMARY, 0)], DIALOG),
    at("settings of the network", "/settings/network"),
    then("another proxy", &[Press("main input[value=url]", 0), Fill("address", "http://proxy.example:3128")], FORM),
    at("54-settings-stop", "/settings/stop"),
    then("stop everything, asked", &[Press(DANGER, 0)], DIALOG),
    at("50-settings-machine", "/settings/machine").after(&[Press("main form button[type=button]", 0)]),
    at("51-settings-backup", "/settings/backup"),
    at("61-settings-updates", "/settings/updates"),
];

/// What a privacy officer sees of it besides.
pub(super) const OVERSIGHT: &[View] = &[
    at("review for an opinion", "/requests/{study}"),
    then("19-review-opinion", &[], DECISION),
    at("audit log with its exports", "/audit"),
    at("49-settings-policy-read", "/settings/policy"),
];

/// What a data-access approver sees after the data steward has signed.
pub(super) const SECOND: &[View] =
    &[at("review for the second signature", "/requests/{study}"), then("20-review-second-signature", &[], DECISION)];

/// The way to every screen in a narrow window.
pub(super) const MENU: View = View { name: "57-menu", place: Some("/"), acts: &[Press("nav button", 0)], part: None };

/// Every view that has pictures, by name.
pub(super) fn pictured() -> impl Iterator<Item = &'static str> {
    let lists: [&[View]; 9] =
        [DOOR, &FIRST_RUN, SERVICE, NEW_SITE, &[LOCKED, FAILED, MENU], STEWARD, ADMINISTRATION, OVERSIGHT, SECOND];
    let names = lists.into_iter().flatten().map(|view| view.name);
    names.filter(|name| name.starts_with(|first: char| first.is_ascii_digit()))
}
