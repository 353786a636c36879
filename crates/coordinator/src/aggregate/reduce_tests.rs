use hospes_privacy::coding::Coding;
use hospes_privacy::quantise::Quantiser;
use hospes_protocol::canon::Canonical;
use hospes_protocol::policy::EgressKind;

use super::*;

pub(super) struct Bench {
    pub(super) folder: tempfile::TempDir,
    pub(super) models: Models,
    pub(super) tensors: Vec<TensorShape>,
    pub(super) quantise: Quantise,
}

impl Bench {
    pub(super) fn new(entries: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let models = Models::open(folder.path().join("models")).unwrap();
        let shape = |name: &str, shape: Vec<u64>| TensorShape { name: name.into(), shape };
        let tensors = vec![shape("0.weight", vec![entries - 1, 1]), shape("0.bias", vec![1])];
        Self { folder, models, tensors, quantise: Quantise { clip: 1.0, bits: 32, n_max: 100 } }
    }

    pub(super) fn entries(&self) -> usize {
        usize::try_from(self.tensors.iter().map(TensorShape::len).sum::<u64>()).unwrap()
    }

    pub(super) async fn model(&self, value: impl Fn(usize) -> f32) -> Digest {
        let mut writer = self.models.write(&self.tensors).unwrap();
        writer.push((0..self.entries()).map(value)).unwrap();
        self.models.keep(writer.finish().unwrap()).await.unwrap()
    }

    pub(super) fn input(&self, site: u8, rows: u64, value: impl Fn(usize) -> f32) -> Input {
        let values: Vec<f32> = (0..self.entries()).map(value).collect();
        let (weight, bias) = values.split_at(values.len() - 1);
        let quantiser = Quantiser::new(&self.quantise).unwrap();
        // Half of a step: to the nearest level.
        let half = &mut || 1u32 << 31;
        let levels = quantiser.encode(rows, &self.tensors, &[weight, bias], half).unwrap().into_bytes();
        let path = self.folder.path().join(site.to_string());
        let payload = self.coding().map(|coding| coding.encode(&levels).unwrap());
        std::fs::write(&path, payload.unwrap_or(levels)).unwrap();
        Input { site: SiteId::from_bytes([site; 16]), path }
    }

    fn coding(&self) -> Option<Coding> {
        Coding::new(self.quantise.bits, self.entries() as u64)
    }

    /// The levels of an input, four bytes each.
    pub(super) fn levels(&self, input: &Input) -> Vec<u8> {
        let payload = std::fs::read(&input.path).unwrap();
        self.coding().map(|coding| coding.decode(&payload).unwrap()).unwrap_or(payload)
    }

    pub(super) fn training(&self, global: Digest, strategy: Strategy) -> Training {
        Training {
            global,
            tensors: self.tensors.clone(),
            parts: vec![Part::Trained; self.tensors.len()],
            quantise: self.quantise.clone(),
            strategy,
            members: 4,
            moments: None,
            last: false,
            early_stop: None,
        }
    }

    fn fed_avg(&self, global: Digest, inputs: &[Input]) -> Result<Trained, Error> {
        train(&self.models, &self.training(global, Strategy::FedAvg {}), inputs)
    }

