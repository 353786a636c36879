//! A dry run of a request: made, waited for, and what would leave in words.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hospes_ipc::{Call, Fault, FaultCode};
use hospes_party::view::{
    Attack, AttackScores, DryMessage, DryPayload, DryRunState, DryRunView, DryRunWait, DryStart, Guard, Interval,
    Preview, TaskState, TensorPreview, Told, Untried,
};
use hospes_protocol::id::StudyId;
use serde_json::Value;

use super::{Asking, study};
use crate::output;

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(500);
/// Between two words to people who wait.
const TOLD: Duration = Duration::from_secs(10);
/// Between two words to the engine that somebody waits: a session that says nothing ends.
const ACTIVE: Duration = Duration::from_secs(60);

/// `dry-run`
pub(crate) async fn dry_run(asking: &mut Asking, typed: &str, dataset: Option<String>, attack: bool) -> Result<()> {
    let study = study::study(asking, typed).await?;
    let dataset = study::dataset(asking, dataset).await?;
    asking.ask::<Value>(&Call::StartDryRun { study, dataset, attack }).await?;
    let tried = wait(asking, study).await?;
    asking.answer(&tried, tell)?;
    let reason = tried.reason.unwrap_or_default();
    match tried.state {
        DryRunState::Failed => bail!(Fault::new(FaultCode::Data, format!("the dry run failed: {reason}"))),
        DryRunState::Stopped => bail!(Fault::new(FaultCode::Refused, format!("the dry run was stopped: {reason}"))),
        _ => Ok(()),
    }
}

/// `dry-run --stop`
pub(crate) async fn stop(asking: &mut Asking, typed: &str) -> Result<()> {
    let study = study::study(asking, typed).await?;
    let answer: Value = asking.ask(&Call::StopDryRun { study }).await?;
    asking.answer(&answer, |_| output::say("The dry run is stopped; of one that had ended, nothing is kept."))
}

