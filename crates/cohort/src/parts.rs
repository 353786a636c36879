//! Into which parts a plan's results cut the patients: the difference of two results is a result about a part.

use std::collections::{BTreeMap, HashMap};

use hospes_privacy::disclosure::subset_allowed;
use hospes_protocol::plan::{self, Component, Plan};
use hospes_protocol::policy::Disclosure;

use crate::component::{Frame, Pipeline};
use crate::error::CohortError;
use crate::opt_out::SubjectHash;

/// Rows by subject.
type Subjects = HashMap<SubjectHash, u32>;

/// Whether the tables that a task's result depends on may be set against the whole dataset, and against every table that
/// another result of the plan depends on: in each pair, what both share and what only one has must be nobody or enough
/// subjects. A subject of whom one table has fewer rows counts as set apart.
pub(crate) fn parts_allowed(pipeline: &mut Pipeline<'_>, task: &str, rules: &Disclosure) -> Result<bool, CohortError> {
    if rules.min_subset <= 1 {
        return Ok(true);
    }
    let whole = subjects(&pipeline.read());
    let mut mine = BTreeMap::new();
    for port in tables_behind(pipeline.plan(), task) {
        mine.insert(port.source, subjects(&*pipeline.table(&port.task, port.input)?));
    }
    if !mine.values().all(|table| !table.is_empty() && comparable(rules, table, &whole)) {
        return Ok(false);
    }
    let plan = pipeline.plan();
    let results = plan.tasks.iter().filter(|(name, other)| *name != task && other.component.rounds() > 0);
    for port in results.flat_map(|(name, _)| tables_behind(plan, name)).collect::<Vec<_>>() {
        // A table that cannot be made never gives a result.
        let Ok(other) = pipeline.table(&port.task, port.input) else { continue };
        let other = subjects(&other);
        if !mine.values().all(|table| comparable(rules, table, &other)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What the cells are compared with into which a subgroup cuts a table: the whole dataset, every table that a result of the
/// plan depends on, and every subgroup of another evaluation. A cell is a subgroup that is shown, or all other rows; if
/// each is comparable with each of these, then so are all sums and differences of them.
pub(crate) struct Cells {
    others: Vec<Subjects>,
}

impl Cells {
    /// # Errors
    /// [`CohortError`] if a table of the task itself cannot be made.
    pub(crate) fn of(pipeline: &mut Pipeline<'_>, task: &str, rules: &Disclosure) -> Result<Self, CohortError> {
        if rules.min_subset <= 1 {
            return Ok(Self { others: Vec::new() });
        }
        let plan = pipeline.plan();
        let mut others = vec![subjects(&pipeline.read())];
        for port in tables_behind(plan, task) {
            others.push(subjects(&*pipeline.table(&port.task, port.input)?));
        }
        let results = plan.tasks.iter().filter(|(name, other)| *name != task && other.component.rounds() > 0);
        for (name, _) in results {
            for port in tables_behind(plan, name) {
                others.extend(pipeline.table(&port.task, port.input).ok().map(|table| subjects(&table)));
            }
            let Some(subgroups) = plan::subgroups(plan, name) else { continue };
            let Ok(table) = pipeline.table(name, "data") else { continue };
            for rows in table.group_rows(subgroups.column, subgroups.codes.len())? {
                others.push(subjects(&table.labels(&rows)));
            }
        }
        Ok(Self { others })
    }

    /// The same for the loss on the rows for validation, which gives way to every other result: it is compared with the rows
    /// on which the losses of other trainings are told too, and they are not compared with it.
    ///
    /// # Errors
    /// As [`Cells::of`].
    pub(crate) fn of_loss(pipeline: &mut Pipeline<'_>, task: &str, rules: &Disclosure) -> Result<Self, CohortError> {
        let mut cells = Self::of(pipeline, task, rules)?;
        if rules.min_subset <= 1 {
            return Ok(cells);
        }
        let tells = |component: &Component| matches!(component, Component::NnTrain(p) if p.early_stop.is_some());
        let plan = pipeline.plan();
        for (name, _) in plan.tasks.iter().filter(|(name, other)| *name != task && tells(&other.component)) {
            cells.others.extend(pipeline.table(name, "validate").ok().map(|table| subjects(&table)));
        }
        Ok(cells)
    }

    /// Whether a cell may be set against all others.
    pub(crate) fn allow(&self, cell: &Frame, rules: &Disclosure) -> bool {
        let cell = subjects(cell);
        self.others.iter().all(|other| comparable(rules, &cell, other))
    }
}

/// Whether another evaluation of the plan judges the same model on the very rows of this one, with other parameters or other
/// values: what the two differ in would be about few. The plan's check refuses what it can see; that a split sets nobody
/// apart, or that no row was to be dropped, shows in the rows only.
///
/// # Errors
/// [`CohortError`] if the table of the task itself cannot be made.
pub(crate) fn judged_again(pipeline: &mut Pipeline<'_>, task: &str, rules: &Disclosure) -> Result<bool, CohortError> {
    let plan = pipeline.plan();
    let evaluation = |name: &str| {
        let found = plan.tasks.get(name)?;
        let Component::Evaluation(params) = &found.component else { return None };
        Some((params, plan::source(plan, found, "model")?))
    };
    let Some((params, model)) = evaluation(task).filter(|_| rules.min_subset > 1) else { return Ok(false) };
    let mine = pipeline.table(task, "data")?;
    let whose = subjects(&mine);
    for name in plan.tasks.keys().filter(|name| *name != task) {
        let Some((others, _)) = evaluation(name).filter(|(_, of)| *of == model) else { continue };
        // A table that cannot be made never gives a result.
        let Ok(table) = pipeline.table(name, "data") else { continue };
        let values = |frame: &Frame| frame.features.iter().map(|f| f.values.clone()).collect::<Vec<_>>();
        if subjects(&table) == whose && !(others == params && values(&table) == values(&mine)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// An input that is a table, with the output that it comes from.
struct Port {
    task: String,
    input: &'static str,
    source: (String, String),
}

/// The tables that a result depends on: those at its ports, and those to which a component before it was fitted. But not
/// `validate`: of it only the loss leaves, and only where training can end early, see [`Cells::of_loss`].
fn tables_behind(plan: &Plan, task: &str) -> Vec<Port> {
    let port = |task: &str, input: &'static str| {
        let found = plan::source(plan, plan.tasks.get(task)?, input)?;
        Some(Port { task: task.to_owned(), input, source: (found.task.to_owned(), found.output.to_owned()) })
    };
    let fits = |name: &&str| {
        let found = &plan.tasks[*name];
        found.component.learns() && !found.inputs.contains_key("fitted")
    };
    let own = ["train", "data"].into_iter().filter_map(|input| port(task, input));
    let fitted = plan::ancestors(plan, task).into_iter().filter(fits).filter_map(|name| port(name, "data"));
    own.chain(fitted).collect()
}

fn subjects(frame: &Frame) -> Subjects {
    let mut rows = Subjects::new();
    frame.subjects.iter().for_each(|subject| *rows.entry(*subject).or_default() += 1);
    rows
}

fn comparable(rules: &Disclosure, one: &Subjects, other: &Subjects) -> bool {
    let shared = one.keys().filter(|subject| other.contains_key(*subject)).count() as u64;
    let apart = |from: &Subjects, in_: &Subjects| {
        from.iter().filter(|(subject, rows)| in_.get(*subject).is_none_or(|n| n < rows)).count() as u64
    };
    let part = |apart| subset_allowed(rules, shared, shared + apart);
    shared == 0 || part(apart(one, other)) && part(apart(other, one))
}

#[cfg(test)]
mod tests {
    use hospes_protocol::policy::Policy;

    use super::*;

    #[test]
    fn two_tables_share_enough_subjects_or_none_and_set_enough_apart_or_none() {
        let table = |subjects: std::ops::Range<u8>| -> Subjects { subjects.map(|n| ([n; 16], 1)).collect() };
        let rules = Policy::strict().disclosure;
        let allowed = |one, other| comparable(&rules, &table(one), &table(other));
        assert!(allowed(0..100, 0..100) && allowed(0..90, 0..100) && allowed(0..50, 50..100));
        assert!(!allowed(0..99, 0..100) && !allowed(0..100, 0..91));
        assert!(!allowed(0..51, 50..100), "one subject in both");
        assert!(allowed(0..60, 50..100));
        let mut visits = table(0..50);
        visits.insert([7; 16], 3);
        assert!(!comparable(&rules, &visits, &table(0..50)), "two visits of one subject");
    }
}
