//! Requests: studies that were offered, and what the people of this site decide about them.

use std::collections::BTreeSet;

use hospes_ledger::{Action, Actor, ObjectKind, Purpose};
use hospes_protocol::approval::{
    Approval, ApprovalDocument, ApprovalSignature, ApprovalState, Opinion, OpinionView, Refusal, RefusalCode, Role,
};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{ApprovalId, DatasetId, Digest, FederationId, JobId, PersonId, StudyId, Timestamp};
use hospes_protocol::memo;
use hospes_protocol::message::{Decision, FromSite};
use hospes_protocol::policy::FourEyes;
use hospes_protocol::sign::Signed;
use hospes_protocol::study::Study;
use hospes_protocol::text::shown;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::audit::{Because as _, clean};
use crate::engine::Engine;
use crate::error::PartyError;
use crate::memberships;
use crate::people::Session;
use crate::restored;
use crate::store::{At as _, Tx, from_json, parse, to_json};
use crate::view::{InForce, Notice, RequestState, RequestView, Verdict};

pub(crate) mod dry_run;
mod marks;
pub(crate) mod policy;
mod protects;
mod reading;
mod review;
pub(crate) mod rules;
mod sign;
mod sweep;
pub(crate) mod text;
mod versions;
mod words;

pub(crate) use protects::protection;
pub(crate) use sign::banner;
pub(crate) use versions::data_of_run;

/// What is wrong with a study whose id is taken.
const KNOWN_ID: &str = "it has the id of another one that was offered before";

/// A study as the database has it.
pub(crate) struct Offered {
    pub(crate) study: Canonical<Study>,
    pub(crate) federation: FederationId,
    state: String,
    reason: Option<String>,
    at: Timestamp,
}

/// An approval as the database has it.
pub(crate) struct Stored {
    pub(crate) approval: Approval,
    pub(crate) state: ApprovalState,
    pub(crate) dataset: DatasetId,
    reason: Option<String>,
    held_by: Option<Role>,
}

impl Stored {
    pub(crate) fn id(&self) -> ApprovalId {
        self.approval.document.id
    }
    /// Whether it is on its way or in force.
    fn is_open(&self) -> bool {
        matches!(self.state, ApprovalState::PartlyApproved | ApprovalState::Active | ApprovalState::Suspended)
    }
    fn purpose(&self) -> Purpose {
        Purpose { study: Some(self.approval.document.envelope.study), job: None, approval: Some(self.id()) }
    }
}

impl Offered {
    fn from_row(row: &SqliteRow) -> Result<Self, PartyError> {
        let text = |column: &'static str| row.try_get::<String, _>(column).at("read a study");
        let document: Vec<u8> = row.try_get("document").at("read a study")?;
        Ok(Self {
            study: memo::parsed(&document, Signed::<Study>::from_bytes)?.document,
            federation: parse(&text("federation")?, "federation")?,
            state: text("state")?,
            reason: row.try_get("reason").at("read a study")?,
            at: Timestamp::from_millis(row.try_get("at").at("read a study")?),
        })
    }

    /// State, together with its approval's.
    fn state(&self, approval: Option<&Stored>) -> RequestState {
        match (self.state.as_str(), approval.map(|a| a.state)) {
            ("withdrawn", _) => RequestState::Withdrawn,
            ("refused", _) => RequestState::Refused,
            (_, Some(ApprovalState::PartlyApproved)) => RequestState::PartlyApproved,
            (_, Some(ApprovalState::Active)) => RequestState::Active,
            (_, Some(ApprovalState::Suspended)) => RequestState::Suspended,
            (_, Some(ApprovalState::Revoked)) => RequestState::Revoked,
            (_, Some(ApprovalState::Expired)) => RequestState::Expired,
            ("received", _) => RequestState::Received,
            _ => RequestState::UnderReview,
        }
    }
}

