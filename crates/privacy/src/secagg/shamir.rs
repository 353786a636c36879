//! Secrets as the constant terms of polynomials over the scalars of Ristretto255 (Shamir 1979), with commitments to
//! every coefficient (Feldman 1987), so that a share can be checked by whoever holds it, and who sent a wrong one is
//! known.
//!
//! Not a general library: thresholds, places and secrets come from the state machines, which have checked them.

use std::ops::{Deref, DerefMut};

use curve25519_dalek::RistrettoPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity as _, VartimeMultiscalarMul as _};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use super::message::Point;

/// A scalar that is a secret or a share of one. It stays at one address until it is erased: a map that moves its entries
/// leaves no copies behind.
#[derive(Clone)]
pub(super) struct Secret(Box<Zeroizing<Scalar>>);

impl Secret {
    pub(super) fn new(mut scalar: Scalar) -> Self {
        let mut secret = Self::zero();
        *secret = scalar;
        scalar.zeroize();
        secret
    }

    fn zero() -> Self {
        Self(Box::new(Zeroizing::new(Scalar::ZERO)))
    }
}

impl Deref for Secret {
    type Target = Scalar;

    fn deref(&self) -> &Scalar {
        &self.0
    }
}

impl DerefMut for Secret {
    fn deref_mut(&mut self) -> &mut Scalar {
        &mut self.0
    }
}

/// A polynomial of degree t − 1; its constant term is the secret.
pub(super) struct Polynomial(Zeroizing<Vec<Scalar>>);

impl Polynomial {
    /// From the secret and the t − 1 other coefficients, each uniform, zero included.
    pub(super) fn new(secret: &Secret, others: impl Iterator<Item = Secret>) -> Self {
        // With its room at once: growing would leave copies behind.
        let mut coefficients = Zeroizing::new(Vec::with_capacity(1 + others.size_hint().0));
        coefficients.push(**secret);
        for other in others {
            coefficients.push(*other);
        }
        Self(coefficients)
    }

    /// The share at this place, which is not 0.
    pub(super) fn share(&self, place: u32) -> Secret {
        let place = Scalar::from(place);
        Secret::new(self.0.iter().rev().fold(Scalar::ZERO, |sum, coefficient| sum * place + coefficient))
    }

    /// Commitments to the coefficients; the first one is the public key of the secret.
    pub(super) fn commit(&self) -> Vec<Point> {
        self.0.iter().map(|coefficient| Point::of(&RistrettoPoint::mul_base(coefficient))).collect()
    }
}

/// Commitments of somebody else, decoded.
pub(super) struct Commitments {
    points: Vec<RistrettoPoint>,
    digest: [u8; 32],
}

impl Commitments {
    /// Decodes commitments; `None` if one is no point.
    pub(super) fn parse(points: &[Point]) -> Option<Self> {
        let mut hash = Sha256::new();
        for point in points {
            hash.update(point.as_bytes());
        }
        let points = points.iter().map(Point::decode).collect::<Option<_>>()?;
        Some(Self { points, digest: hash.finalize().into() })
    }
}

/// What a share claims: that it is the committed polynomial's value at a place.
pub(super) struct Claim<'a> {
    pub(super) commitments: &'a Commitments,
    pub(super) place: u32,
    pub(super) share: Secret,
}

/// Whether all claims hold: Σ r_i·share_i·G = Σ r_i Σ_j place_i^j·C_ij, with 128-bit weights r_i drawn from a hash of
/// all claims, so that whoever makes them cannot choose them to cancel (Bellare, Garay, Rabin 1998, "small exponents").
pub(super) fn hold(claims: &[Claim]) -> bool {
    let mut hash = Sha256::new().chain_update(b"hospes/secagg/batch/v1\0");
    for claim in claims {
        hash.update(claim.commitments.digest);
        hash.update(claim.place.to_be_bytes());
        hash.update(claim.share.as_bytes());
    }
    let seed: [u8; 32] = hash.finalize().into();
    let terms: usize = claims.iter().map(|claim| claim.commitments.points.len()).sum();
    let (mut scalars, mut points) = (Vec::with_capacity(terms), Vec::with_capacity(terms));
    let mut left = Zeroizing::new(Scalar::ZERO);
    for (number, claim) in (0u64..).zip(claims) {
        let weight = weight(&seed, number);
        *left += weight * *claim.share;
        let place = Scalar::from(claim.place);
        let mut power = weight;
        for point in &claim.commitments.points {
            scalars.push(power);
            points.push(*point);
            power *= place;
        }
    }
    // The shares are secret, so that their side is computed in constant time; the other one is public.
    let right = RistrettoPoint::vartime_multiscalar_mul(&scalars, &points);
    (RistrettoPoint::mul_base(&left) - right).is_identity()
}

