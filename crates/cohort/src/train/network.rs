//! A network of the layers of a plan with its parameters on one device: what comes out of it, and the gradient of a loss.

mod clipped;

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use hospes_protocol::plan::model::{Inputs, Placed, Wire, misfits, place};
use hospes_protocol::plan::{Feature, Layer, Model};
use rand_chacha::ChaCha20Rng;

use super::augment::Changes;
use super::layers::{Saved, backward, forward};
use super::loss::{Goal, Target};
use super::norms::Running;
use super::optimizer::Step;
use crate::component::Matrix;
use crate::device::Compute;
use crate::error::CohortError;

pub(super) use clipped::{Clipped, Fresh};

/// Numbers that the widest layer may put out at once when the network is not trained: 64 MiB.
const FORWARD_NUMBERS: usize = 16 << 20;
/// Rows that go through the network at once when it is not trained, at most.
const FORWARD_ROWS: usize = 4_096;

/// The layers of a plan with their parameters on one device.
pub(crate) struct Network {
    layers: Vec<Placed>,
    inputs: Inputs,
    /// The features that it takes.
    columns: Vec<Feature>,
    /// Of each `select`, where its columns lie among them.
    selected: Vec<Option<Vec<usize>>>,
    /// All trained parameters one after the other, so that an optimiser step is a few operations.
    trained: Tensor<1>,
    /// Where each trained tensor of each layer lies among them.
    spans: Vec<Vec<Range<usize>>>,
    /// Running figures, layer by layer.
    running: Vec<Option<Running>>,
    compute: Compute,
}

/// Rows on their way into the network.
pub(super) struct Batch {
    pub(super) features: Option<Tensor<4>>,
    pub(super) image: Option<Tensor<4>>,
    pub(super) target: Target,
}

/// What the way back through a layer needs.
struct Trace {
    saved: Saved,
    /// Shapes of what came in.
    before: Vec<[usize; 4]>,
}

impl Network {
    /// A network for rows with the columns of these.
    ///
    /// # Shapes
    /// `parameters`: all tensors of the plan one after the other, each row-major.
    ///
    /// # Errors
    /// [`CohortError::Model`] if the layers fit neither each other nor the columns, if there are more or fewer numbers than
    /// the plan's tensors have, or one is not finite.
    pub(crate) fn new(
        model: &Model,
        rows: &Matrix,
        parameters: &[f32],
        compute: &Compute,
    ) -> Result<Self, CohortError> {
        let (inputs, columns) = (rows.inputs(), rows.columns.clone());
        let wrong = |reason: String| Err(CohortError::Model { reason });
        let (layers, misfit) = place(model, inputs);
        if let Some(misfit) = misfit.or_else(|| misfits(&layers, &columns).into_iter().next()) {
            return wrong(misfit.reason);
        }
        let positions = |layer: &Placed| match &layer.layer {
            Layer::Select(select) => select.positions(&columns).map(Some),
            _ => Ok(None),
        };
        let selected: Result<Vec<_>, String> = layers.iter().map(positions).collect();
        let selected = selected.map_err(|reason| CohortError::Model { reason })?;
        let wanted = layers.iter().flat_map(|l| &l.tensors).fold(0u64, |n, t| n.saturating_add(t.len()));
        if wanted != parameters.len() as u64 {
            return wrong(format!("{} parameters, the plan's model has {wanted}", parameters.len()));
        }
        if !parameters.iter().all(|p| p.is_finite()) {
            return wrong("a parameter is NaN or infinite".into());
        }
        if layers.last().is_none_or(|last| last.out.len() != 1) {
            return wrong("the last layer must put out one row of numbers".into());
        }
        let mut network = Self {
            trained: on(&compute.device, Vec::new()),
            spans: Vec::new(),
            running: Vec::new(),
            layers,
            inputs,
            columns,
            selected,
            compute: compute.clone(),
        };
        network.set(parameters);
        if network.spans.iter().all(Vec::is_empty) {
            return wrong("no layer has parameters to train".into());
        }
        Ok(network)
    }

    /// Takes over parameters of the right number.
    fn set(&mut self, parameters: &[f32]) {
        let mut rest = parameters;
        let mut trained: Vec<f32> = Vec::with_capacity(parameters.len());
        (self.spans, self.running) = (Vec::new(), Vec::new());
        for layer in &self.layers {
            let (mut spans, mut figures) = (Vec::new(), Vec::new());
            for (i, tensor) in layer.tensors.iter().enumerate() {
                let length = usize::try_from(tensor.len()).unwrap_or(usize::MAX).min(rest.len());
                let (mine, others) = rest.split_at(length);
                rest = others;
                if i < layer.trained {
                    spans.push(trained.len()..trained.len() + length);
                    trained.extend_from_slice(mine);
                } else {
                    figures.push(on(&self.compute.device, mine.to_vec()));
                }
            }
            self.spans.push(spans);
            self.running.push(match <[_; 2]>::try_from(figures) {
                Ok([mean, variance]) => Some(Running { mean, variance }),
                Err(_) => None,
            });
        }
        self.trained = on(&self.compute.device, trained);
    }

