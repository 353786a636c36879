//! The reference points of specs/differential-privacy.md, and what must hold between the accountants.

use super::moments::Sampled;
use super::rdp::divergence;
use super::{Budget, Curve, Delta, Lattice, Release, delta, epsilon, most_times, noise_multiplier, price};
use crate::PrivacyError;

fn release(rate: f64, sigma: f64, times: u64) -> Release {
    Release::new(rate, sigma, times).unwrap()
}

fn small(delta: f64) -> Delta {
    Delta::new(delta).unwrap()
}

/// Sampling rate, noise multiplier, times, δ, ε by Rényi divergences with the tolerance of the order, ε by loss
/// distributions.
///
/// dp-accounting adds up magnitudes where the series of fractional orders alternates, so that its ε is above the exact one:
/// by a thousandth at a rate of one half, where it would be 10.3029 at order 3, and 10.2779 at 3.1 exactly.
const POINTS: [(f64, f64, u64, f64, f64, f64, f64); 10] = [
    (0.04, 1.5, 2250, 1e-5, 7.32911117, 1e-8, 6.76878738),
    (0.0025, 1.3, 6000, 1e-5, 0.7242234026109595, 1e-9, 0.64011093),
    (0.001, 1.0, 30_000, 1e-7, 1.4154988495444842, 1e-9, 1.09819849),
    (0.01, 0.7, 120, 1e-5, 3.2392676, 1e-4, 2.4612381),
    (0.01, 1.0, 1000, 1e-5, 2.1013665, 1e-4, 1.8282436),
    (0.01, 4.0, 10_000, 1e-5, 1.0354901, 1e-4, 0.9469993),
    (0.1, 2.0, 200, 1e-5, 3.6797458, 1e-4, 3.3596607),
    (1.0, 5.0, 100, 1e-5, 10.7255097, 1e-4, 9.9972562),
    (0.05, 1.5, 1000, 1e-6, 6.6679518, 1e-4, 6.1996954),
    (0.5, 2.0, 50, 1e-5, 10.2878081, 1e-3, 9.4735938),
];

#[test]
fn renyi_epsilons_are_those_of_the_reference_points_and_never_above() {
    for (rate, sigma, times, delta, wanted, tolerance, _) in POINTS {
        let found = Curve::of(&[release(rate, sigma, times)]).epsilon(small(delta));
        let off = found.epsilon / wanted - 1.0;
        assert!(off.abs() <= tolerance && off < 2e-8, "{rate} {sigma} {times}: {found:?}, {off:e} off");
    }
    let of = |point: usize| {
        let (rate, sigma, times, delta, ..) = POINTS[point];
        Curve::of(&[release(rate, sigma, times)]).epsilon(small(delta)).order
    };
    assert_eq!((of(1), of(2)), (19.0, 13.0));
}

#[test]
fn reported_epsilons_are_those_of_the_reference_points() {
    for (rate, sigma, times, delta, _, _, wanted) in POINTS {
        let found = epsilon(&[release(rate, sigma, times)], small(delta));
        assert!((found.worst() / wanted - 1.0).abs() < 1e-3, "{rate} {sigma} {times}: {found:?}");
        // Removing a subject that was rarely in a batch says more than adding one.
        assert!(found.removed >= found.added, "{found:?}");
    }
    let analytic = epsilon(&[release(1.0, 5.0, 100)], small(1e-5));
    assert!((analytic.worst() - 9.99725615).abs() < 1e-7 && analytic.removed == analytic.added, "{analytic:?}");
}

#[test]
fn opacus_upper_bounds_are_above_and_near() {
    // Its accountant (PRV) adds an error bound of 0.01.
    for (sigma, rate, times, bound) in [
        (0.8, 0.001, 100, 0.270403),
        (1.5, 0.05, 100, 1.953854),
        (3.0, 0.05, 1000, 2.527574),
        (1.5, 0.001, 20_000, 0.437005),
        (0.8, 0.2, 100, 24.33366),
    ] {
        let found = epsilon(&[release(rate, sigma, times)], small(1e-6)).worst();
        assert!(found < bound && found > bound - 0.0105, "{sigma} {rate} {times}: {found}");
    }
}

