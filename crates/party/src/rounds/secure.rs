//! This site's part in a round with secure aggregation. Training, or the computation of figures, comes first; then it says
//! five things, each once, and each is durable before it is sent.
//!
//! [`Member`] says what follows from what. It is made anew for every step, from the seed in the vault and the records of
//! what was said, so that a restart between any two messages is the same as none. `masking` turns the update that the
//! worker left into the masked one, which leaves by the outbox like any other. What one session knows is erased when its
//! round is over.

use hospes_cohort::worker::Done;
use hospes_ledger::{Action, Actor, ObjectKind};
use hospes_privacy::figures::Blinds;
use hospes_privacy::masked;
use hospes_privacy::secagg::{self, Demands, Fixed, Member, Past, Relay, Seed, Step, Turn};
use hospes_protocol::approval::{Peer, Refusal, RefusalCode, Trust};
use hospes_protocol::id::{Digest, FederationId, RoundKey, Timestamp};
use hospes_protocol::message::{FromSite, RoundReply, SecureMessage, UploadKind};
use hospes_protocol::plan;
use hospes_protocol::policy::Partner;
use hospes_protocol::round::coordinator::Step as Stage;
use hospes_protocol::round::site::{Event, State};
use hospes_protocol::sign::SecretKey;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use zeroize::Zeroizing;

use super::answers::{self, Asked};
use super::masking;
use super::open::{Leave, NEVER_LEFT};
use super::outbox::{Prepared, erase_file};
use super::state::{RoundRow, bind_key, read_key};
use super::work::Working;
use crate::audit::Because as _;
use crate::engine::{Engine, LOOK_MS};
use crate::error::PartyError;
use crate::keys::random;
use crate::memberships;
use crate::store::{At as _, Tx, from_json, signed, to_json, unsigned};
use crate::view::Notice;

/// A session as it stands.
struct Session {
    member: Member,
    past: Past,
    key: SecretKey,
    /// What was said so far, in order.
    said: Vec<Fixed>,
    /// What is asked of this site's rows.
    asked: Asked,
    /// Subjects left when the rows were read.
    subjects: u64,
    /// What the noise of this site follows from, where the plan has the sites share it.
    noise: Zeroizing<[u8; 32]>,
}

impl Engine {
    /// What stands against a round with secure aggregation, before anything is computed for it: what its header offers is
    /// less than this site demands, or it is an old one.
    pub(super) async fn against_session(
        &self,
        conn: &mut SqliteConnection,
        federation: FederationId,
        leave: &Leave,
    ) -> Result<Option<Refusal>, PartyError> {
        let header = &leave.circumstances.header;
        if !header.is_secure() {
            return Ok(None);
        }
        let membership = memberships::by_id(conn, federation).await?;
        let key = self.identity(&membership).await?;
        let past = past(conn, &header.key(), membership.epoch.unwrap_or(0), None).await?;
        // Nothing is said with this seed: the session begins after training, with one of its own.
        let nobody = Seed::new(Zeroizing::new([0; 32]));
        let joined = masked::session_of(header, &leave.circumstances.plan)
            .and_then(|setup| Member::new(setup, demands(leave, &key), &past, &nobody));
        Ok(joined.err().map(|refusal| worded(&refusal)))
    }

