//! Layers on the processor, each in as few passes over memory as it takes.
//!
//! Burn's backend for the processor makes a tensor of its own for each sum, product and comparison, on one core; a batch
//! norm is fifteen of those, and what they cost is the memory that they go through. Here a layer is one or two passes,
//! image by image on all cores. Sums are taken within an image and then in the order of the images, so that they are the
//! same for any number of threads.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::iter::{IndexedParallelIterator as _, ParallelIterator as _};
use rayon::slice::ParallelSliceMut as _;

use super::convolution::Window;
use super::network::values;

/// Numbers below which one core is as fast as several that have to be woken.
const FEW: usize = 1 << 15;
/// Numbers that are added at once.
const LANES: usize = 16;

/// Whether a tensor lies where these layers work.
pub(super) fn holds<const D: usize>(x: &Tensor<D>) -> bool {
    x.device() == Device::flex()
}

/// The numbers of a tensor: moved where nothing else holds them, copied otherwise.
fn taken<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    // Unwrap safety: as in `values`.
    #[allow(clippy::unwrap_used)]
    x.into_data().try_into_vec::<f32>().unwrap()
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// Does something with each part of so many numbers; `cost`: numbers that are read or written in all.
fn each<T: Send>(all: &mut [T], length: usize, cost: usize, work: impl Fn(usize, &mut [T]) + Send + Sync) {
    let length = length.max(1);
    if cost < FEW {
        all.chunks_mut(length).enumerate().for_each(|(i, part)| work(i, part));
    } else {
        all.par_chunks_mut(length).enumerate().for_each(|(i, part)| work(i, part));
    }
}

/// The same over two lists of as many parts.
fn both<A: Send, B: Send>(
    (one, length): (&mut [A], usize),
    (other, width): (&mut [B], usize),
    cost: usize,
    work: impl Fn(usize, &mut [A], &mut [B]) + Send + Sync,
) {
    let (length, width) = (length.max(1), width.max(1));
    if cost < FEW {
        let pairs = one.chunks_mut(length).zip(other.chunks_mut(width));
        pairs.enumerate().for_each(|(i, (a, b))| work(i, a, b));
    } else {
        let pairs = one.par_chunks_mut(length).zip(other.par_chunks_mut(width));
        pairs.enumerate().for_each(|(i, (a, b))| work(i, a, b));
    }
}

/// The greater of each number and 0; and, if asked for, which are above it, as the way back needs it. What is no number
/// stays so.
pub(super) fn relu(x: Tensor<4>, keep: bool) -> (Tensor<4>, Vec<bool>) {
    let shape = x.dims();
    let mut values = taken(x);
    let mut above = vec![false; if keep { values.len() } else { 0 }];
    let cost = values.len();
    let rectify = |values: &mut [f32]| values.iter_mut().for_each(|v| *v = if *v <= 0.0 { 0.0 } else { *v });
    if keep {
        both((&mut values, FEW), (&mut above, FEW), cost, |_, values, above| {
            above.iter_mut().zip(values.iter()).for_each(|(above, v)| *above = *v > 0.0 || v.is_nan());
            rectify(values);
        });
    } else {
        each(&mut values, FEW, cost, |_, values| rectify(values));
    }
    (tensor(values, shape), above)
}

/// The way back through [`relu`].
pub(super) fn relu_back(gradient: Tensor<4>, above: &[bool]) -> Tensor<4> {
    let shape = gradient.dims();
    let mut values = taken(gradient);
    let cost = values.len();
    each(&mut values, FEW, cost, |i, part| {
        let above = &above[i * FEW..];
        part.iter_mut().zip(above).for_each(|(v, above)| *v = if *above { *v } else { 0.0 });
    });
    tensor(values, shape)
}

/// A batch, and what normalises it channel by channel.
pub(super) struct Normalised {
    shape: [usize; 4],
    x: Vec<f32>,
    mean: Vec<f32>,
    /// 1 / √(variance + ε).
    inverse: Vec<f32>,
}

/// Mean and biased variance of each channel.
pub(super) struct Moments {
    pub(super) mean: Tensor<1>,
    pub(super) variance: Tensor<1>,
}

