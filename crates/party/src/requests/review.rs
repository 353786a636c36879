//! The review that people read before they sign, by the Five Safes (fivesafes.org).

use std::collections::BTreeMap;

use hospes_protocol::approval::{ApprovalDocument, ApprovalState, Peer, ReleaseRule};
use hospes_protocol::id::{DatasetId, StudyId, Timestamp};
use hospes_protocol::plan::{self, Component, DropLevel, Egress, ImputationMethod, Plan, ScaleMethod};
use hospes_protocol::policy::{FourEyes, Policy};
use hospes_protocol::study::{Terms, egress_in_all};
use hospes_protocol::text::{in_bytes, shown};
use sqlx::sqlite::SqliteConnection;

use super::sign::Case;
use super::{approval, digest_of, opinion, reading, rules, set_study_state, sweep, words};
use crate::datasets::{self, Dataset};
use crate::engine::Engine;
use crate::error::PartyError;
use crate::people::{Session, name_of};
use crate::store::At as _;
use crate::view::{
    Change, ComputeLimits, DataTab, Fact, Finding, OpinionGiven, OutputsTab, PeerLine, PeopleTab, QuietHours,
    RequestState, Review, SeriesOffer, SignatureGiven,
};

/// What every review under the public-data policy says besides.
pub(crate) const PUBLIC: &str =
    "PUBLIC DATA: this site runs under the policy for public data; its rules protect nobody.";
/// Characters of a text from outside that are shown at once.
const LONG: usize = 4_000;

impl Engine {
    pub(crate) async fn review(
        &mut self,
        session: Session,
        id: StudyId,
        dataset: Option<DatasetId>,
    ) -> Result<Review, PartyError> {
        self.acting(&session, "read a request", &[]).await?;
        let mut conn = self.reader().await?;
        let case = Case::read(&mut conn, id, dataset).await?;
        let review = build(&mut conn, &case, self.share.limits(), self.now()).await?;
        drop(conn);
        if case.offered.state == "received" {
            let mut tx = self.store.begin("read a request").await?;
            set_study_state(&mut tx, id, "under_review", None).await?;
            tx.commit().await?;
        }
        Ok(review)
    }
}

async fn build(
    conn: &mut SqliteConnection,
    case: &Case,
    training: &ComputeLimits,
    now: Timestamp,
) -> Result<Review, PartyError> {
    let study = &case.offered.study;
    let id = study.id;
    let stored = approval(conn, id).await?;
    let state = case.offered.state(stored.as_ref());
    let opinion = opinion(conn, id).await?;
    let read = case.reading(opinion.as_ref())?;
    let mut findings = rules::findings(case);
    findings.extend(reading::own_studies(conn, &study.terms.requester).await?);
    // What was signed is shown as it was signed; on another dataset the review is of a new approval.
    let mut open = stored.as_ref().filter(|s| s.is_open() && case.dataset().is_some_and(|d| d.id == s.dataset));
    if let Some(draft) = open.filter(|s| s.state == ApprovalState::PartlyApproved)
        && let Some(words) = super::sign::changed_since(&draft.approval.document, case.policy.digest()?, &opinion)
    {
        // Nobody can sign second what no longer holds: what is read is what would be signed first.
        findings.push(Finding { rule: "first signature".into(), refuses: false, words: words.into() });
        open = None;
    }
    let document = open.map(|s| &*s.approval.document);
    findings.extend(document.into_iter().flat_map(widened));
    findings.extend(super::versions::newer_version(case, open, now)?);
    if let Some(words) = super::sign::held(conn, id).await? {
        findings.push(Finding { rule: "privacy officer".into(), refuses: true, words });
    }
    findings.sort_by_key(|f| !f.refuses);
    let mut banners = case.protects().banners();
    if case.policy.is_public_data() {
        banners.push(PUBLIC.to_owned());
    }
    let opinion = match opinion {
        Some(o) => Some(OpinionGiven { by: name_of(conn, o.person).await?, at: o.at, view: o.view, text: o.text }),
        None => None,
    };
    let mut signatures = Vec::new();
    for s in open.iter().flat_map(|s| &s.approval.signatures) {
        signatures.push(SignatureGiven { by: name_of(conn, s.person).await?, role: s.role, at: s.at });
    }
    let refused = findings.iter().any(|f| f.refuses);
    Ok(Review {
        study: id,
        federation: case.offered.federation,
        study_digest: study.digest(),
        plan_digest: study.plan.digest(),
        banners,
        title: shown(&study.terms.title, 200),
        summary: summary(case),
        state,
        in_force: super::in_force(conn, id).await?,
        project: project(&study.terms),
        people: PeopleTab { facts: people(&study.terms), peers: peer_lines(case, document) },
        settings: settings(case, document, training),
        data: data(case, document),
        outputs: outputs(case),
        privacy: case.budget.clone(),
        computation: computation(case),
        findings,
        marks: super::marks::marks(conn, case).await?,
        changes: changes(conn, case).await?,
        opinion,
        signatures,
        approval_digest: open.map(digest_of),
        read,
        approvable: !refused && !matches!(state, RequestState::Withdrawn),
    })
}