pub(crate) async fn study(conn: &mut SqliteConnection, id: StudyId) -> Result<Offered, PartyError> {
    let row = sqlx::query("SELECT * FROM studies WHERE study = ?1").bind(id.to_string()).fetch_optional(conn).await;
    let row = row.at("read a study")?.ok_or_else(|| PartyError::NotFound(format!("request {id}")))?;
    Offered::from_row(&row)
}

/// Studies that were signed for here, the newest first, so many of them as people may still remember.
pub(crate) async fn approved_here(conn: &mut SqliteConnection) -> Result<Vec<Offered>, PartyError> {
    let rows = sqlx::query(
        "SELECT * FROM studies WHERE EXISTS (SELECT 1 FROM approvals WHERE approvals.study = studies.study)
         ORDER BY at DESC LIMIT 200",
    )
    .fetch_all(conn)
    .await
    .at("read approved studies")?;
    rows.iter().map(Offered::from_row).collect()
}

/// The approval of a study that is on its way or in force, the newest if both; otherwise the one that was last.
pub(crate) async fn approval(conn: &mut SqliteConnection, study: StudyId) -> Result<Option<Stored>, PartyError> {
    pick(conn, study, [ApprovalState::PartlyApproved, ApprovalState::Active, ApprovalState::Suspended]).await
}

/// The approval under which rounds run: one in force or suspended, even if another is on its way; otherwise the one
/// that was last. A draft in its place would hide that somebody suspended it.
pub(crate) async fn approval_in_force(
    conn: &mut SqliteConnection,
    study: StudyId,
) -> Result<Option<Stored>, PartyError> {
    pick(conn, study, [ApprovalState::Active, ApprovalState::Suspended, ApprovalState::PartlyApproved]).await
}

/// The newest approval in the first of these states in which there is one; in none of them, the one that was last.
async fn pick(
    conn: &mut SqliteConnection,
    study: StudyId,
    states: [ApprovalState; 3],
) -> Result<Option<Stored>, PartyError> {
    let [first, second, third] = states.map(state_name);
    let row = sqlx::query(
        "SELECT * FROM approvals WHERE study = ?1
         ORDER BY CASE state WHEN ?2 THEN 0 WHEN ?3 THEN 1 WHEN ?4 THEN 2 ELSE 3 END, at DESC LIMIT 1",
    )
    .bind(study.to_string())
    .bind(first)
    .bind(second)
    .bind(third)
    .fetch_optional(&mut *conn)
    .await
    .at("read an approval")?;
    match row {
        Some(row) => Ok(Some(stored(conn, &row).await?)),
        None => Ok(None),
    }
}

pub(crate) async fn approval_by_id(conn: &mut SqliteConnection, id: ApprovalId) -> Result<Stored, PartyError> {
    let row = sqlx::query("SELECT * FROM approvals WHERE id = ?1").bind(id.to_string()).fetch_optional(&mut *conn);
    let row = row.await.at("read an approval")?.ok_or_else(|| PartyError::NotFound(format!("approval {id}")))?;
    stored(conn, &row).await
}

async fn stored(conn: &mut SqliteConnection, row: &SqliteRow) -> Result<Stored, PartyError> {
    let text = |column: &'static str| row.try_get::<String, _>(column).at("read an approval");
    let optional = |column: &'static str| row.try_get::<Option<String>, _>(column).at("read an approval");
    let document: Vec<u8> = row.try_get("document").at("read an approval")?;
    let document: Canonical<ApprovalDocument> = memo::parsed(&document, Canonical::parse)?;
    let rows: Vec<(String, String, i64, String)> =
        sqlx::query_as("SELECT person, role, at, signature FROM approval_signatures WHERE approval = ?1 ORDER BY at")
            .bind(document.id.to_string())
            .fetch_all(conn)
            .await
            .at("read signatures")?;
    let signature = |(person, role, at, signature): &(String, String, i64, String)| {
        Ok(ApprovalSignature {
            person: parse(person, "person")?,
            role: from_json(role, "role")?,
            at: Timestamp::from_millis(*at),
            signature: parse(signature, "signature")?,
        })
    };
    let signatures = rows.iter().map(signature).collect::<Result<_, PartyError>>()?;
    Ok(Stored {
        approval: Approval { document, signatures },
        state: from_json(&format!("\"{}\"", text("state")?), "state")?,
        dataset: parse(&text("dataset")?, "dataset")?,
        reason: optional("reason")?,
        held_by: optional("held_by")?.map(|r| from_json(&r, "held_by")).transpose()?,
    })
}

