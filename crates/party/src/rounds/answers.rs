//! To which sums this site agreed: the same over other sites, taken off, would leave what one site sent.
//!
//! Figures follow from the rows, the task and the model. The model does not count: the coordinator chooses it, one that differs
//! in its last digit has the same figures, and numbers of rows and of labels are the same for all.
//!
//! An update follows from the rows, the model and what is drawn, and from all rows nothing is drawn. From one model a site trains
//! for one set of sites, in whichever job, study and epoch; how it trains and with which seed does not count. Only within one task
//! of one run the next round may start from the model of a round that was agreed to and not taken (ADR 0036).

use std::collections::BTreeMap;

use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{Digest, Timestamp};
use hospes_protocol::plan::{self, Component, Cox, Evaluation, Family, Glm, Newton, Parties, Plan, Privacy, Ties};
use sqlx::sqlite::SqliteConnection;

use super::open::Leave;
use crate::error::PartyError;
use crate::store::{At as _, Tx, parse};

/// What is asked of this site's rows, whatever round, run and study it is asked in.
pub(super) struct Asked {
    snapshot: Digest,
    task: Digest,
    model: Option<Digest>,
    /// The task of a run that asks: job, epoch and name.
    run: String,
    is_figures: bool,
}

impl Asked {
    /// What a masked round asks for.
    pub(super) fn of(leave: &Leave) -> Result<Self, PartyError> {
        let (plan, header) = (&leave.circumstances.plan, &leave.circumstances.header);
        let alone = Canonical::new(alone(plan, &header.task))?;
        Ok(Self {
            snapshot: leave.permit.snapshot(),
            task: alone.digest(),
            model: header.model,
            run: format!("{}/{}/{}", header.job, header.epoch, header.task),
            is_figures: plan::masks::reports_figures(plan, &header.task),
        })
    }

    fn model(&self) -> String {
        self.model.map_or_else(String::new, |model| model.to_string())
    }
}

