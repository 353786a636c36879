//! A review as plain text, for terminals and print.

use std::fmt::Write as _;

use hospes_protocol::approval::{OpinionView, Trust};
use hospes_protocol::text::in_bytes;

use crate::names::MARKS;
use crate::view::{Fact, RequestState, Review};

/// Characters of a line.
const WIDTH: usize = 100;

/// Writes a review as plain text. It begins with what must be read first.
pub fn render(review: &Review) -> String {
    let mut out = String::new();
    for banner in &review.banners {
        wrap(&mut out, "", banner);
    }
    let _ = writeln!(out);
    wrap(&mut out, "", &format!("{} — {}", review.title, review.state.word()));
    let _ = writeln!(out);
    wrap(&mut out, "", &review.summary);
    refusals(&mut out, review);
    heading(&mut out, "1. Project: for what");
    facts(&mut out, &review.project);
    heading(&mut out, "2. People: who");
    facts(&mut out, &review.people.facts);
    let _ = writeln!(out, "  Other sites:");
    for peer in &review.people.peers {
        wrap(&mut out, "    ", &format!("{} ({}): {}", peer.name, peer.organisation, peer.trust_words()));
    }
    if let Some(known) = known_sites(review.people.peers.iter().map(|p| (p.name.as_str(), p.trust))) {
        wrap(&mut out, "  ", &known);
    }
    heading(&mut out, "3. Settings: where and how");
    facts(&mut out, &review.settings);
    let _ = writeln!(out, "  What is computed:");
    for sentence in &review.computation {
        wrap(&mut out, "    ", sentence);
    }
    heading(&mut out, "4. Data: which");
    facts(&mut out, &review.data.facts);
    wrap(&mut out, "  ", &format!("Columns read: {}", review.data.columns_read.join(", ")));
    if !review.data.columns_missing.is_empty() {
        wrap(&mut out, "  ", &format!("Columns missing here: {}", review.data.columns_missing.join(", ")));
    }
    if !review.data.candidates.is_empty() {
        wrap(&mut out, "  ", &format!("Datasets that have all columns: {}", review.data.candidates.join(", ")));
    }
    outputs(&mut out, review);
    budget(&mut out, review);
    signatures(&mut out, review);
    out
}

/// How many of these sites are known by more than the coordinator's word, and which ones are not; `None` for none.
pub fn known_sites<'s>(sites: impl IntoIterator<Item = (&'s str, Trust)>) -> Option<String> {
    let sites: Vec<(&str, Trust)> = sites.into_iter().collect();
    let count = |level: Trust| sites.iter().filter(|(_, trust)| *trust == level).count();
    let asserted: Vec<&str> = sites.iter().filter(|(_, t)| *t == Trust::AssertedOnly).map(|(name, _)| *name).collect();
    let (verified, vouched) = (count(Trust::VerifiedHere), count(Trust::VouchedFor));
    let all = format!("{verified} of {} verified here, {vouched} vouched for", sites.len());
    match asserted.as_slice() {
        _ if sites.is_empty() => None,
        [] => Some(format!("{all}.")),
        names => Some(format!(
            "{all}. Asserted by the coordinator only, and counted as its own in rounds with masks: {}.",
            names.join(", ")
        )),
    }
}

fn refusals(out: &mut String, review: &Review) {
    let (refuse, read): (Vec<_>, Vec<_>) = review.findings.iter().partition(|f| f.refuses);
    if !refuse.is_empty() {
        let _ = writeln!(out, "\nThese rules refuse it; nobody can sign it as it is:");
    }
    for finding in refuse {
        wrap(out, "  ", &format!("✗ {}: {}", finding.rule, finding.words));
    }
    if !read.is_empty() || !review.marks.is_empty() {
        let _ = writeln!(out, "\nTo be decided by a person:");
    }
    for finding in read {
        wrap(out, "  ", &format!("? {}: {}", finding.rule, finding.words));
    }
    for mark in &review.marks {
        wrap(out, "  ", &format!("? names: {}", mark.words()));
    }
    if review.marks.len() >= MARKS {
        wrap(out, "  ", &format!("? names: only the first {MARKS} are named; there may be more"));
    }
}

