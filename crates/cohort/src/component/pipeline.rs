//! Carries out the part of a plan that stays at the site, as far as one task needs it.

use std::collections::BTreeMap;
use std::rc::Rc;

use hospes_protocol::plan::{self, Component, Plan, Task};

use super::frame::Frame;
use super::imputation::ImputationFit;
use super::scale::ScaleFit;
use super::{imputation, one_hot, scale, split};
use crate::error::CohortError;

/// What an output port holds.
#[derive(Clone)]
enum Value {
    Table(Rc<Frame>),
    Imputation(Rc<ImputationFit>),
    Scale(Rc<ScaleFit>),
}

/// A plan, the table that `reader` reads, and what was computed so far.
pub(crate) struct Pipeline<'a> {
    plan: &'a Plan,
    read: Rc<Frame>,
    done: BTreeMap<(String, String), Value>,
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(plan: &'a Plan, read: Frame) -> Self {
        Self { plan, read: Rc::new(read), done: BTreeMap::new() }
    }

    pub(crate) fn plan(&self) -> &'a Plan {
        self.plan
    }

    /// The table that `reader` reads.
    pub(crate) fn read(&self) -> Rc<Frame> {
        Rc::clone(&self.read)
    }

    /// The table at an input port, with the features checked against those that the plan promises.
    pub(crate) fn table(&mut self, task: &str, port: &str) -> Result<Rc<Frame>, CohortError> {
        let wrong = || self.wrong(task, port);
        let found = self.plan.tasks.get(task).ok_or_else(wrong)?;
        let source = plan::source(self.plan, found, port).ok_or_else(wrong)?;
        let (from, output) = (source.task.to_owned(), source.output.to_owned());
        // `order` gives every task after what it reads, and leaves out cycles.
        let needed = plan::ancestors(self.plan, task);
        for name in plan::order(self.plan).into_iter().filter(|n| needed.contains(n)) {
            if !self.done.keys().any(|(done, _)| done == name) {
                self.run(name)?;
            }
        }
        match self.done.get(&(from, output)) {
            Some(Value::Table(frame)) => Ok(Rc::clone(frame)),
            _ => Err(self.wrong(task, port)),
        }
    }

    /// What the steps before a task learned from its training rows, without the rows: they are let go of.
    pub(crate) fn learned(mut self, task: &str) -> Result<Self, CohortError> {
        let plan = self.plan;
        if plan::preparation(plan, task).iter().any(|step| plan.tasks[*step].component.learns()) {
            self.table(task, "train")?;
        }
        self.read = Rc::default();
        self.done.retain(|_, value| !matches!(value, Value::Table(_)));
        Ok(self)
    }

    /// Other rows, prepared as the training rows of a task are: in the same steps, with what was [learned](Self::learned)
    /// for those. No row is split off; one that would be left out for a missing value stays, and is never complete.
    pub(crate) fn prepare(&self, task: &str, mut rows: Frame) -> Result<Frame, CohortError> {
        let plan = self.plan;
        for name in plan::preparation(plan, task) {
            let component = &plan.tasks[name].component;
            let fitted = self.done.get(&(name.to_owned(), "fitted".to_owned())).cloned();
            rows = match component {
                // No row is trained on or set aside.
                Component::Reader(_) | Component::DataSplit(_) => rows,
                Component::OneHot(params) => one_hot::apply(&rows, params, name)?,
                Component::Imputation(params) => match fitted {
                    Some(Value::Imputation(fit)) => imputation::fill(rows, &fit),
                    // What learns nothing does the same to all rows.
                    None if !component.learns() => {
                        let fit = imputation::fit(&rows, &params.method, name)?;
                        imputation::fill(rows, &fit)
                    }
                    _ => return Err(self.wrong(name, "fitted")),
                },
                Component::FeatureScale(params) => match fitted {
                    Some(Value::Scale(fit)) => scale::apply(&rows, &fit, name)?,
                    None if !component.learns() => scale::apply(&rows, &scale::fit(&rows, params, name)?, name)?,
                    _ => return Err(self.wrong(name, "fitted")),
                },
                Component::Statistics(_)
                | Component::NnTrain(_)
                | Component::Evaluation(_)
                | Component::Glm(_)
                | Component::Cox(_)
                | Component::LocalBaseline(_) => return Err(self.wrong(name, "data")),
            };
        }
        Ok(rows)
    }

    /// Whether an optional input port is connected.
    pub(crate) fn is_connected(&self, task: &str, port: &str) -> bool {
        self.plan.tasks.get(task).is_some_and(|t| plan::source(self.plan, t, port).is_some())
    }

    fn wrong(&self, task: &str, port: &str) -> CohortError {
        CohortError::Plan { place: format!("tasks.{task}.inputs.{port}"), reason: "leads to no table".into() }
    }

    fn input(&self, task: &Task, port: &str) -> Option<Value> {
        let source = plan::source(self.plan, task, port)?;
        self.done.get(&(source.task.to_owned(), source.output.to_owned())).cloned()
    }

    fn input_table(&self, name: &str, task: &Task) -> Result<Rc<Frame>, CohortError> {
        match self.input(task, "data") {
            Some(Value::Table(frame)) => Ok(frame),
            _ => Err(self.wrong(name, "data")),
        }
    }

    fn run(&mut self, name: &str) -> Result<(), CohortError> {
        let plan = self.plan;
        let task = &plan.tasks[name];

        match &task.component {
            Component::Reader(_) => {
                self.done.insert((name.to_owned(), "data".to_owned()), Value::Table(Rc::clone(&self.read)));
            }
            Component::Imputation(params) => {
                let frame = self.input_table(name, task)?;
                let fit = match self.input(task, "fitted") {
                    Some(Value::Imputation(fit)) => fit,
                    Some(_) => return Err(self.wrong(name, "fitted")),
                    None => Rc::new(imputation::fit(&frame, &params.method, name)?),
                };
                let data = imputation::apply(&frame, &fit, name, &plan::needed_behind(plan, name))?;
                self.finish(name, Value::Table(Rc::new(data)), Value::Imputation(fit));
            }
            Component::OneHot(params) => {
                let data = one_hot::apply(&*self.input_table(name, task)?, params, name)?;
                self.done.insert((name.to_owned(), "data".to_owned()), Value::Table(Rc::new(data)));
            }
            Component::DataSplit(params) => {
                let (train, test) = split::apply(&*self.input_table(name, task)?, params, plan.seed, name)?;
                self.done.insert((name.to_owned(), "train".to_owned()), Value::Table(Rc::new(train)));
                self.done.insert((name.to_owned(), "test".to_owned()), Value::Table(Rc::new(test)));
            }
            Component::FeatureScale(params) => {
                let frame = self.input_table(name, task)?;
                let fit = match self.input(task, "fitted") {
                    Some(Value::Scale(fit)) => fit,
                    Some(_) => return Err(self.wrong(name, "fitted")),
                    None => Rc::new(scale::fit(&frame, params, name)?),
                };
                let data = scale::apply(&frame, &fit, name)?;
                self.finish(name, Value::Table(Rc::new(data)), Value::Scale(fit));
            }
            // These run in rounds of their own; only their models are inputs, and those come from the coordinator.
            Component::Statistics(_)
            | Component::NnTrain(_)
            | Component::Evaluation(_)
            | Component::Glm(_)
            | Component::Cox(_)
            | Component::LocalBaseline(_) => {}
        }
        Ok(())
    }

    fn finish(&mut self, name: &str, data: Value, fitted: Value) {
        self.done.insert((name.to_owned(), "data".to_owned()), data);
        self.done.insert((name.to_owned(), "fitted".to_owned()), fitted);
    }
}