/// Batch norm by the batch's own moments, as in [`super::norms::batch`].
pub(super) fn batch_norm(x: Tensor<4>, parameters: &[Tensor<1>], epsilon: f64) -> (Tensor<4>, Normalised, Moments) {
    let shape @ [rows, channels, height, width] = x.dims();
    let (x, plane) = (taken(x), height * width);
    #[allow(clippy::cast_precision_loss)]
    let part = 1.0 / (rows * plane) as f64;
    let means = |sums: Vec<[f64; 1]>| -> Vec<f32> {
        #[allow(clippy::cast_possible_truncation)]
        sums.iter().map(|[sum]| (sum * part) as f32).collect()
    };
    let image = |row: usize, channel: usize| &x[(row * channels + channel) * plane..][..plane];
    let mean = means(sums([rows, channels], x.len(), |row, channel| [sum(image(row, channel), |v| v)]));
    let squares = |row: usize, channel: usize| {
        let mean = mean[channel];
        [sum(image(row, channel), |v| (v - mean) * (v - mean))]
    };
    let variance = means(sums([rows, channels], x.len(), squares));
    #[allow(clippy::cast_possible_truncation)]
    let inverse: Vec<f32> = variance.iter().map(|v| 1.0 / (v + epsilon as f32).sqrt()).collect();
    let (weight, bias) = (values(&parameters[0]), values(&parameters[1]));
    let mut y = vec![0f32; x.len()];
    each(&mut y, channels * plane, x.len(), |row, y| {
        for (channel, y) in y.chunks_mut(plane.max(1)).enumerate() {
            let (mean, scale, bias) = (mean[channel], inverse[channel] * weight[channel], bias[channel]);
            y.iter_mut().zip(image(row, channel)).for_each(|(y, v)| *y = (v - mean) * scale + bias);
        }
    });
    let moments = Moments { mean: tensor(mean.clone(), [channels]), variance: tensor(variance, [channels]) };
    (tensor(y, shape), Normalised { shape, x, mean, inverse }, moments)
}

impl Normalised {
    /// As [`super::norms::Normal::backward`].
    pub(super) fn backward(self, gradient: Tensor<4>, weight: &Tensor<1>) -> (Tensor<4>, Vec<Tensor<1>>) {
        let Self { shape: shape @ [rows, channels, height, width], x, mean, inverse } = self;
        let (mut gradient, plane, weight) = (taken(gradient), height * width, values(weight));
        let place = |row: usize, channel: usize| (row * channels + channel) * plane;
        let both = sums([rows, channels], 2 * x.len(), |row, channel| {
            let at = place(row, channel);
            products(&gradient[at..at + plane], &x[at..at + plane], mean[channel])
        });
        #[allow(clippy::cast_possible_truncation)]
        let (of_bias, of_weight): (Vec<f32>, Vec<f32>) = both
            .iter()
            .zip(&inverse)
            .map(|([sum, along], inverse)| (*sum as f32, (along * f64::from(*inverse)) as f32))
            .unzip();
        #[allow(clippy::cast_precision_loss)]
        let part = 1.0 / (rows * plane) as f32;
        each(&mut gradient, channels * plane, 2 * x.len(), |row, gradient| {
            for (channel, gradient) in gradient.chunks_mut(plane.max(1)).enumerate() {
                let x = &x[place(row, channel)..][..plane];
                let (mean, inverse) = (mean[channel], inverse[channel]);
                let (scale, across) = (inverse * weight[channel], of_bias[channel] * part);
                let along = of_weight[channel] * part * inverse;
                let pairs = gradient.iter_mut().zip(x);
                pairs.for_each(|(g, v)| *g = (*g - across - (v - mean) * along) * scale);
            }
        });
        (tensor(gradient, shape), vec![tensor(of_weight, [channels]), tensor(of_bias, [channels])])
    }
}

/// Sums over the images of what each channel of each gives.
fn sums<const N: usize>(
    [rows, channels]: [usize; 2],
    cost: usize,
    of: impl Fn(usize, usize) -> [f32; N] + Send + Sync,
) -> Vec<[f64; N]> {
    let mut parts = vec![[0f32; N]; rows * channels];
    each(&mut parts, channels, cost, |row, parts| {
        parts.iter_mut().enumerate().for_each(|(channel, part)| *part = of(row, channel));
    });
    let mut all = vec![[0f64; N]; channels];
    for row in parts.chunks(channels.max(1)) {
        for (all, part) in all.iter_mut().zip(row) {
            all.iter_mut().zip(part).for_each(|(all, part)| *all += f64::from(*part));
        }
    }
    all
}

fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0f32; LANES];
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(lane, v)| *lane += of(*v));
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|v| of(*v)).sum::<f32>()
}