#[test]
fn divergences_at_whole_and_fractional_orders_are_of_one_convex_curve() {
    for (rate, sigma) in [(0.001, 0.3), (0.01, 0.7), (0.04, 1.5), (0.5, 2.0)] {
        let sampled = Sampled { rate, sigma };
        for whole in [2.0, 3.0, 5.0, 10.0, 32.0] {
            let by_sum = divergence(&sampled, whole) * (whole - 1.0);
            let by_quadrature = sampled.log_moment(whole);
            assert!((by_sum / by_quadrature - 1.0).abs() < 1e-9, "{rate} {sigma} {whole}");
        }
        // ln E[r^α] is convex in α, so that between whole orders it lies below the chord and above its neighbours' lines.
        let at = |order: f64| divergence(&sampled, order) * (order - 1.0);
        for part in [0.1, 0.5, 0.9] {
            let (chord, left) = (at(3.0) + part * (at(4.0) - at(3.0)), at(3.0) + part * (at(3.0) - at(2.0)));
            assert!(at(3.0 + part) <= chord && at(3.0 + part) >= left, "{rate} {sigma} {part}");
        }
    }
}

#[test]
fn the_reported_epsilon_is_below_the_cross_check_and_delta_inverts_it() {
    for (rate, sigma, times, delta_wanted) in [
        (0.02, 0.6, 50, 1e-5),
        (0.3, 3.0, 400, 1e-12),
        (0.9, 10.0, 7, 1e-3),
        (0.005, 1.0, 200, 1e-7),
        (0.002, 4.0, 1, 1e-6),
    ] {
        let releases = [release(rate, sigma, times)];
        let reported = epsilon(&releases, small(delta_wanted)).worst();
        let checked = Curve::of(&releases).epsilon(small(delta_wanted)).epsilon;
        assert!(reported > 0.0 && reported <= checked, "{rate} {sigma} {times}: {reported} {checked}");
        // Each goal has a grid of its own.
        let back = delta(&releases, reported);
        assert!((back / delta_wanted - 1.0).abs() < 0.02, "{rate} {sigma} {times}: {back} {delta_wanted}");
    }
    // A subject that is in no batch with a chance of 1 − δ needs no ε.
    assert_eq!(epsilon(&[release(1e-9, 1.0, 100)], small(1e-6)).worst(), 0.0);
    assert_eq!((epsilon(&[], small(1e-6)).worst(), delta(&[], 0.0)), (0.0, 0.0));
    assert_eq!(delta(&[release(0.1, 1.0, 1)], -1.0), 1.0);
}

#[test]
fn studies_add_up_whatever_their_steps() {
    let at = small(1e-5);
    let one = epsilon(&[release(0.1, 2.0, 200)], at);
    assert_eq!(epsilon(&[release(0.1, 2.0, 120), release(0.1, 2.0, 80)], at), one);
    let other = release(0.01, 1.0, 500);
    let statistic = release(1.0, 8.0, 1);
    let all = [release(0.1, 2.0, 50), other, statistic];
    let together = epsilon(&all, at).worst();
    // At least the dearest; at most what ε and δ that are simply added give, and what the divergences give.
    let alone = |releases: &[Release], delta: f64| epsilon(releases, small(delta)).worst();
    assert!(all.iter().all(|release| alone(&[*release], 1e-5) < together), "{together}");
    let added: f64 = all.iter().map(|release| alone(&[*release], 1e-5 / 3.0)).sum();
    assert!(together < added, "{together} {added}");
    let curves = all.iter().map(|release| Curve::of(&[*release])).fold(Curve::default(), |sum, one| sum.plus(&one));
    assert!(together < curves.epsilon(at).epsilon);
    assert!((curves.epsilon(at).epsilon / Curve::of(&all).epsilon(at).epsilon - 1.0).abs() < 1e-12);
    // Twice a Gaussian of σ is one of σ/√2, in closed form beside the grid.
    let twice = epsilon(&[release(1.0, 3.0, 2)], at).worst();
    let once = epsilon(&[release(1.0, 3.0 / 2.0f64.sqrt(), 1)], at).worst();
    assert!((twice / once - 1.0).abs() < 1e-9);
}

