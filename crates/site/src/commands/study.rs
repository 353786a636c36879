//! Requests, signatures, decisions and runs.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use hospes_ipc::{Call, Fault, FaultCode};
use hospes_party::known_sites;
use hospes_party::view::{
    Approving, Comparison, DatasetView, Interval, JobView, Page, RequestState, RequestView, ResultView, Review,
    RoundView, SeriesBounds, Signed, Verdict,
};
use hospes_protocol::approval::{OpinionView, Range, ReleaseRule};
use hospes_protocol::id::{DatasetId, Digest, StudyId};
use serde_json::Value;

use super::{Asking, one_of};
use crate::arguments::{Approve, Reasoned, View};
use crate::{output, secret};

/// `requests`
pub(crate) async fn requests(asking: &mut Asking) -> Result<()> {
    let all: Vec<RequestView> = asking.ask(&Call::Requests {}).await?;
    asking.answer(&all, |all| {
        if all.is_empty() {
            return output::say("No study has been offered to this site.");
        }
        output::table(
            &["Study", "Title", "Who asks", "Received", "State", "Expires"],
            all.iter().map(|r| {
                vec![
                    r.study.to_string(),
                    r.title.clone(),
                    r.requester.clone(),
                    output::moment(r.received),
                    r.state.word().into(),
                    r.expires.map(output::moment).unwrap_or_default(),
                ]
            }),
        );
    })
}

/// `show`
pub(crate) async fn show(asking: &mut Asking, typed: &str, dataset: Option<String>) -> Result<()> {
    let study = study(asking, typed).await?;
    let dataset = self::dataset(asking, dataset).await?;
    let review: Review = asking.ask(&Call::Review { study, dataset }).await?;
    asking.answer(&review, |review| output::say(&hospes_party::render_review(review)))
}

/// `opinion`
pub(crate) async fn opinion(asking: &mut Asking, typed: &str, view: View, text: String) -> Result<()> {
    let study = study(asking, typed).await?;
    let view = match view {
        View::Agree => OpinionView::Agree,
        View::Conditions => OpinionView::Conditions,
        View::Object => OpinionView::Object,
    };
    let answer: Value = asking.ask(&Call::GiveOpinion { study, view, text }).await?;
    asking.answer(&answer, |_| output::say("Your opinion is recorded and shown to the second signer."))
}

/// `approve`: the first signature, or the second where the first is there.
pub(crate) async fn approve(asking: &mut Asking, approve: Approve) -> Result<()> {
    let study = study(asking, &approve.study).await?;
    let dataset = dataset(asking, approve.dataset.clone()).await?;
    let review: Review = asking.ask(&Call::Review { study, dataset }).await?;
    let draft = review.approval_digest.filter(|_| review.state == RequestState::PartlyApproved && !approve.again);
    let signed: Signed = if let Some(digest) = draft {
        has_read(asking, &approve, &review, digest, "under 'Approval to be signed'")?;
        confirm(asking, &approve, &format!("Sign approval {digest} of '{}'?", review.title))?;
        let passphrase = asking.sign()?;
        asking.ask(&Call::Countersign { study, digest, passphrase }).await?
    } else {
        let release = if approve.release_automatically { ReleaseRule::Automatic } else { ReleaseRule::Reviewed };
        let ranges = approve.ranges.iter().map(|text| range(text)).collect::<Result<BTreeMap<_, _>>>()?;
        let max_runs = approve.runs;
        let series = series(&approve, &review)?;
        has_read(asking, &approve, &review, review.read.digest, "under 'Read, for a first signature'")?;
        // What the engine signs is what was shown, or named: the review that was fetched before the question.
        let exactly = Approving::exactly(study, review.read);
        let approving = Approving { dataset, series, max_runs, ranges, release, ..exactly };
        let beyond = match (approving.ranges.len(), approving.release) {
            (0, ReleaseRule::Reviewed) => String::new(),
            (n, release) => format!(", {n} numbers free within ranges, results released by rule '{release:?}'"),
        };
        let data = match series {
            None => "the snapshot alone".to_owned(),
            Some(SeriesBounds { fewest, most }) => {
                format!("the snapshot and later versions of its dataset with {fewest} to {most} patients")
            }
        };
        if series.is_some() && !asking.json {
            output::say(
                "What two runs differ in can tell about the few patients in whom their versions of the data differ.",
            );
        }
        confirm(asking, &approve, &format!("Sign '{}' for {max_runs} run(s) on {data}{beyond}?", review.title))?;
        let passphrase = asking.sign()?;
        asking.ask(&Call::Approve { approving, passphrase }).await?
    };
    asking.answer(&signed, |signed| {
        output::say(&format!(
            "Signed: approval {} ({}), until {}.",
            signed.digest,
            signed.state.word(),
            output::moment(signed.expires)
        ));
    })
}

