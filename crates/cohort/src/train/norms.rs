//! Batch, group and layer norm, and the way back through them.

use burn::tensor::Tensor;

use super::processor::{self, Moments, Normalised};

/// PyTorch's default of every norm.
const EPSILON: f64 = 1e-5;

/// Running figures of a batch norm layer, one of each for every channel.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) mean: Tensor<1>,
    pub(super) variance: Tensor<1>,
}

/// Which values share a mean and a variance.
#[derive(Clone, Copy)]
enum Share {
    /// All of one channel, over the batch.
    Channel,
    /// All of one group of channels in one row; so many groups.
    Group(usize),
}

/// What the way back needs.
pub(super) enum Normal {
    /// Of a batch norm on the processor.
    Here(Normalised),
    Shared(Box<Shared>),
}

pub(super) struct Shared {
    share: Share,
    /// Values with mean 0 and variance 1.
    ///
    /// # Shapes
    /// As the batch.
    normal: Tensor<4>,
    /// 1 / √(variance + ε), of a shape that broadcasts over what shares it.
    inverse: Tensor<4>,
}

/// Ioffe, Szegedy 2015, with PyTorch's conventions: the biased variance of the batch normalises, the unbiased one goes
/// into the running figure. A batch with one value per channel has no variance; it leaves the running figures alone.
pub(super) fn batch(
    x: Tensor<4>,
    parameters: &[Tensor<1>],
    running: &mut Option<Running>,
    momentum: f64,
) -> (Tensor<4>, Normal) {
    let [rows, channels, height, width] = x.dims();
    let values = rows * height * width;
    let (y, normal, mean, variance) = if processor::holds(&x) {
        let (y, normalised, Moments { mean, variance }) = processor::batch_norm(x, parameters, EPSILON);
        (y, Normal::Here(normalised), mean, variance)
    } else {
        #[allow(clippy::cast_precision_loss)]
        let part = 1.0 / values as f64;
        let mean = channel_sums(x.clone()).mul_scalar(part);
        let centred = x - mean.clone();
        let variance = channel_sums(centred.clone().square()).mul_scalar(part);
        let inverse = variance.clone().add_scalar(EPSILON).sqrt().recip();
        let normal = centred * inverse.clone();
        let y = affine(normal.clone(), parameters, [1, channels, 1, 1]);
        let shared = Shared { share: Share::Channel, normal, inverse };
        (y, Normal::Shared(Box::new(shared)), mean.reshape([channels]), variance.reshape([channels]))
    };
    if let Some(running) = running.as_mut().filter(|_| values > 1) {
        #[allow(clippy::cast_precision_loss)]
        let unbiased = values as f64 / (values - 1) as f64;
        let moved = |old: &Tensor<1>, new: Tensor<1>, factor: f64| {
            old.clone().mul_scalar(1.0 - momentum) + new.mul_scalar(momentum * factor)
        };
        running.mean = moved(&running.mean, mean, 1.0);
        running.variance = moved(&running.variance, variance, unbiased);
    }
    (y, normal)
}

/// The same by running figures, where nothing is trained: one factor and one summand for each channel.
pub(super) fn judged(x: Tensor<4>, parameters: &[Tensor<1>], running: &Running) -> Tensor<4> {
    let channels = x.dims()[1];
    let factor = parameters[0].clone() / running.variance.clone().add_scalar(EPSILON).sqrt();
    let summand = parameters[1].clone() - running.mean.clone() * factor.clone();
    x * factor.reshape([1, channels, 1, 1]) + summand.reshape([1, channels, 1, 1])
}

/// Wu, He 2018.
pub(super) fn groups(x: Tensor<4>, parameters: &[Tensor<1>], groups: usize) -> (Tensor<4>, Normal) {
    let channels = x.dims()[1];
    let shared = Shared::of_groups(x, groups.max(1));
    (affine(shared.normal.clone(), parameters, [1, channels, 1, 1]), Normal::Shared(Box::new(shared)))
}

/// Ba et al. 2016, over all values of a row, each with its own weight and bias.
pub(super) fn rows(x: Tensor<4>, parameters: &[Tensor<1>]) -> (Tensor<4>, Normal) {
    let [_, channels, height, width] = x.dims();
    let shared = Shared::of_groups(x, 1);
    (affine(shared.normal.clone(), parameters, [1, channels, height, width]), Normal::Shared(Box::new(shared)))
}

fn affine(normal: Tensor<4>, parameters: &[Tensor<1>], shape: [usize; 4]) -> Tensor<4> {
    normal * parameters[0].clone().reshape(shape) + parameters[1].clone().reshape(shape)
}

/// Sums over everything but the channels, dimension by dimension.
///
/// # Shapes
/// `[1, channels, 1, 1]`.
fn channel_sums(x: Tensor<4>) -> Tensor<4> {
    let [rows, channels, height, width] = x.dims();
    x.reshape([rows, channels, height * width]).sum_dim(2).sum_dim(0).reshape([1, channels, 1, 1])
}

