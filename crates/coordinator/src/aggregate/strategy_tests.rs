//! Every strategy against a straightforward one: dense vectors in double precision, everything in memory.

use hospes_privacy::quantise::Quantiser;
use hospes_protocol::plan::{Adaptive, Sees};
use proptest::prelude::{ProptestConfig, prop_assert, proptest};
use proptest::strategy::Strategy as Generator;

use super::tests::Bench;
use super::*;
use crate::models::MomentsOf;

/// Row weight and update of a site.
type Sent = (u64, Vec<f32>);

fn adaptive(lr: f64) -> Adaptive {
    Adaptive { lr, beta1: 0.9, beta2: 0.999, tau: 1e-3 }
}

/// One of each kind, for at least five sites.
fn every() -> Vec<Strategy> {
    vec![
        Strategy::FedAvg {},
        Strategy::FedProx { mu: 0.1 },
        Strategy::Scaffold { lr: 0.5 },
        Strategy::FedAdam(adaptive(0.01)),
        Strategy::FedYogi(adaptive(0.01)),
        Strategy::FedAdagrad(adaptive(0.1)),
        Strategy::Cyclic {},
        Strategy::FedBn {},
        Strategy::Personal { layers: vec!["0".into()] },
        Strategy::NormBound { norm_l2: 0.7 },
        Strategy::Median {},
        Strategy::TrimmedMean { trim: 0.25 },
        Strategy::MultiKrum { byzantine: 1, keep: 3 },
    ]
}

/// State of the coordinator in the reference: model, and m and v.
struct Dense {
    model: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
}

impl Dense {
    fn new(model: &[f32]) -> Self {
        let zero = vec![0.0; model.len()];
        Self { model: model.iter().map(|x| f64::from(*x)).collect(), m: zero.clone(), v: zero }
    }

    /// One round by the book, with weights α and clipped updates.
    fn round(&mut self, strategy: &Strategy, sent: &[Sent], clip: f64, n_max: u64) {
        let alphas: Vec<f64> = sent.iter().map(|(rows, _)| (*rows).min(n_max) as f64).collect();
        let clipped: Vec<Vec<f64>> =
            sent.iter().map(|(_, d)| d.iter().map(|x| f64::from(*x).clamp(-clip, clip)).collect()).collect();
        let weighted = |scales: &[f64]| -> Vec<f64> {
            let total: f64 = alphas.iter().sum();
            (0..self.model.len())
                .map(|i| (0..sent.len()).map(|u| alphas[u] * scales[u] * clipped[u][i]).sum::<f64>() / total)
                .collect()
        };
        let ones = vec![1.0; sent.len()];
        let change: Vec<f64> = match strategy {
            Strategy::FedAvg {} | Strategy::FedProx { .. } | Strategy::FedBn {} | Strategy::Personal { .. } => {
                weighted(&ones)
            }
            Strategy::Scaffold { lr } => weighted(&ones).iter().map(|d| lr * d).collect(),
            Strategy::FedAdam(a) | Strategy::FedYogi(a) | Strategy::FedAdagrad(a) => {
                let mean = weighted(&ones);
                self.adaptive(strategy, a, &mean)
            }
            Strategy::Cyclic {} => clipped[0].clone(),
            Strategy::NormBound { norm_l2 } => {
                let norm = |d: &Vec<f64>| d.iter().map(|x| x * x).sum::<f64>().sqrt();
                weighted(&clipped.iter().map(|d| (norm_l2 / norm(d)).min(1.0)).collect::<Vec<_>>())
            }
            Strategy::Median {} | Strategy::TrimmedMean { .. } => {
                let n = sent.len();
                let cut = match strategy {
                    Strategy::TrimmedMean { trim } => part(*trim, n),
                    _ => (n - 1) / 2,
                };
                let column = |i: usize| {
                    let mut column: Vec<f64> = clipped.iter().map(|d| d[i]).collect();
                    column.sort_by(f64::total_cmp);
                    column[cut..n - cut].iter().sum::<f64>() / (n - 2 * cut) as f64
                };
                (0..self.model.len()).map(column).collect()
            }
            Strategy::MultiKrum { byzantine, keep } => {
                let kept = krum(&clipped, *byzantine as usize, *keep as usize);
                let mean = |i: usize| kept.iter().map(|u| clipped[*u][i]).sum::<f64>() / kept.len() as f64;
                (0..self.model.len()).map(mean).collect()
            }
        };
        self.model.iter_mut().zip(change).for_each(|(x, change)| *x += change);
    }

