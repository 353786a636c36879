//! A study with many settings: what its approval allows, and the words that people read about it.

use std::collections::BTreeSet;

use hospes_protocol::approval::Computation;
use hospes_protocol::study::{Study, Sweep};
use hospes_protocol::text::shown;

use crate::error::PartyError;
use crate::view::{Approving, Fact, Finding};

/// Characters of the list of settings that is shown.
const LONG: usize = 4_000;

/// What an approval allows: as the study asks. The first signer may allow more runs of a plan and other numbers in it,
/// but not with a study that lists its settings: what may run is then this list.
pub(super) fn computation(study: &Study, approving: &Approving) -> Result<Computation, PartyError> {
    let asked = study.computation().map_err(|e| PartyError::input("study", e.to_string()))?;
    if study.sweep.is_none() {
        return Ok(Computation { ranges: approving.ranges.clone(), max_runs: approving.max_runs, ..asked });
    }
    if !approving.ranges.is_empty() {
        let words = "the study lists its settings, and no other plan of it can be run; leave the ranges out";
        return Err(PartyError::input("ranges", words));
    }
    if approving.max_runs > 1 && approving.max_runs != asked.max_runs {
        let words = format!("the study asks for {}, one for each setting; leave the number out", asked.max_runs);
        return Err(PartyError::input("runs", words));
    }
    Ok(asked)
}

/// The whole of it in one sentence.
pub(super) fn sentence(sweep: &Sweep) -> String {
    let ranges: Vec<String> = sweep
        .ranges()
        .iter()
        .map(|(place, range)| format!("{} lies between {} and {}", name(place), range.min, range.max))
        .collect();
    format!(
        "{} runs of this plan, one for each listed setting, in which {}; at most {} at a time",
        sweep.len(),
        ranges.join(", "),
        sweep.parallel
    )
}

/// Which of the models is used.
fn choice(sweep: &Sweep) -> String {
    let rank = &sweep.rank;
    format!(
        "the model with the {} {} in '{}', over all sites together; the others are deleted",
        rank.direction.as_str(),
        rank.metric.as_str(),
        shown(&rank.task, 100)
    )
}

/// `optimizer.sgd.lr of 'train'` for `tasks.train.params.optimizer.sgd.lr`.
fn name(place: &str) -> String {
    let parts = place.strip_prefix("tasks.").and_then(|rest| rest.split_once(".params."));
    match parts {
        Some((task, parameter)) => format!("{} of '{}'", shown(parameter, 200), shown(task, 100)),
        None => shown(place, 200),
    }
}

/// What the settings of a study add to the tab of settings.
pub(super) fn facts(sweep: &Sweep) -> Vec<Fact> {
    let setting = |(number, setting): (usize, &hospes_protocol::study::Setting)| {
        let values: Vec<String> = setting.iter().map(|(place, value)| format!("{} {value}", name(place))).collect();
        format!("{}: {}", number + 1, values.join(", "))
    };
    let list: Vec<String> = sweep.settings.iter().enumerate().map(setting).collect();
    vec![
        Fact::new("Many settings of one plan", sentence(sweep)),
        Fact::new("The settings", shown(&list.join("; "), LONG)),
        Fact::new("Which result is used", choice(sweep)),
    ]
}

/// What a person must have read before signing a sweep.
pub(super) fn finding(sweep: &Sweep) -> Finding {
    // PRIVACY: no rule of this version compares the reports of several runs, so people weigh it.
    let words = format!(
        "it trains {n} models on the same patients and judges each on the same test rows; what leaves is counted over all \
         {n} runs, and what two of these reports differ in can tell about few patients",
        n = sweep.len()
    );
    Finding { rule: "study.sweep".into(), refuses: false, words }
}

/// Findings without those that several settings share.
pub(super) fn distinct<T: PartialEq>(found: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut kept: Vec<T> = Vec::new();
    for one in found {
        if !kept.contains(&one) {
            kept.push(one);
        }
    }
    kept
}

/// Places at which a computation allows more than its plan, for the list of changes.
pub(super) fn width(computation: &Computation) -> serde_json::Value {
    let settings: BTreeSet<String> = computation.settings.iter().map(ToString::to_string).collect();
    match settings.len() {
        0 => serde_json::Value::Null,
        count => serde_json::json!({
            "runs": computation.max_runs, "ranges": computation.ranges, "settings": format!("{count} listed")
        }),
    }
}
