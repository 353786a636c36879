//! What a dry run asks for: the approval as nobody has signed it yet, and the first round of each task as a coordinator
//! would open it.

use hospes_protocol::approval::{
    Approval, ApprovalDocument, ApprovalState, Circumstances, Refusal, RefusalCode, Spent,
};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{ApprovalId, DatasetId, Digest, FederationId, JobId, StudyId, Timestamp};
use hospes_protocol::limits;
use hospes_protocol::plan::{self, Component, Plan, Strategy};
use hospes_protocol::policy::{EgressKind, Partner, Policy};
use hospes_protocol::round::{Mode, RosterEntry, RoundHeader, plain_k_min};
use hospes_protocol::version::Version;
use sqlx::sqlite::SqliteConnection;

use crate::datasets::{self, Dataset};
use crate::engine::Engine;
use crate::error::PartyError;
use crate::keys::random;
use crate::memberships::{self, Membership, roster};
use crate::requests::sign::{Case, held};
use crate::requests::{approval, policy, protects, rules, study};
use crate::rounds::longest_model;
use crate::view::Approving;

/// Why a dry run is refused, or ends, of a request that somebody decided on.
const DECIDED: &str = "the request does not wait for a decision any more";

/// What would be signed, and what would be asked of this site then.
pub(super) struct Draft {
    pub(super) study: StudyId,
    pub(super) federation: FederationId,
    pub(super) dataset: DatasetId,
    pub(super) dataset_name: String,
    /// Subjects left in it when the dry run began.
    pub(super) subjects: u64,
    /// The approval; nobody has signed it.
    pub(super) approval: Approval,
    /// The plan of the run; of a study with many settings, that of the first.
    pub(super) plan: Canonical<Plan>,
    /// Runs that the study asks for.
    pub(super) runs: u32,
    /// Tasks that send something, in the order in which they run.
    pub(super) tasks: Vec<String>,
}

/// The round that is tried: the first of a task, in the place of one that a coordinator opens.
#[derive(Clone, Copy)]
pub(super) struct Tried<'a> {
    pub(super) job: JobId,
    pub(super) task: &'a str,
    /// So often it was begun, with this time.
    pub(super) attempt: u32,
    /// Not computed on from then on.
    pub(super) deadline: Timestamp,
}

/// What a permit for a dry run was asked with. The worker asks for one of its own.
pub(super) struct DryLeave {
    pub(super) circumstances: Circumstances,
    pub(super) dataset: Dataset,
}

impl Draft {
    /// What the first signature would make, or why nobody can give it.
    fn of(case: &Case, dataset: &Dataset, now: Timestamp) -> Result<Result<Self, Refusal>, PartyError> {
        let refused = |words: String| Ok(Err(Refusal::new(RefusalCode::Policy, words)));
        if let Some(finding) = rules::findings(case).into_iter().find(|finding| finding.refuses) {
            return refused(finding.words);
        }
        let time = match case.limits(dataset, now, now) {
            Ok(time) => time,
            Err(words) => return refused(words),
        };
        let id = case.offered.study.id;
        let document = ApprovalDocument {
            id: ApprovalId::new(now, random()?),
            at: now,
            four_eyes: case.policy.approval.four_eyes,
            envelope: case.envelope(dataset, &Approving::exactly(id, case.reading(None)?), time)?,
            opinion: None,
        };
        let plan = case.runs.first().unwrap_or(&case.offered.study.plan).clone();
        if let Some(words) = too_much(&plan) {
            return Ok(Err(Refusal::new(RefusalCode::CannotRun, words)));
        }
        let sends = |task: &&str| plan.tasks.get(*task).is_some_and(|found| found.component.rounds() > 0);
        let tasks = plan::order(&plan).into_iter().filter(sends).map(str::to_owned).collect();
        Ok(Ok(Self {
            study: id,
            federation: case.offered.federation,
            dataset: dataset.id,
            dataset_name: dataset.name.clone(),
            subjects: dataset.subjects_left,
            approval: Approval { document: Canonical::new(document)?, signatures: Vec::new() },
            plan,
            runs: u32::try_from(case.runs.len()).unwrap_or(u32::MAX),
            tasks,
        }))
    }

    /// The header by which a coordinator would open the round, with all members of the study in it.
    fn header(&self, tried: Tried<'_>, membership: &Membership, policy: &Policy) -> Result<RoundHeader, Refusal> {
        let envelope = &self.approval.document.envelope;
        let members = &membership.roster.document.members;
        let Some(own) = members.iter().find(|member| member.site == membership.site) else {
            return Err(Refusal::new(RefusalCode::Roster, "this site is not in the federation's list of members"));
        };
        let entry = |site, identity| RosterEntry { site, identity };
        let others = envelope.roster.iter().map(|peer| entry(peer.site, peer.identity));
        let mut roster: Vec<RosterEntry> = others.chain([entry(own.site, own.identity)]).collect();
        roster.sort_by_key(|entry| entry.site);
        let component = self.plan.tasks.get(tried.task).map(|task| &task.component);
        let by_turns = matches!(component, Some(Component::NnTrain(train)) if train.strategy == (Strategy::Cyclic {}));
        let partners: Vec<Partner> = envelope.roster.iter().map(Partner::from).collect();
        let sites = u32::try_from(roster.len()).unwrap_or(u32::MAX);
        let mode = match component {
            _ if by_turns => Mode::Turn { site: membership.site },
            Some(component) if component.is_masked() => protects::mode(policy, &envelope.roster),
            _ => Mode::Plain { k_min: plain_k_min(sites, policy.fewest(&partners).0) },
        };
        let (tensors, quantise) = plan::masks::layout(&self.plan, tried.task, 1);
        Ok(RoundHeader {
            protocol: Version::V1,
            federation: self.federation,
            study: self.study,
            job: tried.job,
            task: tried.task.to_owned(),
            epoch: membership.epoch.unwrap_or(0),
            round: 1,
            attempt: tried.attempt,
            // The worker makes the model, and names it by its digest.
            model: longest_model(&self.plan, tried.task).map(|_| Digest::of(b"made by the worker")),
            plan: self.plan.digest(),
            roster,
            mode,
            tensors,
            quantise,
            deadline: tried.deadline,
        })
    }
}

