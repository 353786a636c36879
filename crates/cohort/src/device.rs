//! On what networks compute: the processor, or a graphics card through wgpu.
//!
//! Only child processes open a card: drivers crash, hang and keep memory, and a lost device cannot be opened again in the
//! same process. What a child reports about a card decides what the next one is told to use.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use burn::tensor::wgpu::{WgpuBackend, wgpu};
use burn::tensor::{Device, DeviceKind};
use hospes_protocol::plan::model;
use hospes_protocol::plan::{self, Component, Conv, Init, Layer, Linear, Loss, Model, Plan, Pool};
use serde::{Deserialize, Serialize};

use crate::component::{Matrix, Pixels};
use crate::error::CohortError;
use crate::train::{Goal, Network};

/// The one graphics interface that is asked on each system. Mesa and the makers of cards keep Vulkan, Apple keeps Metal,
/// and Windows has Direct3D 12 wherever there is a card at all.
#[cfg(target_os = "macos")]
const INTERFACE: (WgpuBackend, wgpu::Backends) = (WgpuBackend::Metal, wgpu::Backends::METAL);
#[cfg(target_os = "windows")]
const INTERFACE: (WgpuBackend, wgpu::Backends) = (WgpuBackend::Dx12, wgpu::Backends::DX12);
#[cfg(not(any(target_os = "macos", target_os = "windows")))]
const INTERFACE: (WgpuBackend, wgpu::Backends) = (WgpuBackend::Vulkan, wgpu::Backends::VULKAN);

/// Rows of a batch that goes through a network to be judged, for an estimate of the work.
const JUDGED_ROWS: u64 = 256;
/// What a card may be off the processor in the self-test, relative to the largest number: 32-bit sums in another order.
pub const TOLERANCE: f64 = 1e-4;
/// The deviation of a card that computes NaN or infinity. It survives JSON, in which numbers at the very end of the range may
/// not come back.
pub const NO_NUMBER: f64 = 1e300;
/// Steps that the self-test times.
const TIMED_STEPS: u32 = 3;

/// A graphics card, by its kind and its place among those of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Card {
    /// With memory of its own.
    Discrete(u16),
    /// Within the processor.
    Integrated(u16),
    /// Of a virtual machine.
    Virtual(u16),
    /// A driver that computes on the processor.
    Software,
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discrete(index) => write!(f, "discrete:{index}"),
            Self::Integrated(index) => write!(f, "integrated:{index}"),
            Self::Virtual(index) => write!(f, "virtual:{index}"),
            Self::Software => f.write_str("software"),
        }
    }
}

impl From<Card> for String {
    fn from(card: Card) -> Self {
        card.to_string()
    }
}