/// People sign what they have read: what they name by its digest, or what is shown to them now.
fn has_read(asking: &Asking, approve: &Approve, review: &Review, digest: Digest, place: &str) -> Result<()> {
    match &approve.digest {
        Some(typed) if typed.parse() != Ok(digest) => {
            let words = format!(
                "what would be signed now is another document than the one that you name; read it with 'show', and give the \
                 whole digest that is printed there {place}"
            );
            bail!(Fault::new(FaultCode::Refused, words));
        }
        Some(_) => {}
        None if approve.yes || asking.json => {
            let words = format!("name what you have read: --digest DIGEST, as 'show' printed it {place}");
            bail!(Fault::new(FaultCode::Input, words));
        }
        None => output::say(&hospes_party::render_review(review)),
    }
    Ok(())
}

fn confirm(asking: &Asking, approve: &Approve, question: &str) -> Result<()> {
    if approve.yes || asking.json {
        return Ok(());
    }
    if secret::line(&format!("{question} Type 'yes': "))? == "yes" {
        return Ok(());
    }
    bail!(Fault::new(FaultCode::Refused, "nothing was signed"))
}

/// Which later versions of the dataset a first signature is for, if any: as typed, or as the review suggests.
fn series(approve: &Approve, review: &Review) -> Result<Option<SeriesBounds>> {
    if !approve.series {
        return Ok(None);
    }
    let Some(bounds) = approve.patients.or(review.data.series.map(|offer| offer.bounds)) else {
        let words = "the series cannot be approved: the site's policy lets an approval be for one snapshot only, the study has \
                     many settings, no dataset is chosen, or a newer version of it is registered; leave --series out, or name another one with --dataset";
        bail!(Fault::new(FaultCode::Input, words));
    };
    Ok(Some(bounds))
}

fn range(text: &str) -> Result<(String, Range)> {
    let wrong = || Fault::new(FaultCode::Input, format!("'{text}' is no range; write PLACE=MIN..MAX"));
    let (place, bounds) = text.split_once('=').ok_or_else(wrong)?;
    let (min, max) = bounds.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<f64>().ok().filter(|n| n.is_finite()).ok_or_else(wrong);
    let range = Range { min: number(min)?, max: number(max)? };
    if range.min > range.max {
        bail!(wrong());
    }
    Ok((place.to_owned(), range))
}

/// `refuse`
pub(crate) async fn refuse(asking: &mut Asking, reasoned: Reasoned) -> Result<()> {
    decide(asking, &reasoned.study, Verdict::Refuse { reason: reasoned.reason.clone() }).await
}

/// `suspend`
pub(crate) async fn suspend(asking: &mut Asking, reasoned: Reasoned) -> Result<()> {
    decide(asking, &reasoned.study, Verdict::Suspend { reason: reasoned.reason.clone() }).await
}

/// `resume`
pub(crate) async fn resume(asking: &mut Asking, typed: &str) -> Result<()> {
    decide(asking, typed, Verdict::Resume).await
}

/// `revoke`
pub(crate) async fn revoke(asking: &mut Asking, reasoned: Reasoned) -> Result<()> {
    decide(asking, &reasoned.study, Verdict::Revoke { reason: reasoned.reason.clone() }).await
}

async fn decide(asking: &mut Asking, typed: &str, verdict: Verdict) -> Result<()> {
    let study = study(asking, typed).await?;
    let revokes = matches!(verdict, Verdict::Revoke { .. });
    let request: RequestView = asking.ask(&Call::Decide { study, verdict }).await?;
    asking.answer(&request, |request| {
        output::say(&format!("'{}' is now: {}.", request.title, request.state.word()));
        if revokes {
            output::say("What waited to leave was withdrawn. Updates already sent cannot be recalled.");
        }
    })
}

/// `release`
pub(crate) async fn release(asking: &mut Asking, typed: &str) -> Result<()> {
    let job = job(asking, typed).await?;
    let answer: Value = asking.ask(&Call::Release { job: job.job }).await?;
    asking.answer(&answer, |_| output::say(&format!("The results of '{}' are released by this site.", job.title)))
}

