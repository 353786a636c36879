//! What it takes to use a released model on a dataset: that it is here, what its rows were prepared by, and which columns
//! it needs.

use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{Digest, JobId};
use hospes_protocol::plan::{self, Component, Plan, Variable};
use hospes_protocol::policy::Policy;
use hospes_protocol::study::Study;
use hospes_protocol::text::shown;
use sqlx::sqlite::SqliteConnection;

use crate::datasets::{self, Dataset};
use crate::engine::Engine;
use crate::error::PartyError;
use crate::requests;
use crate::rounds::Job;
use crate::rounds::card::Card;
use crate::rounds::state::RoundRow;
use crate::view::RESEARCH_ONLY;

/// Characters of a name and of a text above the table.
const NAME_CHARS: usize = 200;
const TEXT_CHARS: usize = 1_000;

const KEPT: &str = "the model does not work without layers that each site keeps to itself, and those of this site were \
                    deleted with the run";

/// A released model that is here and can be used, and what that takes.
pub(super) struct Usable {
    pub(super) found: Job,
    pub(super) model: Digest,
    /// The task that trained it.
    pub(super) task: String,
    study: Canonical<Study>,
    pub(super) trained_on: Option<TrainedOn>,
}

/// The dataset from which the plan's steps learned something at this site.
pub(super) struct TrainedOn {
    pub(super) dataset: Dataset,
    /// Patients of it who opted out since: what was learned is learned again without them.
    pub(super) opted_out_since: u64,
}

impl Engine {
    /// The released model of a run, if it is here and can be used.
    pub(super) async fn usable(&self, conn: &mut SqliteConnection, job: JobId) -> Result<Usable, PartyError> {
        let found = Job::read(conn, job).await?;
        let model = found.released_model()?;
        let study = requests::study(conn, found.study).await?.study;
        let path = self.model_path(found.federation, model);
        let card = std::fs::read(self.card_path(job)).ok().filter(|_| path.exists());
        let card = card.and_then(|bytes| Card::read(&bytes, &found, Some(model), study.digest()).ok());
        let missing = "the model is not here yet; fetch it first, together with its card";
        let task = card.ok_or_else(|| PartyError::state(missing))?.task().to_owned();
        match found.plan.tasks.get(&task).map(|task| &task.component) {
            Some(Component::NnTrain(train)) if !plan::kept(train, plan::inputs(&found.plan, &task)).is_empty() => {
                return Err(PartyError::state(KEPT));
            }
            Some(Component::NnTrain(_) | Component::Glm(_)) => {}
            _ => return Err(PartyError::state("the model's card names a task that trains no model")),
        }
        let learns =
            plan::preparation(&found.plan, &task).iter().any(|step| found.plan.tasks[*step].component.learns());
        let trained_on = match learns {
            true => Some(trained_on(conn, job, &task).await?),
            false => None,
        };
        Ok(Usable { found, model, task, study, trained_on })
    }

    /// The lines above the table.
    pub(super) fn head_of_file(&self, usable: &Usable, rows: &Dataset, policy: &Policy) -> Vec<String> {
        let (document, title) = (&rows.document, shown(&usable.study.terms.title, NAME_CHARS));
        let mut head = vec![RESEARCH_ONLY.to_owned()];
        if policy.is_public_data() {
            head.push("PUBLIC DATA: made under the policy for public data, whose rules protect nobody.".to_owned());
        }
        head.push(format!("Model {} of the study '{title}', run {}.", usable.model, usable.found.job));
        head.push(format!("Purpose of the study: {}", usable.purpose()));
        head.push(format!(
            "Dataset '{}', snapshot {}. row: number of the row, from 1, in the file that was registered (SHA-256 {}). \
             Rows of people who opted out are not here.",
            shown(&rows.name, NAME_CHARS),
            document.digest(),
            document.source
        ));
        head.extend(units(&usable.found.plan, &usable.task));
        if let Some(TrainedOn { opted_out_since, .. }) = usable.trained_on.as_ref().filter(|t| t.opted_out_since > 0) {
            head.push(format!(
                "{opted_out_since} patients opted out since this site trained the model; by what columns are scaled or \
                 filled was learned again without them."
            ));
        }
        head.push(format!("Made at {} by {}, for research within this site.", self.now(), crate::SOFTWARE));
        head
    }
}