#[test]
fn what_is_calibrated_reaches_its_target_and_hardly_less() {
    for (target, delta, wanted) in [(1.0, 1e-6, 4.224678889), (1.0, 1e-5, 3.730631635)] {
        let found = noise_multiplier(target, small(delta), 1.0, 1).unwrap();
        assert!(found >= wanted * (1.0 - 1e-8) && found < wanted * (1.0 + 2e-5), "{found}");
    }
    let (rate, sigma, times, at) = (0.1, 2.0, 200, small(1e-5));
    let target = epsilon(&[release(rate, sigma, times)], at).worst();
    let found = noise_multiplier(target, at, rate, times).unwrap();
    assert!((found / sigma - 1.0).abs() < 1e-3, "{found}");
    let reached = epsilon(&[release(rate, found, times)], at).worst();
    assert!(reached <= target && reached > target * 0.999, "{reached} {target}");
    // Below a multiplier of 1, too.
    let little = noise_multiplier(2.461, small(1e-5), 0.01, 120).unwrap();
    assert!((little / 0.7 - 1.0).abs() < 1e-3, "{little}");
    let most = most_times(target * 1.0001, at, rate, sigma).unwrap();
    let next = epsilon(&[release(rate, sigma, most + 1)], at).worst();
    assert!((200..=202).contains(&most) && next > target * 1.0001, "{most} {next}");
    assert_eq!(most_times(0.1, at, 1.0, 1.0), Ok(0));
    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(noise_multiplier(wrong, at, 0.1, 10), Err(PrivacyError::Account { place: "epsilon", .. })));
    }
}

#[test]
fn a_budget_is_held_by_what_is_chosen_on_the_way() {
    let at = small(1e-6);
    let budget = Budget::new(8.0, at).unwrap();
    let mut spent = Curve::default();
    let (mut admitted, mut sigma) = (0, 20.0);
    // Each release depends on what came before: here on how much is left.
    for _ in 0..2_000 {
        let cost = Curve::of(&[release(1.0, sigma, 1)]);
        if budget.admits(&spent, &cost) {
            spent = spent.plus(&cost);
            admitted += 1;
        }
        sigma = if budget.left(&spent) < 0.5 { 30.0 } else { 20.0 };
    }
    let reached = spent.epsilon(at);
    assert!(
        reached.epsilon <= 8.0 && reached.epsilon > 7.9,
        "{reached:?} after {admitted} at order {}",
        budget.order()
    );
    assert!(budget.left(&spent) < 0.01 && !budget.admits(&spent, &Curve::of(&[release(1.0, 20.0, 1)])));
    assert_eq!(budget.left(&Curve::default()), 1.0);
    for wrong in [0.0, f64::NAN, f64::INFINITY, 1e-9] {
        assert!(matches!(Budget::new(wrong, at), Err(PrivacyError::Account { place: "epsilon", .. })), "{wrong}");
    }
}

#[test]
fn pools_that_merge_pay_the_larger_or_both() {
    let (one, other) = (Curve::of(&[release(0.01, 0.7, 120)]), Curve::of(&[release(1.0, 5.0, 2)]));
    let at = small(1e-5);
    let (larger, both) = (one.maximum(&other), one.plus(&other));
    for pool in [&one, &other] {
        assert!(pool.epsilon(at).epsilon <= larger.epsilon(at).epsilon);
    }
    assert!(larger.epsilon(at).epsilon < both.epsilon(at).epsilon);
    let kept = |divergences: &[f64]| {
        let mut bytes = Vec::new();
        ciborium::into_writer(divergences, &mut bytes).unwrap();
        ciborium::from_reader::<Curve, _>(&*bytes)
    };
    let divergences: Vec<f64> = both.clone().into();
    assert_eq!(kept(&divergences).unwrap(), both);
    let mut negative = divergences.clone();
    negative[7] = -1.0;
    for wrong in [&divergences[1..], &negative[..], &[][..]] {
        assert!(kept(wrong).is_err());
    }
}

