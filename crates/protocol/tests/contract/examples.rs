//! The examples that ship with the product are valid.

use std::path::Path;

use hospes_protocol::plan::{self, Component, Privacy};
use hospes_protocol::policy::Policy;
use hospes_protocol::study::{StudyFile, Terms};

fn example(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_heart_study_is_valid_and_has_thirteen_features() {
    let study: serde_json::Value = serde_saphyr::from_str(&example("heart/study.yaml")).unwrap();
    let terms: Terms = serde_json::from_value(study["terms"].clone()).unwrap();
    assert_eq!(terms.requester.organisation, "Heart Federation");
    let plan = plan::read(&study["plan"].to_string()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(plan::features(&plan, "train").len(), 13);
}

#[test]
fn the_heart_study_travels_masked_and_has_a_twin_that_does_not() {
    let read = |path: &str| StudyFile::read(&example(path)).unwrap();
    let (masked, mut plain) = (read("heart/study.yaml"), read("heart/plain.yaml"));
    let Component::NnTrain(train) = &mut plain.plan.tasks.get_mut("train").unwrap().component else { panic!() };
    assert_eq!(train.privacy, Privacy::Plain {});
    train.privacy = Privacy::SecureAggregation {};
    assert!(plain.terms == masked.terms && plain.plan == masked.plan, "they differ in more than the masks");
}

#[test]
fn the_study_with_embeddings_is_valid_and_has_a_vector_for_each_code() {
    let study: serde_json::Value = serde_saphyr::from_str(&example("heart/embedding.yaml")).unwrap();
    let plan = plan::read(&study["plan"].to_string()).unwrap_or_else(|e| panic!("{e}"));
    let categories = plan::features(&plan, "train").into_iter().filter_map(|f| Some((f.name, f.codes?)));
    assert_eq!(categories.collect::<Vec<_>>(), [("cp".into(), 4), ("restecg".into(), 3)]);
    let plan::Component::NnTrain(train) = &plan.tasks["train"].component else { panic!() };
    let tensors = plan::tensors(train, plan::inputs(&plan, "train"));
    assert_eq!((tensors[0].name.as_str(), &tensors[0].shape[..]), ("cp_vector.weight", &[4, 2][..]));
    // The eight other columns, and two numbers for each of the two categories.
    assert_eq!((tensors[2].name.as_str(), &tensors[2].shape[..]), ("hidden.weight", &[12, 8][..]));
}

#[test]
fn the_study_with_noise_is_the_same_question() {
    let read = |path: &str| StudyFile::read(&example(path)).unwrap().plan;
    let (noisy, plain) = (read("heart/dp.yaml"), read("heart/study.yaml"));
    assert_eq!(plan::features(&noisy, "train"), plan::features(&plain, "train"));
    let (task, train, dp) = plan::with_dp(&noisy).next().unwrap();
    assert_eq!((task, train.steps(), dp.weight()), ("train", 100, 125));
    assert_eq!(plan::without_dp(&noisy), ["eval"]);
}

#[test]
fn the_regressions_are_valid_and_have_their_coefficients() {
    let names = |path: &str, task: &str| {
        let study: serde_json::Value = serde_saphyr::from_str(&example(path)).unwrap();
        let plan = plan::read(&study["plan"].to_string()).unwrap_or_else(|e| panic!("{e}"));
        plan::Coefficients::of(&plan, task).unwrap().names
    };
    let odds = names("heart/regression.yaml", "odds");
    assert_eq!((odds.len(), odds[0].as_str(), odds[9].as_str()), (10, plan::INTERCEPT, "cp_4"));
    assert_eq!(names("survival/study.yaml", "hazards"), ["fin", "age", "wexp", "mar", "paro", "prio"]);
}

#[test]
fn the_policy_files_are_the_profiles() {
    for (file, profile) in
        [("strict", Policy::strict()), ("datashield", Policy::datashield()), ("public-data", Policy::public_data())]
    {
        let policy = Policy::from_toml(&example(&format!("policies/{file}.toml"))).unwrap();
        assert_eq!(policy, profile, "{file}");
    }
}
