//! A released model: fetched with its card, shown, and written to files; and everything that stands in the way of that.

use serde_json::{Value, json};

use super::faults::{fill_database, limit_database};
use super::watching::database;
use super::*;
use crate::error::PartyError;
use crate::view::{CopyState, ModelCopy};

/// A run with one round that ended with the model of [`model`], whose results wait for this site's people.
async fn ended() -> (World, Study) {
    ended_in(World::new().await).await
}

async fn ended_in(mut world: World) -> (World, Study) {
    let (study, round) = world.first_round(small_plan(1)).await;
    world.close_round(&round).await;
    let made = Some(model(&study.plan).1);
    world.send(ToSite::JobEnded { job: job(1), state: "success".into(), reason: None, model: made }).await;
    world.settle().await;
    (world, study)
}

async fn released() -> (World, Study) {
    released_in(World::new().await).await
}

/// The same at this site, whose people have released the results.
pub(super) async fn released_in(world: World) -> (World, Study) {
    let (mut world, study) = ended_in(world).await;
    world.handle.release(world.who("ava"), job(1)).await.unwrap();
    world.expect("the release", |c| matches!(c, LinkCommand::Send(FromSite::Release { .. })).then_some(())).await;
    (world, study)
}

/// The card as a coordinator makes it.
fn card(study: &Study) -> Value {
    let site = |n: u8| key(n).public().site_id();
    json!({
        "model": model(&study.plan).1,
        "title": "another title than the study's",
        "parties": [{ "site": site(1), "name": "Site 1", "organisation": "Hospital 1", "rounds": 1 }],
        "privacy": "Updates travelled as they are.",
        "strategy": "fed_avg",
        "metrics": [
            { "task": "eval", "site": site(1), "n": 30.0, "auc": 0.75, "withheld": {} },
            { "task": "eval", "site": site(2), "n": 40.0, "auc": 0.99, "withheld": {} },
            { "task": "eval", "site": null, "n": 120.0, "auc": 0.8, "loss": null, "withheld": {} },
        ],
        "lineage": {
            "study": study.id, "study_digest": Canonical::new(study.clone()).unwrap().digest(),
            "plan": study.plan.digest(), "job": job(1), "task": "train",
            "rounds": [Digest::of(b"round")], "at": START,
        },
    })
}

impl World {
    async fn model_copy(&self) -> ModelCopy {
        self.handle.model_copy(self.who("sam"), job(1)).await.unwrap()
    }

    async fn ask_for_the_model(&mut self) {
        self.handle.fetch_model(self.who("sam"), job(1)).await.unwrap();
        self.expect("a card", |c| matches!(c, LinkCommand::Card { job: j, .. } if *j == job(1)).then_some(())).await;
    }

    async fn give_card(&self, study: &Study, card: &Value) {
        let card = serde_json::to_vec(card).unwrap();
        self.event(LinkEvent::Card { job: job(1), model: Some(model(&study.plan).1), card }).await;
        self.settle().await;
    }

    /// Fetches the model as far as it goes.
    pub(super) async fn fetch(&mut self, study: &Study) {
        // What training started from is the same file here, and lies here already; a link verifies it and says so.
        self.ask_for_the_model().await;
        self.give_card(study, &card(study)).await;
        self.serve_model(study).await;
        self.settle().await;
    }

