//! What a payload holds, for the people of a site who look at a dry run before they sign.

use std::collections::BTreeMap;
use std::fmt;

use hospes_privacy::PrivacyError;
use hospes_privacy::quantise::{ENTRY_BYTES, Quantiser};
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::ROW_WEIGHT_BYTES;
use hospes_protocol::plan::model::TensorShape;
use hospes_protocol::round::RoundHeader;
use serde::{Deserialize, Serialize};

use crate::error::CohortError;
use crate::train::payload::coding;

/// Values of a tensor that are shown one by one.
const FIRST: usize = 8;
/// Tensors that are shown one by one; whoever reads them reads the first few.
const TENSORS: usize = 50;

/// What a payload holds, as whoever receives it can read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Preview {
    /// An update.
    Update {
        /// Rows by which it is weighed; they are told with it.
        rows: u64,
        /// Its tensors in order.
        tensors: Vec<TensorPreview>,
        /// Further tensors, which are not shown.
        further: u64,
        /// Numbers in all tensors.
        values: u64,
    },
    /// A report: every figure that would leave, whole.
    Figures(BTreeMap<String, Vec<f64>>),
}

/// A tensor of an update, in short. Its `Debug` shows name and shape only.
#[derive(Clone, PartialEq, Serialize, Deserialize, ts_rs::TS)]
#[serde(deny_unknown_fields)]
pub struct TensorPreview {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// The first of its numbers.
    pub first: Vec<f32>,
    /// The smallest.
    pub min: f32,
    /// The largest.
    pub max: f32,
    /// The root of the sum of their squares.
    pub norm: f64,
}

impl fmt::Debug for TensorPreview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorPreview").field("name", &self.name).field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Preview {
    /// Reads an update as the coordinator will: out of the bytes that would travel.
    ///
    /// # Errors
    /// [`CohortError::Format`] if the payload is not in the layout of the header.
    ///
    /// # Disclosure
    /// What leaves in a round, to people of the site, and no more: the update's clipped and quantised numbers.
    pub(crate) fn of_update(payload: &[u8], header: &RoundHeader) -> Result<Self, CohortError> {
        let wrong = |error: PrivacyError| CohortError::Format { what: "update", reason: error.to_string() };
        let quantiser = Quantiser::new(&header.quantise).map_err(wrong)?;
        let values = header.parameters();
        let decoded = coding(header).map(|coding| coding.decode(payload)).transpose().map_err(wrong)?;
        let payload = decoded.as_deref().unwrap_or(payload);
        let rows = quantiser.row_weight(payload, payload.len() as u64, values).map_err(wrong)?;
        let head = usize::try_from(ROW_WEIGHT_BYTES).unwrap_or(usize::MAX).min(payload.len());
        let mut rest = &payload[head..];
        let mut tensors = Vec::new();
        for tensor in header.tensors.iter().take(TENSORS) {
            let bytes = usize::try_from(tensor.len().saturating_mul(ENTRY_BYTES)).unwrap_or(usize::MAX);
            let (mine, others) = rest.split_at(bytes.min(rest.len()));
            rest = others;
            let mut numbers = vec![0.0; usize::try_from(tensor.len()).unwrap_or(usize::MAX).min(mine.len())];
            quantiser.values(rows, mine, &mut numbers).map_err(wrong)?;
            tensors.push(TensorPreview::of(tensor, &numbers));
        }
        let further = (header.tensors.len() - tensors.len()) as u64;
        Ok(Self::Update { rows, tensors, further, values })
    }

    /// The figures of a report.
    ///
    /// # Disclosure
    /// What leaves in a round, to people of the site: figures to which the rules have been applied.
    pub(crate) fn of_figures(figures: &FigureSet) -> Self {
        Self::Figures(figures.sums.clone())
    }

    /// Numbers that would leave, without the number of rows by which an update is weighed.
    ///
    /// # Disclosure
    /// A count that the plan says, but for figures that a rule withholds.
    pub fn values(&self) -> u64 {
        match self {
            Self::Update { values, .. } => *values,
            Self::Figures(sums) => sums.values().map(|values| values.len() as u64).sum(),
        }
    }
}

impl TensorPreview {
    fn of(tensor: &TensorShape, numbers: &[f32]) -> Self {
        let least = numbers.iter().copied().reduce(f32::min).unwrap_or_default();
        let most = numbers.iter().copied().reduce(f32::max).unwrap_or_default();
        Self {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            first: numbers.iter().take(FIRST).copied().collect(),
            min: least,
            max: most,
            norm: numbers.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt(),
        }
    }
}
