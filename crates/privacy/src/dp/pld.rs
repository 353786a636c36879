//! Privacy loss distributions: the ε that is reported.
//!
//! One direction of the adjacency at a time, every release's loss is put on a grid so that neither pair of distributions loses
//! probability: what lies between two points goes to both, such that the masses of P and of Q = P·e^(−loss) are kept (the
//! *connect-the-dots* distribution of Doroshenko, Ghazi, Kamath, Kumar, Manurangsi 2022). Its hockey-stick divergence is that of
//! the mechanism at every grid point and above it between them, so that every ε here is an **upper bound whatever the grid**;
//! the grid decides how close it is. Composition is a convolution, computed by a Fourier transform.
//!
//! Three things keep it an upper bound in floating-point arithmetic:
//! - **Tilt.** Each distribution is multiplied by e^(λ·loss) first and the result divided by it, with λ near what the Chernoff
//!   bound of the wanted δ takes (the exponential tilting of large deviations). Rounding is then small against δ, not against 1.
//! - **Window.** The transform wraps around. What lies above the window is bounded by Chernoff's inequality and added to δ; what wraps
//!   in from either side only adds.
//! - **Rounding.** The relative errors of masses, transforms and powers are bounded in norm, summed, and added to δ.

use super::fourier::{Complex, Transform, error};
use super::moments::Sampled;
use super::{Delta, Release, gaussian};

/// ε for both directions of the adjacency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epsilons {
    /// The other data set lacks a subject of this one.
    pub removed: f64,
    /// The other data set has a subject more.
    pub added: f64,
}

impl Epsilons {
    /// The larger: what holds for adding or removing one subject.
    pub fn worst(self) -> f64 {
        self.removed.max(self.added)
    }
}

/// ε of all these releases together, at a δ: of one study or of several, each step as it was done. An upper bound,
/// usually within 10^-4 of the exact one.
///
/// The steps are fixed before the first is made; where later ones depend on what came out before, [`Budget`](super::Budget)
/// enforces.
///
/// # Disclosure
/// A function of parameters, not of rows.
pub fn epsilon(releases: &[Release], delta: Delta) -> Epsilons {
    let account = Account::of(releases);
    let of = |direction| account.epsilon(direction, delta.value());
    Epsilons { removed: of(Direction::Removed), added: of(Direction::Added) }
}

/// δ of all these releases together at an ε from 0: an upper bound for both directions.
///
/// # Disclosure
/// A function of parameters, not of rows.
pub fn delta(releases: &[Release], epsilon: f64) -> f64 {
    let account = Account::of(releases);
    account.delta(Direction::Removed, epsilon).max(account.delta(Direction::Added, epsilon))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Removed,
    Added,
}

