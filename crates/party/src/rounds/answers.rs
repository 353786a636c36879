//! To which sums of figures this site agreed. Figures follow from the rows, the task and the model, and training does not come
//! between: the same over other sites, taken off, would leave what one site sent. The model does not count: the coordinator
//! chooses it, one that differs in its last digit has the same figures, and numbers of rows and of labels are the same for all.

use std::collections::BTreeMap;

use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{Digest, Timestamp};
use hospes_protocol::plan::{self, Component, Evaluation, Parties, Plan};
use sqlx::sqlite::SqliteConnection;

use super::open::Leave;
use crate::error::PartyError;
use crate::store::{At as _, Tx, parse};

/// What is asked of this site's rows, whatever round, run and study it is asked in.
pub(super) struct Asked {
    snapshot: Digest,
    task: Digest,
    model: Option<Digest>,
}

impl Asked {
    /// What a round asks for; none for training, whose updates differ from round to round.
    pub(super) fn of(leave: &Leave) -> Result<Option<Self>, PartyError> {
        let (plan, header) = (&leave.circumstances.plan, &leave.circumstances.header);
        if !plan::masks::reports_figures(plan, &header.task) {
            return Ok(None);
        }
        let alone = Canonical::new(alone(plan, &header.task))?;
        Ok(Some(Self { snapshot: leave.permit.snapshot(), task: alone.digest(), model: header.model }))
    }

    fn model(&self) -> String {
        self.model.map_or_else(String::new, |model| model.to_string())
    }
}

/// The plan of one task: whatever else a plan has, or is called, and whatever its tasks are called, what this one reports is
/// the same, and with another seed mostly. Of an evaluation only the rows are left: neither what its model was trained with
/// counts, nor a threshold.
fn alone(plan: &Plan, task: &str) -> Plan {
    let is_model = |name: &str, port: &str| {
        let component = plan.tasks.get(name).map(|found| &found.component);
        port == "model" && matches!(component, Some(Component::Evaluation(_)))
    };
    // In an order, and so with numbers, that no name has a part in.
    let (mut order, mut at) = (vec![task], 0usize);
    while let Some(name) = order.get(at).copied() {
        at += 1;
        let Some(found) = plan.tasks.get(name) else { continue };
        for port in found.inputs.keys().filter(|port| !is_model(name, port)) {
            if let Some(source) = plan::source(plan, found, port).filter(|source| !order.contains(&source.task)) {
                order.push(source.task);
            }
        }
    }
    let numbered = |name: &str| order.iter().position(|other| *other == name).unwrap_or_default().to_string();
    let mut tasks = BTreeMap::new();
    for name in &order {
        let Some(found) = plan.tasks.get(*name) else { continue };
        let mut stripped = found.clone();
        stripped.inputs.retain(|port, _| !is_model(name, port));
        if let Component::Evaluation(evaluation) = &mut stripped.component {
            *evaluation = Evaluation::default();
        }
        for (port, from) in &mut stripped.inputs {
            if let Some(source) = plan::source(plan, found, port) {
                *from = format!("{}.{}", numbered(source.task), source.output);
            }
        }
        tasks.insert(numbered(name), stripped);
    }
    Plan { name: "alone".to_owned(), parties: Parties::default(), seed: 0, tasks, ..plan.clone() }
}

/// Names the sites over which it was answered before, of whatever model.
pub(super) async fn before(conn: &mut SqliteConnection, asked: &Asked) -> Result<Option<Digest>, PartyError> {
    let sql = "SELECT cohort FROM secure_answers WHERE snapshot = ?1 AND task = ?2 ORDER BY at LIMIT 1";
    let found: Option<String> = sqlx::query_scalar(sql)
        .bind(asked.snapshot.to_string())
        .bind(asked.task.to_string())
        .fetch_optional(conn)
        .await
        .at("read earlier answers")?;
    found.map(|cohort| parse(&cohort, "cohort")).transpose()
}

/// Keeps over which sites it is answered, in the step that keeps this site's word for it. The first answer stays.
pub(super) async fn keep(tx: &mut Tx, asked: &Asked, cohort: Digest, now: Timestamp) -> Result<(), PartyError> {
    let step = tx.step();
    let sql = "INSERT INTO secure_answers (snapshot, task, model, cohort, at) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT DO NOTHING";
    sqlx::query(sql)
        .bind(asked.snapshot.to_string())
        .bind(asked.task.to_string())
        .bind(asked.model())
        .bind(cohort.to_string())
        .bind(now.as_millis())
        .execute(tx.conn())
        .await
        .at(step)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"
schema: hospes/plan/v1
name: one
data:
  subject: id
  label: { column: y, positive: "> 0" }
  columns: [x]
tasks:
  read: { component: reader }
  split: { component: data_split, inputs: { data: read }, params: { test_fraction: 0.3 } }
  counts: { component: statistics, inputs: { data: split.train }, params: { privacy: { secure_aggregation: {} } } }
  more: { component: statistics, inputs: { data: split.test } }
"#;

    #[test]
    fn what_is_asked_is_the_same_in_another_plan_and_another_where_its_rows_are() {
        let named = |text: &str, task: &str| {
            let plan = plan::read(text).unwrap_or_else(|e| panic!("{e}"));
            Canonical::new(alone(&plan, task)).unwrap().digest()
        };
        let digest = |text: &str| named(text, "counts");
        let first = digest(PLAN);
        assert_eq!(digest(&PLAN.replace("name: one", "name: another\nseed: 7")), first);
        assert_eq!(digest(PLAN.rsplit_once("  more:").unwrap().0), first, "what it does not depend on");
        assert_ne!(digest(&PLAN.replace("test_fraction: 0.3", "test_fraction: 0.4")), first);
        // Attack: the same by another name, in another study.
        assert_eq!(named(&PLAN.replace("  counts:", "  again:"), "again"), first);
        let renamed = PLAN.replace("  split:", "  a_split:").replace("data: split.", "data: a_split.");
        assert_eq!(digest(&renamed), first);
    }

    const JUDGED: &str = r#"
  train:
    component: nn_train
    inputs: { train: split.train }
    params:
      model: [{ linear: { out: 1 } }]
      loss: binary_cross_entropy
      optimizer: { sgd: { lr: 0.1 } }
      rounds: 1
      local: { updates: 1, batch: 1 }
      strategy: { fed_avg: {} }
      privacy: { plain: {} }
  eval: { component: evaluation, inputs: { model: train.model, data: split.test } }
"#;

    #[test]
    fn training_and_threshold_make_no_other_question_of_an_evaluation() {
        let digest = |text: &str| {
            let plan = plan::read(text).unwrap_or_else(|e| panic!("{e}"));
            Canonical::new(alone(&plan, "eval")).unwrap().digest()
        };
        let text = format!("{}{JUDGED}", PLAN.trim_end());
        let first = digest(&text);
        assert_eq!(digest(&text.replace("lr: 0.1", "lr: 0.2")), first);
        let judged = "data: split.test } }\n";
        let (before, last) = text.rsplit_once(judged).unwrap();
        assert_eq!(digest(&format!("{before}data: split.test }}, params: {{ threshold: 0.4 }} }}\n{last}")), first);
        assert_ne!(digest(&text.replace("test_fraction: 0.3", "test_fraction: 0.4")), first);
    }
}
