//! How figures travel under masks: as whole numbers, cut into pieces of 32 bits that the ring of a masked sum has room for.
//!
//! A vector of figures has as its tensors first [`SHOWN`], one entry for each figure of the round: 1 if this site shows it, 0
//! if a disclosure rule holds it back. Then comes each figure, with its values and, of each of them, the pieces, the lowest
//! first. The bounds that follow from this are in docs/adr/0037-masked-figures.md.

use super::egress::{Figure, figure, round_figures};
use super::model::TensorShape;
use super::train::Quantise;
use super::update::update_tensors;
use super::{Component, Plan};

/// Name of the part that says which figures are shown. No figure is called so.
pub const SHOWN: &str = "shown";
/// Bits of one piece.
pub const PIECE_BITS: u8 = 32;
/// Binary digits after the point of a sum.
pub const FRACTION_BITS: i32 = 96;

/// How the values of a figure become whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A count of rows: a whole number below 2^32, in one piece.
    Count,
    /// Any other sum over rows: a multiple of 2^-96 between -2^95 and 2^95, in six pieces.
    Sum,
}

impl Form {
    /// That of a figure, also of a subgroup; `None` for a figure that is no sum over rows, of which several sites' cannot be
    /// added.
    pub fn of(name: &str) -> Option<Self> {
        // Of a subgroup, the name is followed by its column and code.
        match name.split('[').next().unwrap_or(name) {
            figure::N
            | figure::CORRECT
            | figure::CONFUSION
            | figure::SCORES_POSITIVE
            | figure::SCORES_NEGATIVE
            | figure::CLASS_CONFUSION
            | figure::CLASS_SCORES_POSITIVE
            | figure::CLASS_SCORES_NEGATIVE
            | figure::CALIBRATION_ROWS
            | figure::CALIBRATION_POSITIVES
            | figure::EVENTS
            | figure::PRESENT
            | figure::GRID_EVENTS => Some(Self::Count),
            figure::LOSS_SUM
            | figure::BRIER_SUM
            | figure::ABSOLUTE_ERROR_SUM
            | figure::SQUARED_ERROR_SUM
            | figure::LABEL_SUM
            | figure::LABEL_SQUARE_SUM
            // Pairs of rows can be more than 2^32.
            | figure::PAIRS_COMPARABLE
            | figure::PAIRS_CONCORDANT
            | figure::PAIRS_TIED
            | figure::PAIRS
            | figure::CALIBRATION_SCORES
            | figure::RECALIBRATION_INFORMATION
            | figure::RECALIBRATION_WEIGHTED
            | figure::SUM
            | figure::SUM_OF_SQUARES
            | figure::SCORE
            | figure::INFORMATION
            | figure::LOG_LIKELIHOOD
            | figure::WEIGHTS
            | figure::DEVIANCE
            | figure::PEARSON
            | figure::GRID_EXPOSURE => Some(Self::Sum),
            _ => None,
        }
    }

    /// Pieces of one value.
    pub const fn pieces(self) -> u64 {
        match self {
            Self::Count => 1,
            Self::Sum => 6,
        }
    }
}

/// Tensors of a masked vector of these figures, in order. What has no form has no pieces: a plan that asks for it under masks
/// is refused.
pub fn tensors(figures: &[Figure]) -> Vec<TensorShape> {
    let shown = TensorShape { name: SHOWN.to_owned(), shape: vec![figures.len() as u64] };
    let of = |figure: &Figure| TensorShape {
        name: figure.name.to_string(),
        shape: vec![figure.values, Form::of(&figure.name).map_or(0, Form::pieces)],
    };
    std::iter::once(shown).chain(figures.iter().map(of)).collect()
}

/// How figures are put on the wire: pieces are whole numbers, so that the clip says nothing, and each site weighs 1.
pub fn quantise() -> Quantise {
    Quantise { clip: 1.0, bits: PIECE_BITS, n_max: 1 }
}

/// What the header of a round asks of a site, as the plan has it: the tensors of an update or of a masked vector of figures,
/// and how they are put on the wire. Of figures that travel as they are there are none.
pub fn layout(plan: &Plan, task: &str, round: u32) -> (Vec<TensorShape>, Quantise) {
    match plan.tasks.get(task).map(|task| &task.component) {
        Some(Component::NnTrain(train)) => (update_tensors(train, super::inputs(plan, task)), train.quantise.clone()),
        Some(component) if component.is_masked() => (tensors(&round_figures(plan, task, round)), quantise()),
        _ => (Vec::new(), Quantise::default()),
    }
}

/// Whether what a task sends is masked.
pub fn is_masked(plan: &Plan, task: &str) -> bool {
    plan.tasks.get(task).is_some_and(|task| task.component.is_masked())
}

/// Whether a task sends figures, and no update of a model.
pub fn reports_figures(plan: &Plan, task: &str) -> bool {
    plan.tasks.get(task).is_some_and(|task| task.component.reports_figures())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_of_a_subgroup_has_the_form_of_the_whole_and_what_is_unknown_has_none() {
        assert_eq!((Form::of("confusion"), Form::of("confusion[sex=1]")), (Some(Form::Count), Some(Form::Count)));
        assert_eq!((Form::of("loss_sum"), Form::of("loss_sum[a=[b]")), (Some(Form::Sum), Some(Form::Sum)));
        assert_eq!((Form::of("names of categories"), Form::of("")), (None, None));
    }
}