impl Direction {
    /// The power of r whose mean under N₀ is the moment E[e^(λ·loss)], see `moments`.
    fn power(self, tilt: f64) -> f64 {
        match self {
            Self::Removed => tilt + 1.0,
            Self::Added => -tilt,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Step {
    sampled: Sampled,
    times: u64,
}

/// Releases, each kind once.
struct Account {
    steps: Vec<Step>,
    /// Σ of the distances to continuous noise.
    distance: f64,
}

impl Account {
    fn of(releases: &[Release]) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        // Releases of everybody are one Gaussian: Σ 1/σ².
        let mut precision = 0.0;
        for release in releases {
            let Release { sampling_rate: rate, noise_multiplier: sigma, times, .. } = *release;
            let sampled = Sampled { rate, sigma };
            if rate == 1.0 {
                precision += times as f64 / (sigma * sigma);
            } else if let Some(step) = steps.iter_mut().find(|step| step.sampled == sampled) {
                step.times += times;
            } else {
                steps.push(Step { sampled, times });
            }
        }
        if precision > 0.0 {
            steps.push(Step { sampled: Sampled { rate: 1.0, sigma: 1.0 / precision.sqrt() }, times: 1 });
        }
        let distance = releases.iter().map(|release| release.times as f64 * release.distance).sum();
        Self { steps, distance }
    }

    /// The only Gaussian without sampling, as its shift in standard deviations.
    fn whole(&self) -> Option<f64> {
        match self.steps.as_slice() {
            [Step { sampled: Sampled { rate, sigma }, .. }] if *rate == 1.0 => Some(1.0 / sigma),
            _ => None,
        }
    }

    /// With discrete noise each probability is within e^(±distance) of that with continuous noise, so that its δ at ε is at most
    /// e^distance times that of the latter at ε − 2·distance.
    fn epsilon(&self, direction: Direction, delta: f64) -> f64 {
        let delta = delta * libm::exp(-self.distance);
        let continuous = match self.whole() {
            Some(shift) => gaussian::epsilon(shift, delta),
            None if self.variation() <= delta => 0.0,
            None => Composed::of(&self.steps, direction, Goal::Delta(delta)).epsilon(delta),
        };
        continuous + 2.0 * self.distance
    }

    fn delta(&self, direction: Direction, epsilon: f64) -> f64 {
        let rest = epsilon - 2.0 * self.distance;
        if rest.is_nan() || rest < 0.0 {
            return 1.0;
        }
        let continuous = match self.whole() {
            _ if self.steps.is_empty() => 0.0,
            Some(shift) => gaussian::delta(shift, rest),
            None if direction == Direction::Added && rest >= self.most_when_added() => 0.0,
            None => self.variation().min(Composed::of(&self.steps, direction, Goal::Epsilon(rest)).delta(rest)),
        };
        (continuous * libm::exp(self.distance)).min(1.0)
    }

    /// The largest loss that is possible when a subject is added: Σ −ln(1 − q).
    fn most_when_added(&self) -> f64 {
        self.steps.iter().map(|step| step.times as f64 * -libm::log1p(-step.sampled.rate)).sum()
    }

    /// Σ of the total variations q·(2Φ(1/2σ) − 1): no δ is larger.
    fn variation(&self) -> f64 {
        let of = |step: &Step| {
            let Sampled { rate, sigma } = step.sampled;
            step.times as f64 * rate * libm::erf(0.5 / (sigma * std::f64::consts::SQRT_2))
        };
        self.steps.iter().map(of).sum()
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
enum Goal {
    Delta(f64),
    Epsilon(f64),
}

/// Unit of rounding.
const ROUNDING: f64 = f64::EPSILON / 2.0;
/// Grid steps in a standard deviation of one step's loss: the grid adds about 1/6 of its square's share of the variance.
const GRID: f64 = 50.0;
/// Most points of a window.
const POINTS: f64 = 1_048_576.0;
/// ln of how much smaller than δ something is that may be left to a bound.
const NEGLIGIBLE: f64 = 20.0;

/// How the distribution is looked at: tilt, grid and window.
struct View {
    tilt: f64,
    /// A larger tilt, whose Chernoff bound tells what lies above the window.
    far: f64,
    step: f64,
    first: i64,
    points: usize,
    /// Centre of the tilted distribution.
    centre: f64,
    /// Standard deviations of N₀ and N₁ that are looked at.
    reach: f64,
}

impl View {
    fn of(steps: &[Step], direction: Direction, goal: Goal) -> Self {
        let moment = |tilt: f64| cumulant(steps, direction, tilt);
        // The best tilt of one Gaussian is a few times σ; more takes time and gives nothing.
        let least_sigma = steps.iter().map(|step| step.sampled.sigma).fold(f64::INFINITY, f64::min);
        let most = 200.0 * least_sigma.max(1.0);
        let (best, log_delta) = match goal {
            Goal::Delta(delta) => {
                let log = libm::log(delta);
                (lowest(most, |tilt| (moment(tilt) - log) / tilt), log)
            }
            Goal::Epsilon(epsilon) => {
                let best = lowest(most, |tilt| moment(tilt) - tilt * epsilon);
                (best, (moment(best) - best * epsilon).min(0.0) - 5.0)
            }
        };
        let small = log_delta - NEGLIGIBLE;
        let far = lowest(most, |tilt| (moment(tilt) - small) / tilt);
        let top = (moment(far) - small) / far;
        // Half of the best tilt: near it the moments of rarely sampled releases explode.
        let tilt = best / 2.0;
        let (here, off) = (moment(tilt), tilt / 50.0);
        let (above, below) = (moment(tilt + off), moment(tilt - off));
        let variance = ((above + below - 2.0 * here) / (off * off)).max(1e-24);
        // Below, the tilted distribution must be over; and what wraps in must not outweigh δ.
        let ends = |less: f64| (here - moment(tilt - less) - NEGLIGIBLE) / less;
        let downs = [1.0, 0.5, 0.25, 0.125, 0.0625].map(|part| ends(tilt * part));
        let bottom = downs.into_iter().fold(ends((2.0 * NEGLIGIBLE / variance).sqrt()), f64::max);
        let others = [best, far, 2.0 * best].into_iter().filter(|other| *other > tilt * 1.01);
        let wrapped = others.map(|other| (moment(other) - small) / (other - tilt)).fold(f64::INFINITY, f64::min);
        let width = (top - bottom).max(wrapped.min(4.0 * (top - bottom)));

        let total: f64 = steps.iter().map(|step| step.times as f64).sum();
        let reach = (2.0 * (libm::log(total) - log_delta + NEGLIGIBLE)).sqrt();
        let span = steps
            .iter()
            .map(|step| direction.span(&step.sampled, reach))
            .fold(0.0, |most, (low, high)| f64::max(most, high - low));
        let step = ((variance / total).sqrt() / GRID).max(width / POINTS).max(span / POINTS);
        // About `POINTS` at most.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let points = ((width / step).ceil() as usize).next_power_of_two().max(1 << 10);
        // Losses and steps of those sizes give numbers far below 2^63; casts saturate.
        #[allow(clippy::cast_possible_truncation)]
        let first = ((top - points as f64 * step) / step).ceil() as i64;
        Self { tilt, far, step, first, points, centre: (above - below) / (2.0 * off), reach }
    }
}

impl Direction {
    /// Losses of the x that are looked at.
    fn span(self, sampled: &Sampled, reach: f64) -> (f64, f64) {
        let low = sampled.log_ratio(-reach * sampled.sigma);
        let high = sampled.log_ratio(1.0 + reach * sampled.sigma);
        match self {
            Self::Removed => (low, high),
            Self::Added => (-high, -low),
        }
    }
}

/// ln E[e^(λ·loss)] of all steps together.
fn cumulant(steps: &[Step], direction: Direction, tilt: f64) -> f64 {
    steps.iter().map(|step| step.times as f64 * step.sampled.log_moment(direction.power(tilt))).sum()
}

/// The tilt up to `most` at which a function with one minimum is about lowest, by golden section over its logarithm.
fn lowest(most: f64, function: impl Fn(f64) -> f64) -> f64 {
    let golden = (5.0f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (libm::log(1e-4), libm::log(most));
    let (mut left, mut right) = (high - golden * (high - low), low + golden * (high - low));
    let at = |place: f64| function(libm::exp(place));
    let (mut of_left, mut of_right) = (at(left), at(right));
    for _ in 0..24 {
        if of_left < of_right {
            (high, right, of_right) = (right, left, of_left);
            left = high - golden * (high - low);
            of_left = at(left);
        } else {
            (low, left, of_left) = (left, right, of_right);
            right = low + golden * (high - low);
            of_right = at(right);
        }
    }
    libm::exp(f64::midpoint(low, high))
}

/// One step's loss on the grid.
struct Loss {
    /// Grid point of the first mass.
    first: i64,
    mass: Vec<f64>,
    /// Bounds of the errors of the masses.
    doubt: Vec<f64>,
    /// What lies above the last point, counted as infinite loss.
    infinite: f64,
}

/// Standard normal coordinates of an x under N₀ and N₁, with the tails P[|Z| > |z|]/2 beyond them.
#[derive(Clone, Copy)]
struct Edge {
    plain: (f64, f64),
    moved: (f64, f64),
}

impl Edge {
    fn at(x: f64, sigma: f64) -> Self {
        let of = |z: f64| (z, gaussian::tail(z.abs()));
        Self { plain: of(x / sigma), moved: of((x - 1.0) / sigma) }
    }
}

/// P[Z > z].
fn upper((z, tail): (f64, f64)) -> f64 {
    if z < 0.0 { 1.0 - tail } else { tail }
}

/// P[Z < z].
fn lower((z, tail): (f64, f64)) -> f64 {
    if z < 0.0 { tail } else { 1.0 - tail }
}

/// P[a < Z < b], and the size of what it is a difference of.
fn between(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    if a.0 >= 0.0 {
        ((a.1 - b.1).max(0.0), a.1)
    } else if b.0 <= 0.0 {
        ((b.1 - a.1).max(0.0), b.1)
    } else {
        ((1.0 - a.1 - b.1).max(0.0), 1.0)
    }
}

impl Loss {
    /// Losses below `cut` are rounded up to it.
    fn of(sampled: &Sampled, direction: Direction, view: &View, cut: f64) -> Self {
        let Sampled { rate, sigma } = *sampled;
        let (low, high) = direction.span(sampled, view.reach);
        // About 2^20 steps apart at most, see `View`; casts saturate.
        #[allow(clippy::cast_possible_truncation)]
        let (first, last) = ((low.max(cut) / view.step).floor() as i64, (high / view.step).ceil() as i64);
        let last = last.max(first + 1);
        let edge = |point: i64| {
            let loss = point as f64 * view.step;
            let x = sampled.place(if direction == Direction::Removed { loss } else { -loss });
            Edge::at(x, sigma)
        };
        let mix = |plain: f64, moved: f64| (1.0 - rate) * plain + rate * moved;
        let mut before = edge(first);
        let lumped = match direction {
            Direction::Removed => mix(lower(before.plain), lower(before.moved)),
            Direction::Added => upper(before.plain),
        };
        let (mut mass, mut doubt) = (vec![lumped], vec![8.0 * ROUNDING * lumped]);
        let share = -libm::expm1(-view.step);
        for point in first..last {
            let after = edge(point + 1);
            let (left, right) = if direction == Direction::Removed { (before, after) } else { (after, before) };
            let (plain, of_plain) = between(left.plain, right.plain);
            let (moved, of_moved) = between(left.moved, right.moved);
            let (p, q, size) = match direction {
                Direction::Removed => (mix(plain, moved), plain, mix(of_plain, of_moved)),
                Direction::Added => (plain, mix(plain, moved), of_plain),
            };
            // a + b = p and a·e^(−l) + b·e^(−l−h) = q for the masses at l and l + h.
            let moved_back = q * libm::exp(point as f64 * view.step);
            // Where that is out of range, all of it counts as the larger loss.
            let up = if moved_back.is_finite() { ((p - moved_back) / share).clamp(0.0, p) } else { p };
            if let Some(mass) = mass.last_mut() {
                *mass += p - up;
            }
            mass.push(up);
            doubt.push(8.0 * ROUNDING * (size + p / view.step));
            before = after;
        }
        let infinite = match direction {
            Direction::Removed => mix(upper(before.plain), upper(before.moved)),
            Direction::Added => lower(before.plain),
        };
        Self { first, mass, doubt, infinite }
    }
}

/// A step's tilted distribution on the window.
struct Tilted {
    circle: Vec<Complex>,
    /// ln of what it was divided by: K(λ) on the grid.
    log_sum: f64,
    /// K at the larger tilt.
    log_far: f64,
    /// Bound of its error in sum, and its Euclidean norm.
    doubt: f64,
    norm: f64,
}

impl Tilted {
    fn of(loss: &Loss, view: &View) -> Self {
        let place = |index: usize| (loss.first + index as i64) as f64 * view.step;
        let tilted = |tilt: f64| {
            let log = move |(index, mass): (usize, &f64)| tilt * place(index) + libm::log(*mass);
            let most = loss.mass.iter().enumerate().map(log).fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = loss.mass.iter().enumerate().map(|pair| libm::exp(log(pair) - most)).collect();
            let sum: f64 = weights.iter().sum();
            (weights, sum, most)
        };
        let (_, sum, most) = tilted(view.far);
        let log_far = most + libm::log(sum);
        let (weights, sum, most) = tilted(view.tilt);
        let mut circle = vec![Complex::default(); view.points];
        let mut at = index(loss.first, view.points);
        for weight in &weights {
            circle[at].re += weight / sum;
            at = if at + 1 == view.points { 0 } else { at + 1 };
        }
        let of_doubt = |(index, doubt): (usize, &f64)| doubt * libm::exp(view.tilt * place(index) - most) / sum;
        let doubt = loss.doubt.iter().enumerate().filter(|(_, doubt)| **doubt > 0.0).map(of_doubt).sum();
        let norm = circle.iter().map(|value| value.re * value.re).sum::<f64>().sqrt();
        Self { circle, log_sum: most + libm::log(sum), log_far, doubt, norm }
    }
}

/// A grid point's place on the circle.
fn index(point: i64, points: usize) -> usize {
    // A power of two up to about 2^20, and what is left of a division by it.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let index = point.rem_euclid(points as i64) as usize;
    index
}

/// The loss of all steps together, in one direction.
struct Composed {
    step: f64,
    first: i64,
    /// For each point of the window Σ p and Σ p·e^(c − l) over it and all above it, both divided by e^`scale`, c the centre.
    above: Vec<[f64; 2]>,
    tilt: f64,
    centre: f64,
    scale: f64,
    /// Bound of the tilted distribution's error in sum.
    doubt: f64,
    /// Probability of losses that are not in the window.
    outside: f64,
    /// Errors of the places of all losses.
    shift: f64,
}

impl Composed {
    fn of(steps: &[Step], direction: Direction, goal: Goal) -> Self {
        let view = View::of(steps, direction, goal);
        let total: f64 = steps.iter().map(|step| step.times as f64).sum();
        let transform = Transform::new(view.points);
        let root = (view.points as f64).sqrt();
        let mut spectrum = vec![Complex::ONE; view.points];
        let (mut log_sum, mut log_far, mut doubt, mut infinite, mut shift) =
            (0.0f64, 0.0f64, error(view.points) * root, 0.0f64, 0.0f64);
        for Step { sampled, times } in steps {
            let often = *times as f64;
            // Below the cut, tilted, lies less than rounding.
            let cut = (sampled.log_moment(direction.power(view.tilt)) - libm::log(total) - 30.0) / view.tilt;
            let loss = Loss::of(sampled, direction, &view, cut);
            let tilted = Tilted::of(&loss, &view);
            let mut circle = tilted.circle;
            transform.forward(&mut circle);
            for (product, factor) in spectrum.iter_mut().zip(&circle) {
                *product = *product * factor.power(*times);
            }
            log_sum += often * tilted.log_sum;
            log_far += often * tilted.log_far;
            infinite += often * loss.infinite;
            // No factor is above 1, so that errors of factors add up.
            doubt += often * (tilted.doubt + root * (error(view.points) * tilted.norm + 8.0 * ROUNDING));
            let (low, high) = direction.span(sampled, view.reach);
            shift += often * 16.0 * ROUNDING * (1.0 + low.abs().max(high.abs()) - libm::log(sampled.rate));
        }
        // The inverse transform of a real sequence's spectrum.
        spectrum.iter_mut().for_each(|value| *value = value.conjugate());
        transform.forward(&mut spectrum);
        let end = (view.first + view.points as i64) as f64 * view.step;
        let outside = infinite + libm::exp((log_far - view.far * end).min(0.0));
        let above = Self::sums(&spectrum, &view);
        let View { tilt, step, first, centre, .. } = view;
        Self { step, first, above, tilt, centre, scale: log_sum - tilt * centre, doubt, outside, shift }
    }

    fn sums(spectrum: &[Complex], view: &View) -> Vec<[f64; 2]> {
        let mut above = vec![[0.0; 2]; view.points + 1];
        let (mut mass, mut weighted) = (0.0, 0.0);
        for place in (0..view.points).rev() {
            let point = view.first + place as i64;
            let off = point as f64 * view.step - view.centre;
            let probability = spectrum[index(point, view.points)].re / view.points as f64;
            if probability > 0.0 {
                let value = probability * libm::exp(-view.tilt * off);
                mass += value;
                weighted += value * libm::exp(-off);
            }
            above[place] = [mass, weighted];
        }
        above
    }

    /// An upper bound of E[(1 − e^(ε − loss))⁺].
    fn delta(&self, epsilon: f64) -> f64 {
        let epsilon = epsilon - self.shift;
        // Casts saturate, and the place is within the window after that.
        #[allow(clippy::cast_possible_truncation)]
        let point = (epsilon / self.step).floor() as i64;
        let place = point.saturating_add(1).saturating_sub(self.first).clamp(0, self.above.len() as i64 - 1);
        let [mass, weighted] = self.above[usize::try_from(place).unwrap_or(0)];
        let off = epsilon - self.centre;
        let less = if weighted > 0.0 { libm::exp(off) * weighted } else { 0.0 };
        let rounding = 4.0 * ROUNDING * self.above.len() as f64 * mass;
        // The largest of (1 − e^(−t))·e^(−λt), by which an error of the tilted distribution can count.
        let peak = libm::exp(self.tilt * libm::log(self.tilt / (1.0 + self.tilt))) / (1.0 + self.tilt);
        let doubt = self.doubt * libm::exp(-self.tilt * off) * peak;
        let delta = ((mass - less).max(0.0) + rounding + doubt) * libm::exp(self.scale) + self.outside;
        if delta.is_nan() { 1.0 } else { delta.min(1.0) }
    }

    fn epsilon(&self, delta: f64) -> f64 {
        if self.delta(0.0) <= delta {
            return 0.0;
        }
        let (mut low, mut high) = (0.0, (self.first + self.above.len() as i64) as f64 * self.step);
        if self.delta(high) > delta {
            return f64::INFINITY;
        }
        for _ in 0..64 {
            let middle = f64::midpoint(low, high);
            (low, high) = if self.delta(middle) <= delta { (low, middle) } else { (middle, high) };
        }
        high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// δ of one release in closed form: the hockey-stick divergence of the two densities, which cross once.
    fn exact(sampled: &Sampled, direction: Direction, epsilon: f64) -> f64 {
        let Sampled { rate, sigma } = *sampled;
        let mix = |plain: f64, moved: f64| (1.0 - rate) * plain + rate * moved;
        match direction {
            Direction::Removed => {
                let Edge { plain, moved } = Edge::at(sampled.place(epsilon), sigma);
                mix(upper(plain), upper(moved)) - libm::exp(epsilon) * upper(plain)
            }
            Direction::Added => {
                let Edge { plain, moved } = Edge::at(sampled.place(-epsilon), sigma);
                lower(plain) - libm::exp(epsilon) * mix(lower(plain), lower(moved))
            }
        }
    }

    #[test]
    fn one_release_is_bounded_from_above_and_closely() {
        for (rate, sigma, epsilons) in [
            (0.01, 0.7, [0.1, 1.0, 2.5]),
            (0.3, 2.0, [0.02, 0.2, 0.5]),
            (0.9, 1.0, [0.1, 2.0, 4.0]),
            (1.0, 1.0, [0.5, 2.0, 6.0]),
        ] {
            let sampled = Sampled { rate, sigma };
            let steps = [Step { sampled, times: 1 }];
            for epsilon in epsilons {
                for direction in [Direction::Removed, Direction::Added] {
                    // No larger loss is possible where a subject is added.
                    if direction == Direction::Added && rate < 1.0 && epsilon >= -libm::log1p(-rate) {
                        continue;
                    }
                    let wanted = exact(&sampled, direction, epsilon);
                    let found = Composed::of(&steps, direction, Goal::Epsilon(epsilon)).delta(epsilon);
                    let close = wanted * (1.0 + 3e-3) + 1e-15;
                    assert!(
                        found >= wanted && found < close,
                        "{rate} {sigma} {epsilon} {direction:?}: {found} {wanted}"
                    );
                }
            }
        }
    }

    #[test]
    fn gaussians_composed_on_the_grid_are_bounded_by_the_closed_form() {
        for (sigma, times, delta) in [(5.0, 100, 1e-5), (1.0, 1, 1e-5), (30.0, 40, 1e-10), (0.5, 3, 1e-3)] {
            let steps = [Step { sampled: Sampled { rate: 1.0, sigma }, times }];
            let wanted = gaussian::epsilon((times as f64).sqrt() / sigma, delta);
            for direction in [Direction::Removed, Direction::Added] {
                let found = Composed::of(&steps, direction, Goal::Delta(delta)).epsilon(delta);
                assert!(
                    found >= wanted * (1.0 - 1e-8) && found < wanted * (1.0 + 2e-4),
                    "{sigma} {times}: {found} {wanted}"
                );
            }
        }
    }

    #[test]
    fn masses_of_both_distributions_are_kept_on_the_grid() {
        for (rate, sigma, direction) in
            [(0.2, 1.0, Direction::Removed), (0.2, 1.0, Direction::Added), (1.0, 2.0, Direction::Removed)]
        {
            let sampled = Sampled { rate, sigma };
            let steps = [Step { sampled, times: 10 }];
            let view = View::of(&steps, direction, Goal::Delta(1e-5));
            let loss = Loss::of(&sampled, direction, &view, f64::NEG_INFINITY);
            let p: f64 = loss.mass.iter().sum();
            let place = |index: usize| (loss.first + index as i64) as f64 * view.step;
            let q: f64 = loss.mass.iter().enumerate().map(|(index, mass)| mass * libm::exp(-place(index))).sum();
            assert!((p + loss.infinite - 1.0).abs() < 1e-10, "{p} {}", loss.infinite);
            assert!((q - 1.0).abs() < 1e-10 && loss.infinite < 1e-12, "{q}");
        }
    }
}