fn weight(seed: &[u8; 32], number: u64) -> Scalar {
    let hash: [u8; 32] = Sha256::new().chain_update(seed).chain_update(number.to_be_bytes()).finalize().into();
    let (halves, _) = hash.as_chunks::<16>();
    Scalar::from(halves.iter().fold(0u128, |sum, bytes| sum ^ u128::from_le_bytes(*bytes)))
}

/// Factors λ with Σ λ_i·f(place_i) = f(0) for every polynomial of a lower degree than there are places, which are
/// distinct and not 0: λ_i = Π_{j≠i} place_j / (place_j − place_i). Denominators are inverted in one batch.
pub(super) fn lagrange(places: &[u32]) -> Vec<Scalar> {
    let all = product(places.iter().copied());
    let mut factors: Vec<Scalar> = places
        .iter()
        .map(|place| {
            let others = places.iter().filter(|other| *other != place);
            let below = others.clone().filter(|other| *other < place).count();
            let size = product(others.map(|other| other.abs_diff(*place)).chain([*place]));
            if below.is_multiple_of(2) { size } else { -size }
        })
        .collect();
    Scalar::invert_batch_alloc(&mut factors);
    factors.iter().map(|inverse| all * inverse).collect()
}

/// The product of small numbers: as many of them as fit are multiplied as integers first.
fn product(numbers: impl Iterator<Item = u32>) -> Scalar {
    let (mut product, mut small) = (Scalar::ONE, 1u128);
    for number in numbers {
        small *= u128::from(number);
        if small >> 96 != 0 {
            product *= Scalar::from(small);
            small = 1;
        }
    }
    product * Scalar::from(small)
}