/// The computation, a sentence for each component, and one for its settings.
fn computation(case: &Case) -> Vec<String> {
    let study = &case.offered.study;
    let components = study.plan.tasks.iter().map(|(n, t)| sentence(n, &t.component));
    components.chain(study.sweep.iter().map(|many| format!("{}.", sweep::sentence(many)))).collect()
}

fn summary(case: &Case) -> String {
    let (study, terms) = (&case.offered.study, &case.offered.study.terms);
    let outputs = outputs(case);
    let data = match case.dataset() {
        Some(d) => format!(
            "It uses {} of {} columns of '{}', {} patients.",
            plan::columns_read(&study.plan).len(),
            d.columns().len(),
            shown(&d.name, 100),
            d.subjects_left
        ),
        None => "No dataset of this site is chosen yet.".to_owned(),
    };
    let asks = match (terms.requester.name.trim(), terms.requester.organisation.trim()) {
        ("", "") => "Somebody who is not stated".to_owned(),
        (name, "") => shown(name, 100),
        ("", organisation) => shown(organisation, 100),
        (name, organisation) => format!("{} ({})", shown(name, 100), shown(organisation, 100)),
    };
    let leaves = match &study.sweep {
        None => format!("{} in one run", in_bytes(outputs.bytes_per_run)),
        Some(_) => format!("{} in all {} runs", in_bytes(outputs.bytes_in_all), outputs.runs),
    };
    let many = study.sweep.as_ref().map(|many| format!(" It asks for {}.", sweep::sentence(many))).unwrap_or_default();
    format!(
        "{asks} asks {} sites, this one among them, to compute '{}'.{many} {data} {} things leave this site, {leaves}.",
        study.members.len(),
        shown(&study.plan.name, 100),
        outputs.items.len(),
    )
}

fn project(terms: &Terms) -> Vec<Fact> {
    let list = |items: &[String]| {
        let items: Vec<String> = items.iter().map(|i| shown(i, 200)).collect();
        (!items.is_empty()).then(|| items.join(", "))
    };
    let stated =
        |label: &str, value: &Option<String>| Fact::stated(label, value.as_ref().map(|v| shown(v, LONG)).as_deref());
    vec![
        Fact::stated("Purpose", Some(&shown(&terms.purpose, LONG))),
        Fact::stated("Terms of use (DUO)", list(&terms.duo).as_deref()),
        stated("Disease", &terms.disease),
        stated("Purpose of use (HL7)", &terms.purpose_of_use),
        Fact::new("Commercial use", if terms.commercial { "yes" } else { "no" }),
        stated("Basis, Art. 6 GDPR", &terms.gdpr_article_6),
        stated("Exception, Art. 9 GDPR", &terms.gdpr_article_9),
        stated("Impact assessment", &terms.impact_assessment),
        stated("Agreement between the parties", &terms.agreement),
        stated("Ethics decision", &terms.ethics),
        stated("EHDS permit", &terms.ehds_permit),
        stated("United States basis", &terms.us_basis),
    ]
}