impl Normal {
    /// The gradients with respect to what came in, and to weight and bias.
    pub(super) fn backward(self, gradient: Tensor<4>, parameters: &[Tensor<1>]) -> (Tensor<4>, Vec<Tensor<1>>) {
        match self {
            Self::Here(normalised) => normalised.backward(gradient, &parameters[0]),
            Self::Shared(shared) => shared.backward(gradient, parameters),
        }
    }

    /// As [`Normal::backward`], with the gradients with respect to weight and bias row by row. `None` for a batch norm, in
    /// which no row has a gradient of its own.
    ///
    /// # Shapes
    /// Of these gradients: `[rows, entries]`.
    pub(super) fn backward_apart(
        self,
        gradient: Tensor<4>,
        parameters: &[Tensor<1>],
    ) -> Option<(Tensor<4>, Vec<Tensor<2>>)> {
        let Self::Shared(shared) = self else { return None };
        let Share::Group(groups) = shared.share else { return None };
        let [rows, channels, height, width] = gradient.dims();
        let length = parameters[0].dims()[0];
        let sums = |x: Tensor<4>| -> Tensor<2> {
            if length == channels {
                x.reshape([rows, channels, height * width]).sum_dim(2).reshape([rows, channels])
            } else {
                x.reshape([rows, length])
            }
        };
        let of_parameters = vec![sums(gradient.clone() * shared.normal.clone()), sums(gradient.clone())];
        Some((shared.into_input(groups, gradient, &parameters[0]), of_parameters))
    }
}

impl Shared {
    fn of_groups(x: Tensor<4>, groups: usize) -> Self {
        let [rows, channels, height, width] = x.dims();
        let x = x.reshape([rows * groups, channels * height * width / groups]);
        let centred = x.clone() - x.mean_dim(1);
        let inverse = centred.clone().square().mean_dim(1).add_scalar(EPSILON).sqrt().recip();
        let normal = (centred * inverse.clone()).reshape([rows, channels, height, width]);
        Self { share: Share::Group(groups), normal, inverse: inverse.reshape([rows * groups, 1, 1, 1]) }
    }

    /// With x̂ for the normal values and ĝ for their gradient, the gradient with respect to what came in is
    /// (ĝ − mean ĝ − x̂ · mean(ĝ·x̂)) / √(variance + ε), means over what shares a mean (Ioffe, Szegedy 2015, section 3).
    fn backward(self, gradient: Tensor<4>, parameters: &[Tensor<1>]) -> (Tensor<4>, Vec<Tensor<1>>) {
        let [rows, channels, height, width] = gradient.dims();
        match self.share {
            Share::Channel => {
                let Self { normal, inverse, .. } = self;
                let along = gradient.clone() * normal.clone();
                let (of_bias, of_weight) = (channel_sums(gradient.clone()), channel_sums(along));
                #[allow(clippy::cast_precision_loss)]
                let part = 1.0 / (rows * height * width) as f64;
                let scale = inverse * parameters[0].clone().reshape([1, channels, 1, 1]);
                let across = gradient - of_bias.clone().mul_scalar(part) - normal * of_weight.clone().mul_scalar(part);
                (across * scale, vec![of_weight.reshape([channels]), of_bias.reshape([channels])])
            }
            Share::Group(groups) => {
                // Layer norm has parameters of its own for each value; where there is one value for each channel, both are
                // the same.
                let length = parameters[0].dims()[0];
                let sums = |x: Tensor<4>| match length == channels {
                    true => channel_sums(x).reshape([channels]),
                    false => x.sum_dim(0).reshape([length]),
                };
                let of_parameters = vec![sums(gradient.clone() * self.normal.clone()), sums(gradient.clone())];
                (self.into_input(groups, gradient, &parameters[0]), of_parameters)
            }
        }
    }

    /// The gradient with respect to what came in, of groups.
    fn into_input(self, groups: usize, gradient: Tensor<4>, weight: &Tensor<1>) -> Tensor<4> {
        let Self { normal, inverse, .. } = self;
        let [rows, channels, height, width] = gradient.dims();
        let per_channel = weight.dims()[0] == channels;
        let shape = if per_channel { [1, channels, 1, 1] } else { [1, channels, height, width] };
        let flat = [rows * groups, channels * height * width / groups];
        let (normal, inverse) = (normal.reshape(flat), inverse.reshape([rows * groups, 1]));
        let gradient = (gradient * weight.clone().reshape(shape)).reshape(flat);
        let along = (gradient.clone() * normal.clone()).mean_dim(1);
        let across = gradient.clone() - gradient.mean_dim(1) - normal * along;
        (across * inverse).reshape([rows, channels, height, width])
    }
}