/// Jobs that ran, or run, under an approval.
pub(crate) async fn jobs_of(conn: &mut SqliteConnection, approval: ApprovalId) -> Result<BTreeSet<JobId>, PartyError> {
    let jobs: Vec<String> = sqlx::query_scalar("SELECT DISTINCT job FROM rounds WHERE approval = ?1")
        .bind(approval.to_string())
        .fetch_all(conn)
        .await
        .at("read jobs")?;
    jobs.iter().map(|j| parse(j, "job")).collect()
}

async fn opinion(conn: &mut SqliteConnection, study: StudyId) -> Result<Option<Opinion>, PartyError> {
    let row: Option<(String, String, String, i64)> =
        sqlx::query_as("SELECT by_person, view, text, at FROM opinions WHERE study = ?1")
            .bind(study.to_string())
            .fetch_optional(conn)
            .await
            .at("read an opinion")?;
    let Some((person, view, text, at)) = row else { return Ok(None) };
    let (person, view): (PersonId, OpinionView) = (parse(&person, "by_person")?, from_json(&view, "view")?);
    Ok(Some(Opinion { person, at: Timestamp::from_millis(at), view, text }))
}

/// Name of a state in the database.
fn state_name(state: ApprovalState) -> &'static str {
    match state {
        ApprovalState::PartlyApproved => "partly_approved",
        ApprovalState::Active => "active",
        ApprovalState::Suspended => "suspended",
        ApprovalState::Revoked => "revoked",
        ApprovalState::Expired => "expired",
        ApprovalState::Superseded => "superseded",
    }
}

/// Changes the state of an approval, within a step.
async fn set_state(
    tx: &mut Tx,
    id: ApprovalId,
    state: ApprovalState,
    reason: Option<&str>,
    held_by: Option<Role>,
) -> Result<(), PartyError> {
    let step = tx.step();
    sqlx::query("UPDATE approvals SET state = ?2, reason = ?3, held_by = ?4 WHERE id = ?1")
        .bind(id.to_string())
        .bind(state_name(state))
        .bind(reason)
        .bind(held_by.map(|r| to_json(&r)))
        .execute(tx.conn())
        .await
        .at(step)?;
    Ok(())
}

async fn set_study_state(tx: &mut Tx, study: StudyId, state: &str, reason: Option<&str>) -> Result<(), PartyError> {
    let step = tx.step();
    sqlx::query("UPDATE studies SET state = ?2, reason = ?3 WHERE study = ?1")
        .bind(study.to_string())
        .bind(state)
        .bind(reason)
        .execute(tx.conn())
        .await
        .at(step)?;
    Ok(())
}

