//! Differential privacy in plans: what is refused and with which words, what changes nothing, and what a policy that demands
//! it takes for it.

use expect_test::{Expect, expect};
use hospes_protocol::approval::RefusalCode;
use hospes_protocol::canon::Canonical;
use hospes_protocol::plan::{self, DpMode, DpNoise, Plan, read};
use hospes_protocol::policy::Policy;
use hospes_protocol::study::may_vary;

use crate::world::{HEART, World, heart};

const DP: &str = "{ mode: local, epsilon: 4, delta: 1.0e-6, clip_norm_l2: 1, sampling_rate: 0.1, expected_batch: 20 }";

/// The heart plan as differential privacy has it, with its scale in the plan.
fn text() -> String {
    let bounds = ["sex", "trestbps", "chol", "fbs", "thalach", "exang", "oldpeak"]
        .map(|name| format!("    {name}: {{ number: {{ min: 0, max: 300 }} }}\n"))
        .concat();
    let dp = format!("privacy: {{ plain: {{}} }}\n      dp: {DP}\n  eval:");
    HEART
        .replace("method: standard, scope: site", "method: bounds")
        .replace("    age:", &format!("{bounds}    age:"))
        .replace("updates: 100, batch: 4", "updates: 5, batch: 20")
        .replace("privacy: { plain: {} }\n  eval:", &dp)
}

fn noisy() -> Plan {
    read(&text()).unwrap_or_else(|e| panic!("{e}"))
}

fn with(from: &str, to: &str, expected: Expect) {
    let text = text();
    assert_eq!(text.matches(from).count(), 1, "'{from}' must stand in the plan once");
    expected.assert_eq(&read(&text.replace(from, to)).map_or_else(|e| e.to_string(), |_| "accepted".into()));
}

#[test]
fn a_plan_without_noise_is_written_as_before_and_one_with_it_comes_back() {
    assert!(!serde_json::to_string(&heart()).unwrap().contains("\"dp\""));
    let plan = noisy();
    let (task, train, dp) = plan::with_dp(&plan).next().unwrap();
    assert_eq!((task, dp.noise, dp.weight(), train.steps()), ("train", DpNoise::Epsilon(4.0), 200, 75));
    assert_eq!(plan::without_dp(&plan), ["alone", "counts", "eval"]);
    let bytes = Canonical::new(plan.clone()).unwrap();
    assert_eq!(*Canonical::<Plan>::parse(bytes.bytes()).unwrap(), plan);
    assert_eq!(read(&serde_json::to_string(&plan).unwrap()).unwrap(), plan);
}