/// The plan of one task: whatever else a plan has, or is called, and whatever its tasks are called, what this one reports is
/// the same, and with another seed mostly. Of what judges, trains or fits a model only the data and what leads to the
/// rows are left, and how these are prepared is part of it: neither how a model is
/// trained counts, nor a threshold. When a fit ends and how wide its intervals are is the coordinator's part of it, and two
/// families or an intercept less make sums of which one follows from the other.
fn alone(plan: &Plan, task: &str) -> Plan {
    let is_apart = |name: &str, port: &str| match plan.tasks.get(name).map(|found| &found.component) {
        Some(Component::Evaluation(_)) => port == "model",
        // The rows for validation change nothing of an update.
        Some(Component::NnTrain(_)) => port == "validate",
        _ => false,
    };
    // In an order, and so with numbers, that no name has a part in.
    let (mut order, mut at) = (vec![task], 0usize);
    while let Some(name) = order.get(at).copied() {
        at += 1;
        let Some(found) = plan.tasks.get(name) else { continue };
        for port in found.inputs.keys().filter(|port| !is_apart(name, port)) {
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
        stripped.inputs.retain(|port, _| !is_apart(name, port));
        match &mut stripped.component {
            Component::Glm(glm) => {
                *glm = Glm {
                    family: Family::Gaussian,
                    intercept: true,
                    offset: None,
                    weights: None,
                    newton: Newton::default(),
                    confidence: LEVEL,
                    privacy: Privacy::SecureAggregation {},
                };
            }
            Component::Cox(cox) => {
                *cox = Cox {
                    ties: Ties::default(),
                    time_grid: None,
                    newton: Newton::default(),
                    confidence: LEVEL,
                    privacy: Privacy::SecureAggregation {},
                };
            }
            // The names of their inputs tell which of them it is.
            judges @ (Component::Evaluation(_) | Component::LocalBaseline(_) | Component::NnTrain(_)) => {
                *judges = Component::Evaluation(Evaluation::default());
            }
            _ => {}
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

/// Any level of confidence.
const LEVEL: f64 = 0.95;

/// Figures were answered before of whatever model, in whatever run.
const OF_ROWS: &str = "SELECT cohort FROM secure_answers WHERE snapshot = ?1 AND task = ?2 ORDER BY at LIMIT 1";
/// From this model it was trained before, in another run or by another of its tasks.
const OF_MODEL: &str = "SELECT cohort FROM secure_answers
                        WHERE snapshot = ?1 AND task = ?2 AND model = ?3 AND run IS NOT ?4";

/// Names the sites over which it was answered before.
pub(super) async fn before(conn: &mut SqliteConnection, asked: &Asked) -> Result<Option<Digest>, PartyError> {
    let (snapshot, task) = (asked.snapshot.to_string(), asked.task.to_string());
    let found: Option<String> = if asked.is_figures {
        let query = sqlx::query_scalar(OF_ROWS).bind(snapshot).bind(task);
        query.fetch_optional(conn).await.at("read earlier answers")?
    } else {
        let query = sqlx::query_scalar(OF_MODEL).bind(snapshot).bind(task).bind(asked.model()).bind(asked.run.clone());
        query.fetch_optional(conn).await.at("read earlier answers")?
    };
    found.map(|cohort| parse(&cohort, "cohort")).transpose()
}

/// Keeps over which sites it is answered, in the step that keeps this site's word for it. The first answer stays.
pub(super) async fn keep(tx: &mut Tx, asked: &Asked, cohort: Digest, now: Timestamp) -> Result<(), PartyError> {
    let step = tx.step();
    let sql = "INSERT INTO secure_answers (snapshot, task, model, cohort, at, run) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT DO NOTHING";
    sqlx::query(sql)
        .bind(asked.snapshot.to_string())
        .bind(asked.task.to_string())
        .bind(asked.model())
        .bind(cohort.to_string())
        .bind(now.as_millis())
        .bind(asked.run.clone())
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

    fn digest(text: &str, task: &str) -> Digest {
        let plan = plan::read(text).unwrap_or_else(|e| panic!("{e}"));
        Canonical::new(alone(&plan, task)).unwrap().digest()
    }

    /// Attack: one regression twice, at other levels of confidence and over other sites.
    #[test]
    fn a_regression_is_one_question_however_it_ends_and_whatever_is_made_of_its_sums() {
        let fit = |params: &str| {
            let task = format!("component: glm, inputs: {{ train: split.train }}, params: {{ {params} }}");
            digest(&format!("{}\n  fit: {{ {task} }}\n", PLAN.trim_end()), "fit")
        };
        let masks = "privacy: { secure_aggregation: {} }";
        let first = fit(&format!("family: binomial, {masks}"));
        for params in ["confidence: 0.9", "newton: { tolerance: 1e-8 }", "newton: { rounds: 12 }", "intercept: false"] {
            assert_eq!(fit(&format!("family: binomial, {params}, {masks}")), first, "{params}");
        }
        assert_ne!(first, digest(PLAN, "counts"), "statistics of the same rows");
    }

    /// Attack: the same rows are judged alone once more, by a model that is trained a little otherwise.
    #[test]
    fn training_is_asked_of_rows_however_it_is_done() {
        let text = format!("{}{JUDGED}{ALONE}", PLAN.trim_end());
        let changes =
            [("alone", "lr: 0.3", "lr: 0.4"), ("alone", "epochs: 2", "epochs: 3"), ("train", "lr: 0.1", "lr: 0.2")];
        for (task, from, to) in changes {
            let first = digest(&text, task);
            assert_eq!(digest(&text.replace(from, to), task), first, "{task}: {to}");
            assert_eq!(digest(&text.replace("name: one", "name: one\nseed: 7"), task), first, "{task}: another seed");
            assert_ne!(digest(&text.replace("test_fraction: 0.3", "test_fraction: 0.4"), task), first, "{task}");
        }
        let asked = ["alone", "train", "eval"].map(|task| digest(&text, task));
        assert!(asked[0] != asked[1] && asked[1] != asked[2] && asked[0] != asked[2], "{asked:?}");
    }

    const ALONE: &str = r#"
  alone:
    component: local_baseline
    inputs: { train: split.train, data: split.test }
    params:
      model: [{ linear: { out: 1 } }]
      loss: binary_cross_entropy
      optimizer: { sgd: { lr: 0.3 } }
      epochs: 2
      batch: 4
"#;

    /// Attack: the same run goes on in a new epoch, or trains by another task of its plan, from the model of a sum over other
    /// sites.
    #[tokio::test]
    async fn within_one_task_of_one_run_alone_other_sites_may_follow_from_one_model() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::store::Store::create(&folder.path().join("site.db")).await.unwrap();
        let asked = |is_figures: bool, model: &str, run: &str| Asked {
            snapshot: Digest::of(b"rows"),
            task: Digest::of(if is_figures { b"figures" } else { b"updates" }),
            model: Some(Digest::of(model.as_bytes())),
            run: run.to_owned(),
            is_figures,
        };
        let (cohort, now) = (Digest::of(b"four sites"), Timestamp::from_millis(1));
        let mut tx = store.begin("test").await.unwrap();
        for is_figures in [false, true] {
            keep(&mut tx, &asked(is_figures, "m", "one/1/train"), cohort, now).await.unwrap();
        }
        let questions = [
            (false, "m", "one/1/train", None),
            (false, "m", "one/2/train", Some(cohort)),
            (false, "m", "one/1/again", Some(cohort)),
            (false, "m", "two/1/train", Some(cohort)),
            (false, "n", "two/1/train", None),
            (true, "m", "one/1/train", Some(cohort)),
            (true, "n", "two/2/train", Some(cohort)),
        ];
        for (is_figures, model, run, answered) in questions {
            let found = before(tx.conn(), &asked(is_figures, model, run)).await.unwrap();
            assert_eq!(found, answered, "{is_figures} {run}");
        }
        // What was answered first stays.
        keep(&mut tx, &asked(false, "m", "one/1/train"), Digest::of(b"three sites"), now).await.unwrap();
        assert_eq!(before(tx.conn(), &asked(false, "m", "two/1/train")).await.unwrap(), Some(cohort));
    }
}
