//! What leaves: the list that people sign, and what the coordinator accepts.

use expect_test::expect;
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::{self, Component, Figure, ROW_WEIGHT_BYTES, check_figures, egress, figure, figures};

use crate::world::{HEART, heart};

#[test]
fn every_tensor_and_figure_is_listed_with_its_bytes() {
    let lines: Vec<String> = egress(&heart())
        .iter()
        .map(|e| format!("{} {:?} {} {:?} {} B × {} to {}", e.task, e.kind, e.name, e.shape, e.bytes, e.times, e.to))
        .collect();
    expect![[r#"
        counts N n [1] 9 B × 1 to coordinator
        counts Metrics present [13] 117 B × 1 to coordinator
        counts Metrics sum [13] 117 B × 1 to coordinator
        counts Metrics sum_of_squares [13] 117 B × 1 to coordinator
        alone N n [1] 9 B × 1 to coordinator
        alone Metrics correct [1] 9 B × 1 to coordinator
        alone Loss loss_sum [1] 9 B × 1 to coordinator
        alone Metrics brier_sum [1] 9 B × 1 to coordinator
        alone Metrics confusion [4] 36 B × 1 to coordinator
        alone Metrics scores_positive [256] 2304 B × 1 to coordinator
        alone Metrics scores_negative [256] 2304 B × 1 to coordinator
        train Update n [1] 8 B × 15 to coordinator
        train Update 0.weight [13, 1] 52 B × 15 to coordinator
        train Update 0.bias [1] 4 B × 15 to coordinator
        eval N n [1] 9 B × 1 to coordinator
        eval Metrics correct [1] 9 B × 1 to coordinator
        eval Loss loss_sum [1] 9 B × 1 to coordinator
        eval Metrics brier_sum [1] 9 B × 1 to coordinator
        eval Metrics confusion [4] 36 B × 1 to coordinator
        eval Metrics scores_positive [256] 2304 B × 1 to coordinator
        eval Metrics scores_negative [256] 2304 B × 1 to coordinator
        eval Metrics calibration_rows [10] 90 B × 1 to coordinator
        eval Metrics calibration_scores [10] 90 B × 1 to coordinator
        eval Metrics calibration_positives [10] 90 B × 1 to coordinator
        eval Metrics recalibration_information [3] 27 B × 1 to coordinator
        eval Metrics recalibration_weighted [2] 18 B × 1 to coordinator"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn bytes_of_an_update_are_those_of_the_payload() {
    let plan = heart();
    let Component::NnTrain(train) = &plan.tasks["train"].component else { panic!() };
    let entries: u64 = plan::tensors(train, 13).iter().map(plan::model::TensorShape::len).sum();
    let listed: u64 = egress(&plan).iter().filter(|e| e.task == "train").map(|e| e.bytes).sum();
    assert_eq!(listed, ROW_WEIGHT_BYTES + 4 * entries);
}

#[test]
fn of_few_bits_the_most_that_a_payload_can_have_is_listed() {
    let mut plan = heart();
    let Some(Component::NnTrain(train)) = plan.tasks.get_mut("train").map(|task| &mut task.component) else { panic!() };
    train.quantise.bits = 8;
    let listed = |plan: &plan::Plan| egress(plan).iter().filter(|e| e.task == "train").map(|e| e.bytes).sum::<u64>();
    // 14 entries in one chunk, and its head.
    assert_eq!(listed(&plan), ROW_WEIGHT_BYTES + 4 + 14);
    let Some(Component::NnTrain(train)) = plan.tasks.get_mut("train").map(|task| &mut task.component) else { panic!() };
    train.privacy = plan::Privacy::SecureAggregation {};
    // Sums of up to 128 sites have seven bits more: 13·15 and 15.
    assert_eq!(listed(&plan), ROW_WEIGHT_BYTES + 25 + 2);
}

/// The heart plan with its evaluation by a column.
fn by(column: &str) -> Result<plan::Plan, plan::PlanError> {
    let eval = "eval: { component: evaluation, inputs: { model: train.model, data: scale_test.data }";
    assert_eq!(HEART.matches(eval).count(), 1);
    plan::read(&HEART.replace(eval, &format!("{eval}, params: {{ subgroup: {column} }}")))
}

#[test]
fn a_subgroup_is_a_category_of_the_plan_and_every_figure_is_announced_for_each_code() {
    let plan = by("cp").unwrap();
    let (whole, all) = (plan::figures_of_whole(&plan, "eval"), figures(&plan, "eval"));
    assert_eq!((whole.len(), all.len()), (12, 12 * 5));
    assert_eq!((&*all[12].name, &*all[16 + 12 * 3].name, all[16 + 12 * 3].values), ("n[cp=1]", "confusion[cp=4]", 4));
    assert_eq!(check_figures(&all, &full(&all)), Ok(()));
    // One line of the review for all codes, with their bytes.
    let listed = egress(&plan).into_iter().filter(|e| e.task == "eval").collect::<Vec<_>>();
    let line = listed.iter().find(|e| e.name == "confusion by cp").unwrap();
    assert_eq!((listed.len(), &line.shape, line.bytes), (24, &vec![4, 4], 144));
    assert!(plan::subgroups(&plan, "train").is_none() && plan::subgroups(&heart(), "eval").is_none());
    let said = |column: &str| by(column).unwrap_err().to_string();
    expect!["tasks.eval.params.subgroup: 'ward' has no codes; add data.variables.ward.category.codes"]
        .assert_eq(&said("ward"));
    expect!["tasks.eval.params.subgroup: 'age' has no codes; add data.variables.age.category.codes"]
        .assert_eq(&said("age"));
    expect![[r#"
        tasks.eval.params.subgroup: 'subject_id' is the subject
        tasks.eval.params.subgroup: 'subject_id' has no codes; add data.variables.subject_id.category.codes"#]]
    .assert_eq(&said("subject_id"));
    expect![[r#"
        tasks.eval.params.subgroup: 'num' is the label
        tasks.eval.params.subgroup: 'num' has no codes; add data.variables.num.category.codes"#]]
    .assert_eq(&said("num"));
}

#[test]
fn a_subgroup_of_many_codes_or_with_a_report_too_long_is_refused() {
    let with = |variable: &str, label: &str| {
        let plan = format!(
            r#"
schema: hospes/plan/v1
name: wards
data:
  subject: id
  label: {label}
  columns: [x]
  variables: {{ ward: {{ category: {{ codes: [{variable}] }} }} }}
tasks:
  read: {{ component: reader }}
  train:
    component: nn_train
    inputs: {{ train: read }}
    params:
      model: [{{ linear: {{ out: 30 }} }}]
      loss: cross_entropy
      optimizer: {{ sgd: {{ lr: 0.1 }} }}
      rounds: 1
      local: {{ updates: 1, batch: 1 }}
      strategy: {{ fed_avg: {{}} }}
      privacy: {{ plain: {{}} }}
  eval: {{ component: evaluation, inputs: {{ model: train.model, data: read }}, params: {{ subgroup: ward }} }}
"#
        );
        plan::read(&plan).map_or_else(|e| e.to_string(), |_| "accepted".into())
    };
    let codes = |n: u32| (1..=n).map(|i| format!("w{i}")).collect::<Vec<_>>().join(", ");
    let label = format!("{{ column: y, classes: [{}] }}", codes(30));
    assert_eq!(with(&codes(4), &label), "accepted");
    expect!["tasks.eval.params.subgroup: 'ward' has 41 codes, more than the 40 allowed"]
        .assert_eq(with(&codes(41), &label).lines().next().unwrap());
    expect!["tasks.eval.params: a report with 8 subgroups can have 1319364 bytes, more than the 1048576 allowed"]
        .assert_eq(&with(&codes(8), &label));
}

#[test]
fn masked_entries_are_as_wide_as_their_sum_can_be_and_a_loss_among_them_is_not_told() {
    let of = |privacy: plan::Privacy| {
        let mut plan = heart();
        let Component::NnTrain(train) = &mut plan.tasks.get_mut("train").unwrap().component else { panic!() };
        train.privacy = privacy;
        train.early_stop = Some(plan::EarlyStop { patience: 3, min_delta: 0.0, ceiling: 10.0 });
        let all = egress(&plan).into_iter().filter(|item| item.task == "train");
        all.map(|item| (item.kind, item.name, item.bytes)).collect::<Vec<_>>()
    };
    use hospes_protocol::policy::EgressKind::{Loss, Update};
    let line = |kind, name: &str, bytes| (kind, name.to_owned(), bytes);
    assert_eq!(
        of(plan::Privacy::Plain {}),
        [
            line(Update, "n", ROW_WEIGHT_BYTES),
            line(Update, "0.weight", 52),
            line(Update, "0.bias", 4),
            line(Loss, "validation.loss", 8),
        ]
    );
    // 39 bits hold the sum of 128 sites' 32.
    assert_eq!(
        of(plan::Privacy::SecureAggregation {}),
        [
            line(Update, "n", ROW_WEIGHT_BYTES),
            line(Update, "0.weight", 64),
            line(Update, "0.bias", 5),
            line(Update, "validation.loss", 10),
        ]
    );
}

#[test]
fn masked_figures_are_listed_as_parts_of_a_sum_and_plans_without_masks_are_written_as_before() {
    use hospes_protocol::policy::EgressKind;
    let mut plan = heart();
    assert!(!serde_json::to_string(&plan.tasks["eval"]).unwrap().contains("privacy"));
    let Component::Evaluation(evaluation) = &mut plan.tasks.get_mut("eval").unwrap().component else { panic!() };
    evaluation.privacy = plan::Privacy::SecureAggregation {};
    let items: Vec<plan::Egress> = egress(&plan).into_iter().filter(|item| item.task == "eval").collect();
    let is_part = |item: &plan::Egress| {
        item.kind == EgressKind::Update && item.to == "coordinator, as a sum over all sites" && item.times == 1
    };
    assert!(items.iter().all(is_part), "{items:?}");
    let bytes = |name: &str| items.iter().find(|item| item.name == name).unwrap().bytes;
    // A count takes 39 bits, any other sum six times as many; of each of the twelve figures it is said whether it is shown.
    assert_eq!(["n", "confusion", "loss_sum", "shown"].map(bytes), [5, 20, 30, 59]);
    let (tensors, _) = plan::masks::layout(&plan, "eval", 1);
    assert_eq!((tensors.len(), tensors[0].shape.as_slice(), tensors[3].shape.as_slice()), (13, &[12][..], &[1, 6][..]));
    assert!(plan::masks::layout(&heart(), "eval", 1).0.is_empty());
}

#[test]
fn every_figure_that_there_is_can_be_added_under_masks() {
    let label = |change: &dyn Fn(&mut plan::Label)| {
        let mut plan = heart();
        change(&mut plan.data.label);
        plan
    };
    let plans = [
        heart(),
        label(&|label| label.positive = None),
        label(&|label| (label.positive, label.classes) = (None, ["0", "1", "2"].map(str::to_owned).into())),
        label(&|label| label.time = Some("days".into())),
    ];
    let (privacy, confidence) = (plan::Privacy::SecureAggregation {}, 0.95);
    let (intercept, offset, weights, family) = (true, None, None, plan::Family::Binomial);
    let newton = plan::Newton::default;
    let glm = plan::Glm { family, intercept, offset, weights, newton: newton(), confidence, privacy: privacy.clone() };
    let time_grid = Some(plan::TimeGrid { width: 1.0, intervals: 3 });
    let cox = plan::Cox { ties: plan::Ties::Efron, time_grid, newton: newton(), confidence, privacy };
    let mut names = std::collections::BTreeSet::new();
    for plan in plans {
        for component in [Component::Glm(glm.clone()), Component::Cox(cox.clone())] {
            let mut plan = plan.clone();
            plan.tasks.get_mut("train").unwrap().component = component;
            for task in ["counts", "eval", "alone", "train"] {
                names.extend(figures(&plan, task).into_iter().map(|figure| figure.name.into_owned()));
            }
        }
    }
    assert!(names.len() > 25, "{names:?}");
    let unknown: Vec<_> = names.iter().filter(|name| plan::masks::Form::of(name).is_none()).collect();
    assert_eq!(unknown, [] as [&String; 0]);
}

fn full(announced: &[Figure]) -> FigureSet {
    let values = |n: u64| vec![1.0; usize::try_from(n).unwrap()];
    FigureSet {
        sums: announced.iter().map(|f| (f.name.to_string(), values(f.values))).collect(),
        withheld: Default::default(),
    }
}

#[test]
fn a_report_holds_what_was_announced_and_nothing_else() {
    let announced = figures(&heart(), "eval");
    assert_eq!(check_figures(&announced, &full(&announced)), Ok(()));
    let said = |change: &dyn Fn(&mut FigureSet)| {
        let mut set = full(&announced);
        change(&mut set);
        check_figures(&announced, &set).unwrap_err()
    };
    assert_eq!(
        said(&|s| {
            s.sums.insert("ages".into(), vec![63.0]);
        }),
        "'ages' was not announced"
    );
    assert_eq!(
        said(&|s| {
            s.withheld.insert("ages".into(), "few".into());
        }),
        "'ages' was not announced"
    );
    assert_eq!(
        said(&|s| {
            s.sums.remove(figure::N);
        }),
        "'n' is missing"
    );
    assert_eq!(
        said(&|s| s.sums.get_mut(figure::CONFUSION).unwrap().push(1.0)),
        "'confusion' has 5 values instead of 4"
    );
    assert_eq!(said(&|s| s.sums.get_mut(figure::N).unwrap()[0] = f64::NAN), "'n' holds NaN or infinity");
    assert_eq!(
        said(&|s| {
            s.withheld.insert(figure::N.into(), "few".into());
        }),
        "'n' is there and withheld at once"
    );
    assert!(
        said(&|s| {
            s.sums.remove(figure::N);
            s.withheld.insert(figure::N.into(), "few\u{1b}[2J".into());
        })
        .contains("U+001B")
    );
    let mut withheld = full(&announced);
    withheld.sums.remove(figure::CONFUSION);
    withheld.withheld.insert(figure::CONFUSION.into(), "one class only".into());
    assert_eq!(check_figures(&announced, &withheld), Ok(()));
}

#[test]
fn tasks_without_figures_accept_none() {
    for task in ["read", "train", "absent"] {
        assert!(figures(&heart(), task).is_empty());
    }
    let mut set = FigureSet { sums: Default::default(), withheld: Default::default() };
    assert_eq!(check_figures(&[], &set), Ok(()));
    set.sums.insert("x".into(), vec![]);
    assert!(check_figures(&[], &set).is_err());
}
