//! Federated averaging over four sites in one process: permit, cohort, training, payload, exact sum, mean, model file.

use hospes_cohort::train::{Progress, Pulse};
use hospes_cohort::{Cohort, Round};
use hospes_privacy::coding::Coding;
use hospes_privacy::quantise::Quantiser;
use hospes_privacy::sum::{Totals, add_block};
use hospes_protocol::canon::{self, Canonical};
use hospes_protocol::id::Timestamp;
use hospes_protocol::plan::{self, Component, NnTrain, Plan};
use hospes_sim::{Federation, assess};
use safetensors::tensor::{Dtype, TensorView};

use crate::heart::{federation, plan as heart};

const ZERO: Timestamp = Timestamp::from_millis(0);

pub(crate) fn model_file(train: &NnTrain, inputs: u64, values: &[f32]) -> Vec<u8> {
    let mut rest = values;
    let mut tensors = Vec::new();
    for shape in plan::tensors(train, inputs) {
        let (mine, others) = rest.split_at(usize::try_from(shape.len()).unwrap());
        rest = others;
        let sides: Vec<usize> = shape.shape.iter().map(|n| usize::try_from(*n).unwrap()).collect();
        tensors.push((shape.name, sides, mine.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()));
    }
    let views = tensors.iter().map(|(n, s, b)| (n.as_str(), TensorView::new(Dtype::F32, s.clone(), b).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// What one run ends with.
pub(crate) struct Trained {
    pub(crate) model: Vec<f32>,
    /// Bytes of all updates.
    pub(crate) bytes: usize,
    /// Entries of them that the clip cut.
    pub(crate) clipped: u64,
}

/// One run.
pub(crate) fn trained(federation: &Federation, plan: &Canonical<Plan>) -> Trained {
    let Component::NnTrain(train) = &plan.tasks["train"].component else { panic!("no training") };
    let inputs = plan::features(plan, "train").len() as u64;
    let mut model = plan::model::initial(&train.model, inputs, plan.seed);
    let quantiser = Quantiser::new(&train.quantise).unwrap();
    let coding = Coding::new(train.quantise.bits, model.len() as u64);
    let (mut bytes, mut clipped) = (0, 0);
    for number in 1..=train.rounds {
        let file = model_file(train, inputs, &model);
        let header = federation.header(plan, "train", number, Some(canon::digest("model", 1, &file))).unwrap();
        let (mut sums, mut totals) = (vec![0u64; model.len()], Totals::default());
        for member in federation.members() {
            let cohort = federation.open(member, plan, &header).unwrap();
            let round = Round { site: member.site(), header: &header, model: Some(&file) };
            let mut go_on = |_: Progress| true;
            let rules = hospes_protocol::policy::Policy::public_data().disclosure;
            let update = cohort.train(round, &rules, &mut Pulse { now: &|| ZERO, progress: &mut go_on }).unwrap();
            bytes += update.payload.len();
            clipped += update.view.clipped;
            let payload = coding.map_or(update.payload.clone(), |coding| coding.decode(&update.payload).unwrap());
            let (head, entries) = payload.split_at(8);
            let weight = quantiser.row_weight(head, payload.len() as u64, model.len() as u64).unwrap();
            totals.add(weight).unwrap();
            add_block(&mut sums, entries).unwrap();
        }
        let mut mean = vec![0f32; model.len()];
        quantiser.mean(&sums, totals, &mut mean).unwrap();
        model.iter_mut().zip(&mean).for_each(|(m, d)| *m += d);
    }
    Trained { model, bytes, clipped }
}

/// The final model of one run in which nothing is cut.
fn run(federation: &Federation, plan: &Canonical<Plan>) -> Vec<f32> {
    let trained = trained(federation, plan);
    assert_eq!(trained.clipped, 0);
    trained.model
}

/// FLamby: .748 ± .027 over five seeds; an independent numpy run: .763 ± .025 over 20. Ours over seeds 1 to 40: .756 ±
/// .031 on test rows scaled together, as FLamby judges, and .720 ± .023 on rows that each site scales itself; FLamby's
/// own figures by site, weighted by rows, give .706.
#[test]
fn federated_averaging_reaches_the_published_accuracy() {
    let plan = heart();
    let federation = federation(&plan);
    let (mut together, mut apart) = (Vec::new(), Vec::new());
    for seed in 1..=8 {
        let plan = Canonical::new(Plan { seed, ..plan.clone() }).unwrap();
        let model = run(&federation, &plan);
        let header = federation.header(&plan, "alone", 1, None).unwrap();
        let open = || federation.members().iter().map(|m| federation.open(m, &plan, &header).unwrap());
        let accuracy = |metrics: Vec<hospes_cohort::evaluate::Metrics>| {
            let (correct, rows) = metrics.iter().fold((0, 0), |(c, n), m| (c + m.correct, n + m.rows));
            correct as f64 / rows as f64
        };
        together.push(accuracy(Cohort::pool(open().collect()).unwrap().assess("alone", &model).unwrap().by_table));
        let each: Vec<_> = open().flat_map(|c| c.assess("alone", &model).unwrap().by_table).collect();
        println!(
            "seed {seed}: {:.3} {:?}",
            together.last().unwrap(),
            each.iter().map(|m| m.accuracy()).collect::<Vec<_>>()
        );
        apart.push(accuracy(each));
    }
    // The model file of one more run goes through the command's own path.
    let plan = Canonical::new(Plan { seed: 8, ..plan }).unwrap();
    let Component::NnTrain(train) = &plan.tasks["train"].component else { panic!("no training") };
    let file = model_file(train, 13, &run(&federation, &plan));
    let judged = assess(&federation, &plan, &file).unwrap();
    assert_eq!((judged.all, judged.all_scaled_together), (apart[7], together[7]));
    assert!(assess(&federation, &plan, &file[..40]).is_err());
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let sd = |v: &[f64]| (v.iter().map(|x| (x - mean(v)).powi(2)).sum::<f64>() / (v.len() as f64 - 1.0)).sqrt();
    println!(
        "scaled together {:.3} ± {:.3}, apart {:.3} ± {:.3}",
        mean(&together),
        sd(&together),
        mean(&apart),
        sd(&apart)
    );
    assert!((mean(&together) - 0.748).abs() <= 0.027, "{}", mean(&together));
}
