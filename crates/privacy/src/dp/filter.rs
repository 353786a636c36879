//! A budget that holds though each release is chosen after the ones before were seen.

use super::rdp::{ORDERS, conversion, order};
use super::{Curve, Delta};
use crate::PrivacyError;

/// A Rényi filter (Feldman, Zrnic 2021, "Individual privacy accounting via a Rényi filter"): as long as the
/// divergences at **one order that is fixed beforehand** add up to no more than the budget, all releases together have it,
/// however adaptively they were chosen, and with it the (ε, δ).
///
/// The order is the one that admits most of Gaussian releases, whose divergence is in proportion to it. To take the best order
/// at each step instead would be a choice made of what came out, for which the theorem does not hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    index: usize,
    most: f64,
}

impl Budget {
    /// The budget of an ε and a δ.
    ///
    /// # Errors
    /// [`PrivacyError::Account`] if ε is not above 0 and finite, or so small that no order admits anything.
    pub fn new(epsilon: f64, delta: Delta) -> Result<Self, PrivacyError> {
        let wrong = |reason| PrivacyError::Account { place: "epsilon", reason };
        if !(epsilon > 0.0 && epsilon.is_finite()) {
            return Err(wrong("must be above 0 and finite"));
        }
        let at = |index| Self { index, most: epsilon - conversion(order(index), delta) };
        let worth = |budget: &Self| budget.most / order(budget.index);
        let best = (0..ORDERS).map(at).max_by(|a, b| worth(a).total_cmp(&worth(b)));
        best.filter(|budget| budget.most > 0.0).ok_or(wrong("is too small for its delta"))
    }

    /// Whether a pool that has spent so much may spend this, too. It is asked, and spent, in the transaction that sends.
    ///
    /// # Disclosure
    /// What the site spent, for its own people.
    pub fn admits(&self, spent: &Curve, cost: &Curve) -> bool {
        // Against the rounding of sums of up to a million entries.
        (spent.at(self.index) + cost.at(self.index)) * (1.0 + 1e-9) <= self.most
    }

    /// What part of the budget is left, from 0 to 1.
    ///
    /// # Disclosure
    /// What the site spent, for its own people.
    pub fn left(&self, spent: &Curve) -> f64 {
        (1.0 - spent.at(self.index) / self.most).clamp(0.0, 1.0)
    }

    /// The order at which it is held.
    pub fn order(&self) -> f64 {
        order(self.index)
    }
}
