//! What a target allows: by bisection on the accountant, so that what is found is at most the target for it.

use super::{Delta, NOISE, Release, TIMES, epsilon};
use crate::PrivacyError;

/// Relative width at which a search ends.
const NEAR: f64 = 1e-5;

/// The least noise multiplier, up to 1e-5 of it, with which so many releases are at most at this ε.
///
/// # Errors
/// [`PrivacyError::Account`] if ε is not above 0 and finite, as [`Release::new`], or if a noise multiplier of a million is not
/// enough.
///
/// # Disclosure
/// A function of parameters, not of rows.
pub fn noise_multiplier(target: f64, delta: Delta, sampling_rate: f64, times: u64) -> Result<f64, PrivacyError> {
    if !(target > 0.0 && target.is_finite()) {
        return Err(PrivacyError::Account { place: "epsilon", reason: "must be above 0 and finite" });
    }
    // ln(ε/target) at a multiplier; where ε is 0, far below.
    let excess = |sigma: f64| -> Result<f64, PrivacyError> {
        let found = epsilon(&[Release::new(sampling_rate, sigma, times)?], delta).worst();
        Ok(libm::log(found.max(target * 1e-3) / target))
    };
    let (least, most) = (*NOISE.start(), *NOISE.end());
    let at = |sigma: f64| -> Result<(f64, f64), PrivacyError> { Ok((sigma, excess(sigma)?)) };
    let mut place = at(1.0)?;
    if place.1 <= 0.0 {
        while place.0 > least {
            let next = at((place.0 / 2.0).max(least))?;
            if next.1 > 0.0 {
                return narrow(next, place, excess);
            }
            place = next;
        }
        return Ok(least);
    }
    while place.0 < most {
        let next = at((place.0 * 2.0).min(most))?;
        if next.1 <= 0.0 {
            return narrow(place, next, excess);
        }
        place = next;
    }
    Err(PrivacyError::Account { place: "epsilon", reason: "cannot be reached by any noise" })
}

/// The upper end of a bracket around where a falling function of the logarithm is 0, narrowed by secants (the *Illinois*
/// algorithm: Dowell, Jarratt 1971), and by halves where those do not narrow it.
fn narrow(
    low: (f64, f64),
    high: (f64, f64),
    function: impl Fn(f64) -> Result<f64, PrivacyError>,
) -> Result<f64, PrivacyError> {
    let ((mut low, mut above), (mut high, mut below)) = (low, high);
    let mut last_was_high = None;
    for round in 0..60 {
        if high / low < 1.0 + NEAR {
            break;
        }
        let (from, to) = (libm::log(low), libm::log(high));
        let part = if round % 4 == 3 { 0.5 } else { above / (above - below) };
        // Not nearer to an end than what is looked for, so that both ends come in.
        let room = NEAR / 3.0;
        let middle = libm::exp((from + (to - from) * part).clamp(from + room, to - room));
        let found = function(middle)?;
        if found <= 0.0 {
            (high, below) = (middle, found);
            if last_was_high == Some(true) {
                above /= 2.0;
            }
            last_was_high = Some(true);
        } else {
            (low, above) = (middle, found);
            if last_was_high == Some(false) {
                below /= 2.0;
            }
            last_was_high = Some(false);
        }
    }
    Ok(high)
}

/// How many releases of this kind there may be at this ε; 0 if none.
///
/// # Errors
/// As [`Release::new`].
///
/// # Disclosure
/// A function of parameters, not of rows.
pub fn most_times(target: f64, delta: Delta, sampling_rate: f64, noise_multiplier: f64) -> Result<u64, PrivacyError> {
    let fits = |times: u64| -> Result<bool, PrivacyError> {
        Ok(epsilon(&[Release::new(sampling_rate, noise_multiplier, times)?], delta).worst() <= target)
    };
    let (mut most, mut over) = (0, 1);
    while fits(over)? {
        if over == TIMES {
            return Ok(TIMES);
        }
        (most, over) = (over, over * 2);
    }
    while over - most > 1 {
        let middle = u64::midpoint(most, over);
        if fits(middle)? {
            most = middle;
        } else {
            over = middle;
        }
    }
    Ok(most)
}