fn people(terms: &Terms) -> Vec<Fact> {
    let requester = &terms.requester;
    let controllers: Vec<String> = terms
        .controllers
        .iter()
        .map(|c| format!("{} ({}; {})", shown(&c.organisation, 100), shown(&c.role, 60), shown(&c.contact, 100)))
        .collect();
    let recipients: Vec<String> = terms.recipients.iter().map(|r| shown(r, 200)).collect();
    vec![
        Fact::stated("Who asks", Some(&shown(&requester.name, 200))),
        Fact::stated("Organisation", Some(&shown(&requester.organisation, 200))),
        // A study that names a key which did not sign it is refused when it comes.
        Fact::stated(
            "Signing key of the requester, which signed this study",
            requester.key.map(|k| k.to_string()).as_deref(),
        ),
        Fact::stated(
            "Who vouches for it, as stated by the coordinator and not checked",
            requester.vouched_by.as_ref().map(|v| shown(v, 200)).as_deref(),
        ),
        Fact::stated("Controllers and roles", Some(&controllers.join("; "))),
        Fact::stated("Recipients of the results", Some(&recipients.join(", "))),
    ]
}

fn peer_lines(case: &Case, document: Option<&ApprovalDocument>) -> Vec<PeerLine> {
    let line = |p: Peer| PeerLine { site: p.site, name: p.name, organisation: p.organisation, trust: p.trust };
    document.map_or_else(|| case.peers(), |d| d.envelope.roster.clone()).into_iter().map(line).collect()
}

/// What the first signer allowed beyond one run of exactly this plan; the second must not overlook it.
fn widened(document: &ApprovalDocument) -> Vec<Finding> {
    let envelope = &document.envelope;
    let mut found = Vec::new();
    let mut read = |rule: &str, words: String| found.push(Finding { rule: rule.into(), refuses: false, words });
    // Runs and ranges of a study with many settings are what it asks for, and a finding of its own.
    let asked = !envelope.computation.settings.is_empty();
    if envelope.computation.max_runs > 1 && !asked {
        let words = format!(
            "up to {} runs are allowed; in each, everything listed leaves again",
            envelope.computation.max_runs
        );
        read("approval.max_runs", words);
    }
    for (place, range) in envelope.computation.ranges.iter().filter(|_| !asked) {
        let place = shown(place, 200);
        let words = format!("{place} may be any number from {} to {} without another signature", range.min, range.max);
        read("approval.ranges", words);
    }
    if let Some(series) = &envelope.data.series {
        // PRIVACY: no rule of this version compares runs on two versions, so people weigh it.
        let words = format!(
            "later versions of the dataset with {} to {} patients and the same columns are used without another signature; \
             what two runs differ in can tell about the few patients in whom their versions differ",
            series.min_subjects, series.max_subjects
        );
        read("approval.series", words);
    }
    if envelope.release == ReleaseRule::Automatic {
        read("approval.release", "results are released without a person of this site looking at them".into());
    }
    found
}

/// What an approval allows: as the first signer chose it, or what is signed where nobody chooses otherwise.
fn limits(case: &Case, document: Option<&ApprovalDocument>) -> Vec<Fact> {
    const HELD: &str =
        "they are held at the coordinator until this site releases them; a coordinator that lies could ignore that";
    let Some(document) = document else {
        let mut facts = match &case.offered.study.sweep {
            Some(many) => sweep::facts(many),
            None => vec![
                Fact::new("Runs", "one, if the first signer does not choose otherwise"),
                Fact::new(
                    "Numbers that may differ from the plan",
                    "none, if the first signer does not choose otherwise",
                ),
            ],
        };
        facts.extend([
            Fact::new("Longest validity", format!("{} days", case.policy.approval.expires_days)),
            Fact::new("Release of results", format!("if the first signer does not choose otherwise, {HELD}")),
        ]);
        return facts;
    };
    let envelope = &document.envelope;
    let ranges: Vec<String> = envelope
        .computation
        .ranges
        .iter()
        .map(|(place, r)| format!("{} from {} to {}", shown(place, 200), r.min, r.max))
        .collect();
    let mut facts: Vec<Fact> = case.offered.study.sweep.iter().flat_map(sweep::facts).collect();
    facts.extend([
        Fact::new("Runs", envelope.computation.max_runs.to_string()),
        Fact::new(
            "Numbers that may differ from the plan",
            if ranges.is_empty() { "none".into() } else { ranges.join("; ") },
        ),
        Fact::new("Valid from", envelope.limits.not_before.to_string()),
        Fact::new("Valid until", envelope.limits.expires.to_string()),
        Fact::new("Longest time of a round", format!("{} seconds", envelope.limits.round_seconds)),
        Fact::new("Patients when the first person signed", envelope.data.subjects.to_string()),
        Fact::new(
            "Release of results",
            match envelope.release {
                ReleaseRule::Reviewed => HELD,
                ReleaseRule::Automatic => "at once, without a person of this site looking at them",
            },
        ),
    ]);
    for (question, answer) in &envelope.checklist {
        facts.push(Fact::new(&format!("Checklist: {}", shown(question, 200)), shown(answer, LONG)));
    }
    facts
}

