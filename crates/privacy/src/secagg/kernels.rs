//! Secret sharing by itself, for benchmarks. Nothing of a round goes through here.

use curve25519_dalek::scalar::Scalar;

use super::message::Share;
use super::shamir::{Polynomial, Secret, combine, lagrange};

/// Splits a secret, the first of the coefficients, into one share for each party; as many of them as there are coefficients
/// reconstruct it.
///
/// # Disclosure
/// Shares of a number that is nobody's secret.
pub fn split(coefficients: &[[u8; 64]], parties: u32) -> Vec<Share> {
    let mut scalars = coefficients.iter().map(|wide| Secret::new(Scalar::from_bytes_mod_order_wide(wide)));
    let Some(secret) = scalars.next() else { return Vec::new() };
    let polynomial = Polynomial::new(&secret, scalars);
    (1..=parties).map(|place| Share::new(&polynomial.share(place))).collect()
}

/// The secret again, from the shares at these places; `None` if one is no number.
///
/// # Disclosure
/// A number that is nobody's secret.
pub fn join(places: &[u32], shares: &[Share]) -> Option<Share> {
    let shares: Vec<Secret> = shares.iter().map(Share::open).collect::<Option<_>>()?;
    Some(Share::new(&combine(&lagrange(places), shares.iter())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_split_is_joined_from_any_shares_that_are_enough() {
        let coefficients: Vec<[u8; 64]> = (1..=3u8).map(|byte| [byte; 64]).collect();
        let shares = split(&coefficients, 5);
        let secret = Scalar::from_bytes_mod_order_wide(&[1; 64]);
        let of = |from: usize| {
            let places: Vec<u32> = (1u32..=5).skip(from).take(3).collect();
            join(&places, &shares[from..from + 3]).unwrap().open().unwrap()
        };
        assert!((0..=2).all(|from| *of(from) == secret));
        let few = join(&[1, 2], &shares[..2]).unwrap().open().unwrap();
        assert_ne!(*few, secret);
    }
}