#[test]
fn lattice_noise_costs_what_continuous_noise_does_and_a_little_more() {
    // At n = 4 with one missing each adds σ²/2, and twice the needed variance is there with nobody missing.
    assert_eq!((price(4, 1, 0), price(4, 1, 1), price(10, 2, 3)), (Some(2.0), Some(2.0), Some(2.0)));
    assert_eq!((price(3, 1, 1), price(3, 2, 1), price(3, 4, 1)), (Some(3.0), None, None));
    let at = small(1e-5);
    let continuous = epsilon(&[release(0.1, 2.0, 200)], at).worst();
    // Two sites whose noise is left, each 1,000·√2 steps, of a sensitivity of 1,000 steps, in a million coordinates.
    let lattice = Lattice::new(2, 1_000.0 * 2.0f64.sqrt(), 1_000_000).unwrap();
    let noisy = lattice.release(0.1, 1_000.0, 200).unwrap();
    let found = epsilon(&[noisy], at).worst();
    assert!((found / continuous - 1.0).abs() < 1e-5, "{found} {continuous}");
    let curves = [noisy, release(0.1, 2.0, 200)].map(|release| Curve::of(&[release]).epsilon(at).epsilon);
    assert!(curves[0] > curves[1] && curves[0] < curves[1] * (1.0 + 1e-5), "{curves:?}");
    // With so few steps that the lattice shows, the correction of Kairouz, Liu, Steinke is there: 10·e^(−π²σ²) a coordinate.
    let coarse = |sites| Lattice::new(sites, 2.0, 1 << 40).unwrap().release(1.0, 1.0, 1).unwrap();
    let shift = |sites: u32| {
        let continuous = (f64::from(sites) * 4.0 - 2.0).sqrt();
        epsilon(&[coarse(sites)], at).worst() - epsilon(&[release(1.0, continuous, 1)], at).worst()
    };
    let tau = 10.0 * libm::exp(-4.0 * std::f64::consts::PI * std::f64::consts::PI) * (1u64 << 40) as f64;
    assert!((shift(2) / (2.0 * tau * 1.3) - 1.0).abs() < 0.15, "{} {tau}", shift(2));
    assert!(shift(1) < shift(2) / 2.0);
    assert!(delta(&[coarse(2)], 1.0) > delta(&[release(1.0, 6.0f64.sqrt(), 1)], 1.0));
    for (sites, sigma) in [(0, 5.0), (3, 1.99), (3, f64::NAN), (3, f64::INFINITY)] {
        assert!(matches!(Lattice::new(sites, sigma, 10), Err(PrivacyError::Account { .. })));
    }
    assert!(lattice.release(0.1, 0.0, 1).is_err());
}

#[test]
fn parameters_out_of_bounds_are_refused_by_name() {
    let refused = |result: Result<Release, PrivacyError>, wanted: &str| match result {
        Err(PrivacyError::Account { place, .. }) => assert_eq!(place, wanted),
        other => panic!("{other:?}"),
    };
    for rate in [0.0, -0.1, 1.1, f64::NAN] {
        refused(Release::new(rate, 1.0, 1), "sampling_rate");
    }
    for sigma in [0.0, 0.05, 2e6, f64::NAN] {
        refused(Release::new(0.1, sigma, 1), "noise_multiplier");
    }
    for times in [0, u64::MAX] {
        refused(Release::new(0.1, 1.0, times), "times");
    }
    for delta in [0.0, 1.0, 1e-60, f64::NAN] {
        assert!(matches!(Delta::new(delta), Err(PrivacyError::Account { place: "delta", .. })));
    }
    let wrong = Release::new(0.1, 0.0, 1).unwrap_err();
    assert_eq!(wrong.to_string(), "noise_multiplier must be from 0.1 to a million");
}
