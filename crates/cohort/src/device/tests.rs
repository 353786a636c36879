use hospes_protocol::study::StudyFile;

use super::*;

fn example(name: &str) -> Plan {
    let path = format!("{}/../../examples/{name}/study.yaml", env!("CARGO_MANIFEST_DIR"));
    StudyFile::read(&std::fs::read_to_string(path).unwrap()).unwrap().plan
}

#[test]
fn a_card_is_written_and_read_by_the_same_name() {
    for card in [Card::Discrete(0), Card::Integrated(12), Card::Virtual(1), Card::Software] {
        assert_eq!(card.to_string().parse::<Card>(), Ok(card));
    }
    for bad in ["", "discrete", "discrete:", "discrete:-1", "discrete:70000", "software:0", "cuda:0"] {
        assert!(bad.parse::<Card>().is_err(), "{bad}");
    }
}

#[test]
fn the_work_of_a_step_counts_weights_as_often_as_they_are_applied() {
    let heart = example("heart");
    let Some(Component::NnTrain(train)) = heart.tasks.get("train").map(|t| &t.component) else { panic!() };
    let features = plan::inputs(&heart, "train").features;
    // One affine map: a weight for each feature and a bias.
    assert_eq!(work(&heart, "train"), (features + 1) * 3 * u64::from(train.local.batch));
    assert_eq!(work(&heart, "no such task"), 0);
    let images = example("breastmnist");
    let (name, _) = images.tasks.iter().find(|(_, t)| matches!(t.component, Component::NnTrain(_))).unwrap();
    assert!(work(&images, name) > 1_000 * work(&heart, "train"), "{}", work(&images, name));
    // A norm over the batch sees it as a whole; an affine map does not.
    assert!(divides(&heart, "train") && !divides(&images, name));
}

/// What a plan may hold is checked elsewhere; what is asked about a plan here has to hold whatever it holds.
#[test]
fn the_work_of_shapes_without_bounds_is_the_largest_number_and_no_panic() {
    let mut heart = example("heart");
    let features = u32::try_from(plan::inputs(&heart, "train").features).unwrap();
    let Some(Component::NnTrain(train)) = heart.tasks.get_mut("train").map(|t| &mut t.component) else { panic!() };
    let conv = Conv { out: 1, kernel: u32::MAX, stride: 1, padding: u32::MAX - 1, bias: true };
    let reshape = Layer::Reshape(plan::Reshape { shape: vec![1, features, 1] });
    train.model = Model::from(vec![reshape, Layer::Conv2d(conv)]);
    assert_eq!(work(&heart, "train"), u64::MAX);
}

/// JSON has no infinity: a card that computed NaN used to be taken for one whose driver had ended the process.
#[test]
fn a_card_that_computes_no_numbers_says_so_in_one() {
    let right = [1.0f32, -2.0, 0.5];
    assert_eq!(deviation(&right, &right), 0.0);
    assert_eq!(deviation(&[1.0, -2.5, 0.5], &right), 0.25);
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for place in 0..3 {
            let mut mine = right;
            mine[place] = wrong;
            assert_eq!(deviation(&mine, &right), NO_NUMBER, "{wrong} at {place}");
        }
    }
    assert_eq!(deviation(&[f32::MAX], &[0.0]), NO_NUMBER);
    let name = "a broken one".to_owned();
    let tried = Tried { card: Card::Discrete(0), name, deviation: deviation(&[f32::NAN], &[1.0]), speed: 3.0 };
    let said = serde_json::to_string(&Ok::<_, String>(&tried)).unwrap();
    let heard: Result<Tried, String> = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{said}: {e}"));
    assert_eq!(heard, Ok(tried));
}

/// The tests' machine has Mesa's software Vulkan; its absence is a mistake of the machine and must show. Metal has none.
#[cfg(not(target_os = "macos"))]
#[test]
fn a_software_card_is_found_and_computes_what_the_processor_does() {
    let cards = list();
    let found = cards.iter().find(|l| l.card == Card::Software);
    let found = found.unwrap_or_else(|| panic!("no software Vulkan among {cards:?}: install mesa-vulkan-drivers"));
    let tried = try_out(Card::Software).unwrap();
    assert_eq!(tried.name, found.name);
    assert!(tried.deviation <= TOLERANCE, "{tried:?}");
    assert!(tried.speed > 0.0 && tried.speed.is_finite(), "{tried:?}");
}

#[test]
fn a_card_that_is_not_there_is_an_error_that_names_it() {
    let said = try_out(Card::Discrete(900)).unwrap_err().to_string();
    assert!(said.contains("discrete:900"), "{said}");
}