impl Engine {
    pub(crate) async fn on_study(&mut self, federation: FederationId, signed: Signed<Study>) -> Result<(), PartyError> {
        let study = &signed.document;
        let (id, digest) = (study.id, study.digest());
        let mut tx = self.store.begin("take a request").await?;
        let membership = memberships::by_id(tx.conn(), federation).await?;
        let known: Option<(String, String)> = sqlx::query_as("SELECT digest, federation FROM studies WHERE study = ?1")
            .bind(id.to_string())
            .fetch_optional(tx.conn())
            .await
            .at("take a request")?;
        let fault = if !signed.signed_by(&membership.coordinator) {
            Some("it is not signed by the coordinator")
        } else if study.federation != federation {
            Some("it belongs to another federation")
        } else if study.terms.requester.key.is_some_and(|key| !signed.signed_by(&key)) {
            Some("it names a signing key of the requester that did not sign it")
        } else if !study.members.contains(&membership.site) {
            Some("this site is not among those asked")
        } else if known.as_ref().is_some_and(|(other, _)| *other != digest.to_string()) {
            Some(KNOWN_ID)
        } else if known.is_none() {
            self.against_another_study(&mut tx, federation).await?
        } else {
            None
        };
        let purpose = Purpose { study: Some(id), ..Purpose::default() };
        let entry = self
            .entry(Actor::peer(federation), Action::RequestReceived)
            .object(ObjectKind::Study, id, Some(digest))
            .purpose(purpose);
        if let Some(fault) = fault {
            // The sender of a forgery hears no more than that; the people here see it as an alarm.
            self.alarm(&mut tx, Some(federation), &format!("a study from the coordinator was refused: {fault}"))
                .await?;
            self.refuse_document(tx, federation, digest, entry, fault).await?;
            // PRIVACY: the id of a request of another federation. This coordinator hears nothing, as of one that nobody has
            // looked at yet: it would learn that this site was asked there.
            if fault == KNOWN_ID && known.is_some_and(|(_, of)| of != federation.to_string()) {
                return Ok(());
            }
            let refusal = Refusal::new(RefusalCode::Header, format!("the study was refused: {fault}"));
            self.say(federation, FromSite::Decision { study: id, decision: Decision::Refused(refusal) });
            return Ok(());
        }
        // What is not valid here is kept and shown all the same: the review lists every problem, and nobody can sign it.
        if known.is_none() {
            self.count_study(&mut tx, federation).await?;
            sqlx::query(
                "INSERT INTO studies (study, federation, document, digest, state, at)
                 VALUES (?1, ?2, ?3, ?4, 'received', ?5)",
            )
            .bind(id.to_string())
            .bind(federation.to_string())
            .bind(signed.to_bytes()?)
            .bind(digest.to_string())
            .bind(self.now().as_millis())
            .execute(tx.conn())
            .await
            .at("take a request")?;
            self.append(&mut tx, &entry).await?;
            tx.commit().await?;
            self.notify(Notice::Requests);
        }
        self.say_decision(id).await
    }

    pub(crate) async fn on_study_withdrawn(&mut self, federation: FederationId, id: StudyId) -> Result<(), PartyError> {
        let mut tx = self.store.begin("withdraw a request").await?;
        let Ok(offered) = study(tx.conn(), id).await else { return Ok(()) };
        if offered.federation != federation || offered.state == "withdrawn" {
            return Ok(());
        }
        set_study_state(&mut tx, id, "withdrawn", None).await?;
        for stored in self.open_approvals(&mut tx, id).await? {
            let reason = Some("the request was withdrawn");
            set_state(&mut tx, stored.id(), ApprovalState::Revoked, reason, stored.held_by).await?;
        }
        let entry = self
            .entry(Actor::peer(federation), Action::StudyWithdrawn)
            .object(ObjectKind::Study, id, None)
            .purpose(Purpose { study: Some(id), ..Purpose::default() });
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.notify(Notice::Requests);
        self.recheck_work().await
    }

    async fn open_approvals(&self, tx: &mut Tx, id: StudyId) -> Result<Vec<Stored>, PartyError> {
        let rows = sqlx::query(
            "SELECT * FROM approvals WHERE study = ?1 AND state IN ('partly_approved', 'active', 'suspended')",
        )
        .bind(id.to_string())
        .fetch_all(tx.conn())
        .await
        .at("read approvals")?;
        let mut found = Vec::new();
        for row in &rows {
            found.push(stored(tx.conn(), row).await?);
        }
        Ok(found)
    }

