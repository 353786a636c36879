//! Models on their way in, updates on their way out.

use hospes_protocol::canon;
use hospes_protocol::plan::{Layer, Quantise, model::tensors};
use safetensors::{Dtype, SafeTensors};

use crate::cohort::Round;
use crate::error::CohortError;

/// An update in the layout of the round's header.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    /// Largest absolute entry before clipping.
    pub(crate) largest: f64,
    /// Entries that the clip cut.
    pub(crate) clipped: u64,
}

/// Clips, weighs by rows and quantises the difference of two models.
///
/// # Shapes
/// 8 bytes little-endian row weight, then one little-endian u32 for each entry, in the order of the plan's tensors.
pub(crate) fn encode(delta: &[f32], rows: u64, rules: &Quantise) -> Result<Encoded, CohortError> {
    if rules.bits != 32 {
        let reason = format!("{} bits are not available in this version; write 32", rules.bits);
        return Err(CohortError::Plan { place: "params.quantise.bits".into(), reason });
    }
    let weight = rows.min(u64::from(rules.n_max));
    #[allow(clippy::cast_precision_loss)]
    let alpha = weight as f64 / f64::from(rules.n_max);
    let mut encoded = Encoded { bytes: Vec::with_capacity(8 + delta.len() * 4), largest: 0.0, clipped: 0 };
    encoded.bytes.extend_from_slice(&weight.to_le_bytes());
    for entry in delta {
        let entry = f64::from(*entry);
        encoded.largest = encoded.largest.max(entry.abs());
        encoded.clipped += u64::from(entry.abs() > rules.clip);
        // PRIVACY: what leaves is bounded by the clip whatever the rows are.
        let value = alpha * entry.clamp(-rules.clip, rules.clip);
        encoded.bytes.extend_from_slice(&quantise(value, rules.clip).to_le_bytes());
    }
    Ok(encoded)
}

/// The model file of a round as numbers.
///
/// # Errors
/// [`CohortError::Model`] if there is none, if it is not the one that the header names, or does not fit the plan.
pub(crate) fn read_model(round: &Round<'_>, layers: &[Layer], inputs: usize) -> Result<Vec<f32>, CohortError> {
    let wrong = |reason: &str| CohortError::Model { reason: reason.to_owned() };
    let bytes = round.model.ok_or_else(|| wrong("no model was given"))?;
    if round.header.model != Some(canon::digest("model", 1, bytes)) {
        return Err(wrong("its digest is not the one that the round names"));
    }
    let file = SafeTensors::deserialize(bytes).map_err(|_| wrong("it is no safetensors file"))?;
    let shapes = tensors(layers, inputs as u64);
    if file.len() != shapes.len() {
        return Err(wrong("it has more or fewer tensors than the plan's model"));
    }
    let mut parameters = Vec::new();
    for shape in &shapes {
        let tensor = file.tensor(&shape.name).map_err(|_| wrong("a tensor of the plan's model is missing"))?;
        let same_shape = tensor.shape().iter().map(|n| *n as u64).eq(shape.shape.iter().copied());
        if tensor.dtype() != Dtype::F32 || !same_shape {
            return Err(wrong("a tensor has another type or shape than the plan's model"));
        }
        let (entries, _) = tensor.data().as_chunks::<4>();
        parameters.extend(entries.iter().map(|b| f32::from_le_bytes(*b)));
    }
    if parameters.iter().all(|p: &f32| p.is_finite()) {
        Ok(parameters)
    } else {
        Err(wrong("a parameter is NaN or infinite"))
    }
}

/// Nearest of 2^32 levels, evenly over ±clip.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn quantise(value: f64, clip: f64) -> u32 {
    let unit = (value + clip) / (2.0 * clip);
    (unit * f64::from(u32::MAX)).round() as u32
}
