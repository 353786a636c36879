//! Models on their way in, updates on their way out.

use hospes_privacy::PrivacyError;
use hospes_privacy::coding::Coding;
use hospes_privacy::quantise::{ENTRY_BYTES, Quantiser};
use hospes_protocol::canon;
use hospes_protocol::id::Digest;
use hospes_protocol::plan::model::TensorShape;
use hospes_protocol::plan::{Quantise, ROW_WEIGHT_BYTES};
use hospes_protocol::round::RoundHeader;
use rand_core::Rng as _;

use super::Draws;
use super::batches::stream;
use super::state::numbers;
use crate::cohort::Round;
use crate::error::CohortError;

/// An update in levels, four bytes each, in the layout of the round's header.
pub(crate) struct Encoded {
    levels: Vec<u8>,
    /// Entries that the clip cut.
    pub(crate) clipped: u64,
}

/// Clips, weighs by rows and quantises the difference of two models. What rounds to few bits is the same for a round and a
/// site, so that whoever trains once more after a crash sends the same.
///
/// # Shapes
/// `delta`: all tensors one after the other, each row-major.
pub(crate) fn encode(
    delta: &[f32],
    rows: u64,
    tensors: &[TensorShape],
    rules: &Quantise,
    draws: Draws<'_>,
) -> Result<Encoded, CohortError> {
    let Draws { seed, site, task, round } = draws;
    let failed = |error: PrivacyError| match error {
        PrivacyError::NotFinite { .. } => CohortError::Diverged { task: task.to_owned() },
        other => CohortError::Plan { place: format!("tasks.{task}.params.quantise"), reason: other.to_string() },
    };
    let mut rest = delta;
    let mut values = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let length = usize::try_from(tensor.len()).unwrap_or(usize::MAX).min(rest.len());
        let (mine, others) = rest.split_at(length);
        values.push(mine);
        rest = others;
    }
    let mut rounding = stream("rounding", seed, site, task, round);
    let mut draw = || rounding.next_u32();
    // PRIVACY: what leaves is bounded by the clip whatever the rows are.
    let payload = Quantiser::new(rules).and_then(|q| q.encode(rows, tensors, &values, &mut draw)).map_err(failed)?;
    Ok(Encoded { clipped: payload.clipped(), levels: payload.into_bytes() })
}

impl Encoded {
    /// The entries from `first` on as whoever receives them reads them.
    pub(crate) fn sent(
        &self,
        rows: u64,
        rules: &Quantise,
        first: usize,
        entries: usize,
    ) -> Result<Vec<f32>, CohortError> {
        let quantiser = Quantiser::new(rules).map_err(wrong)?;
        let bytes = |entries: usize| entries.saturating_mul(usize::try_from(ENTRY_BYTES).unwrap_or(usize::MAX));
        let head = usize::try_from(ROW_WEIGHT_BYTES).unwrap_or(usize::MAX);
        let start = head.saturating_add(bytes(first));
        let levels = self.levels.get(start..start.saturating_add(bytes(entries))).unwrap_or_default();
        let mut values = vec![0.0; entries];
        quantiser.values(rows.min(u64::from(quantiser.n_max())), levels, &mut values).map_err(wrong)?;
        Ok(values)
    }

    /// What is handed on: levels to be masked, or the payload that travels.
    pub(crate) fn into_payload(self, header: &RoundHeader) -> Result<Vec<u8>, CohortError> {
        match coding(header) {
            Some(coding) => coding.encode(&self.levels).map_err(wrong),
            None => Ok(self.levels),
        }
    }
}

/// How the round's updates are coded, if they are: masks leave nothing to code, and their levels are packed instead.
pub(crate) fn coding(header: &RoundHeader) -> Option<Coding> {
    if header.is_secure() { None } else { Coding::new(header.quantise.bits, header.parameters()) }
}

fn wrong(error: PrivacyError) -> CohortError {
    CohortError::Format { what: "update", reason: error.to_string() }
}

/// The model file of a round as numbers: its tensors one after the other.
///
/// # Errors
/// [`CohortError::Model`] if there is none, if it is not the one that the header names, or does not hold these tensors.
pub(crate) fn read_model(round: &Round<'_>, tensors: &[TensorShape]) -> Result<Vec<f32>, CohortError> {
    let wrong = |reason: &str| CohortError::Model { reason: reason.to_owned() };
    let bytes = round.model.ok_or_else(|| wrong("no model was given"))?;
    let named = round.header.model.ok_or_else(|| wrong("the round names no model"))?;
    model_of(bytes, named, tensors)
}

/// A model file as numbers: its tensors one after the other.
///
/// # Errors
/// [`CohortError::Model`] if it is not the one of this digest, or does not hold these tensors.
pub(crate) fn model_of(bytes: &[u8], model: Digest, tensors: &[TensorShape]) -> Result<Vec<f32>, CohortError> {
    let wrong = |reason: String| CohortError::Model { reason };
    if model != canon::digest("model", 1, bytes) {
        return Err(wrong("its digest is not the one that it is named by".into()));
    }
    numbers(bytes, tensors).map_err(wrong)
}