    async fn export(&self, folder: &Path) -> Result<crate::view::ModelExport, PartyError> {
        let (path, card) = (folder.join("heart.safetensors"), folder.join("heart.card.json"));
        self.handle.export_model(self.who("sam"), job(1), path, card).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_model_is_fetched_with_its_card_and_exported_byte_for_byte() {
    let (mut world, study) = released().await;
    assert_eq!(world.model_copy().await.state, CopyState::None);
    let place = tempfile::tempdir().unwrap();
    let early = world.export(place.path()).await;
    assert!(matches!(&early, Err(PartyError::State(words)) if words.contains("fetch it first")), "{early:?}");
    world.ask_for_the_model().await;
    assert_eq!(world.model_copy().await.state, CopyState::Asked);
    world.give_card(&study, &card(&study)).await;
    let (bytes, digest) = model(&study.plan);
    world.event(LinkEvent::Moved { digest, done: 10, total: 500 }).await;
    world.settle().await;
    let copy = world.model_copy().await;
    assert_eq!((copy.state, copy.moved), (CopyState::Coming, Some((10, 500))));
    world.serve_model(&study).await;
    world.settle().await;

    let copy = world.model_copy().await;
    assert_eq!(copy.state, CopyState::Here, "{copy:?}");
    let shown = copy.card.unwrap();
    assert_eq!((shown.title.as_str(), shown.model), ("Heart disease risk", Some(digest)), "what was approved is shown");
    assert_eq!((shown.parties.len(), shown.rounds, shown.task.as_str()), (1, 1, "train"));
    let figures: Vec<(bool, f64)> = shown.figures.iter().map(|f| (f.here, f.figures[1].value)).collect();
    assert_eq!(figures, [(true, 0.75), (false, 0.8)], "another site's figures are shown");

    let export = world.export(place.path()).await.unwrap();
    assert!(std::fs::read(place.path().join("heart.safetensors")).unwrap() == bytes);
    let written = std::fs::read(place.path().join("heart.card.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), card(&study));
    let expected = crate::view::ModelExport {
        model: digest,
        bytes: bytes.len() as u64,
        digest: Digest::of(&bytes),
        card: Digest::of(&written),
    };
    assert_eq!(export, expected);
    assert_eq!(world.entered("model_exported", "success").await, 1);
    let again = world.export(place.path()).await;
    assert!(matches!(again, Err(PartyError::File { .. })), "{again:?}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2, "something else is left");
    assert_eq!(world.entered("model_exported", "success").await, 1);
    world.assert_ledger_intact().await;

    // It is still here after a restart, and goes out without the coordinator.
    let folder = world.config.folder.parent().unwrap().to_owned();
    world.handle.shut_down().await.unwrap();
    let world2 = World::reopen(&folder, Executor::Thread, world.now().as_millis()).await;
    assert_eq!(world2.model_copy().await.state, CopyState::Here);
    let other = tempfile::tempdir().unwrap();
    world2.export(other.path()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_released_is_neither_asked_for_nor_exported() {
    let (mut world, study) = ended().await;
    let place = tempfile::tempdir().unwrap();
    let held = |result: Result<(), PartyError>| {
        assert!(matches!(&result, Err(PartyError::State(words)) if words.contains("release them first")), "{result:?}");
    };
    held(world.handle.fetch_model(world.who("sam"), job(1)).await);
    held(world.export(place.path()).await.map(drop));
    assert_eq!(world.model_copy().await.state, CopyState::None);
    world.never("ask for a card", |c| matches!(c, LinkCommand::Card { .. }).then_some(())).await;

    // This site has released it, another has not: the coordinator says for whom everybody waits.
    world.handle.release(world.who("ava"), job(1)).await.unwrap();
    world.ask_for_the_model().await;
    let reason = "the results are held until the people of Hungary release them\u{202e}".to_owned();
    let made = Some(model(&study.plan).1);
    world.event(LinkEvent::CardRefused { job: job(1), model: made, reason }).await;
    world.settle().await;
    let copy = world.model_copy().await;
    assert_eq!(copy.state, CopyState::Failed);
    let reason = copy.reason.unwrap();
    assert!(reason.contains("people of Hungary") && !reason.contains('\u{202e}'), "{reason}");
    assert!(world.export(place.path()).await.is_err());
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    // A card that nobody waits for changes nothing.
    world.give_card(&study, &card(&study)).await;
    assert_eq!(world.model_copy().await.state, CopyState::Failed);
    world.never("fetch it", |c| matches!(c, LinkCommand::Download { .. }).then_some(())).await;
    assert_eq!(world.entered("model_exported", "success").await, 0);
    // Only those who see results of the site get them.
    for name in ["odo", "ana"] {
        let refused = world.handle.fetch_model(world.who(name), job(1)).await;
        assert!(matches!(refused, Err(PartyError::Denied { .. })), "{name}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_of_something_else_is_not_taken() {
    let (mut world, study) = released().await;
    let other = json!(Digest::of(b"other"));
    for (place, value, what) in [
        ("/model", &other, "another model"),
        ("/lineage/job", &json!(job(2)), "another run"),
        ("/lineage/study_digest", &other, "another study"),
        ("/lineage/plan", &other, "another plan"),
        ("/lineage/task", &json!("no such task"), "trains no model"),
        ("/lineage/rounds", &json!("many"), "cannot be read"),
    ] {
        let mut card = card(&study);
        *card.pointer_mut(place).unwrap() = value.clone();
        world.ask_for_the_model().await;
        world.give_card(&study, &card).await;
        let copy = world.model_copy().await;
        assert_eq!(copy.state, CopyState::Failed, "{place}");
        assert!(copy.card.is_none() && copy.reason.as_ref().is_some_and(|r| r.contains(what)), "{copy:?}");
    }
    world.never("fetch it", |c| matches!(c, LinkCommand::Download { .. }).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_was_tampered_with_is_not_exported_and_a_failed_download_is_said() {
    let (mut world, study) = released().await;
    let place = tempfile::tempdir().unwrap();
    world.ask_for_the_model().await;
    world.give_card(&study, &card(&study)).await;
    let digest = model(&study.plan).1;
    let reason = "the model cannot be stored (No space left on device (os error 28))".to_owned();
    world.event(LinkEvent::DownloadFailed { digest, reason }).await;
    world.settle().await;
    let copy = world.model_copy().await;
    assert_eq!(copy.state, CopyState::Failed);
    assert!(copy.reason.unwrap().contains("No space left"));

    world.fetch(&study).await;
    let source = world.config.models().join(format!("{}-{digest}.safetensors", federation()));
    let mut bytes = std::fs::read(&source).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&source, bytes).unwrap();
    let refused = world.export(place.path()).await;
    assert!(matches!(&refused, Err(PartyError::State(words)) if words.contains("was changed")), "{refused:?}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    assert_eq!(world.model_copy().await.state, CopyState::None, "what is damaged is fetched anew");
    world.fetch(&study).await;
    world.export(place.path()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_is_exported_and_that_is_said() {
    let (mut world, study) = released().await;
    world.fetch(&study).await;
    let place = tempfile::tempdir().unwrap();
    world
        .handle
        .ask(|e| {
            async {
                limit_database(e, Some(2)).await;
                fill_database(e).await;
                Ok(())
            }
            .boxed()
        })
        .await
        .unwrap();
    // The last page of the log may have room for some entries more.
    let mut refused = None;
    for n in 0..20 {
        let to = place.path().join(n.to_string());
        std::fs::create_dir(&to).unwrap();
        match world.export(&to).await {
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error, PartyError::DiskFull { .. }), "{error:?}");
                refused = Some(to);
                break;
            }
        }
    }
    let refused = refused.expect("the disk is not full");
    assert_eq!(std::fs::read_dir(refused).unwrap().count(), 0, "what the log does not have went out");
    let nowhere = place.path().join("no such folder");
    assert!(matches!(world.export(&nowhere).await, Err(PartyError::File { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_is_stopped_or_cut_leaves_nothing_behind_or_goes_on() {
    let (mut world, study) = released().await;
    let digest = model(&study.plan).1;
    let forgotten = |c: &LinkCommand| matches!(c, LinkCommand::Forget { digest: d } if *d == digest).then_some(());
    world.ask_for_the_model().await;
    world.handle.stop_fetching(world.who("sam"), job(1)).await.unwrap();
    world.expect("no card", forgotten).await;
    world.ask_for_the_model().await;
    // After a new connection what did not come is asked for again.
    world.connect().await;
    world.expect("the card again", |c| matches!(c, LinkCommand::Card { .. }).then_some(())).await;
    world.give_card(&study, &card(&study)).await;
    world.expect("a download", |c| matches!(c, LinkCommand::Download { .. }).then_some(())).await;
    world.connect().await;
    world.expect("the download again", |c| matches!(c, LinkCommand::Download { .. }).then_some(())).await;
    world.handle.stop_fetching(world.who("sam"), job(1)).await.unwrap();
    world.expect("no model", forgotten).await;
    // The card is kept, and the file was here before: training started from it.
    assert_eq!(world.model_copy().await.state, CopyState::Here);
}

/// As if the run had been the example's Cox regression, which ends with a table and without a model.
async fn of_tables(world: &World) -> Canonical<Plan> {
    let text = std::fs::read_to_string(heart("../survival/study.yaml")).unwrap();
    let plan = Canonical::new(hospes_protocol::study::StudyFile::read(&text).unwrap().plan).unwrap();
    let update = sqlx::query("UPDATE jobs SET plan = ?1, model = NULL").bind(plan.bytes().to_vec());
    assert_eq!(update.execute(&mut database(world).await).await.unwrap().rows_affected(), 1);
    plan
}

/// The card of such a run as a coordinator makes it, with a table of something that the plan does not have.
fn tables(study: &Study, plan: &Canonical<Plan>) -> Value {
    let site = |n: u8| key(n).public().site_id();
    let coefficient = |name: String| {
        json!({
            "name": name, "estimate": -0.057, "error": 0.022, "statistic": -2.6, "p": 0.009, "low": -0.1, "high": -0.014,
            "ratio": { "of": "hazard", "value": 0.944, "low": 0.904, "high": 0.986 },
        })
    };
    let names = plan::Coefficients::of(plan, "hazards").unwrap().names;
    let coefficients: Vec<Value> = names.into_iter().map(coefficient).collect();
    let fit = |task: &str| {
        json!({
            "task": task, "family": "cox", "sites": [site(1), site(2), site(3)], "n": 432.0, "events": 114.0,
            "coefficients": coefficients,
            "statistic": "z", "confidence": 0.95, "log_likelihood": -505.3, "null_log_likelihood": -520.0, "aic": 1022.6,
            "concordance": { "index": 0.65, "concordant": 6.0, "discordant": 3.0, "tied": 1.0 }, "baseline": [],
            "iterations": 5, "converged": true,
        })
    };
    json!({
        "model": null,
        "fits": [fit("hazards"), fit("something else")],
        "lineage": {
            "study": study.id, "study_digest": Canonical::new(study.clone()).unwrap().digest(), "plan": plan.digest(),
            "job": job(1), "task": "hazards", "rounds": [Digest::of(b"round")], "at": START,
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_a_cox_regression_is_shown_and_written_once_it_is_released() {
    let (mut world, study) = ended().await;
    let plan = of_tables(&world).await;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("hazards.csv");
    // The round's own model.
    let received = world.entered("model_received", "success").await;
    let write = async |world: &World, who: &str, task: &str| {
        world.handle.export_table(world.who(who), job(1), task.to_owned(), path.clone()).await
    };
    // While it is held there is nothing to see, to fetch or to write.
    let held = |result: Result<(), PartyError>| {
        assert!(matches!(&result, Err(PartyError::State(words)) if words.contains("release them first")), "{result:?}");
    };
    held(world.handle.fetch_model(world.who("sam"), job(1)).await);
    held(write(&world, "sam", "hazards").await.map(drop));
    assert_eq!((world.model_copy().await.state, world.model_copy().await.card), (CopyState::None, None));
    world.never("ask for a card", |c| matches!(c, LinkCommand::Card { .. }).then_some(())).await;

    world.handle.release(world.who("ava"), job(1)).await.unwrap();
    let early = write(&world, "sam", "hazards").await;
    assert!(matches!(&early, Err(PartyError::State(words)) if words.contains("fetch the results first")), "{early:?}");
    world.ask_for_the_model().await;
    assert_eq!(world.model_copy().await.state, CopyState::Asked);
    let give = async |world: &World, card: &Value| {
        let card = serde_json::to_vec(card).unwrap();
        world.event(LinkEvent::Card { job: job(1), model: None, card }).await;
        world.settle().await;
    };
    let mut other = tables(&study, &plan);
    other["model"] = json!(Digest::of(b"other"));
    give(&world, &other).await;
    assert!(world.model_copy().await.reason.is_some_and(|reason| reason.contains("another model")));
    // A table that says other than the plan, or numbers that none can have, is taken from nobody.
    for (place, value, says) in [
        ("/fits/0/coefficients/0/name", json!("=1+1"), "not those of the plan"),
        ("/fits/0/coefficients/0/ratio/of", json!("odds"), "ratios are not those"),
        ("/fits/0/coefficients/0/low", json!(9.0), "intervals cannot be"),
        ("/fits/0/coefficients/0/p", json!(-0.5), "p values"),
        ("/fits/0/coefficients/0/error", Value::Null, "cannot be read"),
        ("/fits/0/n", json!(1e300), "is no count"),
        ("/fits/0/confidence", json!(1.0), "level of intervals"),
        ("/fits/0/statistic", json!("proof"), "neither z nor t"),
        ("/fits/1/task", json!("hazards"), "two tables"),
    ] {
        world.ask_for_the_model().await;
        let mut hostile = tables(&study, &plan);
        *hostile.pointer_mut(place).unwrap() = value;
        give(&world, &hostile).await;
        let copy = world.model_copy().await;
        assert!(copy.reason.as_ref().is_some_and(|reason| reason.contains(says)), "{says}: {:?}", copy.reason);
        assert!(copy.card.is_none());
    }
    world.ask_for_the_model().await;
    give(&world, &tables(&study, &plan)).await;

    let copy = world.model_copy().await;
    let card = copy.card.unwrap();
    assert_eq!((copy.state, card.model, card.title.as_str()), (CopyState::Here, None, "Heart disease risk"));
    let [fit] = card.fits.as_slice() else { panic!("a table of no task of the plan is shown: {:?}", card.fits) };
    assert_eq!((fit.task.as_str(), fit.rows, fit.sites, fit.c_index), ("hazards", 432.0, 3, Some(0.65)));
    assert_eq!(fit.coefficients[0].ratio.as_ref().unwrap().value, Some(0.944));
    assert_eq!(world.entered("model_received", "success").await, received + 1);
    world.never("fetch a file", |c| matches!(c, LinkCommand::Download { .. }).then_some(())).await;

    let denied = write(&world, "odo", "hazards").await;
    assert!(matches!(denied, Err(PartyError::Denied { .. })), "{denied:?}");
    let unknown = write(&world, "sam", "something else").await;
    assert!(matches!(unknown, Err(PartyError::NotFound(_))), "{unknown:?}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    let export = write(&world, "sam", "hazards").await.unwrap();
    let written = std::fs::read(&path).unwrap();
    assert_eq!((export.bytes, export.digest), (written.len() as u64, Digest::of(&written)));
    assert!(String::from_utf8(written).unwrap().contains("\"age\",-0.057,0.022,"));
    assert_eq!(world.entered("model_exported", "success").await, 1);
    let again = write(&world, "sam", "hazards").await;
    assert!(matches!(again, Err(PartyError::File { .. })), "{again:?}");
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subgroups_and_intervals_of_released_figures_are_shown() {
    let (mut world, study) = released().await;
    world.ask_for_the_model().await;
    let mut card = card(&study);
    let all = &mut card["metrics"][2];
    all["auc_bound"] = json!(0.002);
    all["calibration_slope"] = json!(0.9);
    all["calibration_slope_error"] = json!(0.1);
    // An interval that has no end is none.
    all["calibration_intercept"] = json!(0.0);
    all["calibration_intercept_error"] = json!(1e308);
    all["subgroups"] = json!([{
        "column": "sex", "code": "1", "sites": 2,
        "metrics": { "task": "eval", "site": null, "n": 80.0, "auc": 0.7, "auc_bound": 0.01, "withheld": {} },
    }]);
    world.give_card(&study, &card).await;
    let shown = world.model_copy().await.card.unwrap();
    let all = shown.figures.iter().find(|f| !f.here).unwrap();
    let figure = |name: &str| all.figures.iter().find(|f| f.name == name).unwrap();
    assert_eq!((figure("auc").bound, figure("auc").interval), (Some(0.002), None));
    let slope = figure("calibration_slope").interval.unwrap();
    assert!((slope.low - 0.704).abs() < 1e-3 && (slope.high - 1.096).abs() < 1e-3, "{slope:?}");
    assert_eq!(figure("calibration_intercept").interval, None);
    let [women] = all.subgroups.as_slice() else { panic!("{:?}", all.subgroups) };
    assert_eq!((women.column.as_str(), women.code.as_str(), women.sites), ("sex", "1", 2));
    let auc = women.figures.iter().find(|f| f.name == "auc").unwrap();
    assert_eq!((auc.value, auc.bound), (0.7, Some(0.01)));
}