    /// All parameters one after the other, in the order of the plan's tensors.
    pub(crate) fn parameters(&self) -> Vec<f32> {
        let trained = values(&self.trained);
        let mut all = Vec::with_capacity(trained.len());
        for (spans, running) in self.spans.iter().zip(&self.running) {
            spans.iter().for_each(|span| all.extend_from_slice(&trained[span.clone()]));
            if let Some(running) = running {
                all.extend(values(&running.mean));
                all.extend(values(&running.variance));
            }
        }
        all
    }

    /// The trained parameters alone, in the order of the plan's tensors.
    pub(super) fn trained(&self) -> &Tensor<1> {
        &self.trained
    }

    pub(super) fn compute(&self) -> &Compute {
        &self.compute
    }

    /// One optimiser step along a gradient.
    pub(super) fn step(&mut self, step: &mut Step, gradient: Tensor<1>) {
        let old = std::mem::replace(&mut self.trained, Tensor::empty([1], &self.compute.device));
        self.trained = step.apply(old, gradient);
    }

    /// Gradient of the goal on a batch, cut into parts where the device has no room for all its rows.
    ///
    /// Dropout draws part by part, so that a batch that is cut has other masks than one that is not.
    pub(super) fn descent(
        &mut self,
        data: &Matrix,
        rows: &[usize],
        mut changes: Option<&mut Changes>,
        goal: &Goal,
        stream: &mut ChaCha20Rng,
    ) -> Tensor<1> {
        let mass = goal.mass(rows.iter().map(|row| data.labels[*row]));
        let mut sum: Option<Tensor<1>> = None;
        for part in rows.chunks(self.compute.rows_at_once.max(1)) {
            let batch = data.batch(part, changes.as_deref_mut(), &self.compute.device);
            let gradient = self.gradient(batch, goal, mass, stream);
            sum = Some(match sum {
                Some(sum) => sum + gradient,
                None => gradient,
            });
        }
        sum.unwrap_or_else(|| self.trained.zeros_like())
    }

    /// The gradient of an epoch's first batch in numbers, as the self-test of a device compares them.
    pub(crate) fn first_gradient(&mut self, data: &Matrix, rows: &[usize], goal: &Goal) -> Vec<f32> {
        let mut stream = super::stream("dropout", 0, b"device", "self-test", 0);
        values(&self.descent(data, rows, None, goal, &mut stream))
    }

    /// Gradient of the goal on one batch, or on a part of one whose `mass` is given, with respect to the trained
    /// parameters. Running figures move on the way.
    pub(super) fn gradient(&mut self, batch: Batch, goal: &Goal, mass: f64, stream: &mut ChaCha20Rng) -> Tensor<1> {
        let parameters = self.split();
        let mut running = std::mem::take(&mut self.running);
        let (traces, at_end) = self.forth(&parameters, &mut running, batch, (goal, mass), stream);
        self.running = running;
        self.back(&parameters, traces, at_end)
    }

    /// Puts a batch through all layers: what the way back needs, and the gradient with respect to the outputs.
    fn forth(
        &self,
        parameters: &[Vec<Tensor<1>>],
        running: &mut [Option<Running>],
        batch: Batch,
        (goal, mass): (&Goal, f64),
        stream: &mut ChaCha20Rng,
    ) -> (Vec<Trace>, Tensor<4>) {
        let Batch { features, image, target } = batch;
        let mut traces = Vec::with_capacity(self.layers.len());
        let outputs = self.run(parameters, running, features, image, Some((stream, &mut traces)));
        let [rows, width] = outputs.dims();
        (traces, goal.gradient(outputs, &target, mass).reshape([rows, width, 1, 1]))
    }

    /// Takes the gradient with respect to the outputs back to the trained parameters.
    fn back(&self, parameters: &[Vec<Tensor<1>>], traces: Vec<Trace>, at_end: Tensor<4>) -> Tensor<1> {
        let found = self.walk_back(traces, at_end, |index, Trace { saved, before }, gradient, wanted| {
            let back = backward(&self.layers[index], saved, &before, &parameters[index], gradient, wanted);
            (back.inputs, back.parameters)
        });
        self.joined(found.into_iter().map(Option::unwrap_or_default))
    }