    /// Values of a file that has no name yet.
    pub(super) fn values(&self, written: &Written) -> Vec<f32> {
        for scratch in std::fs::read_dir(self.folder.path().join("models/scratch")).unwrap() {
            let path = scratch.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            if hospes_protocol::canon::digest("model", 1, &bytes) == written.digest() {
                let start = usize::try_from(Layout::read(&path).unwrap().data_start()).unwrap();
                return bytes[start..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            }
        }
        panic!("it is not there");
    }
}

#[tokio::test]
async fn the_average_is_weighted_by_rows_up_to_n_max_and_clipped() {
    let bench = Bench::new(5);
    let global = bench.model(|i| i as f32).await;
    // α = .5 and 1 (300 rows are cut at 100); 9 is clipped to 1.
    let inputs = [bench.input(1, 50, |_| 0.5), bench.input(2, 300, |i| if i == 0 { 9.0 } else { -0.25 })];
    let averaged = bench.fed_avg(global, &inputs).unwrap();
    assert_eq!(averaged.weights, [50, 100]);
    let values = bench.values(&averaged.model);
    let wanted = |i: usize| i as f64 + (0.5 * 0.5 + if i == 0 { 1.0 } else { -0.25 }) / 1.5;
    for (i, value) in values.iter().enumerate() {
        assert!((f64::from(*value) - wanted(i)).abs() < 1e-6, "{i}: {value}");
    }
}

#[tokio::test]
async fn a_loss_behind_the_updates_is_averaged_over_the_rows_for_validation_and_changes_no_model() {
    // One entry more than a block, so that the loss begins in the middle of the second one.
    let bench = Bench::new(BLOCK_ENTRIES as u64 + 1);
    let global = bench.model(|i| (i % 10) as f32).await;
    let stop = EarlyStop { patience: 1, min_delta: 0.0, ceiling: 10.0 };
    let value = |site: u8| move |i: usize| (i % 7) as f32 / 100.0 * f32::from(site);
    let told = |site: u8, rows: u64, loss: Option<(f64, u64)>| {
        let (loss, validation) = loss.unwrap_or((0.0, 0));
        let mut values: Vec<f32> = (0..bench.entries()).map(value(site)).collect();
        values.extend(stop.entries(loss, validation, rows, bench.quantise.clip));
        let shape = TensorShape { name: "all".into(), shape: vec![values.len() as u64] };
        let payload = Quantiser::new(&bench.quantise).unwrap().encode(rows, &[shape], &[&values], &mut || 0).unwrap();
        let path = bench.folder.path().join(format!("told-{site}"));
        std::fs::write(&path, payload.into_bytes()).unwrap();
        Input { site: SiteId::from_bytes([site; 16]), path }
    };
    let training = Training { early_stop: Some(stop.clone()), ..bench.training(global, Strategy::FedAvg {}) };
    // 10 rows with a loss of 0.5, 40 with 2.0, and a site that does not tell.
    let inputs = [told(1, 50, Some((0.5, 10))), told(2, 80, Some((2.0, 40))), told(3, 100, None)];
    let found = train(&bench.models, &training, &inputs).unwrap();
    assert!((found.loss.unwrap() - (10.0 * 0.5 + 40.0 * 2.0) / 50.0).abs() < 1e-5, "{:?}", found.loss);
    let plain = [(1, 50), (2, 80), (3, 100)].map(|(site, rows)| bench.input(site, rows, value(site)));
    let without = bench.fed_avg(global, &plain).unwrap();
    assert_eq!((without.model.digest(), without.loss), (found.model.digest(), None));
    let nobody = [told(1, 50, None), told(2, 80, None)];
    assert_eq!(train(&bench.models, &training, &nobody).unwrap().loss, None);
    assert!(train(&bench.models, &training, &plain).is_err(), "updates without the announced loss");
}

#[tokio::test]
async fn blocks_and_the_order_of_inputs_change_no_bit() {
    // Two blocks and a bit.
    let bench = Bench::new(2 * BLOCK_ENTRIES as u64 + 77);
    let global = bench.model(|i| (i % 100) as f32 / 100.0).await;
    let value = |site: usize| move |i: usize| ((i * 31 + site * 17) % 1_000) as f32 / 1_000.0 - 0.5;
    let mut inputs: Vec<Input> = (1..6u8).map(|s| bench.input(s, u64::from(s) * 20, value(s.into()))).collect();
    let once = bench.fed_avg(global, &inputs).unwrap().model.digest();
    inputs.reverse();
    assert_eq!(bench.fed_avg(global, &inputs).unwrap().model.digest(), once);
    inputs.rotate_left(2);
    assert_eq!(bench.fed_avg(global, &inputs).unwrap().model.digest(), once);
    inputs.pop();
    assert_ne!(bench.fed_avg(global, &inputs).unwrap().model.digest(), once);
}

#[tokio::test]
async fn updates_of_few_bits_give_the_model_of_32_bits_but_for_their_steps() {
    let value = |site: usize| move |i: usize| ((i * 31 + site * 17) % 1_000) as f32 / 1_000.0 - 0.5;
    let few = |bits: u8| {
        let fresh = Bench::new(2 * plan::CHUNK_ENTRIES + 77);
        Bench { quantise: Quantise { bits, ..fresh.quantise.clone() }, ..fresh }
    };
    let inputs = |bench: &Bench| -> Vec<Input> {
        (1..6u8).map(|s| bench.input(s, 60 + u64::from(s) * 8, value(s.into()))).collect()
    };
    let models = async |bits: u8, strategy: Strategy| {
        let bench = few(bits);
        let global = bench.model(|_| 0.0).await;
        let mut inputs = inputs(&bench);
        let once = train(&bench.models, &bench.training(global, strategy.clone()), &inputs).unwrap();
        inputs.reverse();
        let again = train(&bench.models, &bench.training(global, strategy), &inputs).unwrap();
        assert_eq!(once.model.digest(), again.model.digest());
        bench.values(&once.model)
    };
    for strategy in [Strategy::FedAvg {}, Strategy::Median {}, Strategy::NormBound { norm_l2: 20.0 }] {
        let exact = models(32, strategy.clone()).await;
        for (bits, steps) in [(8, 255.0f32), (16, 65_535.0)] {
            // Half a step of 2/steps, over an α of .6 and more.
            let most = exact.iter().zip(models(bits, strategy.clone()).await).map(|(a, b)| (a - b).abs());
            let most = most.fold(0.0, f32::max);
            assert!(most > 0.0 && most <= 1.0 / steps / 0.6, "{strategy:?} of {bits} bits: {most}");
        }
    }
    // Whatever the blocks are in which they are read.
    let (bench, chunk) = (few(8), usize::try_from(plan::CHUNK_ENTRIES).unwrap());
    let (inputs, entries) = (inputs(&bench), bench.entries());
    let mut updates = Updates::open(&bench.quantise, entries as u64, &inputs[..1]).unwrap();
    let whole = bench.levels(&inputs[0]);
    for (first, length) in [(0, entries), (chunk - 1, 2), (chunk + 3, chunk), (entries - 1, 1)] {
        let mut read = vec![0; length * 4];
        updates.levels(0, first as u64, &mut read).unwrap();
        assert!(read == whole[8 + first * 4..][..length * 4], "{length} from {first} on");
    }
    assert!(updates.levels(0, entries as u64 - 1, &mut [0; 8]).is_err());
    // Each chunk is decoded once: what is left of the first one needs no file, and the second one does.
    updates.levels(0, 0, &mut [0; 400]).unwrap();
    std::fs::remove_file(&inputs[0].path).unwrap();
    let mut rest = vec![0; (chunk - 100) * 4];
    updates.levels(0, 100, &mut rest).unwrap();
    assert!(rest == whole[8 + 400..][..rest.len()]);
    assert!(updates.levels(0, chunk as u64, &mut [0; 4]).is_err());
}

#[tokio::test]
async fn altered_missing_and_foreign_files_are_errors_and_leave_nothing() {
    let bench = Bench::new(10);
    let global = bench.model(|_| 0.0).await;
    let good = bench.input(1, 50, |_| 0.1);
    let short = bench.input(2, 50, |_| 0.1);
    let bytes = std::fs::read(&short.path).unwrap();
    std::fs::write(&short.path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(bench.fed_avg(global, &[good.clone(), short]).is_err());
    let absent = Input { path: bench.folder.path().join("absent"), ..good.clone() };
    assert!(bench.fed_avg(global, &[good.clone(), absent]).is_err());
    assert!(bench.fed_avg(Digest::of(b"no model"), std::slice::from_ref(&good)).is_err());
    assert!(bench.fed_avg(global, &[]).is_err());
    let mut other = Bench::new(11);
    other.models = bench.models.clone();
    assert!(other.fed_avg(global, &[other.input(1, 50, |_| 0.1)]).is_err(), "a model of other tensors");
    assert_eq!(std::fs::read_dir(bench.folder.path().join("models/scratch")).unwrap().count(), 0);
}

#[test]
fn a_byte_that_changed_since_a_payload_was_confirmed_is_noticed_before_the_sum() {
    let bench = Bench::new(10);
    let inputs = [bench.input(1, 50, |_| 0.1), bench.input(2, 50, |_| 0.2)];
    let digests = inputs.clone().map(|input| Digest::of(&std::fs::read(input.path).unwrap()));
    check(&inputs, &digests).unwrap();
    let mut bytes = std::fs::read(&inputs[1].path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&inputs[1].path, bytes).unwrap();
    assert!(matches!(check(&inputs, &digests), Err(Error::Corrupt { .. })));
}

#[test]
fn figures_are_added_and_what_one_site_withholds_is_withheld() {
    let folder = tempfile::tempdir().unwrap();
    let announced = [
        Figure { name: "n".into(), values: 1, kind: EgressKind::N },
        Figure { name: "loss_sum".into(), values: 1, kind: EgressKind::Loss },
        Figure { name: "sum".into(), values: 2, kind: EgressKind::Metrics },
    ];
    let report = |site: u8, n: f64, withheld: bool, sum: [f64; 2]| {
        let mut set = FigureSet { sums: Default::default(), withheld: Default::default() };
        set.sums.insert("n".into(), vec![n]);
        set.sums.insert("sum".into(), sum.to_vec());
        if withheld {
            set.withheld.insert("loss_sum".into(), "min_cell".into());
        } else {
            set.sums.insert("loss_sum".into(), vec![1.5]);
        }
        let path = folder.path().join(site.to_string());
        std::fs::write(&path, Canonical::new(set).unwrap().bytes()).unwrap();
        Input { site: SiteId::from_bytes([site; 16]), path }
    };
    let inputs = [report(1, 10.0, false, [1.0, f64::MAX]), report(2, 20.0, true, [2.0, f64::MAX])];
    let pooled = pool(&announced, &inputs).unwrap();
    assert_eq!(pooled.sum.sums.keys().collect::<Vec<_>>(), ["n"]);
    assert_eq!(pooled.sum.sums["n"], [30.0]);
    assert_eq!(pooled.sum.withheld["loss_sum"], "min_cell");
    assert!(pooled.sum.withheld["sum"].contains("too large"));
    assert_eq!(pooled.sites[1].1.as_ref().unwrap().sums["n"], [20.0]);
    assert!(Canonical::new(pooled.sum).is_ok());
}