/// The secret of which these are shares, one for each of the factors' places.
pub(super) fn combine<'a>(factors: &[Scalar], shares: impl Iterator<Item = &'a Secret>) -> Secret {
    let mut secret = Secret::zero();
    for (factor, share) in factors.iter().zip(shares) {
        *secret += factor * **share;
    }
    secret
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use proptest::prelude::*;

    use super::*;

    fn secret(seed: [u8; 64]) -> Secret {
        Secret::new(Scalar::from_bytes_mod_order_wide(&seed))
    }

    fn polynomial(coefficients: &[[u8; 64]]) -> Polynomial {
        Polynomial::new(&secret(coefficients[0]), coefficients[1..].iter().map(|seed| secret(*seed)))
    }

    fn big(scalar: &Scalar) -> BigUint {
        BigUint::from_bytes_le(scalar.as_bytes())
    }

    /// 2^252 + 27742317777372353535851937790883648493 (RFC 9496 §2).
    fn order() -> BigUint {
        (BigUint::from(1u32) << 252u32) + BigUint::from(27_742_317_777_372_353_535_851_937_790_883_648_493u128)
    }

    fn seeds(most: usize) -> impl Strategy<Value = Vec<[u8; 64]>> {
        prop::collection::vec(prop::array::uniform32(any::<u16>()), 1..most).prop_map(|all| {
            let bytes = |words: [u16; 32]| -> [u8; 64] { std::array::from_fn(|i| words[i / 2].to_le_bytes()[i % 2]) };
            all.into_iter().map(bytes).collect()
        })
    }

    #[test]
    fn commitments_are_the_published_multiples_of_the_base() {
        // RFC 9496, appendix A.1: the first three multiples of the generator.
        let known = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76",
            "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919",
        ];
        let small = |number: u32| Secret::new(Scalar::from(number));
        let polynomial = Polynomial::new(&small(0), [small(1), small(2)].into_iter());
        let found: Vec<String> = polynomial.commit().iter().map(|point| format!("{point:?}")).collect();
        assert_eq!(found, known);
        // 0 + 3 + 2·9
        assert_eq!(*polynomial.share(3), Scalar::from(21u32));
    }

    #[test]
    fn a_large_threshold_combines() {
        let coefficients: Vec<[u8; 64]> = (0..100u8).map(|i| [i; 64]).collect();
        let polynomial = polynomial(&coefficients);
        let places: Vec<u32> = (1..=1_000).rev().step_by(10).collect();
        let shares: Vec<Secret> = places.iter().map(|place| polynomial.share(*place)).collect();
        assert_eq!(*combine(&lagrange(&places), shares.iter()), *secret([0; 64]));
        let changed = combine(&lagrange(&places[1..]), shares[1..].iter());
        assert_ne!(*changed, *secret([0; 64]), "one share fewer than the threshold must not do");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn shares_and_factors_are_those_of_big_integers(
            coefficients in seeds(9), chosen in prop::collection::btree_set(1u32..=1_000, 9)
        ) {
            let polynomial = polynomial(&coefficients);
            let order = order();
            let terms: Vec<BigUint> = coefficients.iter().map(|seed| BigUint::from_bytes_le(seed) % &order).collect();
            let places: Vec<u32> = chosen.into_iter().take(coefficients.len()).collect();
            let mut sum = BigUint::from(0u32);
            for (place, factor) in places.iter().zip(lagrange(&places)) {
                let x = BigUint::from(*place);
                let value = terms.iter().rev().fold(BigUint::from(0u32), |sum, term| (sum * &x + term) % &order);
                prop_assert_eq!(big(&polynomial.share(*place)), value.clone());
                let mut expected = BigUint::from(1u32);
                for other in places.iter().filter(|other| *other != place) {
                    let difference = (BigUint::from(*other) + &order - &x) % &order;
                    let inverse = difference.modpow(&(&order - BigUint::from(2u32)), &order);
                    expected = expected * BigUint::from(*other) % &order * inverse % &order;
                }
                prop_assert_eq!(big(&factor), expected.clone());
                sum = (sum + expected * value) % &order;
            }
            prop_assert_eq!(sum, terms[0].clone());
            let shares: Vec<Secret> = places.iter().map(|place| polynomial.share(*place)).collect();
            prop_assert_eq!(big(&combine(&lagrange(&places), shares.iter())), terms[0].clone());
        }

        #[test]
        fn a_batch_holds_if_and_only_if_every_share_lies_on_its_polynomial(
            all in prop::collection::vec(seeds(4), 1..5), places in prop::collection::vec(1u32..=1_000, 5),
            bad in any::<prop::sample::Index>(), by in 1u32..
        ) {
            let polynomials: Vec<Polynomial> = all.iter().map(|seeds| polynomial(seeds)).collect();
            let commitments: Vec<Commitments> =
                polynomials.iter().map(|p| Commitments::parse(&p.commit()).unwrap()).collect();
            let claims = |off: Option<usize>| -> Vec<Claim> {
                let each = polynomials.iter().zip(&commitments).zip(&places).enumerate();
                each.map(|(i, ((polynomial, commitments), place))| {
                    let error = Scalar::from(if off == Some(i) { by } else { 0 });
                    Claim { commitments, place: *place, share: Secret::new(*polynomial.share(*place) + error) }
                })
                .collect()
            };
            prop_assert!(hold(&claims(None)));
            prop_assert!(!hold(&claims(Some(bad.index(polynomials.len())))));
        }
    }

    #[test]
    fn errors_of_two_shares_do_not_cancel_and_bytes_that_are_no_points_are_refused() {
        let polynomial = polynomial(&[[3; 64], [4; 64]]);
        let commitments = Commitments::parse(&polynomial.commit()).unwrap();
        let claim = |place: u32, error: Scalar| Claim {
            commitments: &commitments,
            place,
            share: Secret::new(*polynomial.share(place) + error),
        };
        assert!(hold(&[claim(1, Scalar::ZERO), claim(2, Scalar::ZERO)]));
        assert!(!hold(&[claim(1, Scalar::ONE), claim(2, -Scalar::ONE)]));
        assert!(Commitments::parse(&[Point::from_bytes([0xff; 32])]).is_none());
        assert!(hold(&[]));
    }
}
