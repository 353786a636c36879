//! To which sums of figures this site agreed. Figures follow from the rows, the task and the model, and training does not come
//! between: the same over other sites, taken off, would leave what one site sent.

use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{Digest, Timestamp};
use hospes_protocol::plan::{self, Parties, Plan};
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

/// The plan of one task: whatever else a plan has, or is called, what this one reports is the same.
fn alone(plan: &Plan, task: &str) -> Plan {
    let behind = plan::ancestors(plan, task);
    let mut tasks = plan.tasks.clone();
    tasks.retain(|name, _| name == task || behind.contains(name.as_str()));
    Plan { name: "alone".to_owned(), parties: Parties::default(), tasks, ..plan.clone() }
}

/// Names the sites over which it was answered before.
pub(super) async fn before(conn: &mut SqliteConnection, asked: &Asked) -> Result<Option<Digest>, PartyError> {
    let sql = "SELECT cohort FROM secure_answers WHERE snapshot = ?1 AND task = ?2 AND model = ?3";
    let found: Option<String> = sqlx::query_scalar(sql)
        .bind(asked.snapshot.to_string())
        .bind(asked.task.to_string())
        .bind(asked.model())
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
        let digest = |text: &str| {
            let plan = plan::read(text).unwrap_or_else(|e| panic!("{e}"));
            Canonical::new(alone(&plan, "counts")).unwrap().digest()
        };
        let first = digest(PLAN);
        assert_eq!(digest(&PLAN.replace("name: one", "name: another")), first);
        assert_eq!(digest(PLAN.rsplit_once("  more:").unwrap().0), first, "what it does not depend on");
        assert_ne!(digest(&PLAN.replace("test_fraction: 0.3", "test_fraction: 0.4")), first);
    }
}