impl FromStr for Card {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no card: discrete:0, integrated:0, virtual:0 or software");
        let (kind, index) = text.split_once(':').unwrap_or((text, ""));
        let index = || index.parse::<u16>().map_err(|_| wrong());
        match kind {
            "discrete" => Ok(Self::Discrete(index()?)),
            "integrated" => Ok(Self::Integrated(index()?)),
            "virtual" => Ok(Self::Virtual(index()?)),
            "software" if text == kind => Ok(Self::Software),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Card {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Card {
    fn kind(self) -> DeviceKind {
        match self {
            Self::Discrete(index) => DeviceKind::DiscreteGpu(index.into()),
            Self::Integrated(index) => DeviceKind::IntegratedGpu(index.into()),
            Self::Virtual(index) => DeviceKind::VirtualGpu(index.into()),
            Self::Software => DeviceKind::Cpu,
        }
    }

    fn failed(self, reason: impl fmt::Display) -> CohortError {
        CohortError::Device { card: self, reason: reason.to_string() }
    }
}

/// Where one piece of work computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Place {
    /// On the processor.
    #[default]
    Processor,
    /// On a card.
    Card {
        /// Which.
        card: Card,
        /// Rows of a batch that its memory has room for; `None` for all.
        rows_at_once: Option<u32>,
    },
}

/// A place that is open.
#[derive(Clone)]
pub(crate) struct Compute {
    pub(crate) device: Device,
    /// Rows that go through a network at once, at most.
    pub(crate) rows_at_once: usize,
    /// What computes, in words: `cpu`, or a card's name.
    pub(crate) name: String,
    pub(crate) card: Option<Card>,
}

impl Compute {
    /// The processor.
    pub(crate) fn processor() -> Self {
        Self { device: Device::flex(), rows_at_once: usize::MAX, name: "cpu".to_owned(), card: None }
    }

    /// Waits until everything so far is computed; on the processor it is.
    ///
    /// # Errors
    /// [`CohortError::Device`] if a card failed.
    pub(crate) fn settle(&self) -> Result<(), CohortError> {
        match self.card {
            Some(card) => self.device.sync().map_err(|e| card.failed(e)),
            None => Ok(()),
        }
    }
}

impl Place {
    /// Opens it. A card stays open until the process ends.
    ///
    /// # Errors
    /// [`CohortError::Device`] if the card is not there or its driver refuses.
    pub(crate) fn open(self) -> Result<Compute, CohortError> {
        static OPEN: Mutex<BTreeMap<Card, Device>> = Mutex::new(BTreeMap::new());
        let Self::Card { card, rows_at_once } = self else { return Ok(Compute::processor()) };
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let device = match open.get(&card) {
            Some(device) => device.clone(),
            None => {
                let options = Device::wgpu_options().graphics_api(INTERFACE.0).device_kind(card.kind());
                let device = options.init().map_err(|e| card.failed(e))?;
                open.insert(card, device.clone());
                device
            }
        };
        let name = device.identity().map_or_else(|| card.to_string(), |identity| identity.name);
        let rows_at_once = rows_at_once.map_or(usize::MAX, |rows| rows.max(1) as usize);
        Ok(Compute { device, rows_at_once, name, card: Some(card) })
    }
}

/// A card that the machine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Which.
    pub card: Card,
    /// Its name, as its driver gives it.
    pub name: String,
    /// Driver and its version.
    pub driver: String,
}

/// The cards of this machine, best first; none is opened. For a child process: a broken driver may end it.
///
/// # Disclosure
/// Nothing about patients.
pub fn list() -> Vec<Listed> {
    let mut options = wgpu::InstanceDescriptor::new_without_display_handle();
    options.backends = INTERFACE.1;
    let adapters = futures::executor::block_on(wgpu::Instance::new(options).enumerate_adapters(INTERFACE.1));
    let mut next = [0u16; 3];
    let mut cards = Vec::new();
    for info in adapters.iter().map(wgpu::Adapter::get_info) {
        let mut count = |kind: usize| {
            next[kind] += 1;
            next[kind] - 1
        };
        let card = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => Card::Discrete(count(0)),
            wgpu::DeviceType::IntegratedGpu => Card::Integrated(count(1)),
            wgpu::DeviceType::VirtualGpu => Card::Virtual(count(2)),
            wgpu::DeviceType::Cpu => Card::Software,
            wgpu::DeviceType::Other => continue,
        };
        let driver = format!("{} {}", info.driver, info.driver_info).trim().to_owned();
        cards.push(Listed { card, name: info.name, driver });
    }
    cards.sort_by_key(|listed| listed.card);
    cards.dedup_by_key(|listed| listed.card);
    cards
}

/// What a card showed in its self-test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tried {
    /// Which.
    pub card: Card,
    /// Its name.
    pub name: String,
    /// Largest difference of a gradient to the processor's, relative to the largest number in it; [`NO_NUMBER`] where the
    /// card gives none.
    pub deviation: f64,
    /// How many times as fast as the processor it trains a small convolutional network.
    pub speed: f64,
}

/// Trains a small network on noise on a card and on the processor, and compares. For a child process.
///
/// # Errors
/// [`CohortError::Device`] if the card cannot be opened or fails.
///
/// # Disclosure
/// Nothing about patients.
pub fn try_out(card: Card) -> Result<Tried, CohortError> {
    let compute = Place::Card { card, rows_at_once: None }.open()?;
    let (mine, card_s) = self_test(&compute)?;
    let (theirs, processor_s) = self_test(&Compute::processor())?;
    let speed = processor_s / card_s.max(1e-9);
    Ok(Tried { card, name: compute.name, deviation: deviation(&mine, &theirs), speed })
}

/// The largest difference of two gradients, relative to the largest number of the second. One with NaN or infinity is the
/// largest of all: a number all the same, because what a child says goes through JSON, which has no other.
fn deviation(mine: &[f32], theirs: &[f32]) -> f64 {
    let largest = theirs.iter().fold(f64::MIN_POSITIVE, |most, v| most.max(f64::from(v.abs())));
    let furthest = mine.iter().zip(theirs).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs() / largest);
    furthest.fold(0.0, |most, v| if v.is_finite() { v.max(most) } else { NO_NUMBER })
}