impl Usable {
    /// Purpose of the model's study, on one line.
    pub(super) fn purpose(&self) -> String {
        let words: Vec<&str> = self.study.terms.purpose.split_whitespace().collect();
        shown(&words.join(" "), TEXT_CHARS)
    }

    /// Columns that the model needs and a dataset lacks.
    pub(super) fn missing(&self, rows: &Dataset) -> Vec<String> {
        let (needed, there) = (plan::predictors(&self.found.plan, &self.task), rows.columns());
        needed.difference(&there).map(|column| shown(column, NAME_CHARS)).collect()
    }
}

/// In which units a model takes numbers, where its plan says so: nothing else tells whoever reads what came of them.
fn units(plan: &Plan, task: &str) -> Option<String> {
    let needed = plan::predictors(plan, task);
    let unit = |(column, variable): (&String, &Variable)| match variable {
        Variable::Number { unit: Some(unit), .. } if needed.contains(column) => {
            Some(format!("{} in {}", shown(column, NAME_CHARS), shown(unit, NAME_CHARS)))
        }
        _ => None,
    };
    let units: Vec<String> = plan.data.variables.iter().filter_map(unit).collect();
    let words = || format!("The model takes {}; nobody checked the units of the dataset.", units.join(", "));
    (!units.is_empty()).then(words)
}

pub(super) fn check_dataset(rows: &Dataset, usable: &Usable) -> Result<(), PartyError> {
    if rows.is_removed {
        return Err(PartyError::state("the dataset was removed, with the copy that this site had of it"));
    }
    let missing = usable.missing(rows);
    if missing.is_empty() {
        return Ok(());
    }
    let masked = missing.iter().any(|column| rows.document.masked.contains(column));
    let how = if masked { "register it again and keep them" } else { "register it with them" };
    let reason = format!("it lacks '{}', which the model needs; {how}", missing.join("', '"));
    Err(PartyError::input("dataset", reason))
}

/// The dataset on which this site last trained in a task.
async fn trained_on(conn: &mut SqliteConnection, job: JobId, task: &str) -> Result<TrainedOn, PartyError> {
    let mut rounds = RoundRow::of_job(conn, &job.to_string()).await?;
    rounds.retain(|round| round.key.task == task && round.took_part());
    let last = rounds.iter().max_by_key(|round| (round.key.epoch, round.key.round, round.key.attempt));
    let Some((key, approval)) = last.and_then(|round| Some((&round.key, round.approval?))) else {
        return Err(PartyError::state(
            "this site has no part in the training of the model, and so no numbers of its own to scale or fill columns \
             by",
        ));
    };
    // The version that the run read; a run of an earlier program has not kept which, and had one only.
    let dataset = match Job::read(conn, job).await?.dataset {
        Some(read) => read,
        None => requests::approval_by_id(conn, approval).await?.dataset,
    };
    let dataset = datasets::by_id(conn, dataset).await?;
    if dataset.is_removed {
        return Err(PartyError::state(
            "the dataset on which this site trained the model was removed; by what columns are scaled or filled was \
             learned from it, and cannot be found out again",
        ));
    }
    let then = Engine::subjects_of(conn, key).await?.unwrap_or(dataset.subjects_left);
    let opted_out_since = then.saturating_sub(dataset.subjects_left);
    Ok(TrainedOn { dataset, opted_out_since })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_told_of_what_the_model_takes() {
        let mut plan = crate::tests::small_plan(1);
        assert_eq!(units(&plan, "train"), None);
        for (column, unit) in [("chol", "mg/dl"), ("thalach", "1/min"), ("num", "points")] {
            let variable = Variable::Number { min: None, max: None, unit: Some(unit.into()) };
            plan.data.variables.insert(column.into(), variable);
        }
        let told = units(&plan, "train").unwrap();
        assert!(told.starts_with("The model takes chol in mg/dl, thalach in 1/min; "), "{told}");
    }
}