    pub(crate) async fn requests(&mut self, session: Session) -> Result<Vec<RequestView>, PartyError> {
        self.acting(&session, "see requests", &[]).await?;
        let mut conn = self.reader().await?;
        let rows = sqlx::query("SELECT * FROM studies ORDER BY at DESC").fetch_all(&mut *conn).await;
        let mut views = Vec::new();
        for row in rows.at("read requests")? {
            let offered = Offered::from_row(&row)?;
            views.push(request_view(&mut conn, &offered).await?);
        }
        Ok(views)
    }

    pub(crate) async fn give_opinion(
        &mut self,
        session: Session,
        id: StudyId,
        view: OpinionView,
        text: String,
    ) -> Result<(), PartyError> {
        let acting = self.acting(&session, "give an opinion", &[Role::PrivacyOfficer]).await?;
        hospes_protocol::text::check_text(&text).map_err(|r| PartyError::input("opinion", r))?;
        let mut tx = self.store.begin("give an opinion").await?;
        let offered = study(tx.conn(), id).await?;
        let now = approval(tx.conn(), id).await?;
        let state = offered.state(now.as_ref());
        let before = [
            RequestState::Received,
            RequestState::UnderReview,
            RequestState::PartlyApproved,
            // Before it is signed anew.
            RequestState::Revoked,
            RequestState::Expired,
            RequestState::Refused,
        ];
        if !before.contains(&state) {
            return Err(PartyError::state(format!("the request is {}; suspend it instead", state.word())));
        }
        sqlx::query(
            "INSERT INTO opinions (study, by_person, view, text, at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (study) DO UPDATE SET by_person = ?2, view = ?3, text = ?4, at = ?5",
        )
        .bind(id.to_string())
        .bind(acting.person.to_string())
        .bind(to_json(&view))
        .bind(&text)
        .bind(self.now().as_millis())
        .execute(tx.conn())
        .await
        .at("give an opinion")?;
        if offered.state == "received" {
            set_study_state(&mut tx, id, "under_review", None).await?;
        }
        if view != OpinionView::Object {
            // The officer has spoken again: an approval that ended while they held it holds nothing up any more.
            sqlx::query("UPDATE approvals SET held_by = NULL WHERE study = ?1 AND state IN ('revoked', 'expired')")
                .bind(id.to_string())
                .execute(tx.conn())
                .await
                .at("give an opinion")?;
        }
        let word = match view {
            OpinionView::Agree => "agrees",
            OpinionView::Conditions => "agrees with conditions",
            OpinionView::Object => "objects",
        };
        let entry = self
            .entry(acting.actor(), Action::OpinionGiven)
            .object(ObjectKind::Study, id, Some(offered.study.digest()))
            .purpose(Purpose { study: Some(id), ..Purpose::default() })
            .because(format!("{word}: {text}"));
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.notify(Notice::Requests);
        Ok(())
    }

