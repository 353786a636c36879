//! What a site keeps between two rounds of a task, in a file of its own: tensors that never leave.

use std::collections::HashMap;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use hospes_protocol::id::JobId;
use hospes_protocol::plan::model::TensorShape;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::CohortError;
use crate::snapshot::SnapshotKey;

const ENCRYPT: &[u8] = b"hospes/site-state/v1/encrypt";
const NONCE: &[u8] = b"hospes/site-state/v1/nonce";

/// Tensors that stay at the site, in the clear; they were derived from rows. It has no `Debug`.
pub(crate) struct SiteState(Zeroizing<Vec<u8>>);

impl SiteState {
    /// # Shapes
    /// `values`: all tensors one after the other.
    pub(super) fn of(tensors: &[TensorShape], values: &[f32]) -> Result<Self, CohortError> {
        file(tensors, values).map(Self).map_err(|reason| CohortError::Format { what: "state of the site", reason })
    }

    /// Its numbers, if it holds exactly these tensors.
    pub(super) fn values(&self, tensors: &[TensorShape]) -> Result<Vec<f32>, CohortError> {
        let wrong = |reason| CohortError::Format { what: "state of the site", reason };
        numbers(&self.0, tensors).map_err(wrong)
    }
}

/// A safetensors file of these tensors. What it was made of does not stay in memory.
///
/// # Shapes
/// `values`: all tensors one after the other.
pub(super) fn file(tensors: &[TensorShape], values: &[f32]) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(values.len() * 4));
    values.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
    let mut rest = bytes.as_slice();
    let mut views = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let shape = tensor.shape.iter().map(|side| usize::try_from(*side).unwrap_or(usize::MAX)).collect();
        let length = usize::try_from(tensor.len().saturating_mul(4)).unwrap_or(usize::MAX).min(rest.len());
        let (mine, others) = rest.split_at(length);
        rest = others;
        let view = TensorView::new(Dtype::F32, shape, mine).map_err(|e| e.to_string())?;
        views.push((tensor.name.as_str(), view));
    }
    safetensors::serialize(views, None).map(Zeroizing::new).map_err(|e| e.to_string())
}

/// The tensors of a safetensors file one after the other, if it holds exactly these, all finite.
pub(super) fn numbers(bytes: &[u8], tensors: &[TensorShape]) -> Result<Vec<f32>, String> {
    let wrong = |reason: &str| Err(reason.to_owned());
    let Ok(file) = SafeTensors::deserialize(bytes) else { return wrong("it is no safetensors file") };
    if file.len() != tensors.len() {
        return wrong("it has more or fewer tensors than the plan's model");
    }
    let found: HashMap<String, TensorView<'_>> = file.tensors().into_iter().collect();
    let mut all: Vec<f32> = Vec::new();
    for shape in tensors {
        let Some(tensor) = found.get(&shape.name) else { return wrong("a tensor of the plan's model is missing") };
        let same_shape = tensor.shape().iter().map(|n| *n as u64).eq(shape.shape.iter().copied());
        if tensor.dtype() != Dtype::F32 || !same_shape {
            return wrong("a tensor has another type or shape than the plan's model");
        }
        let (entries, _) = tensor.data().as_chunks::<4>();
        all.extend(entries.iter().map(|b| f32::from_le_bytes(*b)));
    }
    if all.iter().all(|v| v.is_finite()) { Ok(all) } else { wrong("a parameter is NaN or infinite") }
}

/// Encrypts a state for the site's own disk, bound to job and task.
///
/// The nonce is a keyed hash of the content (as in SIV, Rogaway, Shrimpton 2006): without a generator of random numbers,
/// two different states never share one, and the same state only gives the same bytes.
// PRIVACY: the tensors of the site lie on its disk under the key of the snapshot that they were derived from.
pub(crate) fn seal(state: &SiteState, key: &SnapshotKey, job: JobId, task: &str) -> Result<Vec<u8>, CohortError> {
    let bound = bound(job, task);
    let hash = keyed(&keyed(key.bytes(), &[NONCE]), &[&bound, &state.0]);
    let nonce: [u8; 24] = std::array::from_fn(|i| hash[i]);
    let encryption = keyed(key.bytes(), &[ENCRYPT]);
    let sealed = XChaCha20Poly1305::new((&*encryption).into())
        .encrypt(&XNonce::from(nonce), Payload { msg: &state.0, aad: &bound })
        .map_err(|_| CohortError::Format { what: "state of the site", reason: "it is too long".into() })?;
    Ok([nonce.as_slice(), &sealed].concat())
}

/// Opens what [`seal`] made.
pub(crate) fn open(sealed: &[u8], key: &SnapshotKey, job: JobId, task: &str) -> Result<SiteState, CohortError> {
    let damaged = || CohortError::Format {
        what: "state of the site",
        reason: "it is damaged or belongs to another run; delete it, and the task begins without it".into(),
    };
    let (nonce, sealed) = sealed.split_first_chunk::<24>().ok_or_else(damaged)?;
    let encryption = keyed(key.bytes(), &[ENCRYPT]);
    let plain = XChaCha20Poly1305::new((&*encryption).into())
        .decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &bound(job, task) })
        .map_err(|_| damaged())?;
    Ok(SiteState(Zeroizing::new(plain)))
}

fn bound(job: JobId, task: &str) -> Vec<u8> {
    format!("hospes/site-state/v1\n{job}\n{task}\n").into_bytes()
}

/// HMAC-SHA-256: a key of its own for each of the key's uses.
pub(crate) fn keyed(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    // Unwrap safety: HMAC takes keys of every length.
    #[allow(clippy::unwrap_used)]
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    Zeroizing::new(mac.finalize().into_bytes().into())
}