/// `jobs`
pub(crate) async fn jobs(asking: &mut Asking) -> Result<()> {
    let all: Vec<JobView> = asking.all(|page| Call::Jobs { page }).await?;
    asking.answer(&all, |all| {
        output::table(
            &["Run", "Study", "State", "Rounds", "Since", "Results", "Reason"],
            all.iter().map(|j| {
                let results = match (j.released, j.held) {
                    (Some(at), _) => format!("released {}", output::moment(at)),
                    (None, true) => "held until somebody releases them".into(),
                    (None, false) => String::new(),
                };
                let paused = j.paused.as_ref().map(|why| format!("paused here: {why}"));
                let reason = paused.or_else(|| j.reason.clone()).unwrap_or_default();
                let rounds = j.rounds_in_all.to_string();
                vec![
                    j.job.to_string(),
                    j.title.clone(),
                    j.state.to_string(),
                    rounds,
                    output::moment(j.since),
                    results,
                    reason,
                ]
            }),
        );
    })
}

/// `jobs RUN`
pub(crate) async fn run(asking: &mut Asking, typed: &str) -> Result<()> {
    let job = job(asking, typed).await?.job;
    let run: JobView = asking.ask(&Call::Job { job, page: Page::default() }).await?;
    asking.answer(&run, |run| {
        let row = |r: &RoundView| {
            let failure = match &r.view {
                Some(ResultView::Failure(failure)) => Some(failure.as_str()),
                _ => None,
            };
            let why = failure.or(r.reason.as_deref()).unwrap_or_default();
            let round = format!("{} {}, attempt {}", r.round.task, r.round.round, r.round.attempt);
            vec![round, output::moment(r.at), r.state.to_string(), why.to_owned()]
        };
        output::table(&["Round", "Opened", "State", "Why"], run.rounds.iter().map(row));
        for sentence in &run.protection {
            output::say(sentence);
        }
        if let Some(known) = known_sites(run.others.iter().map(|other| (other.name.as_str(), other.trust))) {
            output::say(&format!("Other sites: {known}"));
        }
        for comparison in &run.comparisons {
            alone_against_federated(comparison);
        }
    })
}

/// `pause`
pub(crate) async fn pause(asking: &mut Asking, typed: &str, reason: Option<String>) -> Result<()> {
    let job = job(asking, typed).await?.job;
    let pauses = reason.is_some();
    let answer: Value = asking.ask(&Call::PauseJob { job, reason }).await?;
    asking.answer(&answer, |_| {
        output::say(match pauses {
            true => "This site takes part in no round of the run until you end that: pause RUN --end",
            false => "This site takes part again, from the run's next round on.",
        });
    })
}

/// `cancel`
pub(crate) async fn cancel(asking: &mut Asking, typed: &str, reason: String) -> Result<()> {
    let job = job(asking, typed).await?;
    let answer: Value = asking.ask(&Call::CancelJob { job: job.job, reason }).await?;
    asking.answer(&answer, |_| output::say("The run is stopped at this site."))
}

pub(super) async fn study(asking: &mut Asking, typed: &str) -> Result<StudyId> {
    if let Ok(study) = typed.parse() {
        return Ok(study);
    }
    let all: Vec<RequestView> = asking.ask(&Call::Requests {}).await?;
    Ok(one_of("study", typed, &all, |r| vec![r.study.to_string()])?.study)
}

pub(super) async fn dataset(asking: &mut Asking, typed: Option<String>) -> Result<Option<DatasetId>> {
    let Some(typed) = typed else { return Ok(None) };
    let all: Vec<DatasetView> = asking.ask(&Call::Datasets {}).await?;
    Ok(Some(one_of("dataset", &typed, &all, |d| vec![d.name.clone(), d.id.to_string()])?.id))
}

/// The figures of two models side by side; for this site's own people.
fn alone_against_federated(comparison: &Comparison) {
    let alone = match &comparison.alone {
        Some(task) => format!("'{task}'"),
        None => "the plan's own network, trained here for as many steps, without noise".to_owned(),
    };
    output::say(&format!(
        "This site alone ({alone}) against federated ('{}'), with 95 % intervals; those of the difference are unpaired. It \
         does not leave.",
        comparison.federated
    ));
    let with = |value: f64, interval: &Option<Interval>| match interval {
        Some(i) => format!("{value:.3} ({:.3} to {:.3})", i.low, i.high),
        None => format!("{value:.3}"),
    };
    output::table(
        &["Figure", "Alone", "Federated", "Difference"],
        comparison.figures.iter().map(|c| {
            vec![
                c.figure.clone(),
                with(c.alone, &c.alone_interval),
                with(c.federated, &c.federated_interval),
                with(c.difference, &c.difference_interval),
            ]
        }),
    );
}

pub(super) async fn job(asking: &mut Asking, typed: &str) -> Result<JobView> {
    let all: Vec<JobView> = asking.all(|page| Call::Jobs { page }).await.context("list the runs")?;
    Ok(one_of("run", typed, &all, |j| vec![j.job.to_string()])?.clone())
}