    /// Begins a session with what the worker made: the seed of its secrets is drawn, and its keys are fixed. `subjects`: how
    /// many were left in the dataset when its rows were read.
    pub(super) async fn begin_session(
        &mut self,
        mut tx: Tx,
        mut row: RoundRow,
        leave: Leave,
        done: Done,
        subjects: u64,
    ) -> Result<(), PartyError> {
        let now = self.now();
        let membership = memberships::by_id(tx.conn(), row.federation).await?;
        let key = self.identity(&membership).await?;
        let past = past(tx.conn(), &row.key, membership.epoch.unwrap_or(0), None).await?;
        let seed = self.draw_seed(&row.key)?;
        let begun = masked::session_of(&row.header, &leave.circumstances.plan)
            .and_then(|setup| Member::new(setup, demands(&leave, &key), &past, &Seed::new(seed.clone())))
            .and_then(|mut member| member.advertise(&key));
        let fixed = match begun {
            Ok(fixed) => fixed,
            Err(refusal) => {
                drop(tx);
                return self.withdraw(&row.key, worded(&refusal)).await;
            }
        };
        // The vault first, because its write is the one that may fail; a seed without a session is erased at the start.
        self.vault.keep(&seed_name(&row.key), Zeroizing::new(seed.to_vec())).await?;
        let sql = "INSERT INTO secure_sessions (job, task, epoch, round, attempt, subjects, at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        bind_key(sqlx::query(sql), &row.key)
            .bind(signed(subjects))
            .bind(now.as_millis())
            .execute(tx.conn())
            .await
            .at("begin a session")?;
        keep_record(&mut tx, &row.key, 0, &fixed, now).await?;
        row.show(&mut tx, self.sealed_result(&done).await?).await?;
        let made = Event::Made { step: Stage::Keys, digest: Digest::of(&fixed.message) };
        let actions = row.step(&mut tx, made, now).await?;
        let mut entry = self.round_entry(Actor::Engine, Action::TrainingFinished, &row);
        entry.engine.device = Some(hospes_protocol::text::shown(&done.device, 100));
        let note = self.working.get(&row.key).and_then(Working::note);
        let entry = entry.because(note.unwrap_or("it waits to be masked; nothing of it has left"));
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.act(&row, actions);
        self.say_step(&row, &fixed);
        Ok(())
    }

    /// The others said something in a step of a round.
    pub(crate) async fn on_relay(
        &mut self,
        federation: FederationId,
        key: RoundKey,
        message: SecureMessage,
    ) -> Result<(), PartyError> {
        let mut tx = self.store.begin("take a step of a round").await?;
        let Some(row) = RoundRow::find(tx.conn(), &key).await? else { return Ok(()) };
        let goes_on = row.header.is_secure() && !row.state.is_terminal();
        let Some(subjects) = subjects(tx.conn(), &key).await?.filter(|_| goes_on) else { return Ok(()) };
        if row.federation != federation {
            return Ok(());
        }
        #[cfg(feature = "simulation")]
        let row = forgotten(&self.seam, &mut tx, row, &message).await?;
        let leave = match self.holds(tx.conn(), &row, Some(subjects)).await? {
            Ok(leave) => *leave,
            Err(refusal) => return self.refuse_step(tx, row, refusal).await,
        };
        let mut session = match self.session(tx.conn(), &row, &leave, subjects).await? {
            Ok(session) => session,
            Err(refusal) => return self.refuse_step(tx, row, worded(&refusal)).await,
        };
        let turn =
            Relay::from_bytes(message.bytes()).and_then(|relay| session.member.on(&relay, &session.past, &session.key));
        match turn {
            // It was relayed before, or a step is missing that will be relayed again.
            Err(secagg::Refusal::OutOfTurn { .. }) => Ok(()),
            Err(refusal) => self.refuse_step(tx, row, worded(&refusal)).await,
            Ok(Turn::Mask) => {
                drop(tx);
                Box::pin(self.mask(row, leave, session)).await
            }
            Ok(Turn::Send(fixed)) if session.said.contains(&fixed) => {
                drop(tx);
                self.say_step(&row, &fixed);
                if fixed.step == Step::Input { self.send_waiting(Some(&row.key)).await } else { Ok(()) }
            }
            Ok(Turn::Send(fixed)) => self.keep_step(tx, row, &session, &fixed).await,
        }
    }