/// The gradient of the first step, and the seconds that later steps take.
fn self_test(compute: &Compute) -> Result<(Vec<f32>, f64), CohortError> {
    let conv = |out| Layer::Conv2d(Conv { out, kernel: 3, stride: 1, padding: 1, bias: true });
    let pool = Layer::MaxPool(Pool { kernel: 2, stride: None, padding: 0 });
    let linear = Layer::Linear(Linear { out: 1, bias: true, init: Init::TorchDefault });
    let layers = vec![conv(8), Layer::Relu {}, pool, conv(16), Layer::Tanh {}, Layer::GlobalPool {}, linear];
    let (model, shape, rows) = (Model::from(layers), [1, 28, 28], 32);
    let mut draws = crate::train::stream("self-test", 0, b"device", "noise", 0);
    let mut bytes = vec![0u8; rows * shape.iter().product::<usize>()];
    rand_core::Rng::fill_bytes(&mut draws, &mut bytes);
    let data = Matrix {
        rows,
        columns: Vec::new(),
        values: Vec::new(),
        labels: (0..rows).map(|row| f32::from(row % 3 == 0)).collect(),
        times: Vec::new(),
        images: Some(Pixels { shape, bytes }),
        origin: vec![0; rows],
    };
    let parameters = model::initial(&model, data.inputs(), 1);
    let mut network = Network::new(&model, &data, &parameters, compute)?;
    let goal = Goal::new(Loss::BinaryCrossEntropy, &[]);
    let all: Vec<usize> = (0..rows).collect();
    let first = network.first_gradient(&data, &all, &goal);
    let start = Instant::now();
    for _ in 0..TIMED_STEPS {
        std::hint::black_box(network.first_gradient(&data, &all, &goal));
    }
    compute.settle()?;
    Ok((first, start.elapsed().as_secs_f64() / f64::from(TIMED_STEPS)))
}

/// Multiplications of one step of a task's network, about: of one batch forth and back. 0 for a task without a network.
///
/// # Disclosure
/// Nothing about patients; the plan alone.
pub fn work(plan: &Plan, task: &str) -> u64 {
    let Some((model, trained, batch)) = network_of(plan, task) else { return 0 };
    let (layers, _) = model::place(model, plan::inputs(plan, trained));
    let each = layers.iter().map(|layer| {
        let places = layer.out.iter().skip(1).fold(1u64, |product, side| product.saturating_mul(*side));
        let trained = layer.tensors.iter().take(layer.trained);
        let weights = trained.fold(0u64, |sum, tensor| sum.saturating_add(tensor.len()));
        weights.saturating_mul(places)
    });
    // Forth, and twice back: with respect to the weights and to what came in.
    each.fold(0u64, u64::saturating_add).saturating_mul(batch.saturating_mul(3))
}

/// Whether a batch of a task may be cut into parts whose gradients are added: not where a norm or a loss sees the batch as
/// a whole.
///
/// # Disclosure
/// Nothing about patients; the plan alone.
pub fn divides(plan: &Plan, task: &str) -> bool {
    let whole_loss = match plan.tasks.get(task).map(|t| &t.component) {
        Some(Component::NnTrain(params)) => params.loss == Loss::Cox,
        Some(Component::LocalBaseline(params)) => params.loss == Loss::Cox,
        // Nothing is trained.
        _ => return true,
    };
    let Some((model, trained, _)) = network_of(plan, task) else { return true };
    let (layers, _) = model::place(model, plan::inputs(plan, trained));
    !whole_loss && !layers.iter().any(|layer| matches!(layer.layer, Layer::BatchNorm(_)))
}

/// Rows of a task's batch; what can be halved.
///
/// # Disclosure
/// Nothing about patients; the plan alone.
pub fn batch(plan: &Plan, task: &str) -> u32 {
    network_of(plan, task).map_or(1, |(_, _, batch)| u32::try_from(batch).unwrap_or(u32::MAX))
}

/// The network that a task computes with, the task whose inputs it takes, and rows of a batch.
fn network_of<'a>(plan: &'a Plan, task: &'a str) -> Option<(&'a Model, &'a str, u64)> {
    match &plan.tasks.get(task)?.component {
        Component::NnTrain(params) => Some((&params.model, task, u64::from(params.local.batch))),
        Component::LocalBaseline(params) => Some((&params.model, task, u64::from(params.batch))),
        Component::Evaluation(_) => {
            let trained = plan::trained_by(plan, task)?;
            match &plan.tasks.get(trained)?.component {
                Component::NnTrain(params) => Some((&params.model, trained, JUDGED_ROWS)),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
