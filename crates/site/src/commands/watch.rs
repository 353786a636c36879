//! Progress of runs, as it happens.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use hospes_ipc::Call;
use hospes_party::view::{JobState, JobView, Notice, Page};
use hospes_protocol::id::JobId;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::Asking;
use crate::engine::{Connection, Place};
use crate::output;

/// Shows runs and their rounds until interrupted: bars for people, a JSON document for each change for machines.
pub(crate) async fn watch(place: &Place, who: (Option<String>, Option<PathBuf>), json: bool) -> Result<()> {
    let connection = Connection::Running(place.client().await?);
    let mut asking = Asking::new(connection, who.0, who.1, json);
    let mut notices = place.notices().await?;
    let mut bars = Bars::default();
    loop {
        // Runs that are under way are among the newest.
        let jobs: Vec<JobView> = asking.ask(&Call::Jobs { page: Page::default() }).await?;
        if json {
            output::json(&jobs)?;
        } else {
            bars.show(&jobs);
        }
        // Other changes do not concern runs; `None` means that some were lost.
        while !matches!(notices.next().await?, None | Some(Notice::Jobs | Notice::Egress)) {}
    }
}

/// A bar for each run that is under way.
#[derive(Default)]
struct Bars {
    screen: MultiProgress,
    bars: BTreeMap<JobId, ProgressBar>,
}

impl Bars {
    fn show(&mut self, jobs: &[JobView]) {
        for job in jobs {
            if matches!(job.state, JobState::Ready | JobState::Waiting | JobState::Running) {
                let screen = &self.screen;
                let bar = self.bars.entry(job.job).or_insert_with(|| screen.add(fresh(&job.title)));
                draw(bar, job);
            } else if let Some(bar) = self.bars.remove(&job.job) {
                bar.finish_with_message(format!("{}{}", job.state, reason(job)));
            }
        }
    }
}

fn fresh(title: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:24!} {bar:30} {pos}/{len} {msg}");
    let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(output::visible(title));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

fn draw(bar: &ProgressBar, job: &JobView) {
    let Some(round) = job.rounds.last() else {
        bar.set_message(format!("{}, no round yet", job.state));
        return;
    };
    if let Some((done, total)) = round.progress {
        bar.set_length(u64::from(total));
        bar.set_position(u64::from(done));
    }
    let words = format!("{}, round {}: {}", round.round.task, round.round.round, round.state);
    bar.set_message(output::visible(&words));
}

fn reason(job: &JobView) -> String {
    job.reason.as_ref().map(|r| format!(": {}", output::visible(r))).unwrap_or_default()
}