    /// Goes back through the layers that a gradient has to go through. `through` takes it through one, by its place: what
    /// goes on to each of the layer's inputs, if anything before it wants a gradient, and what is found in it.
    fn walk_back<T>(
        &self,
        traces: Vec<Trace>,
        at_end: Tensor<4>,
        mut through: impl FnMut(usize, Trace, Tensor<4>, bool) -> (Vec<Tensor<4>>, T),
    ) -> Vec<Option<T>> {
        let wants = self.wants();
        let mut arriving: Vec<Option<Tensor<4>>> = vec![None; self.layers.len()];
        let mut found: Vec<Option<T>> = self.layers.iter().map(|_| None).collect();
        if let Some(last) = arriving.last_mut() {
            *last = Some(at_end);
        }
        for (index, trace) in traces.into_iter().enumerate().rev() {
            let layer = &self.layers[index];
            let Some(gradient) = arriving[index].take().filter(|_| wants[index]) else { continue };
            let wanted = |wire: &Wire| matches!(wire, Wire::Layer(source) if wants[*source]);
            let any = layer.from.iter().any(wanted);
            let (inputs, here) = through(index, trace, gradient, any);
            found[index] = Some(here);
            for (wire, gradient) in layer.from.iter().zip(inputs) {
                let Wire::Layer(source) = wire else { continue };
                arriving[*source] = Some(match arriving[*source].take() {
                    Some(sum) => sum + gradient,
                    None => gradient,
                });
            }
        }
        found
    }

    /// The gradients of all trained tensors one after the other, from those of each layer.
    fn joined(&self, found: impl Iterator<Item = Vec<Tensor<1>>>) -> Tensor<1> {
        let mut parts = Vec::new();
        for (spans, found) in self.spans.iter().zip(found) {
            // A layer that the output does not depend on has no gradient.
            let none = found.is_empty();
            let zeros = spans.iter().filter(|_| none).map(|span| Tensor::zeros([span.len()], &self.compute.device));
            parts.extend(zeros);
            parts.extend(found);
        }
        Tensor::cat(parts, 0)
    }

    /// Whether a layer, or one before it, has something to train: where a gradient has to go.
    fn wants(&self) -> Vec<bool> {
        let mut wants: Vec<bool> = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let before = layer.from.iter().any(|wire| matches!(wire, Wire::Layer(source) if wants[*source]));
            wants.push(layer.trained > 0 || before);
        }
        wants
    }

    /// The trained tensors of each layer, flattened.
    fn split(&self) -> Vec<Vec<Tensor<1>>> {
        let part = |span: &Range<usize>| self.trained.clone().slice([span.clone()]);
        self.spans.iter().map(|spans| spans.iter().map(part).collect()).collect()
    }

    /// The model's raw outputs, row by row.
    ///
    /// # Shapes
    /// rows × outputs, row-major.
    pub(crate) fn logits(&self, data: &Matrix) -> Vec<f32> {
        let parameters = self.split();
        let widest = self.layers.iter().map(|l| l.out.iter().product::<u64>()).max().unwrap_or(1).max(1);
        let most = (FORWARD_NUMBERS / usize::try_from(widest).unwrap_or(usize::MAX)).min(self.compute.rows_at_once);
        let rows: Vec<usize> = (0..data.rows).collect();
        let mut all = Vec::with_capacity(data.rows);
        for chunk in rows.chunks(most.clamp(1, FORWARD_ROWS)) {
            let Batch { features, image, .. } = data.batch(chunk, None, &self.compute.device);
            let mut running = self.running.clone();
            all.extend(values(&self.run(&parameters, &mut running, features, image, None)));
        }
        all
    }

    /// Puts rows through all layers. Values are given up at their last use, so that memory is used again.
    fn run(
        &self,
        parameters: &[Vec<Tensor<1>>],
        running: &mut [Option<Running>],
        features: Option<Tensor<4>>,
        image: Option<Tensor<4>>,
        mut training: Option<(&mut ChaCha20Rng, &mut Vec<Trace>)>,
    ) -> Tensor<2> {
        let mut uses = vec![0usize; self.layers.len()];
        for wire in self.layers.iter().flat_map(|l| &l.from) {
            if let Wire::Layer(index) = wire {
                uses[*index] += 1;
            }
        }
        let mut out: Vec<Option<Tensor<4>>> = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let mut along = |wire: &Wire| match wire {
                Wire::Features => features.clone(),
                Wire::Image => image.clone(),
                Wire::Layer(before) => {
                    uses[*before] -= 1;
                    if uses[*before] == 0 { out[*before].take() } else { out[*before].clone() }
                }
            };
            let mut inputs: Vec<Tensor<4>> = layer.from.iter().filter_map(&mut along).collect();
            if let Some(columns) = &self.selected[index] {
                inputs = inputs.into_iter().map(|features| pick(features, columns)).collect();
            }
            let stream = training.as_mut().map(|(stream, _)| &mut **stream);
            let before = inputs.iter().map(Tensor::dims).collect();
            let (y, saved) = forward(layer, inputs, &parameters[index], &mut running[index], stream);
            if let Some((_, traces)) = &mut training {
                traces.push(Trace { saved, before });
            }
            out.push(Some(y));
        }
        // Unwrap safety: a network has layers, and nothing takes what the last one puts out.
        #[allow(clippy::unwrap_used)]
        let last = out.pop().flatten().unwrap();
        let [rows, outputs, ..] = last.dims();
        last.reshape([rows, outputs])
    }

    /// Whether the rows are such that the first layers can take them.
    ///
    /// # Errors
    /// [`CohortError`] if rows have other features or no image, or if a feature that an embedding takes is no code.
    pub(crate) fn check(&self, data: &Matrix, task: &str) -> Result<(), CohortError> {
        let wrong = |reason: String| Err(CohortError::Plan { place: format!("tasks.{task}"), reason });
        if data.columns != self.columns || data.inputs() != self.inputs {
            return wrong("the rows have other features or images than the model takes".into());
        }
        for layer in &self.layers {
            let Layer::Embedding(embedding) = &layer.layer else { continue };
            let last = f64::from(embedding.codes) - 1.0;
            let is_code = |v: f32| v.fract() == 0.0 && (0.0..=last).contains(&f64::from(v));
            let columns = self.columns_of(layer);
            if let Some(column) = columns.iter().find(|at| !(0..data.rows).all(|row| is_code(data.row(row)[**at]))) {
                let needs = format!("the embedding '{}' needs whole numbers from 0 to {last}", layer.name);
                return wrong(format!("{needs}, and '{}' has another value", self.columns[*column].name));
            }
        }
        Ok(())
    }

    /// Which of the features a layer takes as they come.
    fn columns_of(&self, layer: &Placed) -> Vec<usize> {
        match layer.from[..] {
            [Wire::Features] => (0..self.columns.len()).collect(),
            [Wire::Layer(before)] => self.selected[before].clone().unwrap_or_default(),
            _ => Vec::new(),
        }
    }
}