    fn adaptive(&mut self, strategy: &Strategy, a: &Adaptive, mean: &[f64]) -> Vec<f64> {
        for (i, d) in mean.iter().enumerate() {
            self.m[i] = a.beta1 * self.m[i] + (1.0 - a.beta1) * d;
            self.v[i] = match strategy {
                Strategy::FedAdam(_) => a.beta2 * self.v[i] + (1.0 - a.beta2) * d * d,
                Strategy::FedYogi(_) => self.v[i] - (1.0 - a.beta2) * d * d * (self.v[i] - d * d).signum(),
                _ => self.v[i] + d * d,
            };
        }
        self.m.iter().zip(&self.v).map(|(m, v)| a.lr * m / (v.sqrt() + a.tau)).collect()
    }
}

/// ⌊trim·n⌋ by the decimal digits of the fraction, in whole numbers.
fn part(trim: f64, n: usize) -> usize {
    let text = trim.to_string();
    let digits = text.strip_prefix("0.").unwrap();
    let whole = digits.parse::<usize>().unwrap() * n;
    whole / 10usize.pow(u32::try_from(digits.len()).unwrap())
}

fn krum(updates: &[Vec<f64>], byzantine: usize, keep: usize) -> Vec<usize> {
    let n = updates.len();
    let distance =
        |a: usize, b: usize| -> f64 { updates[a].iter().zip(&updates[b]).map(|(x, y)| (x - y) * (x - y)).sum() };
    let mut scored: Vec<(f64, usize)> = (0..n)
        .map(|u| {
            let mut others: Vec<f64> = (0..n).filter(|o| *o != u).map(|o| distance(u, o)).collect();
            others.sort_by(f64::total_cmp);
            (others[..n - byzantine - 2].iter().sum(), u)
        })
        .collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    scored[..keep].iter().map(|(_, u)| *u).collect()
}

/// Runs rounds with a strategy as the schedule does: models and moments named, the old ones used.
async fn run(bench: &Bench, strategy: &Strategy, initial: &[f32], rounds: &[Vec<Sent>]) -> Vec<f32> {
    let (job, mut global) = (job(), bench.model(|i| initial[i]).await);
    let mut values = initial.to_vec();
    for (number, sent) in (1u32..).zip(rounds) {
        let mut training = bench.training(global, strategy.clone());
        let of = |round, model| MomentsOf { job, task: "train".into(), round, model };
        training.moments = (number > 1).then(|| bench.models.moments_path(&of(number - 1, global)));
        let inputs: Vec<Input> =
            (1u8..).zip(sent).map(|(site, (rows, update))| bench.input(site, *rows, |i| update[i])).collect();
        let trained = train(&bench.models, &training, &inputs).unwrap();
        assert_eq!(trained.moments.is_some(), matches!(strategy.name(), "fed_adam" | "fed_yogi" | "fed_adagrad"));
        values = bench.values(&trained.model);
        let digest = trained.model.digest();
        if let Some(moments) = trained.moments {
            bench.models.keep_moments(moments, &of(number, digest)).await.unwrap();
        }
        global = bench.models.keep(trained.model).await.unwrap();
    }
    values
}

fn job() -> hospes_protocol::id::JobId {
    hospes_protocol::id::JobId::new(hospes_protocol::id::Timestamp::from_millis(5), [3; 10])
}