    /// Keeps what this site says in a step, then says it.
    async fn keep_step(
        &mut self,
        mut tx: Tx,
        mut row: RoundRow,
        session: &Session,
        fixed: &Fixed,
    ) -> Result<(), PartyError> {
        let now = self.now();
        if fixed.step == Step::Consent && !Self::may_be_counted(tx.conn(), &row.key).await? {
            return self.refuse_step(tx, row, Refusal::new(RefusalCode::Header, NEVER_LEFT)).await;
        }
        keep_record(&mut tx, &row.key, session.said.len(), fixed, now).await?;
        if fixed.step == Step::Consent {
            answers::keep(&mut tx, &session.asked, cohort(&row, fixed)?, now).await?;
        }
        let before = row.state.clone();
        let event = match stage(fixed.step) {
            Some(step) => Event::Made { step, digest: Digest::of(&fixed.message) },
            None => Event::Failed(ACCUSES.to_owned()),
        };
        let actions = row.step(&mut tx, event, now).await?;
        if row.state == before {
            return Err(PartyError::state("a step of a round does not fit where the round is"));
        }
        let entry = match fixed.step {
            Step::Consent => {
                // The word after which the sum over these sites, and no other, can be unmasked.
                let digest = Digest::of(&fixed.message);
                let entry = self.round_entry(Actor::Engine, Action::SumAgreed, &row);
                Some(entry.object(ObjectKind::Receipt, digest.short(), Some(digest)).because(sites(&row, fixed)?))
            }
            Step::End => Some(self.round_entry(Actor::Engine, Action::TrainingFailed, &row).failed(ACCUSES)),
            _ => None,
        };
        if let Some(entry) = entry {
            self.append(&mut tx, &entry).await?;
        }
        tx.commit().await?;
        // An accusation goes before the word that this site is out, so that the coordinator still hears it.
        self.say_step(&row, fixed);
        self.act(&row, actions);
        if row.state.is_terminal() {
            self.erase_payload(&row.key);
            self.erase_kept(&row.key);
        }
        Ok(())
    }

    /// Masks the update that the worker left, and keeps it like any other payload; then it may be sent.
    ///
    /// Masking takes long and follows from the session alone, so that it is the same whenever it is done again: no transaction
    /// is open meanwhile. The one that keeps what came of it asks once more whether it may leave.
    async fn mask(&mut self, row: RoundRow, leave: Leave, mut session: Session) -> Result<(), PartyError> {
        let (from, to) = (self.levels_path(&row.key), self.payload_path(&row.key));
        let masker = match session.member.masker() {
            Ok(masker) => masker,
            Err(refusal) => return self.withdraw(&row.key, worded(&refusal)).await,
        };
        let noise = match masked::own_noise(&session.member, &session.noise) {
            Ok(noise) => noise,
            Err(refusal) => return self.withdraw(&row.key, worded(&refusal)).await,
        };
        let is_figures = plan::masks::reports_figures(&leave.circumstances.plan, &row.key.task);
        let blinds = is_figures.then(Blinds::default);
        let part = self.part_path(&row.key);
        let vector = blocking({
            let (part, slip) = (part.clone(), self.seam.keystream_slip());
            move || masking::mask(masker, blinds, noise, (from.as_path(), part.as_path()), slip)
        });
        let vector = vector.await;
        if vector.is_err() {
            // As on a full disk, of which it takes as much as the model. Masking again makes it anew.
            erase_file(&part);
        }
        let vector = match vector? {
            Ok(vector) => vector,
            Err(reason) => {
                tracing::error!(round = %row.key, %reason, "an update cannot be masked");
                return self.withdraw(&row.key, Refusal::new(RefusalCode::CannotRun, UNMASKABLE)).await;
            }
        };
        let fixed = match session.member.commit(vector, &session.key) {
            Ok(fixed) => fixed,
            Err(refusal) => return self.withdraw(&row.key, worded(&refusal)).await,
        };
        let head = masked::head(&fixed.message).map_err(|refusal| PartyError::state(refusal.to_string()))?;
        let finished = blocking({
            let part = part.clone();
            move || masking::finish(&part, &head, &to)
        });
        let finished = finished.await;
        if finished.is_err() {
            erase_file(&part);
        }
        let (digest, bytes) = finished?;
        let kind = if is_figures { UploadKind::Figures } else { UploadKind::Update };
        let prepared = Prepared { kind, digest, bytes, subjects: session.subjects };
        Box::pin(self.keep_masked(&row, &session, &fixed, prepared)).await
    }

    /// Keeps a masked input that is durable: its record, and the payload like any other.
    async fn keep_masked(
        &mut self,
        before: &RoundRow,
        session: &Session,
        fixed: &Fixed,
        prepared: Prepared,
    ) -> Result<(), PartyError> {
        let now = self.now();
        let mut tx = self.store.begin("keep a masked input").await?;
        // The engine does one thing after the other. Should the round be elsewhere all the same, what lies there is a file that
        // no row knows, or the same once more.
        let found = RoundRow::find(tx.conn(), &before.key).await?.filter(|found| found.state == before.state);
        let Some(mut row) = found else { return Ok(()) };
        let leave = match self.holds(tx.conn(), &row, Some(session.subjects)).await? {
            Ok(leave) => leave,
            Err(refusal) => return self.refuse_step(tx, row, refusal).await,
        };
        keep_record(&mut tx, &row.key, session.said.len(), fixed, now).await?;
        let (upload, actions) = self.enter_payload(&mut tx, &mut row, &leave, prepared).await?;
        tx.commit().await?;
        self.erase_levels(&row.key);
        self.act(&row, actions);
        self.notify(Notice::Egress);
        self.hand_over(&row, upload).await
    }

