//! The discrete Fourier transform, in one order of operations.
//!
//! Libraries choose among instruction sets when they run, and so give other last bits on other processors; an ε that is signed
//! and spent must be the same everywhere (invariant I5). Transforms of a power of two are short.

use std::ops::{Add, Mul, Sub};

/// A complex number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Complex {
    pub(super) re: f64,
    pub(super) im: f64,
}

impl Complex {
    pub(super) const ONE: Self = Self { re: 1.0, im: 0.0 };

    pub(super) fn conjugate(self) -> Self {
        Self { re: self.re, im: -self.im }
    }

    /// The `times`-th power, by squaring.
    pub(super) fn power(self, mut times: u64) -> Self {
        let (mut result, mut square) = (Self::ONE, self);
        while times > 0 {
            if times & 1 == 1 {
                result = result * square;
            }
            square = square * square;
            times >>= 1;
        }
        result
    }
}

impl Add for Complex {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }
}

impl Sub for Complex {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { re: self.re - other.re, im: self.im - other.im }
    }
}

impl Mul for Complex {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Self { re: self.re * other.re - self.im * other.im, im: self.re * other.im + self.im * other.re }
    }
}

/// Transforms of one length, which is a power of two.
pub(super) struct Transform {
    /// exp(−2πik/n) for k below n/2.
    roots: Vec<Complex>,
}

impl Transform {
    pub(super) fn new(length: usize) -> Self {
        let root = |k: usize| {
            let (sin, cos) = libm::sincos(-2.0 * std::f64::consts::PI * k as f64 / length as f64);
            Complex { re: cos, im: sin }
        };
        Self { roots: (0..length / 2).map(root).collect() }
    }

    /// Σ_j x_j·exp(−2πijk/n) for every k, in place (Cooley, Tukey 1965).
    ///
    /// Its error is at most [`error`] times the Euclidean norm of the result.
    pub(super) fn forward(&self, values: &mut [Complex]) {
        let length = values.len();
        let unused = length.leading_zeros() + 1;
        for index in 0..length {
            let mirrored = index.reverse_bits().checked_shr(unused).unwrap_or(0);
            if index < mirrored {
                values.swap(index, mirrored);
            }
        }
        let mut half = 1;
        while half < length {
            let roots: Vec<Complex> = self.roots.iter().step_by(length / (2 * half)).copied().collect();
            for block in values.chunks_exact_mut(2 * half) {
                let (low, high) = block.split_at_mut(half);
                for ((low, high), root) in low.iter_mut().zip(high).zip(&roots) {
                    let turned = *high * *root;
                    (*low, *high) = (*low + turned, *low - turned);
                }
            }
            half *= 2;
        }
    }
}

/// Relative error of a transform in Euclidean norm (Higham 2002, "Accuracy and stability of numerical algorithms", theorem
/// 24.2, with roots that are right to one unit in the last place).
pub(super) fn error(length: usize) -> f64 {
    8.0 * f64::EPSILON / 2.0 * f64::from(length.ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_sum_of_the_definition() {
        for length in [1usize, 2, 8, 64] {
            let value = |j: usize| Complex { re: ((j * 7 + 3) % 11) as f64, im: ((j * 5) % 13) as f64 - 6.0 };
            let mut found: Vec<Complex> = (0..length).map(value).collect();
            Transform::new(length).forward(&mut found);
            for (k, found) in found.iter().enumerate() {
                let turned = |j: usize| {
                    let angle = -2.0 * std::f64::consts::PI * ((j * k) % length) as f64 / length as f64;
                    value(j) * Complex { re: libm::cos(angle), im: libm::sin(angle) }
                };
                let wanted = (0..length).map(turned).fold(Complex::default(), Add::add);
                let off = *found - wanted;
                assert!(off.re.abs() + off.im.abs() < 1e-10, "{length} {k}: {found:?} {wanted:?}");
            }
        }
    }

    #[test]
    fn powers_are_products() {
        let base = Complex { re: 0.8, im: -0.6 };
        let wanted = (0..13).fold(Complex::ONE, |product, _| product * base);
        let off = base.power(13) - wanted;
        assert!(off.re.abs() + off.im.abs() < 1e-14 && base.power(0) == Complex::ONE);
        assert_eq!(base.conjugate(), Complex { re: 0.8, im: 0.6 });
    }
}