async fn wait(asking: &mut Asking, study: StudyId) -> Result<DryRunView> {
    let (mut told, mut active) = (Instant::now(), Instant::now());
    loop {
        let found: Option<DryRunView> = asking.ask(&Call::DryRun { study }).await?;
        let Some(view) = found else { bail!(Fault::new(FaultCode::State, "somebody stopped the dry run")) };
        if view.state.is_over() {
            return Ok(view);
        }
        if told.elapsed() >= TOLD {
            told = Instant::now();
            output::complain(&how_far(&view));
        }
        if active.elapsed() >= ACTIVE {
            active = Instant::now();
            asking.ask::<Value>(&Call::Active {}).await?;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn how_far(view: &DryRunView) -> String {
    match (view.waits, view.messages.iter().find(|message| message.state == TaskState::Working)) {
        (Some(DryRunWait::QuietHours { until }), _) => format!("waiting for the end of quiet hours, {until}"),
        (Some(DryRunWait::Rounds), _) => "waiting until a round has been worked on".to_owned(),
        (None, Some(message)) => {
            let (done, all) = view.progress.unwrap_or_default();
            format!("'{}' is computed: step {done} of {all}", message.task)
        }
        (None, None) => "waiting for the machine".to_owned(),
    }
}

fn tell(view: &DryRunView) {
    output::say(&format!(
        "This does not leave. It is what this site would send in the first round of each task, computed on '{}'.",
        view.dataset_name
    ));
    if view.runs > 1 {
        output::say(&format!("The study asks for {} runs; this is the first of them.", view.runs));
    }
    let row = |message: &DryMessage| {
        let mut row = vec![message.task.clone(), message.component.clone(), message.rounds.to_string()];
        row.extend(match &message.made {
            Some(made) => {
                let held = made.withheld.len().to_string();
                [made.values.to_string(), made.bytes.to_string(), held, made.digest.to_string()]
            }
            None => Default::default(),
        });
        row
    };
    let head = ["Task", "Component", "Rounds", "Numbers", "Bytes", "Held back", "SHA-256"];
    output::table(&head, view.messages.iter().map(row));
    for message in &view.messages {
        match (&message.made, &message.failure) {
            (Some(made), _) => tell_payload(message, made),
            (None, Some(failure)) => output::say(&format!("'{}' gave nothing: {failure}", message.task)),
            (None, None) => output::say(&format!("'{}' was not tried.", message.task)),
        }
    }
}

fn tell_payload(message: &DryMessage, made: &DryPayload) {
    output::say(&format!("'{}':", message.task));
    match message.start {
        DryStart::StandIn => output::say(
            "The model that it begins with is the coordinator's and not here before an approval; values that the plan's seed \
             gives stood in for it.",
        ),
        DryStart::Untrained => output::say(
            "It judged the model that training begins with. In a run it judges the one that all sites trained: the numbers \
             differ then, and so may what a rule holds back.",
        ),
        DryStart::Rows | DryStart::Plan => {}
    }
    match &made.preview {
        Preview::Update { rows, tensors, further, .. } => {
            output::say(&format!("An update, weighed by {rows} rows, which are told with it."));
            let head = ["Tensor", "Shape", "Smallest", "Largest", "Length", "First"];
            output::table(&head, tensors.iter().map(tensor));
            if *further > 0 {
                output::say(&format!("And {further} further tensors."));
            }
            if made.cut > 0 {
                let cut = made.cut;
                output::say(&format!("{cut} numbers moved by more than the plan allows in one round and were cut."));
            }
        }
        Preview::Figures(sums) => {
            let numbers = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join(", ");
            let rows = sums.iter().map(|(name, values)| vec![name.clone(), numbers(values)]);
            output::table(&["Figure", "Numbers"], rows);
        }
    }
    for (name, rule) in &made.withheld {
        output::say(&format!("  held back: {name} ({rule})"));
    }
    if let Some(attack) = &made.attack {
        tell_attack(attack);
    }
}

/// What attacks found, with what it is worth.
fn tell_attack(attack: &Attack) {
    let why = match attack {
        Attack::Found(scores) => return tell_scores(scores),
        Attack::TooFew { subjects, least } => format!("{subjects} patients are too few to say; {least} are needed"),
        Attack::TooSlow { seconds } => format!("they took longer than {seconds} seconds"),
        Attack::Untried(Untried::Loss) => "the loss is one of all patients together".to_owned(),
        Attack::Untried(Untried::KeptLayers) => "layers of the model stay at this site".to_owned(),
        Attack::Untried(Untried::TooLarge) => "the model is too large".to_owned(),
        Attack::Failed { reason } => reason.clone(),
    };
    output::say(&format!("Attacks say nothing here, for or against it: {why}."));
}

fn tell_scores(scores: &AttackScores) {
    output::say(&format!(
        "Attacks by somebody who reads what would be sent, tried on {} patients with {} pairs of models, each of {} of {} \
         rounds by this site alone. In brackets: 95 % of 1,000 resamples of the patients.",
        scores.subjects, scores.repeats, scores.rounds, scores.planned
    ));
    for found in &scores.membership {
        let best = match found.compared.advantage >= found.by_loss.advantage {
            true => found.compared,
            false => found.by_loss,
        };
        output::say(&match [found.by_loss, found.compared].iter().any(|told| told.advantage_interval.low > 0.0) {
            true => format!(
                "{}: whether a patient was trained on could be told better than by guessing, rightly for about {:.0} of \
                 100 where guessing is right for 50.",
                guarded(found.guard),
                50.0 + 50.0 * best.advantage.max(0.0)
            ),
            false => {
                format!("{}: these attacks could not tell whether a patient was trained on.", guarded(found.guard))
            }
        });
    }
    let row = |guard: Guard, attack: &str, told: &Told| {
        let within = |value: f64, Interval { low, high }: Interval| format!("{value:.2} ({low:.2} to {high:.2})");
        let auc = within(told.auc, told.auc_interval);
        vec![guarded(guard), attack.to_owned(), auc, within(told.advantage, told.advantage_interval)]
    };
    let rows = scores.membership.iter().flat_map(|found| {
        [row(found.guard, "loss alone", &found.by_loss), row(found.guard, "compared", &found.compared)]
    });
    output::table(&["What is read", "Attack", "AUC", "Advantage"], rows);
    for found in &scores.inversion {
        output::say(&format!(
            "{}: of the row that is found best, {:.0} % of its {} columns; guessing finds {:.0} %.",
            guarded(found.guard),
            100.0 * found.recovered,
            found.columns,
            100.0 * found.guessed
        ));
    }
    output::say(
        "This is an aid and no proof: others may attack better, and that an attack finds nothing bounds nothing.",
    );
}

fn guarded(guard: Guard) -> String {
    match guard {
        Guard::None => "the update as it is".to_owned(),
        Guard::Masked { sites } => format!("a sum over {sites} sites"),
        Guard::Noise => "the update with noise".to_owned(),
    }
}

fn tensor(tensor: &TensorPreview) -> Vec<String> {
    let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
    let first: Vec<String> = tensor.first.iter().map(|number| format!("{number:.4e}")).collect();
    vec![
        tensor.name.clone(),
        shape.join(" × "),
        format!("{:.4e}", tensor.min),
        format!("{:.4e}", tensor.max),
        format!("{:.4e}", tensor.norm),
        first.join(", "),
    ]
}