    /// This site does not go on in a round. Before its input has left, the round is over here; after that, the refusal is
    /// recorded and told, and nothing more is said that would help to unmask a sum.
    async fn refuse_step(&mut self, mut tx: Tx, row: RoundRow, refusal: Refusal) -> Result<(), PartyError> {
        if matches!(row.state, State::Working | State::Advertised | State::Shared | State::Committed(_)) {
            drop(tx);
            return self.withdraw(&row.key, refusal).await;
        }
        let entry = self.round_entry(Actor::peer(row.federation), Action::PermitRefused, &row);
        self.enter_refusal(&mut tx, row.federation, entry, &refusal).await?;
        tx.commit().await?;
        let reply = RoundReply::Withdrawn(refusal);
        self.say(row.federation, FromSite::RoundReply { round: row.key, reply });
        Ok(())
    }

    /// The session from its records.
    async fn session(
        &self,
        conn: &mut SqliteConnection,
        row: &RoundRow,
        leave: &Leave,
        subjects: u64,
    ) -> Result<Result<Session, secagg::Refusal>, PartyError> {
        let membership = memberships::by_id(conn, row.federation).await?;
        let key = self.identity(&membership).await?;
        let asked = Asked::of(leave)?;
        let past = past(conn, &row.key, membership.epoch.unwrap_or(0), Some(&asked)).await?;
        let said = records(conn, &row.key).await?;
        let Some(seed) = self.vault.find(&seed_name(&row.key)).await? else { return Ok(Err(secagg::Refusal::Gone)) };
        let Ok(seed) = <[u8; 32]>::try_from(seed.as_slice()) else { return Ok(Err(secagg::Refusal::Gone)) };
        let noise = Zeroizing::new(seed);
        let seed = Seed::new(Zeroizing::new(seed));
        let member = masked::session_of(&row.header, &leave.circumstances.plan)
            .and_then(|setup| Member::restore(setup, demands(leave, &key), &past, &seed, &key, &said));
        Ok(member.map(|member| Session { member, past, key, said, asked, subjects, noise }))
    }

    fn draw_seed(&self, key: &RoundKey) -> Result<Zeroizing<[u8; 32]>, PartyError> {
        Ok(Zeroizing::new(match &self.config.known_keys {
            // A simulation says the same again when it is run again.
            Some(known) => *Digest::of(&[&known.subjects[..], key.to_string().as_bytes()].concat()).as_bytes(),
            None => random()?,
        }))
    }

    fn say_step(&mut self, row: &RoundRow, fixed: &Fixed) {
        // The message about an input is the head of the upload itself.
        if fixed.step != Step::Input {
            let message = SecureMessage::new(fixed.message.clone());
            self.say(row.federation, FromSite::SecureStep { round: row.key.clone(), message });
        }
    }

    /// Says again what was said last in a round, as long as it may leave: it, or what was relayed then, may have been lost.
    pub(super) async fn repeat_step(&mut self, row: &RoundRow) -> Result<(), PartyError> {
        let speaks = matches!(
            row.state,
            State::Advertised | State::Shared | State::Acknowledged(_) | State::Agreed(_) | State::Revealed(_)
        );
        if !speaks || !row.header.is_secure() {
            return Ok(());
        }
        let mut conn = self.reader().await?;
        let Some(subjects) = subjects(&mut conn, &row.key).await? else { return Ok(()) };
        let may_leave = self.holds(&mut conn, row, Some(subjects)).await?.is_ok();
        let said = records(&mut conn, &row.key).await?;
        drop(conn);
        // The input travels as an upload, and is asked about there.
        if let Some(last) = said.iter().rfind(|fixed| fixed.step != Step::Input).filter(|_| may_leave) {
            self.say_step(row, last);
        }
        Ok(())
    }