    pub(crate) async fn decide(
        &mut self,
        session: Session,
        id: StudyId,
        verdict: Verdict,
    ) -> Result<RequestView, PartyError> {
        let (action, roles) = deciders(&verdict);
        let acting = match &verdict {
            // Whoever is asked for a signature may say no, also a person of another organisation.
            Verdict::Refuse { .. } if self.asks_outsiders().await? => self.acting(&session, action, roles).await?,
            // What is in force is this site's own matter.
            _ => self.inside(&session, action, roles).await?,
        };
        let mut tx = self.store.begin("decide on a request").await?;
        let offered = study(tx.conn(), id).await?;
        let in_force = approval_in_force(tx.conn(), id).await?;
        let state = in_force.as_ref().map(|a| a.state);
        let purpose = in_force.as_ref().map_or(Purpose { study: Some(id), ..Purpose::default() }, Stored::purpose);
        let entry = |a: Action| self.entry(acting.actor(), a).object(ObjectKind::Study, id, None).purpose(purpose);
        let entry = match (&verdict, in_force, state) {
            (Verdict::Refuse { reason }, _, state)
                if !matches!(state, Some(ApprovalState::Active | ApprovalState::Suspended))
                    && offered.state != "withdrawn" =>
            {
                check_reason(reason)?;
                for stored in self.open_approvals(&mut tx, id).await? {
                    set_state(&mut tx, stored.id(), ApprovalState::Revoked, Some(reason), stored.held_by).await?;
                }
                set_study_state(&mut tx, id, "refused", Some(reason)).await?;
                entry(Action::RequestRefused).because(reason)
            }
            // The privacy officer also takes over what somebody else suspended, so that nobody else resumes it.
            (Verdict::Suspend { reason }, Some(stored), Some(state))
                if state == ApprovalState::Active
                    || (state == ApprovalState::Suspended && acting.role == Some(Role::PrivacyOfficer)) =>
            {
                check_reason(reason)?;
                set_state(&mut tx, stored.id(), ApprovalState::Suspended, Some(reason), acting.role).await?;
                entry(Action::ApprovalSuspended).because(reason)
            }
            (Verdict::Resume, Some(stored), Some(ApprovalState::Suspended)) => {
                let held_by = stored.held_by;
                let person = crate::people::by_id(tx.conn(), acting.person).await?;
                if held_by.is_some_and(|role| !person.roles.contains(&role)) {
                    let role = held_by.map(|r| r.to_string()).unwrap_or_default();
                    return Err(PartyError::state(format!("it was suspended by a {role}, and only one can resume it")));
                }
                set_state(&mut tx, stored.id(), ApprovalState::Active, None, None).await?;
                entry(Action::ApprovalResumed)
            }
            (Verdict::Revoke { reason }, Some(_), _) => {
                check_reason(reason)?;
                let open = self.open_approvals(&mut tx, id).await?;
                if open.is_empty() {
                    return Err(PartyError::state("there is no approval that could be revoked"));
                }
                for stored in open {
                    set_state(&mut tx, stored.id(), ApprovalState::Revoked, Some(reason), stored.held_by).await?;
                }
                entry(Action::ApprovalRevoked).because(reason)
            }
            (verdict, in_force, _) => return Err(does_not_fit(verdict, &offered, in_force.as_ref())),
        };
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.notify(Notice::Requests);
        // The decision is durable; what runs or waits under it is stopped, and the coordinator told.
        self.recheck_work().await?;
        self.say_decision(id).await?;
        let mut conn = self.reader().await?;
        let offered = study(&mut conn, id).await?;
        request_view(&mut conn, &offered).await
    }

    /// Whether the second signature is asked of another organisation.
    async fn asks_outsiders(&self) -> Result<bool, PartyError> {
        let mut conn = self.reader().await?;
        Ok(policy::current(&mut conn).await?.approval.four_eyes == FourEyes::External)
    }