fn blocking<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// Two rounds of five to eight sites.
fn rounds() -> impl Generator<Value = (Vec<f32>, Vec<Vec<Sent>>)> {
    (2usize..40, 5usize..9).prop_flat_map(|(entries, sites)| {
        let vector = || proptest::collection::vec(-1.3f32..1.3, entries);
        let round = proptest::collection::vec((1u64..150, vector()), sites);
        (vector(), proptest::collection::vec(round, 2))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_strategy_gives_what_its_paper_says((initial, rounds) in rounds(), which in 0..13usize) {
        let strategy = every().remove(which);
        let rounds: Vec<Vec<Sent>> = match strategy {
            Strategy::Cyclic {} => rounds.into_iter().map(|mut sent| { sent.truncate(1); sent }).collect(),
            _ => rounds,
        };
        let bench = Bench::new(initial.len() as u64);
        let found = blocking(run(&bench, &strategy, &initial, &rounds));
        let mut dense = Dense::new(&initial);
        rounds.iter().for_each(|sent| dense.round(&strategy, sent, 1.0, 100));
        for (i, (found, wanted)) in found.iter().zip(&dense.model).enumerate() {
            // Quantisation, two roundings to f32, and the root of a second moment that is kept as f32.
            prop_assert!((f64::from(*found) - wanted).abs() < 2e-6, "{} {i}: {found} {wanted}", strategy.name());
        }
    }
}

#[test]
fn what_a_strategy_may_see_is_what_it_gets() {
    for strategy in every() {
        let (step, rule) = (Step::of(&strategy, 3, 4, 0.0), Rule::of(&strategy));
        let wanted = strategy.sees();
        assert_eq!(step.is_some(), wanted == Sees::Sum, "{}", strategy.name());
        assert_eq!(rule.is_some(), wanted == Sees::Each, "{}", strategy.name());
    }
}

#[tokio::test]
async fn no_strategy_depends_on_the_order_of_inputs_or_on_blocks() {
    let bench = Bench::new(2 * BLOCK_ENTRIES as u64 + 77);
    let initial = |i: usize| (i % 100) as f32 / 100.0;
    let global = bench.model(initial).await;
    let value = |site: usize| move |i: usize| ((i * 31 + site * 17) % 1_000) as f32 / 1_000.0 - 0.5;
    let inputs: Vec<Input> = (1..6u8).map(|s| bench.input(s, u64::from(s) * 20, value(s.into()))).collect();
    for strategy in every() {
        let mut inputs = if strategy == (Strategy::Cyclic {}) { inputs[..1].to_vec() } else { inputs.clone() };
        let training = bench.training(global, strategy.clone());
        let once = train(&bench.models, &training, &inputs).unwrap();
        inputs.reverse();
        let half = inputs.len() / 2;
        inputs.rotate_left(half);
        let again = train(&bench.models, &training, &inputs).unwrap();
        assert_eq!(once.model.digest(), again.model.digest(), "{}", strategy.name());
        let digest = |trained: &Trained| trained.moments.as_ref().map(Written::digest);
        assert_eq!(digest(&once), digest(&again), "{}", strategy.name());
        // The ends of the blocks are those of the dense vectors.
        let sent: Vec<Sent> =
            (1..=inputs.len()).map(|s| (s as u64 * 20, (0..bench.entries()).map(value(s)).collect())).collect();
        let mut dense = Dense::new(&(0..bench.entries()).map(initial).collect::<Vec<_>>());
        dense.round(&strategy, &sent, 1.0, 100);
        let found = bench.values(&once.model);
        let far = found.iter().zip(&dense.model).position(|(a, b)| (f64::from(*a) - b).abs() > 2e-6);
        assert_eq!(far, None, "{}", strategy.name());
    }
}

#[tokio::test]
async fn a_reduction_that_is_done_again_gives_the_same_bytes_and_needs_its_moments() {
    let bench = Bench::new(100);
    let inputs: Vec<Input> = (1..4u8).map(|s| bench.input(s, 50, |i| i as f32 / 100.0)).collect();
    let first = bench.training(bench.model(|_| 0.5).await, Strategy::FedYogi(adaptive(0.01)));
    let trained = train(&bench.models, &first, &inputs).unwrap();
    let of = MomentsOf { job: job(), task: "train".into(), round: 1, model: trained.model.digest() };
    bench.models.keep_moments(trained.moments.unwrap(), &of).await.unwrap();
    let global = bench.models.keep(trained.model).await.unwrap();
    let mut second = bench.training(global, first.strategy.clone());
    second.moments = Some(bench.models.moments_path(&of));
    let once = train(&bench.models, &second, &inputs).unwrap();
    // The process ends before the files have names; what was there is there.
    let digests = (once.model.digest(), once.moments.as_ref().unwrap().digest());
    drop(once);
    assert_eq!(std::fs::read_dir(bench.folder.path().join("models/scratch")).unwrap().count(), 0);
    let again = train(&bench.models, &second, &inputs).unwrap();
    assert_eq!((again.model.digest(), again.moments.unwrap().digest()), digests);
    assert_eq!(bench.models.list_moments().unwrap(), std::slice::from_ref(&of));
    let last = Training { last: true, ..second.clone() };
    let end = train(&bench.models, &last, &inputs).unwrap();
    assert_eq!((end.model.digest(), end.moments.is_none()), (digests.0, true), "nobody goes on with them");
    bench.models.delete_moments(&of).await.unwrap();
    bench.models.delete_moments(&of).await.unwrap();
    assert!(train(&bench.models, &second, &inputs).is_err(), "an optimiser that forgot is not the plan's");
    // Those of another model do not pass.
    second.moments = Some(bench.models.path(global));
    assert!(train(&bench.models, &second, &inputs).is_err());
}

#[tokio::test]
async fn scaffold_steps_the_model_and_brings_the_control_variates_up_to_date() {
    let mut bench = Bench::new(4);
    // Two entries of a model, two control variates.
    let shape = |name: &str| TensorShape { name: name.into(), shape: vec![2] };
    bench.tensors = vec![shape("0.weight"), shape("control.0.weight")];
    let two = |site, rows, values: [f32; 4]| {
        let quantiser = Quantiser::new(&bench.quantise).unwrap();
        let payload = quantiser.encode(rows, &bench.tensors, &[&values[..2], &values[2..]], &mut || 0).unwrap();
        let path = bench.folder.path().join(format!("scaffold{site}"));
        std::fs::write(&path, payload.into_bytes()).unwrap();
        Input { site: SiteId::from_bytes([site; 16]), path }
    };
    let mut training = bench.training(bench.model(|i| [1.0, 2.0, 0.0, 0.0][i]).await, Strategy::Scaffold { lr: 0.5 });
    training.parts = vec![Part::Trained, Part::Control];
    let near = |found: &[f32], wanted: &[f64]| {
        assert_eq!(found.len(), wanted.len());
        found.iter().zip(wanted).for_each(|(a, b)| assert!((f64::from(*a) - b).abs() < 1e-7, "{found:?} {wanted:?}"));
    };
    // Rows 30 and 10: means (.3, −.1) and (−.2, .4); two of four members, so that c moves by half of it.
    let inputs = [two(1, 30, [0.4, -0.2, -0.2, 0.4]), two(2, 10, [0.0, 0.2, -0.2, 0.4])];
    let first = train(&bench.models, &training, &inputs).unwrap();
    near(&bench.values(&first.model), &[1.15, 1.95, -0.1, 0.2]);
    training.global = bench.models.keep(first.model).await.unwrap();
    // All four, of equal weight: means (.1, 0) and (.4, −.1).
    let sent = [[0.4, 0.0, 0.4, 0.0], [0.0, 0.0, 0.4, -0.4], [0.0, 0.2, 0.4, 0.0], [0.0, -0.2, 0.4, 0.0]];
    let inputs: Vec<Input> = (1..).zip(sent).map(|(site, values)| two(site, 20, values)).collect();
    let second = train(&bench.models, &training, &inputs).unwrap();
    near(&bench.values(&second.model), &[1.2, 1.95, 0.3, 0.1]);
    // The last model is one that can be used: it has no control variates.
    training.last = true;
    let last = train(&bench.models, &training, &inputs).unwrap();
    near(&bench.values(&last.model), &[1.2, 1.95]);
    training.parts.reverse();
    assert!(train(&bench.models, &training, &inputs).is_err(), "control variates before the model");
}

#[tokio::test]
async fn running_figures_are_averaged_and_what_nobody_changed_stays() {
    let bench = Bench::new(3);
    let inputs: Vec<Input> = (1..4u8).map(|s| bench.input(s, 7, |i| if i == 1 { 0.0 } else { 0.25 })).collect();
    for strategy in [Strategy::FedAdam, Strategy::FedYogi, Strategy::FedAdagrad] {
        let strategy = strategy(Adaptive { tau: 1e-8, ..adaptive(0.1) });
        let mut training = bench.training(bench.model(|_| 0.5).await, strategy.clone());
        training.parts[1] = Part::Running;
        let values = bench.values(&train(&bench.models, &training, &inputs).unwrap().model);
        assert!(values[0] > 0.505, "{values:?}");
        // A level next to 0 stands for 0. Divided by the root of its own square, it would be a whole step.
        assert_eq!(values[1], 0.5, "{}", strategy.name());
        assert!((f64::from(values[2]) - 0.75).abs() < 1e-6, "a variance that is stepped along could become negative");
    }
}

#[tokio::test]
async fn one_site_far_off_moves_a_robust_model_little() {
    let bench = Bench::new(50);
    let global = bench.model(|_| 0.0).await;
    let honest = |site: usize| move |i: usize| 0.01 + ((i * 7 + site * 3) % 11) as f32 / 1_000.0;
    let mut inputs: Vec<Input> = (1..6u8).map(|s| bench.input(s, 20, honest(s.into()))).collect();
    // It claims as many rows as it can, and sends the largest values that are let in.
    inputs.push(bench.input(6, 100, |_| -1.0));
    let largest = |strategy: Strategy| {
        let trained = train(&bench.models, &bench.training(global, strategy), &inputs).unwrap();
        bench.values(&trained.model).into_iter().map(|x| (x - 0.015).abs()).fold(0.0, f32::max)
    };
    assert!(largest(Strategy::FedAvg {}) > 0.4);
    assert!(largest(Strategy::Median {}) < 0.01);
    assert!(largest(Strategy::TrimmedMean { trim: 0.2 }) < 0.01);
    assert!(largest(Strategy::MultiKrum { byzantine: 1, keep: 4 }) < 0.01);
    assert!(largest(Strategy::NormBound { norm_l2: 0.2 }) < 0.04);
    // Nothing is cut off where a fifth of the sites is less than one.
    let few = bench.training(global, Strategy::TrimmedMean { trim: 0.1 });
    assert!(bench.values(&train(&bench.models, &few, &inputs).unwrap().model)[0] < -0.1);
}

#[tokio::test]
async fn multi_krum_keeps_the_updates_that_lie_together() {
    let bench = Bench::new(2);
    let global = bench.model(|_| 0.0).await;
    // Five together, two of them together elsewhere, in an order that hides it.
    let at = [0.5, 0.01, -0.51, 0.02, 0.03, -0.01, 0.035];
    let inputs: Vec<Input> = (1u8..).zip(at).map(|(s, x)| bench.input(s, u64::from(s), move |_| x)).collect();
    let of = |byzantine, keep| {
        let training = bench.training(global, Strategy::MultiKrum { byzantine, keep });
        train(&bench.models, &training, &inputs).map(|trained| bench.values(&trained.model)[0])
    };
    let near = |found: f32, wanted: f32| assert!((found - wanted).abs() < 1e-7, "{found} {wanted}");
    // Scores over the three nearest, in units of .01²: 4.25 for .02, 5.25 for .03, 8.75, 11.25, 29, and far away.
    near(of(2, 1).unwrap(), 0.02);
    near(of(2, 2).unwrap(), 0.025);
    near(of(2, 5).unwrap(), 0.017);
    for (byzantine, keep) in [(3, 1), (2, 8)] {
        let error = of(byzantine, keep).unwrap_err().to_string();
        assert!(error.contains("multi_krum needs"), "{error}");
    }
}

#[tokio::test]
async fn a_turn_has_one_update() {
    let bench = Bench::new(2);
    let training = bench.training(bench.model(|_| 1.0).await, Strategy::Cyclic {});
    let inputs = [bench.input(1, 3, |_| 0.25), bench.input(2, 3, |_| 0.5)];
    assert!(train(&bench.models, &training, &inputs).is_err());
    let values = bench.values(&train(&bench.models, &training, &inputs[..1]).unwrap().model);
    values.iter().for_each(|x| assert!((x - 1.25).abs() < 1e-6));
}

/// Peak resident memory of this process in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Updates of zeros are the lowest level, −clip; a sparse file has as many of them as one likes.
fn sparse(bench: &Bench, sites: u8) -> Vec<Input> {
    let file = |site: u8| {
        let path = bench.folder.path().join(site.to_string());
        std::fs::write(&path, 100u64.to_le_bytes()).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(8 + 4 * bench.entries() as u64).unwrap();
        Input { site: SiteId::from_bytes([site; 16]), path }
    };
    (1..=sites).map(file).collect()
}

/// A 40 MB model of 12 sites in less than 24 MiB: one payload alone would not fit.
#[tokio::test]
async fn memory_depends_neither_on_the_models_size_nor_on_the_number_of_sites() {
    let bench = Bench::new(10_000_000);
    let global = bench.model(|_| 0.5).await;
    let inputs = sparse(&bench, 12);
    let before = peak();
    let averaged = train(&bench.models, &bench.training(global, Strategy::FedAvg {}), &inputs).unwrap();
    let grown = peak() - before;
    assert!(grown < 24 << 20, "{grown} bytes");
    assert!(averaged.model.bytes() > 40_000_000);
}

/// Updates of 200 MB together, by every strategy, in less than the 128 MiB that a coordinator may have above its idle.
#[tokio::test]
async fn no_strategy_holds_all_updates_in_memory() {
    let bench = Bench::new(500_000);
    let global = bench.model(|_| 0.5).await;
    let inputs = sparse(&bench, 100);
    let before = peak();
    for strategy in every() {
        let many = if matches!(strategy, Strategy::MultiKrum { .. }) { 12 } else { inputs.len() };
        let many = if strategy == (Strategy::Cyclic {}) { 1 } else { many };
        train(&bench.models, &bench.training(global, strategy.clone()), &inputs[..many]).unwrap();
        let grown = peak() - before;
        assert!(grown < 64 << 20, "{}: {grown} bytes", strategy.name());
    }
}