impl Engine {
    /// What would be signed for a case on its dataset, or what stands against it now: the rules that refuse a signature, and
    /// what refuses the first round of a task before a row is read.
    pub(super) async fn draft(
        &self,
        conn: &mut SqliteConnection,
        case: &Case,
        dataset: &Dataset,
        job: JobId,
    ) -> Result<Result<Draft, Refusal>, PartyError> {
        let now = self.now();
        let draft = match Draft::of(case, dataset, now)? {
            Ok(draft) => draft,
            Err(refusal) => return Ok(Err(refusal)),
        };
        for task in &draft.tasks {
            let tried = Tried { job, task, attempt: 1, deadline: now.plus_millis(limits::DRY_RUN_MS) };
            if let Err(refusal) = self.ask_dry(conn, &draft, tried).await? {
                return Ok(Err(refusal));
            }
        }
        Ok(Ok(draft))
    }

    /// Asks for a permit for a dry run, with everything as it is now.
    pub(super) async fn ask_dry(
        &self,
        conn: &mut SqliteConnection,
        draft: &Draft,
        tried: Tried<'_>,
    ) -> Result<Result<Box<DryLeave>, Refusal>, PartyError> {
        let refused = |code, words: &str| Ok(Err(Refusal::new(code, words)));
        let offered = study(conn, draft.study).await?;
        if !super::waits(offered.state(approval(conn, draft.study).await?.as_ref())) {
            return refused(RefusalCode::NotApproved, DECIDED);
        }
        // What a privacy officer holds nobody signs, and nobody tries.
        if let Some(words) = held(conn, draft.study).await? {
            return refused(RefusalCode::Suspended, &words);
        }
        let Some(dataset) = datasets::all(conn).await?.into_iter().find(|found| found.id == draft.dataset) else {
            return refused(RefusalCode::Snapshot, "the dataset was removed");
        };
        let membership = memberships::by_id(conn, draft.federation).await?;
        let policy = policy::current(conn).await?;
        let header = match draft.header(tried, &membership, &policy) {
            Ok(header) => Canonical::new(header)?,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let trust = roster::trust(conn, &membership).await?;
        let circumstances = Circumstances {
            now: self.now(),
            plan: draft.plan.clone(),
            header,
            snapshot: dataset.facts()?,
            policy,
            state: ApprovalState::PartlyApproved,
            spent: Spent { epoch: membership.epoch.unwrap_or(0), ..Spent::default() },
            signers: Vec::new(),
            peers: trust.into_iter().map(|(site, trust)| (site.to_string(), trust)).collect(),
            stopped: self.stopped(conn, draft.federation).await?,
        };
        Ok(match draft.approval.dry_permit(&circumstances) {
            Ok(_) => Ok(Box::new(DryLeave { circumstances, dataset })),
            Err(refusal) => Err(refusal),
        })
    }
}

/// Why a plan sends more than a dry run shows, if it does.
fn too_much(plan: &Plan) -> Option<String> {
    let (mut bytes, mut figures) = (0u64, 0u64);
    for item in plan::egress(plan) {
        bytes = bytes.saturating_add(item.bytes);
        if item.kind != EgressKind::Update || plan::masks::reports_figures(plan, &item.task) {
            figures = figures.saturating_add(item.bytes);
        }
    }
    let checks = [
        ("bytes", bytes, limits::DRY_RUN_BYTES, "DRY_RUN_BYTES"),
        ("bytes of figures", figures, limits::DRY_RUN_FIGURES, "DRY_RUN_FIGURES"),
    ];
    let (what, found, most, name) = checks.into_iter().find(|(_, found, most, _)| found > most)?;
    Some(format!(
        "{found} {what} would leave in the first rounds of its tasks, and a dry run shows at most {most} (limit {name}); \
         the output tab lists them all"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_figures_than_an_answer_holds_are_not_tried() {
        let columns: Vec<String> = (0..399).map(|n| format!("x{n}")).collect();
        let text = format!(
            "schema: hospes/plan/v1\nname: wide\n\
             data: {{ subject: id, label: {{ column: ill, positive: \"> 0\" }}, columns: [{}] }}\n\
             tasks: {{ read: {{ component: reader }}, \
                          fit: {{ component: glm, inputs: {{ train: read }}, params: {{ family: binomial }} }} }}",
            columns.join(", ")
        );
        let mut plan = plan::read(&text).unwrap_or_else(|e| panic!("{e}"));
        // Each fit sends some 80 000 numbers.
        let fit = plan.tasks["fit"].clone();
        plan.tasks.extend((2..=4).map(|n| (format!("fit{n}"), fit.clone())));
        assert_eq!(too_much(&plan), None);
        plan.tasks.insert("fit5".to_owned(), fit);
        assert!(too_much(&plan).is_some_and(|words| words.contains("DRY_RUN_FIGURES")));
    }
}