    /// Approvals whose time is over end, and the coordinator is told.
    pub(crate) async fn expire_approvals(&mut self) -> Result<(), PartyError> {
        let due: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM approvals WHERE expires <= ?1 AND state IN ('partly_approved', 'active', 'suspended')",
        )
        .bind(self.now().as_millis())
        .fetch_all(self.store.readers())
        .await
        .at("find expired approvals")?;
        for id in due {
            let mut tx = self.store.begin("expire an approval").await?;
            let stored = approval_by_id(tx.conn(), parse(&id, "id")?).await?;
            set_state(&mut tx, stored.id(), ApprovalState::Expired, None, stored.held_by).await?;
            let entry = self
                .entry(Actor::Engine, Action::ApprovalExpired)
                .object(ObjectKind::Approval, stored.id(), Some(stored.approval.document.digest()))
                .purpose(stored.purpose());
            self.append(&mut tx, &entry).await?;
            tx.commit().await?;
            self.notify(Notice::Requests);
            self.recheck_work().await?;
            self.say_decision(stored.approval.document.envelope.study).await?;
        }
        Ok(())
    }

    /// Tells the coordinator what was decided on a study, if something was. It is said again after each connection.
    pub(crate) async fn say_decision(&mut self, id: StudyId) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let offered = study(&mut conn, id).await?;
        let in_force = approval_in_force(&mut conn, id).await?;
        drop(conn);
        let decision = match (offered.state.as_str(), in_force) {
            ("withdrawn", _) => None,
            ("refused", _) => {
                let reason = offered.reason.as_deref().unwrap_or("no reason was given");
                Some(Decision::Refused(Refusal::new(RefusalCode::RefusedByPerson, clean(reason))))
            }
            (_, Some(stored)) => match stored.state {
                ApprovalState::Active => Some(Decision::Approved {
                    approval: stored.approval.document.digest(),
                    expires: stored.approval.document.envelope.limits.expires,
                    one_person: stored.approval.document.four_eyes == FourEyes::Delayed,
                }),
                ApprovalState::Suspended => Some(Decision::Suspended),
                ApprovalState::Revoked => Some(Decision::Revoked),
                ApprovalState::Expired => Some(Decision::Expired),
                ApprovalState::PartlyApproved | ApprovalState::Superseded => None,
            },
            _ => None,
        };
        if let Some(decision) = decision {
            self.say(offered.federation, FromSite::Decision { study: id, decision });
        }
        Ok(())
    }

    /// Everything that this site owes a coordinator after a connection; the coordinator takes each twice without harm.
    pub(crate) async fn repeat_what_is_owed(&mut self, federation: FederationId) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let membership = memberships::by_id(&mut conn, federation).await?;
        let check = restored::check(&mut conn, federation).await?;
        drop(conn);
        if check == Some(restored::Check::Open) {
            // Decisions here may be older than those that the coordinator was told.
            return self.show_checkpoint(federation).await;
        }
        for vouch in self.own_vouches(&membership).await? {
            self.say(federation, FromSite::Vouch(Box::new(vouch)));
        }
        let studies: Vec<String> = sqlx::query_scalar("SELECT study FROM studies WHERE federation = ?1 ORDER BY at")
            .bind(federation.to_string())
            .fetch_all(self.store.readers())
            .await
            .at("read requests")?;
        for id in studies {
            self.say_decision(parse(&id, "study")?).await?;
        }
        self.repeat_work(federation).await?;
        self.show_checkpoint(federation).await
    }
}

async fn request_view(conn: &mut SqliteConnection, offered: &Offered) -> Result<RequestView, PartyError> {
    let stored = approval(conn, offered.study.id).await?;
    let membership = memberships::by_id(conn, offered.federation).await?;
    let state = offered.state(stored.as_ref());
    let in_force = in_force(conn, offered.study.id).await?;
    let runs = match &stored {
        Some(s) if s.is_open() => Some(runs(conn, s).await?),
        _ => None,
    };
    let open = stored.as_ref().filter(|s| s.is_open());
    Ok(RequestView {
        study: offered.study.id,
        federation: offered.federation,
        federation_name: shown(&membership.name, 200),
        title: shown(&offered.study.terms.title, 200),
        requester: shown(&offered.study.terms.requester.name, 200),
        received: offered.at,
        state,
        expires: open.map(|s| s.approval.document.envelope.limits.expires),
        runs,
        reason: offered.reason.clone().or_else(|| stored.and_then(|s| s.reason)),
        in_force,
    })
}

/// Runs used and approved.
async fn runs(conn: &mut SqliteConnection, stored: &Stored) -> Result<(u32, u32), PartyError> {
    let used = u32::try_from(jobs_of(conn, stored.id()).await?.len()).unwrap_or(u32::MAX);
    Ok((used, stored.approval.document.envelope.computation.max_runs))
}

