//! Convolutions, and the way back through them.
//!
//! On a GPU they are Burn's. On the CPU, windows are laid out as columns and multiplied with the weights as one matrix
//! (Chellapilla et al. 2006): measured on the layers of `cnn_small`, in less than half of the time of Burn's own kernels.
//! Where the columns of a batch are too many for a cache, only the way back to the weights takes that path, in parts.

use burn::tensor::module;
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions, UnfoldOptions};
use burn::tensor::{Device, Tensor};

use super::processor;

/// Numbers in the columns of as many images as are multiplied at once: 4 MiB.
const COLUMNS: usize = 1 << 20;

/// A window that slides over the two dimensions after the channels.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) padding: [usize; 2],
}

/// What came in, or its columns where they were laid out.
pub(super) enum Kept {
    Input(Tensor<4>),
    Columns(Tensor<3>),
}

impl Window {
    fn options(&self) -> ConvOptions<2> {
        ConvOptions::new(self.stride, self.padding, [1, 1], 1)
    }

    /// Windows along each dimension.
    pub(super) fn count(&self, x: [usize; 4]) -> [usize; 2] {
        std::array::from_fn(|i| (x[i + 2] + 2 * self.padding[i] - self.kernel[i]) / self.stride[i] + 1)
    }

    /// Each window as a column.
    ///
    /// # Shapes
    /// `[rows, channels · kernel, windows]`.
    fn columns(&self, x: Tensor<4>) -> Tensor<3> {
        let shape @ [rows, channels, ..] = x.dims();
        let windows = self.count(shape).iter().product::<usize>();
        if self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0] {
            return x.reshape([rows, channels, windows]);
        }
        if !processor::holds(&x) {
            return module::unfold4d(x, self.kernel, UnfoldOptions::new(self.stride, self.padding, [1, 1]));
        }
        processor::columns(x, *self)
    }

    /// Images whose columns are multiplied at once.
    fn at_once(&self, x: [usize; 4]) -> usize {
        let each = x[1] * self.kernel.iter().product::<usize>() * self.count(x).iter().product::<usize>();
        (COLUMNS / each.max(1)).max(1)
    }
}

/// # Shapes
/// `weight`: `[out, channels, kernel, kernel]`.
pub(super) fn forward(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    window: Window,
    keep: bool,
) -> (Tensor<4>, Option<Kept>) {
    let (shape, [out, ..]) = (x.dims(), weight.dims());
    if x.device() != Device::flex() || window.at_once(shape) < shape[0] {
        let kept = keep.then(|| Kept::Input(x.clone()));
        return (module::conv2d(x, weight, bias, window.options()), kept);
    }
    let [height, width] = window.count(shape);
    let columns = window.columns(x);
    let length = columns.dims()[1];
    let y = weight.reshape([1, out, length]).matmul(columns.clone());
    let y = match bias {
        Some(bias) => y + bias.reshape([1, out, 1]),
        None => y,
    };
    (y.reshape([shape[0], out, height, width]), keep.then_some(Kept::Columns(columns)))
}

/// Gradients with respect to weight, bias if there is one, and what came in if it is wanted.
///
/// # Shapes
/// `came`: what was kept of what came in, and the shape of that.
pub(super) fn backward(
    came: (Kept, [usize; 4]),
    weight: Tensor<4>,
    has_bias: bool,
    window: Window,
    gradient: Tensor<4>,
    wanted: bool,
) -> (Vec<Tensor<1>>, Option<Tensor<4>>) {
    let (length, of) = (weight.dims().iter().product::<usize>(), (weight.clone(), gradient.clone()));
    through(came, weight, window, gradient, wanted, |kept, planes| {
        let of_weight: Tensor<1> = match kept {
            Kept::Columns(columns) => planes.clone().matmul(columns.swap_dims(1, 2)).sum_dim(0).reshape([length]),
            Kept::Input(x) if x.device() == Device::flex() => by_parts(&x, &planes, window).reshape([length]),
            Kept::Input(x) => module::conv2d_weight_backward(x, of.0, of.1, window.options()).reshape([length]),
        };
        let out = planes.dims()[1];
        let of_bias = has_bias.then(|| planes.sum_dim(2).sum_dim(0).reshape([out]));
        std::iter::once(of_weight).chain(of_bias).collect()
    })
}

