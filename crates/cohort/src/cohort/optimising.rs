//! The steps of a round's training, with or without differential privacy.

use hospes_privacy::dp::{self, Training};
use hospes_protocol::id::{Digest, Timestamp};
use hospes_protocol::plan::{self, Dp, DpMode, NnTrain, Plan, Schedule};
use hospes_protocol::round::RoundHeader;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Round;
use crate::component::Matrix;
use crate::device::Place;
use crate::error::CohortError;
use crate::opt_out::SubjectHash;
use crate::snapshot::SnapshotKey;
use crate::train::dp::{self as noisy, Rules, Secret, Subjects};
use crate::train::{self, Correction, Course, Draws, Goal, Network, Pulse, Step, Work, keyed};

const UNMASKED: &str = "the sites share the noise of a sum, and this round would have the coordinator read each update";
const ROWS: &[u8] = b"hospes/dp/rows/v1";
const DRAWS: &[u8] = b"hospes/dp/draws/v1";

/// What noise was added to in one round, or will be: noise that the sites share is added where the update is masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Released {
    /// Steps that were taken, each a release.
    pub steps: u64,
}

/// What came of the steps of a round.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) released: Option<Released>,
    /// What is sent in place of the difference between two networks, where noise is still to be added: that one has been
    /// rounded as the model's numbers ask for, which no clip bounds.
    pub(super) delta: Option<Vec<f32>>,
}

/// From what noise and draws follow, for the rows that were opened. It has no `Debug`.
///
/// It follows from the key of the snapshot, which comes to this process through the pipe and is known to nobody outside the
/// site, and from whose rows they are: the same noise over other rows would tell what they differ in.
pub(super) struct RowsSecret(Zeroizing<[u8; 32]>);

impl RowsSecret {
    pub(super) fn new(key: &SnapshotKey, snapshot: Digest, subjects: &[SubjectHash]) -> Self {
        let head = [ROWS, snapshot.as_bytes().as_slice()];
        let parts: Vec<&[u8]> = head.into_iter().chain(subjects.iter().map(<[u8; 16]>::as_slice)).collect();
        Self(keyed(key.bytes(), &parts))
    }
}

/// Everything in a round on which the bytes of its update depend, but for the rows. Each
/// attempt is a release of its own, which the site charges: the same batch in the sums of two sets of sites, or the same noise
/// over two sums, would be charged as independent without being so. A restart within an attempt gives the same bytes.
fn context(round: Round<'_>, place: Place) -> Digest {
    let RoundHeader { federation, study, job, task, epoch, round: number, attempt, model, plan, .. } = round.header;
    let (site, model) = (round.site, model.map_or_else(String::new, |model| model.to_string()));
    // Another device, or another version of this program, computes other last digits.
    let version = env!("CARGO_PKG_VERSION");
    let text = format!(
        "hospes/dp/round/v2\n{federation}\n{study}\n{job}\n{task}\n{epoch}\n{number}\n{attempt}\n{model}\n{plan}\n\
         {site}\n{place:?}\n{version}\n"
    );
    Digest::of(text.as_bytes())
}

/// What a round trains, and until when.
#[derive(Clone, Copy)]
pub(super) struct Steps<'a> {
    pub(super) round: Round<'a>,
    pub(super) plan: &'a Plan,
    pub(super) params: &'a NnTrain,
    pub(super) goal: &'a Goal,
    pub(super) data: &'a Matrix,
    /// Whose each row is.
    pub(super) subjects: &'a [SubjectHash],
    pub(super) place: Place,
    pub(super) deadline: Timestamp,
    /// What batches and random changes follow from, where there is no differential privacy.
    pub(super) draws: Draws<'a>,
}

impl Steps<'_> {
    fn task(&self) -> &str {
        &self.round.header.task
    }

    fn work(&self) -> Work {
        Work { units: self.params.local.updates, steps: 1 }
    }

    fn wrong(&self, reason: impl ToString) -> CohortError {
        CohortError::Plan { place: format!("tasks.{}.params.dp", self.task()), reason: reason.to_string() }
    }

    /// Takes them, as the plan says.
    pub(super) fn take(
        &self,
        network: &mut Network,
        step: &mut Step,
        correction: Correction,
        secret: Option<&RowsSecret>,
        pulse: &mut Pulse<'_>,
    ) -> Result<Taken, CohortError> {
        let inputs = plan::inputs(self.plan, self.task());
        let training = Training::of(self.params, inputs).map_err(|error| self.wrong(error))?;
        match (self.params.dp.zip(training), secret, correction) {
            (None, _, correction) => self.take_plain(network, step, correction, pulse).map(|()| Taken::default()),
            (Some((dp, training)), Some(secret), Correction::None) => {
                self.take_clipped(network, step, (dp, training, secret), pulse)
            }
            // No plan that was checked has what is added to gradients beside them.
            (Some(_), ..) => Err(self.wrong("the plan's differential privacy cannot be carried out here")),
        }
    }

    fn take_plain(
        &self,
        network: &mut Network,
        step: &mut Step,
        correction: Correction,
        pulse: &mut Pulse<'_>,
    ) -> Result<(), CohortError> {
        let course = Course {
            goal: self.goal,
            augment: self.params.augment.as_ref(),
            batch: self.params.local.batch,
            work: self.work(),
            // That of the plan goes from round to round.
            schedule: &Schedule::Constant,
            draws: self.draws,
            correction,
        };
        train::train(network, step, self.data, course, self.deadline, pulse)
    }

    fn take_clipped(
        &self,
        network: &mut Network,
        step: &mut Step,
        (dp, training, secret): (Dp, Training, &RowsSecret),
        pulse: &mut Pulse<'_>,
    ) -> Result<Taken, CohortError> {
        let task = self.task();
        let rules = Rules::new(dp.clip_norm_l2, dp.sampling_rate, dp.expected_batch, task)?;
        let sensitivity = noisy::sensitivity(network, rules);
        let noise = training.noise(sensitivity).map_err(|error| self.wrong(error))?;
        let context = context(self.round, self.place);
        let mut source = dp::Source::new(&secret.0, &context);
        let mut shared = (dp.mode == DpMode::Distributed).then(Vec::new);
        if shared.is_some() && !self.round.header.is_secure() {
            return Err(self.wrong(UNMASKED));
        }
        let mut add = |sum: &mut [i64], most: f64| {
            assert!(most <= sensitivity, "the noise is as wide as the clip");
            match &mut shared {
                Some(kept) => *kept = sum.to_vec(),
                // PRIVACY: the noise of each number of one step.
                None => sum.iter_mut().for_each(|number| *number = number.wrapping_add(noise.draw(&mut source))),
            }
        };
        let course = noisy::Course {
            goal: self.goal,
            augment: self.params.augment.as_ref(),
            work: self.work(),
            schedule: &Schedule::Constant,
            task,
            rules,
            subjects: &Subjects::of(self.subjects),
            secret: &Secret::from_bytes(*keyed(&secret.0, &[DRAWS, context.as_bytes()])),
        };
        let steps = noisy::train(network, step, self.data, &course, &mut add, self.deadline, pulse)?;
        let released = Released { steps };
        // One step of plain gradient descent, from the sum itself.
        let rate = self.params.optimizer.lr() * dp.clip_norm_l2 / sensitivity / dp.expected_batch;
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
        let moved = |sum: Vec<i64>| sum.iter().map(|number| (-rate * *number as f64) as f32).collect();
        Ok(Taken { released: Some(released), delta: shared.map(moved) })
    }
}