/// What the administrator lets training take of this machine.
fn machine(training: &ComputeLimits) -> Vec<Fact> {
    let time = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
    let window = |hours: &QuietHours| {
        let days: Vec<String> = hours.days.iter().map(|day| format!("{day:?}")).collect();
        format!("{} {} to {}", days.join(", "), time(hours.from), time(hours.to))
    };
    let quiet: Vec<String> = training.quiet.iter().map(window).collect();
    vec![
        Fact::new(
            "When a round may be asked for",
            "at any time, for up to a day; it is computed at low priority, on the processor or a graphics card",
        ),
        Fact::new(
            "Quiet hours",
            if quiet.is_empty() { "none: training may compute at any hour".into() } else { quiet.join("; ") },
        ),
        Fact::new("Share of the machine's time", format!("{} %", training.share)),
        Fact::new("Threads of the processor", training.threads.map_or("all".to_owned(), |n| n.to_string())),
        Fact::new("Waits while somebody works here", if training.yields { "yes" } else { "no" }),
    ]
}

fn settings(case: &Case, document: Option<&ApprovalDocument>, training: &ComputeLimits) -> Vec<Fact> {
    let (terms, policy) = (&case.offered.study.terms, &case.policy);
    let stated =
        |label: &str, value: &Option<String>| Fact::stated(label, value.as_ref().map(|v| shown(v, LONG)).as_deref());
    let rounds: u32 = case.offered.study.plan.tasks.values().map(|t| t.component.rounds()).fold(0, u32::saturating_add);
    let eyes = match document.map_or(policy.approval.four_eyes, |d| d.four_eyes) {
        FourEyes::TwoPeople => "two people of this site: data steward and data-access approver",
        FourEyes::External => "the data steward, and a named person of another organisation",
        FourEyes::Delayed => "one person, with effect after 72 hours, shown to every other site as 'one person'",
    };
    let mut facts = vec![
        Fact::new("Federation", shown(&case.membership.name, 100)),
        stated("Operator and country of the coordinator", &terms.operator),
        stated("Safeguard for transfers abroad", &terms.transfer_safeguard),
        stated("Retention and withdrawal of the model", &terms.retention),
        Fact::new(
            "Where it runs",
            "on this site's own machine, in a process of its own; no code of the study runs here",
        ),
        Fact::new("Rounds of one run", rounds.to_string()),
        Fact::new("Signatures", eyes),
        Fact::new("Policy", policy_words(policy)),
        Fact::new(
            "What revocation does",
            "it stops work at once and withdraws what has not left yet; updates already sent cannot be recalled",
        ),
    ];
    facts.extend(machine(training));
    facts.extend(limits(case, document));
    facts
}

fn policy_words(policy: &Policy) -> String {
    let digest = policy.digest().map(|d| d.short()).unwrap_or_default();
    format!("'{}', digest {digest}", policy.profile)
}

/// Which versions of the dataset an approval is for.
fn versions(case: &Case, document: Option<&ApprovalDocument>) -> String {
    match document.map(|document| &document.envelope.data.series) {
        Some(Some(series)) => format!(
            "this and later versions, with {} to {} patients, those who opted out among them",
            series.min_subjects, series.max_subjects
        ),
        Some(None) => "this snapshot alone".to_owned(),
        None if case.offered.study.sweep.is_some() => "this snapshot alone".to_owned(),
        None if case.policy.approval.snapshots_only => "this snapshot alone, as the policy demands".to_owned(),
        None => "this snapshot alone, if the first signer does not choose otherwise".to_owned(),
    }
}