#[test]
fn what_the_account_does_not_cover_is_refused_with_what_to_write_instead() {
    with(
        "mode: local",
        "mode: distributed",
        expect![[r#"
            tasks.train.params.privacy: noise that the sites share protects their sum, and no update that can be read; write 'secure_aggregation: {}'; or write 'mode: local', with which each site adds all of the noise by itself
            tasks.train.params.local.updates: is 5; noise that the sites share is added once a round, and covers one step; write 1; or write 'mode: local', with which each site adds all of the noise by itself
            tasks.train.params.dp.epsilon: would have to be turned into noise for every message of a masked round; write the noise_multiplier; or write 'mode: local', with which each site adds all of the noise by itself"#]],
    );
    with(
        "epsilon: 4, ",
        "",
        expect!["tasks.train.params.dp: needs either noise_multiplier or epsilon: one follows from the other"],
    );
    with(
        "method: bounds",
        "method: standard",
        expect![
            "tasks.scale.params.method: scales by the mean and spread of the site's own rows, so that one patient changes the gradients of others in 'train', and its clip bounds nothing; write 'bounds', with min and max of each column in data.variables"
        ],
    );
    with(
        "imputation, inputs: { data: read }",
        "imputation, inputs: { data: read }, params: { method: median }",
        expect![
            "tasks.fill.params.method: fills with the median of the site's own rows, so that one patient changes the gradients of others in 'train', and its clip bounds nothing; write 'constant' with a number of the plan's, or drop_rows"
        ],
    );
    with(
        "by_column: fold",
        "test_fraction: 0.3",
        expect![
            "tasks.split.params.test_fraction: sets a part of the site's patients aside, where one patient more moves another across the border, so that one patient changes the gradients of others in 'train', and its clip bounds nothing; write by_column, with a column that says for each patient where they belong"
        ],
    );
    with(
        "[{ linear: { out: 1, init: torch_default } }]",
        "[{ linear: { out: 4 } }, { batch_norm: {} }, { linear: { out: 1 } }]",
        expect![
            "tasks.train.params.model.1.batch_norm: batch_norm mixes the rows of a batch, so that no clip bounds what one patient changes; write group_norm"
        ],
    );
    with(
        "strategy: { fed_avg: {} }",
        "strategy: { fed_prox: { mu: 0.1 } }",
        expect![
            "tasks.train.params.strategy.fed_prox: adds a proximal term to each gradient, which training with dp does not have yet; write fed_avg"
        ],
    );
    with(
        "rounds: 15",
        "rounds: 15\n      early_stop: { patience: 2 }",
        expect![
            "tasks.train.params.early_stop: tells in every round a loss on the site's rows, to which no noise is added; leave it out, and write as many rounds as are to be trained"
        ],
    );
    with(
        "updates: 5, batch: 20",
        "updates: 5, batch: 4",
        expect![
            "tasks.train.params.local.batch: is 4; with dp each patient is drawn by themselves, so that no batch has a fixed size: write 20, which dp.expected_batch is, rounded"
        ],
    );
    with(
        "epsilon: 4, delta: 1.0e-6, clip_norm_l2: 1, sampling_rate: 0.1",
        "noise_multiplier: 0, delta: 0.1, clip_norm_l2: 0, sampling_rate: 2",
        expect![[r#"
            tasks.train.params.dp.noise_multiplier: is 0; it must lie between 0.1 and 1000000
            tasks.train.params.dp.delta: is 0.1; it must lie between 0.000000000001 and 0.01
            tasks.train.params.dp.clip_norm_l2: is 0; it must lie between 0.000001 and 1000000
            tasks.train.params.dp.sampling_rate: is 2; it must lie between 0.000001 and 1"#]],
    );
    with(
        "epsilon: 4",
        "noise_multiplier: 900000",
        expect![
            "tasks.train.params.dp.noise_multiplier: is 900000, for which a model of 14 parameters is too large: the noise would be wider than 2^28 steps of its grid; write a smaller one, or a smaller model"
        ],
    );
    // Constants of the plan are as good as none: what weighs a class is no patient's.
    with(
        "loss: binary_cross_entropy\n      optimizer: { sgd",
        "loss: binary_cross_entropy\n      class_weights: [1, 3]\n      optimizer: { sgd",
        expect!["accepted"],
    );
}

#[test]
fn sites_share_noise_of_one_masked_step() {
    let text = text()
        .replace("mode: local, epsilon: 4", "mode: distributed, noise_multiplier: 1.2")
        .replace("privacy: { plain: {} }\n      dp:", "privacy: { secure_aggregation: {} }\n      dp:")
        .replace("updates: 5, batch: 20", "updates: 1, batch: 20");
    let plan = read(&text).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(plan::with_dp(&plan).next().unwrap().2.mode, DpMode::Distributed);
    let wrong = |from: &str, to: &str, place: &str| {
        assert!(text.contains(from), "{from}");
        let problems = read(&text.replace(from, to)).unwrap_err().problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].place, format!("tasks.train.params.{place}"));
    };
    wrong("optimizer: { sgd: { lr: 0.001 } }", "optimizer: { adam: { lr: 0.001 } }", "optimizer");
    wrong("rounds: 15", "rounds: 15\n      schedule: { cosine: { floor: 0.1 } }", "schedule");
}

#[test]
fn cox_mixes_patients() {
    let mut plan = noisy();
    World::train(&mut plan).loss = plan::Loss::Cox;
    let problems = plan::check(&plan).unwrap_err().problems;
    assert!(problems.iter().any(|p| p.reason.starts_with("cox compares the rows of a batch")), "{problems:?}");
}

#[test]
fn a_policy_that_demands_noise_wants_it_for_all_that_leaves() {
    let demands = |delta| {
        let mut policy = Policy::strict();
        (policy.privacy.require_dp, policy.privacy.delta) = (true, delta);
        policy
    };
    let mut plan = noisy();
    let words = demands(1e-5).lacks_dp(&plan).unwrap();
    assert!(words.ends_with("which these tasks do not have: alone, counts, eval"), "{words}");
    plan.tasks.retain(|name, _| !["alone", "counts", "eval"].contains(&name.as_str()));
    assert_eq!(demands(1e-5).lacks_dp(&plan), None);
    let words = demands(1e-7).lacks_dp(&plan).unwrap();
    assert_eq!(words, "the plan's delta is 0.000001, and the policy allows at most 0.0000001");
    assert_eq!(Policy::strict().lacks_dp(&heart()), None);

    // And the permit asks.
    let permit = |plan: &Plan| {
        let mut world = World::new();
        (world.plan, world.run) = (plan.clone(), plan.clone());
        world.document.envelope.egress = plan::egress(plan);
        (world.policy.privacy.require_dp, world.policy.privacy.delta) = (true, 1e-5);
        world.approval().permit(&world.circumstances()).map(|_| ()).map_err(|refusal| refusal.code)
    };
    assert_eq!(permit(&plan), Ok(()));
    assert_eq!(permit(&heart()), Err(RefusalCode::Policy));
}

#[test]
fn layers_that_stay_at_the_site_are_refused_in_every_mode() {
    let kept = text().replace("strategy: { fed_avg: {} }", "strategy: { personal: { layers: ['0'] } }");
    let refused = read(&kept).unwrap_err().to_string();
    assert!(
        refused.contains("starts each round from layers that stay at the site, which no noise covers"),
        "{refused}"
    );
}

#[test]
fn runs_of_a_study_with_noise_take_the_same_number_of_steps() {
    for place in ["tasks.train.params.rounds", "tasks.train.params.local.updates"] {
        assert!(may_vary(&noisy(), place).unwrap_err().contains("the number of steps"), "{place}");
        assert_eq!(may_vary(&heart(), place), Ok(()));
    }
    assert_eq!(may_vary(&noisy(), "tasks.train.params.optimizer.sgd.lr"), Ok(()));
}