    /// Says again what was said last in every open round: a busy link may have dropped it.
    pub(crate) async fn repeat_steps(&mut self) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let open = RoundRow::open(&mut conn).await?;
        drop(conn);
        for row in open.iter().filter(|row| row.header.is_secure()) {
            self.repeat_step(row).await?;
        }
        Ok(())
    }

    /// Erases the seeds of all sessions, after a backup was restored: to which sum this site agreed since is not known here,
    /// and a keychain has the seeds all the same.
    pub(crate) async fn forget_sessions(&self) -> Result<(), PartyError> {
        let sessions = sqlx::query("SELECT * FROM secure_sessions").fetch_all(self.store.readers()).await;
        for row in &sessions.at("read a session")? {
            self.vault.destroy(&seed_name(&read_key(row)?)).await?;
        }
        Ok(())
    }

    /// Erases sessions that are over. Where that fails, it is tried again a minute later: a keychain that does not answer
    /// keeps everything else waiting.
    pub(super) async fn tick_sessions(&mut self) {
        let now = self.now();
        if self.unerased.is_some_and(|failed| now.since(failed).abs() < LOOK_MS) {
            return;
        }
        let erased = self.erase_sessions().await;
        self.unerased = erased.is_err().then_some(now);
        if let Err(error) = erased {
            tracing::error!(error = &error as &dyn std::error::Error, "a masked round's secrets could not be erased");
        }
    }

    /// Erases what sessions know whose rounds are over: the seed, and what was said but for that a consent was.
    async fn erase_sessions(&mut self) -> Result<(), PartyError> {
        let over = sqlx::query(
            "SELECT secure_sessions.* FROM secure_sessions JOIN rounds USING (job, task, epoch, round, attempt)
             WHERE rounds.ended = 1",
        )
        .fetch_all(self.store.readers())
        .await
        .at("find sessions that are over")?;
        let over: Vec<RoundKey> = over.iter().map(read_key).collect::<Result<_, _>>()?;
        // First of all, and also where the keychain does not answer: they are not masked.
        over.iter().for_each(|key| self.erase_levels(key));
        for key in over {
            self.vault.destroy(&seed_name(&key)).await?;
            let mut tx = self.store.begin("erase a session").await?;
            for sql in [
                "DELETE FROM secure_records WHERE job = ?1 AND task = ?2 AND epoch = ?3 AND round = ?4 AND attempt = ?5
                 AND step <> '\"consent\"'",
                "UPDATE secure_records SET input = x'', message = x''
                 WHERE job = ?1 AND task = ?2 AND epoch = ?3 AND round = ?4 AND attempt = ?5",
                "DELETE FROM secure_sessions
                 WHERE job = ?1 AND task = ?2 AND epoch = ?3 AND round = ?4 AND attempt = ?5",
            ] {
                bind_key(sqlx::query(sql), &key).execute(tx.conn()).await.at("erase a session")?;
            }
            tx.commit().await?;
        }
        Ok(())
    }

    /// Erases the seed of a session that was never begun, if one was drawn.
    pub(super) async fn erase_seed(&self, key: &RoundKey) -> Result<(), PartyError> {
        Ok(self.vault.destroy(&seed_name(key)).await?)
    }

    /// Where the update lies that waits to be masked. The name is a digest: a task's name comes from outside.
    pub(super) fn levels_path(&self, key: &RoundKey) -> std::path::PathBuf {
        self.config.levels().join(format!("{}.levels", Digest::of(key.to_string().as_bytes())))
    }

    pub(super) fn erase_levels(&self, key: &RoundKey) {
        match std::fs::remove_file(self.levels_path(key)) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            // Nothing sends what lies there; the next start sweeps it.
            Err(error) => tracing::error!(%error, "an update that was not masked could not be deleted"),
        }
    }
}

const ACCUSES: &str = "another site dealt shares to this one that cannot be used; the coordinator was told which";
const UNMASKABLE: &str = "the update that waited to be masked is gone from this site's disk, or was changed there";