/// Some columns of the features.
fn pick(features: Tensor<4>, columns: &[usize]) -> Tensor<4> {
    let positions: Vec<i32> = columns.iter().map(|at| i32::try_from(*at).unwrap_or(i32::MAX)).collect();
    let positions = TensorData::new(positions, [columns.len()]);
    let positions = Tensor::<1, Int>::from_data(positions, &features.device());
    features.select(1, positions)
}

impl Matrix {
    /// These rows on a device. `images`: what changes them on the way, if anything does.
    pub(super) fn batch(&self, rows: &[usize], mut images: Option<&mut Changes>, device: &Device) -> Batch {
        let width = self.columns.len();
        let mut values = Vec::with_capacity(rows.len() * width);
        for row in rows {
            values.extend_from_slice(self.row(*row));
        }
        let features =
            (width > 0).then(|| Tensor::from_data(TensorData::new(values, [rows.len(), width, 1, 1]), device));
        let image = self.images.as_ref().map(|pixels| {
            let [channels, height, width] = pixels.shape;
            let mut values = vec![0f32; rows.len() * pixels.len()];
            for (row, to) in rows.iter().zip(values.chunks_mut(pixels.len().max(1))) {
                match images.as_deref_mut() {
                    Some(changes) => changes.apply(pixels, *row, to),
                    None => to.iter_mut().zip(pixels.row(*row)).for_each(|(to, byte)| *to = f32::from(*byte) / 255.0),
                }
            }
            Tensor::from_data(TensorData::new(values, [rows.len(), channels, height, width]), device)
        });
        let labels = rows.iter().map(|row| self.labels[*row]).collect();
        let times = rows.iter().filter_map(|row| self.times.get(*row).copied()).collect();
        Batch { features, image, target: Target { labels, times } }
    }
}

fn on(device: &Device, values: Vec<f32>) -> Tensor<1> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}

/// The numbers of a tensor that is on no graph.
pub(super) fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    // Unwrap safety: it was made from f32, and reading it back fails where the device is lost only, which ends the worker.
    #[allow(clippy::unwrap_used)]
    tensor.to_data().try_to_vec::<f32>().unwrap()
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