/// The approval of a study that is active or suspended, for people.
async fn in_force(conn: &mut SqliteConnection, study: StudyId) -> Result<Option<InForce>, PartyError> {
    let stored = approval_in_force(conn, study).await?;
    let state = match stored.as_ref().map(|s| s.state) {
        Some(ApprovalState::Active) => RequestState::Active,
        Some(ApprovalState::Suspended) => RequestState::Suspended,
        _ => return Ok(None),
    };
    let Some(stored) = stored else { return Ok(None) };
    Ok(Some(InForce {
        approval: stored.id(),
        state,
        held_by: stored.held_by,
        expires: stored.approval.document.envelope.limits.expires,
        runs: runs(conn, &stored).await?,
        reason: stored.reason,
    }))
}

/// Ends every approval of a federation's studies, within a step; returns the studies.
pub(crate) async fn end_approvals(
    engine: &Engine,
    tx: &mut Tx,
    federation: FederationId,
    reason: &str,
) -> Result<Vec<StudyId>, PartyError> {
    let step = tx.step();
    let ids: Vec<String> = sqlx::query_scalar(
        "SELECT approvals.id FROM approvals JOIN studies ON studies.study = approvals.study
         WHERE studies.federation = ?1 AND approvals.state IN ('partly_approved', 'active', 'suspended')",
    )
    .bind(federation.to_string())
    .fetch_all(tx.conn())
    .await
    .at(step)?;
    let mut studies = Vec::with_capacity(ids.len());
    for id in ids {
        let stored = approval_by_id(tx.conn(), parse(&id, "id")?).await?;
        set_state(tx, stored.id(), ApprovalState::Revoked, Some(reason), stored.held_by).await?;
        let entry = engine
            .entry(Actor::Engine, Action::ApprovalRevoked)
            .object(ObjectKind::Approval, stored.id(), Some(stored.approval.document.digest()))
            .purpose(stored.purpose())
            .because(reason);
        engine.append(tx, &entry).await?;
        studies.push(stored.approval.document.envelope.study);
    }
    Ok(studies)
}

/// What a verdict is called, and in which roles people give it.
fn deciders(verdict: &Verdict) -> (&'static str, &'static [Role]) {
    use Role::{Administrator, DataAccessApprover, DataSteward, PrivacyOfficer};
    match verdict {
        Verdict::Refuse { .. } => ("refuse a request", &[DataSteward, DataAccessApprover]),
        Verdict::Suspend { .. } => {
            ("suspend an approval", &[PrivacyOfficer, DataSteward, DataAccessApprover, Administrator])
        }
        Verdict::Resume => ("resume an approval", &[PrivacyOfficer, DataSteward, DataAccessApprover, Administrator]),
        Verdict::Revoke { .. } => ("revoke an approval", &[DataSteward, DataAccessApprover]),
    }
}

/// A verdict on a request whose state does not allow it.
fn does_not_fit(verdict: &Verdict, offered: &Offered, in_force: Option<&Stored>) -> PartyError {
    let state = offered.state(in_force).word();
    let by_officer =
        in_force.is_some_and(|a| a.state == ApprovalState::Suspended && a.held_by == Some(Role::PrivacyOfficer));
    PartyError::state(match verdict {
        Verdict::Refuse { .. } if by_officer => {
            "the privacy officer suspended the approval, and only a privacy officer can resume it; to end it, revoke \
             it: before it is signed again, the privacy officer then has to give an opinion that does not object"
                .to_owned()
        }
        Verdict::Refuse { .. } => format!("the request is {state}; revoke it instead"),
        Verdict::Suspend { .. } => format!("the request is {state}; there is nothing to suspend"),
        Verdict::Resume => format!("the request is {state}, not suspended"),
        Verdict::Revoke { .. } => format!("the request is {state}; there is nothing to revoke"),
    })
}

pub(crate) fn check_reason(reason: &str) -> Result<(), PartyError> {
    if reason.trim().is_empty() {
        return Err(PartyError::input("reason", "say why; it stays in the audit log"));
    }
    hospes_protocol::text::check_text(reason).map_err(|r| PartyError::input("reason", r))
}

/// Digest by which people name what they sign.
pub(crate) fn digest_of(stored: &Stored) -> Digest {
    stored.approval.document.digest()
}