/// As [`backward`], with the gradients with respect to weight and bias image by image.
///
/// # Shapes
/// Of these gradients: `[rows, entries]`.
pub(super) fn backward_apart(
    came: (Kept, [usize; 4]),
    weight: Tensor<4>,
    has_bias: bool,
    window: Window,
    gradient: Tensor<4>,
    wanted: bool,
) -> (Vec<Tensor<2>>, Option<Tensor<4>>) {
    let length = weight.dims().iter().product::<usize>();
    through(came, weight, window, gradient, wanted, |kept, planes| {
        let [rows, out, _] = planes.dims();
        let of_weight: Tensor<2> = of_images(kept, &planes, window).reshape([rows, length]);
        let of_bias = has_bias.then(|| planes.sum_dim(2).reshape([rows, out]));
        std::iter::once(of_weight).chain(of_bias).collect()
    })
}

/// What `of_parameters` makes of what was kept and of the gradient; then, without what was kept, the gradient with respect to
/// what came in if it is wanted.
///
/// # Shapes
/// Of the gradient there: `[rows, out, windows]`.
fn through<P>(
    (kept, shape): (Kept, [usize; 4]),
    weight: Tensor<4>,
    window: Window,
    gradient: Tensor<4>,
    wanted: bool,
    of_parameters: impl FnOnce(Kept, Tensor<3>) -> P,
) -> (P, Option<Tensor<4>>) {
    let [rows, out, down, right] = gradient.dims();
    let has_columns = matches!(kept, Kept::Columns(_));
    let of_parameters = of_parameters(kept, gradient.clone().reshape([rows, out, down * right]));
    let of_input = wanted.then(|| to_input((has_columns, shape), weight, window, gradient));
    (of_parameters, of_input)
}

/// The gradient with respect to what came in.
///
/// # Shapes
/// `shape`: of what came in.
fn to_input(
    (has_columns, shape): (bool, [usize; 4]),
    weight: Tensor<4>,
    window: Window,
    gradient: Tensor<4>,
) -> Tensor<4> {
    let [rows, out, down, right] = gradient.dims();
    if has_columns {
        let length = weight.dims().iter().product::<usize>();
        let planes = gradient.reshape([rows, out, down * right]);
        let columns = weight.reshape([1, out, length / out]).swap_dims(1, 2).matmul(planes);
        return processor::columns_back(columns, shape, window);
    }
    // What the last window did not reach.
    let rest = |i: usize, windows: usize| {
        (shape[i + 2] + 2 * window.padding[i]) - ((windows - 1) * window.stride[i] + window.kernel[i])
    };
    let rest = [rest(0, down), rest(1, right)];
    let options = ConvTransposeOptions::new(window.stride, window.padding, rest, [1, 1], 1);
    module::conv_transpose2d(gradient, weight, None, options)
}

/// The gradient with respect to the weight of each image by itself, a few images at a time.
///
/// # Shapes
/// `[rows, out, channels · kernel]`.
fn of_images(kept: Kept, planes: &Tensor<3>, window: Window) -> Tensor<3> {
    let x = match kept {
        Kept::Columns(columns) => return planes.clone().matmul(columns.swap_dims(1, 2)),
        Kept::Input(x) => x,
    };
    let (rows, at_once) = (x.dims()[0], window.at_once(x.dims()));
    let parts = (0..rows).step_by(at_once).map(|at| {
        let some = at_once.min(rows - at);
        let columns = window.columns(x.clone().narrow(0, at, some));
        planes.clone().narrow(0, at, some).matmul(columns.swap_dims(1, 2))
    });
    Tensor::cat(parts.collect(), 0)
}

/// The gradient with respect to the weight, a few images at a time, always summed in the order of the rows.
fn by_parts(x: &Tensor<4>, planes: &Tensor<3>, window: Window) -> Tensor<3> {
    let (shape, mut at) = (x.dims(), 0);
    let mut part = || {
        let some = window.at_once(shape).min(shape[0] - at);
        let columns = window.columns(x.clone().narrow(0, at, some));
        let sum = planes.clone().narrow(0, at, some).matmul(columns.swap_dims(1, 2)).sum_dim(0);
        at += some;
        (sum, at < shape[0])
    };
    let (mut sum, mut more) = part();
    while more {
        let (next, rest) = part();
        (sum, more) = (sum + next, rest);
    }
    sum
}