fn data(case: &Case, document: Option<&ApprovalDocument>) -> DataTab {
    let plan = &case.offered.study.plan;
    let needed = plan::columns_read(plan);
    let have = case.dataset().map(Dataset::columns).unwrap_or_default();
    let facts = match case.dataset() {
        Some(d) => vec![
            Fact::new("Dataset", shown(&d.name, 100)),
            Fact::new("Snapshot", d.document.digest().to_string()),
            Fact::new("Versions that are approved", versions(case, document)),
            Fact::new("Columns read", format!("{} of {}", needed.len(), have.len())),
            Fact::new("Patients", d.subjects_left.to_string()),
            Fact::new("Patients who opted out", (d.document.subjects - d.subjects_left).to_string()),
            Fact::new("Rows", d.document.rows.to_string()),
            Fact::new("Cells that mean missing", datasets::marker_words(&d.document.format.missing)),
            Fact::new("Public data", if d.document.public { "yes" } else { "no" }),
            Fact::stated("Terms of use (DUO)", Some(&d.duo.join(", "))),
        ],
        None => vec![Fact::stated("Dataset", None)],
    };
    let mut facts = facts;
    if let (Some(former), Some(now)) = (case.former(), case.dataset()) {
        facts.extend(datasets::difference(former, now));
    }
    let newest = datasets::newest(&case.datasets);
    let fits = case.datasets.iter().filter(|d| newest(d) && needed.is_subset(&d.columns()));
    let offer =
        |d: &Dataset| SeriesOffer { patients: d.document.subjects, bounds: super::sign::suggested(&case.policy, d) };
    DataTab {
        facts,
        columns_read: needed.iter().map(|c| shown(c, 100)).collect(),
        columns_missing: if case.dataset().is_some() {
            needed.difference(&have).map(|c| shown(c, 100)).collect()
        } else {
            Vec::new()
        },
        candidates: fits.map(|d| d.name.clone()).collect(),
        series: case.may_go_on().map(offer),
    }
}

fn outputs(case: &Case) -> OutputsTab {
    let study = &case.offered.study;
    let bytes =
        |items: &[Egress]| items.iter().map(|i| i.bytes.saturating_mul(i.times.into())).fold(0, u64::saturating_add);
    let bytes_per_run = case.runs.iter().map(|plan| bytes(&plan::egress(plan))).max().unwrap_or_default();
    let mut items = egress_in_all(&case.runs);
    for item in &mut items {
        (item.task, item.name) = (shown(&item.task, 100), shown(&item.name, 100));
    }
    let (bytes_in_all, runs) = (bytes(&items), u32::try_from(case.runs.len()).unwrap_or(u32::MAX));
    let protects = case.protects();
    let mut sentences = protects.banners();
    sentences.extend(protects.bound(case.runs.iter().map(|plan| &**plan)));
    if protects.is_masked() {
        sentences.push(super::protects::survives(&case.policy, &case.peers()));
    }
    if protects.is_shared() {
        sentences.extend(super::protects::price(&case.policy, &case.peers()));
    }
    if study.sweep.is_some() {
        sentences.push(format!("Times and bytes are counted over all {runs} runs."));
    }
    if case.policy.is_public_data() {
        sentences.push(PUBLIC.to_owned());
    }
    OutputsTab { items, runs, bytes_per_run, bytes_in_all, sentences }
}