/// Sum of gradients, and of gradients times what lies above the mean.
fn products(gradient: &[f32], x: &[f32], mean: f32) -> [f32; 2] {
    let ((blocks, rest), (others, last)) = (gradient.as_chunks::<LANES>(), x.as_chunks::<LANES>());
    let (mut plain, mut along) = ([0f32; LANES], [0f32; LANES]);
    for (block, other) in blocks.iter().zip(others) {
        for i in 0..LANES {
            plain[i] += block[i];
            along[i] += block[i] * (other[i] - mean);
        }
    }
    let ends = rest.iter().zip(last).map(|(g, v)| g * (v - mean)).sum::<f32>();
    [plain.iter().sum::<f32>() + rest.iter().sum::<f32>(), along.iter().sum::<f32>() + ends]
}

/// Which number of its plane was the largest of each window.
pub(super) struct Largest {
    /// Shape of what came in.
    shape: [usize; 4],
    winners: Vec<u32>,
}

/// The largest number of each window, the first of several.
pub(super) fn max_pool(x: Tensor<4>, window: Window) -> (Tensor<4>, Largest) {
    let shape @ [rows, channels, height, width] = x.dims();
    let [down, right] = window.count(shape);
    let x = taken(x);
    let mut y = vec![0f32; rows * channels * down * right];
    let mut winners = vec![0u32; y.len()];
    let whole = channels * down * right;
    both((&mut y, whole), (&mut winners, whole), x.len(), |row, y, winners| {
        let places = y.chunks_mut((down * right).max(1)).zip(winners.chunks_mut((down * right).max(1)));
        for (channel, (y, winners)) in places.enumerate() {
            let plane = &x[(row * channels + channel) * height * width..][..height * width];
            largest(plane, [height, width], window, right, y, winners);
        }
    });
    (tensor(y, [rows, channels, down, right]), Largest { shape, winners })
}

// A plane has less than 2³² numbers: the plan's limits are far below.
#[allow(clippy::cast_possible_truncation)]
fn largest(plane: &[f32], [height, width]: [usize; 2], window: Window, right: usize, y: &mut [f32], at: &mut [u32]) {
    let Window { kernel, stride, padding } = window;
    // What of a window lies within the image, along one dimension.
    let within = |i: usize, place: usize, side: usize| {
        let start = place * stride[i];
        (start.saturating_sub(padding[i]), (start + kernel[i]).saturating_sub(padding[i]).min(side))
    };
    let lines = y.chunks_mut(right.max(1)).zip(at.chunks_mut(right.max(1)));
    for (line, (y, at)) in lines.enumerate() {
        let (top, bottom) = within(0, line, height);
        for (column, (y, at)) in y.iter_mut().zip(at).enumerate() {
            let (left, end) = within(1, column, width);
            let (mut best, mut winner) = (f32::NEG_INFINITY, top * width + left);
            for i in top..bottom {
                for (j, v) in plane[i * width + left..i * width + end].iter().enumerate() {
                    if *v > best || v.is_nan() {
                        (best, winner) = (*v, i * width + left + j);
                    }
                }
            }
            (*y, *at) = (best, winner as u32);
        }
    }
}

impl Largest {
    /// Each gradient goes to where the largest number came from.
    pub(super) fn backward(self, gradient: Tensor<4>) -> Tensor<4> {
        let Self { shape: shape @ [rows, channels, height, width], winners } = self;
        let gradient = taken(gradient);
        let (plane, windows) = (height * width, gradient.len() / (rows * channels).max(1));
        let mut x = vec![0f32; rows * channels * plane];
        let cost = x.len();
        each(&mut x, channels * plane, cost, |row, x| {
            for (channel, x) in x.chunks_mut(plane.max(1)).enumerate() {
                let from = (row * channels + channel) * windows;
                let pairs = gradient[from..from + windows].iter().zip(&winners[from..from + windows]);
                pairs.for_each(|(g, winner)| x[*winner as usize] += g);
            }
        });
        tensor(x, shape)
    }
}

/// Each window of a batch as a column.
///
/// # Shapes
/// `[rows, channels · kernel, windows]`.
pub(super) fn columns(x: Tensor<4>, window: Window) -> Tensor<3> {
    let shape @ [rows, channels, height, width] = x.dims();
    let ([down, right], taps) = (window.count(shape), window.kernel.iter().product::<usize>());
    let (x, windows) = (taken(x), down * right);
    let mut all = vec![0f32; rows * channels * taps * windows];
    let cost = all.len();
    each(&mut all, channels * taps * windows, cost, |row, all| {
        for (at, line) in all.chunks_mut(windows.max(1)).enumerate() {
            let (channel, tap) = (at / taps, at % taps);
            let plane = &x[(row * channels + channel) * height * width..][..height * width];
            let along = |i: usize, j: usize, run: Run| {
                let to = &mut line[i * right + run.first..i * right + run.end];
                let from = &plane[j * width + run.from..];
                if window.stride[1] == 1 {
                    to.copy_from_slice(&from[..to.len()]);
                } else {
                    to.iter_mut().zip(from.iter().step_by(window.stride[1])).for_each(|(to, from)| *to = *from);
                }
            };
            runs(window, tap, [height, width], [down, right], along);
        }
    });
    tensor(all, [rows, channels * taps, windows])
}

