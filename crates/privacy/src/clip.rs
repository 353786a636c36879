//! Bounding what one site, or one example, contributes.

/// Euclidean norm, added up in double precision.
///
/// # Disclosure
/// A function of the values: one number about a site's update.
pub fn norm_l2(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt()
}

/// Scales values down so that their Euclidean norm is at most `most`, and returns the factor, 1 if nothing changed
/// (McMahan et al. 2018, "Learning differentially private recurrent language models", §2: x · min(1, C/‖x‖)).
///
/// The values must be finite; what is not finite stays so and is refused when it is encoded.
///
/// # Disclosure
/// The factor is a function of the values; it stays at the site.
pub fn clip_norm_l2(values: &mut [f32], most: f64) -> f64 {
    let norm = norm_l2(values);
    if norm <= most || norm == 0.0 || !norm.is_finite() {
        return 1.0;
    }
    let mut factor = most / norm;
    scale(values, factor);
    // Rounding to f32 can leave the norm above the bound by some units in the last place; the bound is a promise.
    for _ in 0..16 {
        if norm_l2(values) <= most {
            return factor;
        }
        let shrink = 1.0 - f64::from(f32::EPSILON);
        scale(values, shrink);
        factor *= shrink;
    }
    // Only a bound in the range of subnormal numbers comes here.
    values.fill(0.0);
    0.0
}

fn scale(values: &mut [f32], factor: f64) {
    for value in values {
        #[allow(clippy::cast_possible_truncation)]
        let scaled = (f64::from(*value) * factor) as f32;
        *value = scaled;
    }
}

/// Cuts every value to ±`most` and returns how many were cut.
///
/// # Disclosure
/// The count is a function of the values; it stays at the site.
pub fn clip_entries(values: &mut [f32], most: f32) -> u64 {
    let mut cut = 0;
    for value in values {
        cut += u64::from(value.abs() > most);
        *value = value.clamp(-most, most);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_known_vector_is_scaled_to_the_bound() {
        let mut values = [3.0, 4.0];
        assert!((clip_norm_l2(&mut values, 1.0) - 0.2).abs() < 1e-6);
        assert!((values[0] - 0.6).abs() < 1e-6 && (values[1] - 0.8).abs() < 1e-6);
        let mut small = [0.3, 0.4];
        assert_eq!(clip_norm_l2(&mut small, 1.0), 1.0);
        assert_eq!(small, [0.3, 0.4]);
        assert_eq!(clip_norm_l2(&mut [0.0; 3], 0.0), 1.0);
        let mut tiny = [1.0, 1.0];
        assert_eq!((clip_norm_l2(&mut tiny, 1.4e-45), tiny), (0.0, [0.0, 0.0]));
    }

    proptest! {
        #[test]
        fn the_norm_never_exceeds_the_bound_and_directions_stay(
            values in prop::collection::vec(-1e6f32..1e6, 0..40), most in 1e-3f64..1e3
        ) {
            let mut clipped = values.clone();
            let factor = clip_norm_l2(&mut clipped, most);
            prop_assert!(norm_l2(&clipped) <= most);
            prop_assert!(factor > 0.0 && factor <= 1.0);
            for (before, after) in values.iter().zip(&clipped) {
                let wanted = f64::from(*before) * factor;
                prop_assert!((f64::from(*after) - wanted).abs() <= wanted.abs() * 1e-5 + 1e-30);
            }
        }

        #[test]
        fn every_entry_lies_within_the_bound(values in prop::collection::vec(-10f32..10.0, 0..40), most in 0f32..10.0) {
            let mut clipped = values.clone();
            let cut = clip_entries(&mut clipped, most);
            prop_assert_eq!(cut, values.iter().filter(|v| v.abs() > most).count() as u64);
            for (before, after) in values.iter().zip(&clipped) {
                prop_assert!(after.abs() <= most && (before == after || before.abs() > most));
            }
        }
    }
}