/// What this site demands of a round, from its own policy, its approval and whom it trusts now.
fn demands(leave: &Leave, key: &SecretKey) -> Demands {
    let envelope = &leave.stored.approval.document.envelope;
    let now = &leave.circumstances;
    let trust = |peer: &Peer| {
        let current = now.peers.get(&peer.site.to_string()).copied().unwrap_or(Trust::AssertedOnly);
        // As it was when it was signed, or less.
        (peer.identity, peer.trust.min(current))
    };
    let approved: Vec<Partner> = envelope.roster.iter().map(Partner::from).collect();
    let (min_parties, min_trusted_peers) = now.policy.fewest(&approved);
    Demands {
        identity: key.public(),
        peers: envelope.roster.iter().map(trust).collect(),
        min_parties,
        min_trusted_peers,
        corrupt: now.policy.training.colluding,
        // The worker read the model by this name before it trained.
        model: now.header.model,
        // What does not add up here is refused with the session itself.
        noise: masked::noise(&now.header, &now.plan).ok().flatten(),
    }
}

/// The round's step to which a session's belongs; none for an accusation.
fn stage(step: Step) -> Option<Stage> {
    match step {
        Step::Keys => Some(Stage::Keys),
        Step::Shares => Some(Stage::Shares),
        Step::Input => Some(Stage::Input),
        Step::Consent => Some(Stage::Consent),
        Step::Reveal => Some(Stage::Reveal),
        // Positions are for rounds that this version has not.
        Step::Positions | Step::End => None,
    }
}

/// A refusal of the session, as the ledger and the coordinator have it.
fn worded(refusal: &secagg::Refusal) -> Refusal {
    use secagg::Refusal as Why;
    let code = match refusal {
        Why::NotApproved(_) | Why::Roster(_) | Why::NotMember | Why::Trusted { .. } => RefusalCode::Roster,
        Why::Terms { .. } => RefusalCode::Policy,
        Why::Epoch { .. } => RefusalCode::Epoch,
        Why::Replayed { .. } | Why::AgreedBefore => RefusalCode::RoundReplayed,
        Why::Gone | Why::Record(_) => RefusalCode::CannotRun,
        _ => RefusalCode::Header,
    };
    Refusal::new(code, refusal.to_string())
}

/// Party numbers of those whose inputs are in the sum that a consent is for.
fn included(consent: &Fixed) -> Result<Vec<u32>, PartyError> {
    let unreadable = |refusal: secagg::Refusal| PartyError::state(refusal.to_string());
    match Relay::from_bytes(&consent.input).map_err(unreadable)? {
        Relay::Inputs(included) => Ok(included),
        _ => Err(PartyError::state("a consent does not follow from a set of inputs")),
    }
}

/// Names the sites of that sum.
fn cohort(row: &RoundRow, consent: &Fixed) -> Result<Digest, PartyError> {
    let setup = masked::session(&row.header).map_err(|refusal| PartyError::state(refusal.to_string()))?;
    Ok(setup.cohort(&included(consent)?.into_iter().collect()))
}

/// The same in words.
fn sites(row: &RoundRow, consent: &Fixed) -> Result<String, PartyError> {
    let included = included(consent)?;
    let named = included.iter().filter_map(|party| row.header.roster.get(*party as usize));
    let named: Vec<String> = named.map(|entry| entry.site.to_string()).collect();
    Ok(format!("{} sites: {}", named.len(), named.join(", ")))
}

fn seed_name(key: &RoundKey) -> String {
    format!("masks/{}", Digest::of(key.to_string().as_bytes()))
}

/// What is on record of a job's task besides this round, whether this site agreed to a sum in it, and with whom in it the same
/// was answered before.
async fn past(
    conn: &mut SqliteConnection,
    key: &RoundKey,
    epoch: u64,
    asked: Option<&Asked>,
) -> Result<Past, PartyError> {
    let last: Option<(i64, i64)> = sqlx::query_as(
        "SELECT round, attempt FROM rounds
         WHERE job = ?1 AND task = ?2 AND epoch = ?3 AND approval IS NOT NULL AND NOT (round = ?4 AND attempt = ?5)
         ORDER BY round DESC, attempt DESC LIMIT 1",
    )
    .bind(key.job.to_string())
    .bind(&key.task)
    .bind(signed(epoch))
    .bind(i64::from(key.round))
    .bind(i64::from(key.attempt))
    .fetch_optional(&mut *conn)
    .await
    .at("read earlier rounds")?;
    let consented: Option<(i64, i64)> = sqlx::query_as(
        "SELECT round, attempt FROM secure_records WHERE job = ?1 AND task = ?2 AND epoch = ?3 AND step = ?4
         ORDER BY round DESC, attempt DESC LIMIT 1",
    )
    .bind(key.job.to_string())
    .bind(&key.task)
    .bind(signed(epoch))
    .bind(to_json(&Step::Consent))
    .fetch_optional(&mut *conn)
    .await
    .at("read earlier rounds")?;
    let answered = match asked {
        Some(asked) => answers::before(conn, asked).await?,
        None => None,
    };
    let pair = |(round, attempt): (i64, i64)| {
        (u32::try_from(round).unwrap_or(u32::MAX), u32::try_from(attempt).unwrap_or(u32::MAX))
    };
    Ok(Past { epoch, last: last.map(pair), consented: consented.map(pair), answered })
}