/// The way back through [`columns`]: each number of a column goes to where it came from.
pub(super) fn columns_back(columns: Tensor<3>, shape: [usize; 4], window: Window) -> Tensor<4> {
    let [rows, channels, height, width] = shape;
    let ([down, right], taps) = (window.count(shape), window.kernel.iter().product::<usize>());
    let windows = down * right;
    let columns = values(&columns);
    let mut x = vec![0f32; rows * channels * height * width];
    each(&mut x, channels * height * width, columns.len(), |row, x| {
        for (channel, plane) in x.chunks_mut((height * width).max(1)).enumerate() {
            for tap in 0..taps {
                let line = &columns[((row * channels + channel) * taps + tap) * windows..][..windows];
                let along = |i: usize, j: usize, run: Run| {
                    let from = &line[i * right + run.first..i * right + run.end];
                    let to = &mut plane[j * width + run.from..];
                    if window.stride[1] == 1 {
                        to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
                    } else {
                        to.iter_mut().step_by(window.stride[1]).zip(from).for_each(|(to, from)| *to += from);
                    }
                };
                runs(window, tap, [height, width], [down, right], along);
            }
        }
    });
    tensor(x, shape)
}

/// Windows of one line that have a number of the image at one place of the kernel: the first and the one after the last,
/// and the column of the image that the first has there.
#[derive(Clone, Copy)]
struct Run {
    first: usize,
    end: usize,
    from: usize,
}

/// Goes through the lines of windows and of the image that meet at one place of the kernel.
fn runs(
    window: Window,
    tap: usize,
    [height, width]: [usize; 2],
    [down, right]: [usize; 2],
    mut along: impl FnMut(usize, usize, Run),
) {
    let Window { kernel, stride, padding } = window;
    let place = [tap / kernel[1].max(1), tap % kernel[1].max(1)];
    // The first window that reaches the image there, and the one after the last.
    let reach = |i: usize, windows: usize, side: usize| {
        let first = padding[i].saturating_sub(place[i]).div_ceil(stride[i]);
        let end = (side + padding[i]).saturating_sub(place[i]).div_ceil(stride[i]).min(windows);
        (first, end)
    };
    let ((top, bottom), (first, end)) = (reach(0, down, height), reach(1, right, width));
    if first >= end {
        return;
    }
    let from = first * stride[1] + place[1] - padding[1];
    for i in top..bottom {
        along(i, i * stride[0] + place[0] - padding[0], Run { first, end, from });
    }
}

/// Adam (Kingma, Ba 2015, Algorithm 1) and AdamW (Loshchilov, Hutter 2019, Algorithm 2), a step in one pass.
pub(super) struct Moving {
    betas: [f32; 2],
    epsilon: f32,
    steps: i32,
    /// First and second moment of each parameter.
    moments: Vec<[f32; 2]>,
}

impl Moving {
    pub(super) fn new(betas: [f32; 2], epsilon: f32) -> Self {
        Self { betas, epsilon, steps: 0, moments: Vec::new() }
    }

    /// `decay`: by how much of itself each parameter shrinks in a step of rate 1.
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn step(&mut self, lr: f64, decay: f64, parameters: Tensor<1>, gradient: Tensor<1>) -> Tensor<1> {
        let (mut parameters, gradient) = (taken(parameters), taken(gradient));
        let length = parameters.len();
        self.moments.resize(length, [0.0; 2]);
        self.steps = self.steps.saturating_add(1);
        let ([first, second], epsilon) = (self.betas, self.epsilon);
        // Moments begin at 0; what that takes from them is put back.
        let back = |beta: f32| 1.0 / (1.0 - f64::from(beta).powi(self.steps));
        let (rate, spread, left) = ((lr * back(first)) as f32, back(second) as f32, (1.0 - lr * decay) as f32);
        both((&mut parameters, FEW), (&mut self.moments, FEW), 4 * length, |i, parameters, moments| {
            let gradient = &gradient[i * FEW..];
            for ((p, [m, v]), g) in parameters.iter_mut().zip(moments).zip(gradient) {
                *m = first * *m + (1.0 - first) * g;
                *v = second * *v + (1.0 - second) * g * g;
                *p = *p * left - rate * *m / ((*v * spread).sqrt() + epsilon);
            }
        });
        tensor(parameters, [length])
    }
}