fn outputs(out: &mut String, review: &Review) {
    heading(out, "5. Outputs: what leaves");
    for sentence in &review.outputs.sentences {
        wrap(out, "  ", sentence);
    }
    let _ = match review.outputs.runs {
        1 => writeln!(out, "  Everything that leaves in one run:"),
        runs => writeln!(out, "  Everything that leaves in all {runs} runs:"),
    };
    for item in &review.outputs.items {
        let shape = item.shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" × ");
        let kind = format!("{:?}", item.kind).to_lowercase();
        wrap(
            out,
            "    ",
            &format!(
                "{}: {} '{}' [{shape}], {}, {} times, to the {}",
                item.task,
                kind,
                item.name,
                in_bytes(item.bytes),
                item.times,
                item.to
            ),
        );
    }
    let _ = writeln!(out, "  In all: {}", in_bytes(review.outputs.bytes_in_all));
}

/// What the study takes of the budget of its patients.
fn budget(out: &mut String, review: &Review) {
    let Some(budget) = &review.privacy else { return };
    let account = &budget.account;
    let (percent, most, delta) = (account.share * 100.0, account.epsilon, account.delta);
    wrap(
        out,
        "  ",
        &format!(
            "Privacy budget of its {} patients, over all studies and federations: epsilon {:.2} of at most {most} spent \
             ({percent:.0} %), at delta {delta}.",
            budget.patients, account.spent
        ),
    );
    if let Some(epsilon) = budget.epsilon {
        let share = budget.share * 100.0;
        let fits = if budget.fits { "which is left" } else { "which is NOT left: its rounds will be refused" };
        wrap(out, "  ", &format!("This study takes epsilon {epsilon:.2} ({share:.0} %), {fits}."));
    }
    if !budget.unprotected.is_empty() {
        let tasks = budget.unprotected.join(", ");
        wrap(out, "  ", &format!("Without differential privacy, so that no bound holds afterwards: {tasks}."));
    }
    if account.unprotected > 0 {
        let words = "releases without differential privacy were made of these patients before: no bound holds already.";
        wrap(out, "  ", &format!("{} {words}", account.unprotected));
    }
    if let Some(since) = account.lost {
        wrap(out, "  ", &format!("What left after the backup of {since} is not known: no bound holds."));
    }
}

fn signatures(out: &mut String, review: &Review) {
    heading(out, "Decision");
    match &review.changes {
        None => wrap(out, "  ", "Nothing of this requester was approved here before."),
        Some(changes) if changes.is_empty() => wrap(out, "  ", "Nothing differs from what was approved last."),
        Some(changes) => {
            let _ = writeln!(out, "  What differs from what was approved last:");
            for change in changes {
                let word = |w: &Option<String>| w.clone().unwrap_or_else(|| "(nothing)".into());
                wrap(out, "    ", &format!("{}: {} → {}", change.place, word(&change.before), word(&change.after)));
            }
        }
    }
    match &review.opinion {
        None => wrap(out, "  ", "Privacy officer's opinion: not stated"),
        Some(opinion) => {
            let view = match opinion.view {
                OpinionView::Agree => "agrees",
                OpinionView::Conditions => "agrees with conditions",
                OpinionView::Object => "objects",
            };
            wrap(out, "  ", &format!("Privacy officer's opinion: {} {view}: {}", opinion.by, opinion.text));
        }
    }
    if review.signatures.is_empty() {
        let _ = writeln!(out, "  Signatures: none yet");
    }
    for signature in &review.signatures {
        let _ = writeln!(out, "  Signed by {} as {} on {}", signature.by, signature.role, signature.at);
    }
    let _ = writeln!(out, "  Study  {}", review.study_digest);
    let _ = writeln!(out, "  Plan   {}", review.plan_digest);
    let _ = writeln!(out, "  Read, for a first signature  {}", review.read.digest);
    if let Some(digest) = review.approval_digest {
        let label = match review.state {
            RequestState::PartlyApproved => "Approval to be signed ",
            _ => "Approval",
        };
        let _ = writeln!(out, "  {label} {digest}");
    }
}

fn heading(out: &mut String, text: &str) {
    let _ = writeln!(out, "\n{text}");
}

fn facts(out: &mut String, facts: &[Fact]) {
    for fact in facts {
        wrap(out, "  ", &format!("{}: {}", fact.label, fact.words()));
    }
}

/// Writes a paragraph with a hanging indent.
fn wrap(out: &mut String, indent: &str, text: &str) {
    let mut column = indent.chars().count();
    out.push_str(indent);
    let mut first = true;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if !first && column + 1 + length > WIDTH {
            out.push('\n');
            out.push_str(indent);
            out.push_str("  ");
            column = indent.chars().count() + 2;
        } else if !first {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
        first = false;
    }
    out.push('\n');
}