/// Subjects for which the update of a session stands; none where there is no session, or it is over.
pub(super) async fn subjects(conn: &mut SqliteConnection, key: &RoundKey) -> Result<Option<u64>, PartyError> {
    let sql = "SELECT subjects FROM secure_sessions
               WHERE job = ?1 AND task = ?2 AND epoch = ?3 AND round = ?4 AND attempt = ?5";
    let row = bind_key(sqlx::query(sql), key).fetch_optional(conn).await.at("read a session")?;
    row.map(|row| row.try_get::<i64, _>("subjects").at("read a session").map(unsigned)).transpose()
}

/// What was said in a session, in order.
async fn records(conn: &mut SqliteConnection, key: &RoundKey) -> Result<Vec<Fixed>, PartyError> {
    let sql = "SELECT step, input, message FROM secure_records
               WHERE job = ?1 AND task = ?2 AND epoch = ?3 AND round = ?4 AND attempt = ?5 ORDER BY number";
    let rows = bind_key(sqlx::query(sql), key).fetch_all(conn).await.at("read a session")?;
    let read = |row: &sqlx::sqlite::SqliteRow| {
        let step: String = row.try_get("step").at("read a session")?;
        Ok(Fixed {
            step: from_json(&step, "step")?,
            input: row.try_get("input").at("read a session")?,
            message: row.try_get("message").at("read a session")?,
        })
    };
    rows.iter().map(read).collect()
}

/// Keeps what is said in a step, in the step that makes it durable. A second one of the same step cannot be kept.
async fn keep_record(
    tx: &mut Tx,
    key: &RoundKey,
    number: usize,
    fixed: &Fixed,
    now: Timestamp,
) -> Result<(), PartyError> {
    let step = tx.step();
    let sql = "INSERT INTO secure_records (job, task, epoch, round, attempt, number, step, input, message, at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    bind_key(sqlx::query(sql), key)
        .bind(i64::try_from(number).unwrap_or(i64::MAX))
        .bind(to_json(&fixed.step))
        .bind(fixed.input.clone())
        .bind(fixed.message.clone())
        .bind(now.as_millis())
        .execute(tx.conn())
        .await
        .at(step)?;
    Ok(())
}

/// Where such a bug is planted, another set of inputs takes the place of the one that was agreed to.
#[cfg(feature = "simulation")]
async fn forgotten(
    seam: &crate::seam::Seam,
    tx: &mut Tx,
    mut row: RoundRow,
    message: &SecureMessage,
) -> Result<RoundRow, PartyError> {
    let (State::Agreed(digest) | State::Revealed(digest)) = row.state else { return Ok(row) };
    if !seam.agrees_anew(&row.state) || !matches!(Relay::from_bytes(message.bytes()), Ok(Relay::Inputs(_))) {
        return Ok(row);
    }
    let step = tx.step();
    let sql = "DELETE FROM secure_records
               WHERE job = ?1 AND task = ?2 AND epoch = ?3 AND round = ?4 AND attempt = ?5 AND step IN (?6, ?7)";
    bind_key(sqlx::query(sql), &row.key)
        .bind(to_json(&Step::Consent))
        .bind(to_json(&Step::Reveal))
        .execute(tx.conn())
        .await
        .at(step)?;
    row.state = State::Acknowledged(digest);
    Ok(row)
}

/// Work on files, away from the threads that serve links.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PartyError> + Send + 'static,
) -> Result<T, PartyError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(PartyError::Stopped))
}
