//! Plans that are too large, out of range, hostile or rubbish.

use expect_test::expect;
use hospes_protocol::canon::Canonical;
use hospes_protocol::limits;
use hospes_protocol::plan::{self, Component, DropLevel, Init, Layer, Linear, check, features, read};

use crate::plans::with;
use crate::world::{HEART, heart};

#[test]
fn layers_must_end_in_what_the_loss_needs() {
    let model = |layers: &str, expected| with("[{ linear: { out: 1, init: torch_default } }]", layers, expected);
    model("[{ linear: { out: 8 } }, { relu: {} }, { linear: { out: 1 } }]", expect!["accepted"]);
    model(
        "[{ linear: { out: 8 } }, { relu: {} }, { linear: { out: 3 } }]",
        expect![
            "tasks.train.params.model.2.linear.out: the last layer puts out [batch, 3], but binary_cross_entropy needs [batch, 1]"
        ],
    );
    model(
        "[{ linear: { out: 1 } }, { sigmoid: {} }]",
        expect![
            "tasks.train.params.model.1.sigmoid: binary_cross_entropy applies the sigmoid itself, so a last sigmoid would be the second; leave it out"
        ],
    );
    model(
        "[{ linear: { out: 1 } }, { relu: {} }]",
        expect![
            "tasks.train.params.model.1: binary_cross_entropy needs a last linear layer with [batch, 1]; an activation limits what it can say"
        ],
    );
    model("[]", expect!["tasks.train.params.model: has no layers"]);
    model(
        "[{ linear: { out: 0 } }, { linear: { out: 1 } }]",
        expect!["tasks.train.params.model.0.linear.out: must be at least 1"],
    );
    model(
        "[{ linear: { out: 4294967295 } }, { linear: { out: 4294967295 } }, { linear: { out: 1 } }]",
        expect![[r#"
            tasks.train.params.model: 18446744073709551615 parameters, more than the 4294967296 allowed
            tasks.train.params.model.0.linear: puts out [batch, 4294967295], with which the layers up to here have 4294967295 values for each row, more than the 1073741824 allowed (limit ROW_VALUES)"#]],
    );
}

#[test]
fn few_bits_are_refused_where_they_would_spoil_what_is_trained() {
    const MODEL: &str = "[{ linear: { out: 1, init: torch_default } }]";
    let norm =
        |bits: u8| format!("[{{ batch_norm: {{}} }}, {{ linear: {{ out: 1 }} }}]\n      quantise: {{ bits: {bits} }}");
    with(MODEL, &norm(32), expect!["accepted"]);
    with(
        MODEL,
        &norm(16),
        expect![
            "tasks.train.params.quantise.bits: is 16, with which a running variance of batch_norm could be rounded to below 0; write 32, choose fed_bn, with which batch norm stays at the sites, or use group_norm"
        ],
    );
    let strategy = |strategy: &str, bits: u8| format!("strategy: {{ {strategy} }}\n      quantise: {{ bits: {bits} }}");
    let given = "strategy: { fed_avg: {} }";
    with(given, &strategy("fed_avg: {}", 8), expect!["accepted"]);
    with(given, &strategy("fed_adam: { lr: 0.1 }", 16), expect!["accepted"]);
    with(
        given,
        &strategy("fed_adam: { lr: 0.1 }", 8),
        expect![
            "tasks.train.params.quantise.bits: is 8, and fed_adam takes a mean that such rounding could have made for 0; write 16 or 32, or fed_avg"
        ],
    );
    with(
        given,
        &format!("{}\n      early_stop: {{ patience: 3 }}", strategy("fed_avg: {}", 16)),
        expect![
            "tasks.train.params.quantise.bits: is 16, in which a loss cannot be told finely enough for early_stop; write 32"
        ],
    );
}

#[test]
fn parts_of_updates_go_with_what_is_coded_and_averaged() {
    let given = "strategy: { fed_avg: {} }\n      privacy: { plain: {} }";
    let asked = |strategy: &str, privacy: &str, rest: &str| {
        format!("strategy: {{ {strategy} }}\n      privacy: {{ {privacy} }}\n      {rest}")
    };
    let few = "quantise: { bits: 8 }\n      top_k: 0.05";
    with(given, &asked("fed_prox: { mu: 0.1 }", "plain: {}", few), expect!["accepted"]);
    with(
        given,
        &asked("scaffold: {}", "secure_aggregation: {}", "top_k: 1"),
        expect![[r#"
            tasks.train.params.top_k: is 1; it must be above 0 and below 1
            tasks.train.params.top_k: saves nothing under masks, with which all entries are of one length; leave it out
            tasks.train.params.top_k: needs entries of few bits, which are coded; write quantise.bits of 8 or 16
            tasks.train.params.top_k: goes together with fed_avg and fed_prox, not with scaffold"#]],
    );
}

#[test]
fn numbers_out_of_range_are_named() {
    with(
        "updates: 100, batch: 4",
        "updates: 0, batch: 0",
        expect![[r#"
        tasks.train.params.local.updates: is 0; it must lie between 1 and 1000000
        tasks.train.params.local.batch: is 0; it must lie between 1 and 1048576"#]],
    );
    with(
        "privacy: { plain: {} }",
        "privacy: { plain: {} }\n      quantise: { clip: 0, bits: 12, n_max: 0 }",
        expect![[r#"
        tasks.train.params.quantise.clip: is 0; it must be above 0 and at most 1000000
        tasks.train.params.quantise.bits: is 12; it must be 8, 16 or 32
        tasks.train.params.quantise.n_max: must be at least 1"#]],
    );
    with(
        "sgd: { lr: 0.001 }",
        "sgd: { lr: -1, momentum: 1 }",
        expect![[r#"
        tasks.train.params.optimizer.sgd.momentum: is 1; it must be at least 0 and below 1
        tasks.train.params.optimizer.sgd.lr: is -1; it must be above 0 and at most 1000"#]],
    );
    with(
        "data: scale_test.data } }\n  counts",
        "data: scale_test.data }, params: { threshold: 1.5, calibration_bins: 0 } }\n  counts",
        expect![[r#"
        tasks.eval.params.threshold: is 1.5; it must lie between 0 and 1
        tasks.eval.params.calibration_bins: is 0; it must lie between 1 and 100"#]],
    );
    with(
        "epochs: 50\n      batch: 4",
        "epochs: 0\n      batch: 0",
        expect![[r#"
        tasks.alone.params.epochs: is 0; it must lie between 1 and 100000
        tasks.alone.params.batch: is 0; it must lie between 1 and 1048576"#]],
    );
}

#[test]
fn activations_of_any_size_are_refused_before_anybody_computes_them() {
    let model = |layers: &str, expected| with("[{ linear: { out: 1, init: torch_default } }]", layers, expected);
    // Padding used to be added to the sides whatever it was, and the sides multiplied without a limit.
    model(
        "[{ reshape: { shape: [1, 13, 1] } }, { conv2d: { out: 1, kernel: 1, padding: 4294967295 } }, { global_pool: {} }, { linear: { out: 1 } }]",
        expect![[
            r#"tasks.train.params.model.1.conv2d.padding: is 4294967295; it must be below the kernel's 1, or windows would lie in the padding alone"#
        ]],
    );
    model(
        "[{ reshape: { shape: [1, 13] } }, { conv1d: { out: 1, kernel: 4294967290, padding: 4294967289 } }, { global_pool: {} }, { linear: { out: 1 } }]",
        expect![[
            r#"tasks.train.params.model.1.conv1d: puts out [batch, 1, 4294967302], with which the layers up to here have 4294967315 values for each row, more than the 1073741824 allowed (limit ROW_VALUES)"#
        ]],
    );
    // No layer by itself, but all together.
    let wide = "{ embedding: { codes: 2, out: 40000000 } }, { relu: {} }, { tanh: {} }, { global_pool: {} }";
    model(
        &format!("[{wide}, {{ linear: {{ out: 1 }} }}]"),
        expect![[
            r#"tasks.train.params.model.2.tanh: puts out [batch, 40000000, 13], with which the layers up to here have 1560000000 values for each row, more than the 1073741824 allowed (limit ROW_VALUES)"#
        ]],
    );
    model(
        "[{ reshape: { shape: [1, 13] } }, { conv1d: { out: 4, kernel: 3, padding: 2 } }, { global_pool: {} }, { linear: { out: 1 } }]",
        expect!["accepted"],
    );
}

#[test]
fn a_schedule_leaves_a_rate_in_every_round() {
    let schedule = |written: &str, rounds: u32, expected| {
        let to = format!("sgd: {{ lr: 0.001 }} }}\n      schedule: {written}\n      rounds: {rounds}");
        assert_eq!(HEART.matches("sgd: { lr: 0.001 } }\n      rounds: 15").count(), 1);
        with("sgd: { lr: 0.001 } }\n      rounds: 15", &to, expected);
    };
    schedule("{ step: { every: 10, factor: 0.1 } }", 400, expect!["accepted"]);
    schedule(
        "{ step: { every: 1, factor: 0.1 } }",
        400,
        expect![[
            r#"tasks.train.params.schedule.step.factor: takes the learning rate from 0.001 to 0e0 in round 400, which is 0 in the 32-bit numbers of training, so that nothing more would be learned; write a larger factor or 'every', or fewer rounds"#
        ]],
    );
    schedule("{ step: { every: 1, factor: 0.1 } }", 40, expect!["accepted"]);
    schedule("{ cosine: { floor: 0 } }", 100_000, expect!["accepted"]);
    schedule(
        "{ cosine: { floor: -0.1 } }",
        15,
        expect!["tasks.train.params.schedule.cosine.floor: is -0.1; it must be at least 0 and below 1"],
    );
}

/// What a site learns alone can be trained as the federation trains. A plan without that is the same bytes as ever.
#[test]
fn a_baseline_has_a_schedule_over_its_epochs() {
    let with = |written: &str| {
        let epochs = format!("schedule: {written}\n      epochs: 50");
        read(&HEART.replace("epochs: 50", &epochs)).map_err(|error| error.to_string())
    };
    let written = |plan: &plan::Plan| {
        let canonical = Canonical::new(plan.clone()).unwrap();
        assert_eq!(Canonical::<plan::Plan>::parse(canonical.bytes()).unwrap(), canonical);
        serde_json::to_value(plan).unwrap()["tasks"]["alone"]["params"].get("schedule").cloned()
    };
    assert_eq!(written(&heart()), None);
    assert_eq!(Canonical::new(with("constant").unwrap()), Canonical::new(heart()));
    let cosine = with("{ cosine: { floor: 0 } }").unwrap();
    assert_eq!(written(&cosine), Some(serde_json::json!({ "cosine": { "floor": 0.0 } })));
    let refused = |written: &str| with(written).unwrap_err();
    expect!["tasks.alone.params.schedule.cosine.floor: is 1; it must be at least 0 and below 1"]
        .assert_eq(&refused("{ cosine: { floor: 1 } }"));
    expect![[
        r#"tasks.alone.params.schedule.step.factor: takes the learning rate from 0.001 to 0e0 in epoch 50, which is 0 in the 32-bit numbers of training, so that nothing more would be learned; write a larger factor or 'every', or fewer epochs"#
    ]]
    .assert_eq(&refused("{ step: { every: 1, factor: 1.0e-8 } }"));
}

#[test]
fn typed_plans_with_nan_or_infinity_are_refused_too() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut plan = heart();
        if let Component::NnTrain(train) = &mut plan.tasks.get_mut("train").unwrap().component {
            train.optimizer = hospes_protocol::plan::Optimizer::Adam { lr: bad };
            train.quantise.clip = bad;
        }
        let places: Vec<String> = check(&plan).unwrap_err().problems.into_iter().map(|p| p.place).collect();
        assert_eq!(places, ["tasks.train.params.optimizer.adam.lr", "tasks.train.params.quantise.clip"]);
        assert!(Canonical::new(plan).is_err());
    }
}

#[test]
fn hostile_text_is_refused_and_shown_escaped() {
    with(
        "name: heart-disease-risk",
        "name: \"heart\\u202Eksir\"",
        expect!["name: holds the character U+202E, which cannot be seen or changes what is seen"],
    );
    with(
        "columns: [age, sex,",
        "columns: [\"a\\e[31mge\", sex,",
        expect![[r#"
        data.columns.0: the column's name holds the character U+001B, which cannot be seen or changes what is seen
        data.variables.age: the plan reads no column 'age'"#]],
    );
    let error = read("schema: hospes/plan/v1\n\"a\\e[2Jb\": 1\n").unwrap_err().to_string();
    assert!(!error.contains('\u{1b}') && error.contains("\\u{1b}"), "{error}");
}

#[test]
fn duplicate_keys_are_refused_in_yaml_and_json() {
    for text in ["schema: a\nname: b\nname: c\n", "{\"schema\": \"a\", \"name\": \"b\", \"name\": \"c\"}"] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.to_lowercase().contains("twice") || error.to_lowercase().contains("duplicate"), "{error}");
        assert!(error.contains("line") && error.contains('3') || error.contains("line 1"), "{error}");
    }
}

#[test]
fn bombs_and_rubbish_are_refused_without_harm() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let items = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{items}]\n"));
    }
    let deep_yaml = format!("a: {}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let deep_json = format!("{{\"a\": {}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let merge = "base: &b { x: 1 }\nother: { <<: *b }\n";
    let large = format!("name: {}\n", "x".repeat(limits::PLAN_FILE_BYTES));
    let many = format!("{}\n---\n{}", HEART, HEART);
    for text in [
        bomb.as_str(),
        &deep_yaml,
        &deep_json,
        merge,
        &large,
        &many,
        "",
        "\u{0}",
        "[]",
        "{",
        "{}",
        "- a\n- b",
        "&a *a",
        "!!binary x",
        "a: !include /etc/passwd",
    ] {
        let error = read(text).unwrap_err();
        assert!(!error.problems.is_empty(), "{text:.60}");
        assert!(error.to_string().len() < 4_000);
    }
}

#[test]
fn too_many_of_anything_is_refused() {
    let mut plan = heart();
    plan.data.columns = (0..=limits::PLAN_COLUMNS).map(|i| format!("c{i}")).collect();
    plan.data.variables.clear();
    assert!(check(&plan).unwrap_err().to_string().contains("10001 columns, more than the 10000 allowed"));
    let mut plan = heart();
    for i in 0..limits::PLAN_TASKS {
        plan.tasks.insert(format!("t{i}"), plan.tasks["counts"].clone());
    }
    assert!(check(&plan).unwrap_err().to_string().contains("more than the 256 allowed"));
    let mut plan = heart();
    if let Component::NnTrain(train) = &mut plan.tasks.get_mut("train").unwrap().component {
        train.model =
            vec![Layer::Linear(Linear { out: 1, bias: true, init: Init::Zeros }); limits::MODEL_LAYERS + 1].into();
    }
    assert!(check(&plan).unwrap_err().to_string().contains("2001 layers, more than the 2000 allowed"));
    let mut plan = heart();
    plan.data.label.positive = None;
    plan.data.label.classes = (0..=limits::CLASSES).map(|i| format!("c{i}")).collect();
    assert!(check(&plan).unwrap_err().to_string().contains("201 classes, more than the 200 allowed"));
    let mut plan = heart();
    if let Component::OneHot(one_hot) = &mut plan.tasks.get_mut("hot").unwrap().component {
        one_hot.drop = DropLevel::None;
    }
    assert_eq!(features(&plan, "train").len(), 15);
}

/// Plans as large as they may be, made to be slow: what is looked for must not grow with the square of anything long.
#[test]
fn the_largest_plans_are_checked_before_anybody_gets_tired() {
    let mut plan = heart();
    let names: Vec<String> = (0..limits::PLAN_COLUMNS).map(|i| format!("c{i}")).collect();
    plan.data.columns.clone_from(&names);
    plan.data.variables.clear();
    let wide = plan::Variable::Category { codes: (0..9_000).map(|i| format!("v{i}")).collect() };
    plan.data.variables.insert("c0".into(), wide);
    let hot = |columns: Vec<String>| {
        let component = Component::OneHot(plan::OneHot { columns, drop: DropLevel::None });
        plan::Task { component, inputs: [("data".to_owned(), "read".to_owned())].into() }
    };
    for i in 0..100 {
        plan.tasks.insert(format!("wide{i}"), hot(vec!["c0".into()]));
    }
    plan.tasks.insert("unknown".into(), hot(names.iter().map(|n| format!("{n}x")).collect()));
    plan.tasks.insert("same".into(), hot(vec!["c0".into(); 50_000]));
    plan.parties.members = names.iter().map(|n| format!("site:{n}")).collect();
    let problems = check(&plan).unwrap_err().problems;
    assert_eq!(problems.len(), 100, "more than a hundred mistakes are not listed");
    let training = plan.tasks["train"].clone();
    for i in 0..100 {
        plan.tasks.insert(format!("train{i}"), training.clone());
    }
    assert_eq!(features(&plan, "train").len(), limits::PLAN_COLUMNS);
    assert!(plan::egress(&plan).len() > 300);
}