/// A component in one plain sentence.
fn sentence(name: &str, component: &Component) -> String {
    let words = match component {
        Component::Reader(_) => "reads the approved columns of the snapshot".to_owned(),
        Component::Imputation(i) => match i.method {
            ImputationMethod::DropRows => "leaves out rows with missing values".to_owned(),
            ImputationMethod::Mean => "fills missing numbers with this site's mean".to_owned(),
            ImputationMethod::Median => "fills missing numbers with this site's median".to_owned(),
            ImputationMethod::Constant(c) => format!("fills missing numbers with {c}"),
        },
        Component::OneHot(o) => format!(
            "turns {} into yes/no columns{}",
            shown(&o.columns.join(", "), 400),
            if o.drop == DropLevel::First { ", without the first code" } else { "" }
        ),
        Component::DataSplit(s) => match (&s.by_column, s.test_fraction) {
            (Some(column), _) => format!("splits rows into training and test by the column '{}'", shown(column, 100)),
            (None, Some(fraction)) => format!("keeps {:.0} % of the patients apart for testing", fraction * 100.0),
            (None, None) => "splits rows into training and test".to_owned(),
        },
        Component::FeatureScale(s) => match s.method {
            ScaleMethod::Standard => "scales numbers by this site's own mean and spread".to_owned(),
            ScaleMethod::Bounds => "scales numbers to 0 to 1 by the study's bounds".to_owned(),
        },
        Component::Statistics(_) => {
            format!("reports counts, sums and sums of squares of each feature{}", words::masked(component))
        }
        Component::NnTrain(t) => words::training(t),
        Component::Evaluation(e) => words::evaluation(e, words::masked(component)),
        Component::Glm(g) => {
            let column = |what: &str, name: &Option<String>| {
                name.as_ref().map_or_else(String::new, |name| format!(", with '{}' as {what}", shown(name, 100)))
            };
            format!(
                "fits a {} regression together with the other sites{}{}, in at most {} rounds; each sends sums over its \
                 rows, and {}",
                words::family(g.family),
                column("offset", &g.offset),
                column("weights", &g.weights),
                g.newton.rounds,
                words::sums(component)
            )
        }
        Component::Cox(c) => format!(
            "fits Cox's model of the time to an event together with the other sites, each with a baseline of its own, in at \
             most {} rounds, and reports once at the end how many pairs of patients it puts in the right order{}; {}",
            c.newton.rounds,
            c.time_grid.map_or_else(String::new, |grid| format!(
                " and the events and time at risk in {} intervals of {}",
                grid.intervals, grid.width
            )),
            words::sums(component)
        ),
        Component::LocalBaseline(b) => format!(
            "trains {} on this site alone, {} passes ({}), and reports how good it is here{}",
            words::graph(&b.model),
            b.epochs,
            words::optimizer(&b.optimizer),
            words::masked(component)
        ),
    };
    format!("{} ({}): {words}.", shown(name, 60), component.name())
}

/// Differences to the envelope that was approved last: of this study, or else of another one of the same requester.
async fn changes(conn: &mut SqliteConnection, case: &Case) -> Result<Option<Vec<Change>>, PartyError> {
    let study = &case.offered.study;
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM approvals WHERE state IN ('active', 'suspended', 'revoked', 'expired', 'superseded')
         AND EXISTS (SELECT 1 FROM approval_signatures s WHERE s.approval = approvals.id AND s.role <> '\"data_steward\"')
         ORDER BY study = ?1 DESC, at DESC LIMIT 50",
    )
    .bind(study.id.to_string())
    .fetch_all(&mut *conn)
    .await
    .at("find the last approval")?;
    for id in rows {
        let stored = super::approval_by_id(conn, crate::store::parse(&id, "id")?).await?;
        let envelope = &stored.approval.document.envelope;
        let (before, now) = (&envelope.terms, &study.terms);
        let same = envelope.study == study.id
            || (before.requester.name == now.requester.name
                && before.requester.organisation == now.requester.organisation);
        if same {
            let asked = study.computation().ok();
            let width = [Some(&envelope.computation), asked.as_ref()].map(|c| c.map(sweep::width).unwrap_or_default());
            return Ok(Some(differences((before, &envelope.computation.plan), (now, &study.plan), width)));
        }
    }
    Ok(None)
}

/// What differs in terms and plan, and in how much wider than the plan what is allowed is.
fn differences(before: (&Terms, &Plan), now: (&Terms, &Plan), width: [serde_json::Value; 2]) -> Vec<Change> {
    let tree = |(terms, plan): (&Terms, &Plan), width: serde_json::Value| {
        let mut leaves = BTreeMap::new();
        let value = serde_json::json!({ "terms": terms, "plan": plan, "sweep": width });
        flatten("", &value, &mut leaves);
        leaves
    };
    let [width_before, width_now] = width;
    let (before, after) = (tree(before, width_before), tree(now, width_now));
    let mut places: Vec<&String> = before.keys().chain(after.keys()).collect();
    places.sort_unstable();
    places.dedup();
    places
        .into_iter()
        .filter(|place| before.get(*place) != after.get(*place))
        .map(|place| Change {
            place: shown(place, 200),
            before: before.get(place).cloned(),
            after: after.get(place).cloned(),
        })
        .collect()
}

fn flatten(place: &str, value: &serde_json::Value, leaves: &mut BTreeMap<String, String>) {
    let below = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
    match value {
        serde_json::Value::Object(map) => map.iter().for_each(|(k, v)| flatten(&below(k), v, leaves)),
        serde_json::Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, v)| flatten(&below(&i.to_string()), v, leaves));
        }
        serde_json::Value::Null => {}
        leaf => drop(leaves.insert(place.to_owned(), shown(&leaf.to_string(), 200))),
    }
}
