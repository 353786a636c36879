//! A site on the other end of a channel: it decides, reserves, computes payloads of real bytes, and uploads them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hospes_coordinator::aggregate::staging::{Refused, StagedUpload, Standing, UploadRequest};
use hospes_coordinator::schedule::Event;
use hospes_ledger::{Seen, Verdict, Witnessing};
use hospes_privacy::quantise::Quantiser;
use hospes_privacy::secagg;
use hospes_protocol::approval::{Refusal, RefusalCode};
use hospes_protocol::canon;
use hospes_protocol::id::{Digest, JobId, RoundKey, SiteId, StudyId};
use hospes_protocol::message::{
    Decision, FigureSet, FromSite, Hello, RoundOutcome, RoundReply, SecureMessage, ToSite, UploadKind, Witness,
};
use hospes_protocol::plan::{self, Coefficients, Component, Plan};
use hospes_protocol::round::RoundHeader;
use hospes_protocol::sign::{PublicKey, SecretKey};
use hospes_protocol::study::Study;
use hospes_protocol::version::Version;
use tokio::sync::{mpsc, oneshot, watch};

use super::world::Process;
use super::{fits, masks};

/// What a site does in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// What it should.
    Work,
    /// Refuses.
    Refuse,
    /// Tries and fails.
    Fail,
    /// Says that it works, and nothing more.
    Silence,
    /// Loses its connection before it has answered, and stays away until it is let in again.
    Vanish,
    /// Loses its connection after half of the upload, comes back, and goes on from there.
    Halfway,
    /// Loses its connection after its input was confirmed and before the receipt arrives.
    Deaf,
    /// Sends everything twice.
    Twice,
    /// Reports progress for so many milliseconds before it uploads.
    Slow(u64),
    /// Announces a payload that is too short.
    Short,
    /// Sends an update outside its clip, or figures with other names.
    Foul,
    /// Its people take the approval back while it works.
    Revoke,
    /// Reports no figure but the number of rows.
    Withhold,
    /// With secure aggregation: says nothing any more from this step on.
    Until(secagg::Step),
    /// With secure aggregation: deals boxes that nobody can open.
    Misdeal,
}

type Script = Arc<dyn Fn(&RoundHeader) -> Act + Send + Sync>;

/// What a site has seen.
#[derive(Debug, Default)]
pub struct Log {
    pub receipts: Vec<RoundKey>,
    pub refused: Vec<String>,
    pub closed: BTreeMap<RoundKey, RoundOutcome>,
    pub opened: Vec<RoundHeader>,
    pub ended: BTreeMap<JobId, (String, Option<String>, Option<Digest>)>,
    pub rolled_back: BTreeSet<JobId>,
    pub studies: BTreeMap<StudyId, Study>,
    /// Plans of the jobs that it was asked about.
    pub plans: BTreeMap<JobId, Plan>,
    /// Jobs that hold a place, and the most that ever did at a time.
    pub held: BTreeSet<JobId>,
    pub most_held: usize,
    /// How often it had no room.
    pub busy: usize,
    pub withdrawn: BTreeSet<StudyId>,
    pub goodbyes: Vec<String>,
    pub cosigned_for_others: usize,
    /// What it was told that was seen of its own ledger.
    pub reminded: Vec<String>,
    /// Questions for proofs of its own ledger.
    pub asked_to_prove: usize,
    /// Inputs that were confirmed though no receipt arrived.
    pub unreceipted: BTreeSet<RoundKey>,
    /// Those of them whose job was over, as far as this site had heard, before it heard how the round ended.
    pub unexplained: Vec<RoundKey>,
}

impl Log {
    fn end(&mut self, job: JobId, how: (String, Option<String>, Option<Digest>)) {
        let untold = self.unreceipted.iter().filter(|k| k.job == job && !self.closed.contains_key(k));
        self.unexplained.extend(untold.cloned());
        self.held.remove(&job);
        self.ended.insert(job, how);
    }
}

/// A site.
pub struct Peer {
    pub index: u8,
    pub key: SecretKey,
    pub id: SiteId,
    /// Key of the coordinator.
    pub coordinator: PublicKey,
    /// Whether its people decide on what is offered.
    pub decides: AtomicBool,
    /// Whether they release results.
    pub releases: AtomicBool,
    /// Whether it may connect.
    pub online: watch::Sender<bool>,
    /// Whether it can run jobs.
    pub able: AtomicBool,
    /// Whether it answers when it is asked that.
    pub reserves: AtomicBool,
    /// Jobs that it takes at a time.
    pub room: AtomicUsize,
    pub script: Mutex<Script>,
    /// Losses that it tells where the plan can end training early, round by round; none beyond the last.
    pub losses: Mutex<Vec<f64>>,
    pub log: Mutex<Log>,
    seen: Mutex<Option<Seen>>,
    sessions: AtomicU64,
    payloads: Mutex<BTreeMap<RoundKey, Vec<u8>>>,
    /// Its part in rounds with secure aggregation.
    pub sessions_of_rounds: Mutex<masks::Parts>,
    others: Mutex<BTreeMap<SiteId, PublicKey>>,
    seen_others: Mutex<BTreeMap<SiteId, Seen>>,
}

impl Peer {
    pub fn new(index: u8, coordinator: PublicKey) -> Arc<Self> {
        let key = SecretKey::from_seed(&[index + 1; 32]);
        let id = key.public().site_id();
        Arc::new(Self {
            index,
            key,
            id,
            coordinator,
            decides: AtomicBool::new(true),
            releases: AtomicBool::new(true),
            online: watch::Sender::new(true),
            able: AtomicBool::new(true),
            reserves: AtomicBool::new(true),
            room: AtomicUsize::new(usize::MAX),
            script: Mutex::new(Arc::new(|_| Act::Work)),
            losses: Mutex::default(),
            log: Mutex::default(),
            seen: Mutex::default(),
            sessions: AtomicU64::new(0),
            payloads: Mutex::default(),
            sessions_of_rounds: Mutex::default(),
            others: Mutex::default(),
            seen_others: Mutex::default(),
        })
    }

    pub fn script(&self, script: impl Fn(&RoundHeader) -> Act + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    /// Number of its newest session.
    pub fn session_number(&self) -> u64 {
        self.sessions.load(Ordering::SeqCst)
    }

    /// Rows of this site.
    pub fn rows(&self) -> u64 {
        10 + u64::from(self.index) * 7
    }

    /// Connects again and again, for ever.
    pub async fn run(self: Arc<Self>, mut process: watch::Receiver<Option<Process>>) {
        let mut online = self.online.subscribe();
        loop {
            if online.wait_for(|online| *online).await.is_err() {
                return;
            }
            let Ok(found) = process.wait_for(Option::is_some).await.map(|p| p.clone()) else { return };
            let Some(found) = found else { continue };
            if !self.session(&found).await {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
    }

    /// One session; false if it could not begin.
    async fn session(&self, process: &Process) -> bool {
        let session = self.sessions.fetch_add(1, Ordering::SeqCst) + 1;
        let (out, mut inbox) = mpsc::channel(64);
        let hello = Hello {
            versions: vec![Version::V1],
            site: self.id,
            software: "peer".into(),
            at: (process.clock)(),
            epoch: 1,
        };
        let joined = Event::Joined { site: self.id, session, hello, out };
        if process.events.send(joined).await.is_err() {
            return false;
        }
        let mut online = self.online.subscribe();
        loop {
            let message = tokio::select! {
                message = inbox.recv() => message,
                _ = online.wait_for(|online| !*online) => None,
            };
            let Some(message) = message else { break };
            if !self.on(Arc::unwrap_or_clone(message), session, process).await {
                break;
            }
        }
        drop(inbox);
        let _ = process.events.send(Event::Left { site: self.id, session }).await;
        true
    }

    /// Answers a message; false if the connection is lost by it.
    async fn on(&self, message: ToSite, session: u64, process: &Process) -> bool {
        let say = async |message| {
            let _ = process.events.send(Event::Message { site: self.id, session, message }).await;
        };
        match message {
            ToSite::Welcome(welcome) => {
                assert_eq!(welcome.identity, self.coordinator);
                assert_eq!(welcome.version, Version::V1);
            }
            ToSite::Roster(roster) => {
                assert!(roster.signed_by(&self.coordinator));
                let members = roster.document.members.iter().map(|m| (m.site, m.identity));
                *self.others.lock().unwrap() = members.collect();
            }
            ToSite::Study(study) => {
                assert!(study.signed_by(&self.coordinator));
                self.log.lock().unwrap().studies.insert(study.document.id, (*study.document).clone());
                if self.decides.load(Ordering::SeqCst) {
                    say(self.approval(study.document.id)).await;
                }
            }
            ToSite::StudyWithdrawn { study } => {
                self.log.lock().unwrap().withdrawn.insert(study);
            }
            ToSite::JobReserve { job, plan, .. } => {
                let mut refusal = (!self.able.load(Ordering::SeqCst))
                    .then(|| Refusal::new(RefusalCode::CannotRun, "the graphics card is in use"));
                {
                    let log = &mut *self.log.lock().unwrap();
                    log.plans.insert(job, plan.into_inner());
                    if log.held.len() >= self.room.load(Ordering::SeqCst) && !log.held.contains(&job) {
                        log.busy += 1;
                        refusal = Some(Refusal::new(RefusalCode::Busy, "enough runs are open here"));
                    } else if refusal.is_none() {
                        log.held.insert(job);
                        log.most_held = log.most_held.max(log.held.len());
                    }
                }
                if self.reserves.load(Ordering::SeqCst) {
                    say(FromSite::Reserved { job, refusal }).await;
                }
            }
            ToSite::JobRollback { job } => {
                let mut log = self.log.lock().unwrap();
                log.held.remove(&job);
                log.rolled_back.insert(job);
            }
            ToSite::RoundOpen(header) => {
                assert!(header.signed_by(&self.coordinator));
                return self.round(&header.document, session, process).await;
            }
            ToSite::Relay { round, message } => {
                if let Some(header) = self.opened(&round) {
                    let act = (self.script.lock().unwrap())(&header);
                    let answer = self.sessions_of_rounds.lock().unwrap().relayed(self, &header, act, message.bytes());
                    self.answer(&header, answer, session, process).await;
                }
            }
            ToSite::RoundClosed { round, outcome } => {
                self.log.lock().unwrap().closed.insert(round, outcome);
            }
            ToSite::JobEnded { job, state, reason, model } => {
                let success = state == "success";
                self.log.lock().unwrap().end(job, (state, reason, model));
                if success && self.releases.load(Ordering::SeqCst) {
                    say(FromSite::Release { job }).await;
                }
            }
            ToSite::Witness(witness) => {
                if let Some(reply) = self.witness(witness) {
                    say(FromSite::Witness(reply)).await;
                }
            }
            ToSite::Goodbye { reason } => self.log.lock().unwrap().goodbyes.push(reason),
            _ => {}
        }
        true
    }

    pub fn approval(&self, study: StudyId) -> FromSite {
        let expires = hospes_protocol::id::Timestamp::from_millis(4_000_000_000_000);
        let approval = Digest::of(study.to_string().as_bytes());
        FromSite::Decision { study, decision: Decision::Approved { approval, expires, one_person: false } }
    }

    fn witness(&self, message: Witness) -> Option<Witness> {
        self.log.lock().unwrap().asked_to_prove += usize::from(matches!(message, Witness::ProveFrom { .. }));
        let Witness::Show { origin, checkpoint, old_size, proof } = message else { return None };
        if origin == self.id {
            self.log.lock().unwrap().reminded.push(checkpoint);
            return None;
        }
        let at = hospes_protocol::id::Timestamp::from_millis(1_800_000_000_000);
        if origin == self.coordinator.site_id() {
            let mut seen = self.seen.lock().unwrap();
            let witnessing = Witnessing { origin: self.coordinator, key: &self.key, seen: *seen, relayed: false };
            let verdict = witnessing.judge(&checkpoint, old_size, &proof, at);
            match &verdict {
                Verdict::Cosigned { checkpoint, .. } => *seen = Some(Seen::from(checkpoint.checkpoint())),
                Verdict::ProveFrom { .. } => {}
                Verdict::Contradiction { detail, .. } => {
                    panic!("the coordinator's ledger contradicts itself: {detail}")
                }
            }
            return Some(verdict.reply(origin, self.id));
        }
        let key = *self.others.lock().unwrap().get(&origin)?;
        let mut seen = self.seen_others.lock().unwrap();
        let witnessing = Witnessing { origin: key, key: &self.key, seen: seen.get(&origin).copied(), relayed: true };
        let verdict = witnessing.judge(&checkpoint, old_size, &proof, at);
        if let Verdict::Cosigned { checkpoint, .. } = &verdict {
            seen.insert(origin, Seen::from(checkpoint.checkpoint()));
            self.log.lock().unwrap().cosigned_for_others += 1;
        }
        Some(verdict.reply(origin, self.id))
    }

    /// Works on a round; false if the connection is lost by it.
    async fn round(&self, header: &RoundHeader, session: u64, process: &Process) -> bool {
        let say = async |message| {
            let _ = process.events.send(Event::Message { site: self.id, session, message }).await;
        };
        let key = header.key();
        let first = {
            let mut log = self.log.lock().unwrap();
            let first = !log.opened.iter().any(|h| h.key() == key);
            log.opened.push(header.clone());
            first
        };
        let act = (self.script.lock().unwrap())(header);
        let reply = |reply| FromSite::RoundReply { round: key.clone(), reply };
        match act {
            Act::Refuse => {
                let refusal = Refusal::new(RefusalCode::Policy, "the policy forbids it");
                say(reply(RoundReply::Refused(refusal))).await;
                return true;
            }
            Act::Fail => {
                say(reply(RoundReply::Failed("out of memory".into()))).await;
                return true;
            }
            Act::Vanish => {
                self.online.send_replace(false);
                return false;
            }
            Act::Silence => {
                say(reply(RoundReply::Working)).await;
                return true;
            }
            _ => say(reply(RoundReply::Working)).await,
        }
        if let Act::Slow(ms) = act {
            for step in 0..(ms / 20) {
                let (done, total) = (u32::try_from(step).unwrap(), 100);
                say(FromSite::Progress { round: key.clone(), done, total }).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        if act == Act::Revoke {
            say(FromSite::Decision { study: header.study, decision: Decision::Revoked }).await;
        }
        let payload = self.payload(header, process, act).await;
        let Some(payload) = payload else { return true };
        if header.is_secure() {
            let answer = self.sessions_of_rounds.lock().unwrap().opened(self, header, act, payload);
            self.answer(header, answer, session, process).await;
            return true;
        }
        if act == Act::Halfway && first {
            // The other half follows after the next greeting, when the round is offered again.
            let _ = self.send(header, &payload, process, Some(payload.len() / 2)).await;
            return false;
        }
        if act == Act::Deaf && first {
            if let Ok(Some(upload)) = self.send(header, &payload, process, None).await {
                let (reply, answer) = oneshot::channel();
                let _ = process.events.send(Event::Uploaded { site: self.id, upload, reply }).await;
                let _ = answer.await;
                self.log.lock().unwrap().unreceipted.insert(key);
            }
            self.online.send_replace(false);
            return false;
        }
        self.upload(header, &payload, process).await;
        if act == Act::Twice {
            self.upload(header, &payload, process).await;
        }
        true
    }

    fn opened(&self, round: &RoundKey) -> Option<RoundHeader> {
        self.log.lock().unwrap().opened.iter().find(|header| header.key() == *round).cloned()
    }

    /// Says what its part in a round with secure aggregation gave, or sends it.
    async fn answer(&self, header: &RoundHeader, answer: masks::Answer, session: u64, process: &Process) {
        match answer {
            masks::Answer::Nothing => {}
            masks::Answer::Say(message) => {
                let message = FromSite::SecureStep { round: header.key(), message: SecureMessage::new(message) };
                let _ = process.events.send(Event::Message { site: self.id, session, message }).await;
            }
            masks::Answer::Upload(payload) => self.upload(header, &payload, process).await,
        }
    }

    async fn upload(&self, header: &RoundHeader, payload: &[u8], process: &Process) {
        match self.send(header, payload, process, None).await {
            Ok(Some(upload)) => {
                let (reply, answer) = oneshot::channel();
                if process.events.send(Event::Uploaded { site: self.id, upload, reply }).await.is_err() {
                    return;
                }
                match answer.await {
                    Ok(Ok(receipt)) => {
                        assert!(receipt.signed_by(&self.coordinator));
                        assert_eq!(receipt.document.digest, Digest::of(payload));
                        assert_eq!(receipt.document.site, self.id);
                        self.log.lock().unwrap().receipts.push(receipt.document.round.clone());
                    }
                    Ok(Err(rejection)) => self.log.lock().unwrap().refused.push(rejection.message),
                    Err(_) => {}
                }
            }
            Ok(None) => {}
            Err(refused) => self.log.lock().unwrap().refused.push(refused.to_string()),
        }
    }

    /// Sends a payload in chunks, up to a byte where it is cut off.
    async fn send(
        &self,
        header: &RoundHeader,
        payload: &[u8],
        process: &Process,
        cut: Option<usize>,
    ) -> Result<Option<StagedUpload>, Refused> {
        let is_figures = {
            let log = self.log.lock().unwrap();
            plan::masks::reports_figures(&log.studies[&header.study].plan, &header.task)
        };
        let kind = if is_figures { UploadKind::Figures } else { UploadKind::Update };
        let request = UploadRequest {
            site: self.id,
            kind,
            study: header.study,
            round: header.key(),
            digest: Digest::of(payload),
            length: payload.len() as u64,
        };
        let standing = match process.staging.status(&request).await {
            // As the port does for what the store knows: the receipt may have got lost.
            Err(Refused::Over(reason)) if reason.contains("not open") => {
                return Ok(Some(process.staging.confirmed(request)));
            }
            standing => standing?,
        };
        let mut incoming = process.staging.begin(request).await?;
        match standing {
            // What a process was writing when it was killed may arrive between the two questions.
            Standing::Offset(offset) => assert!(offset <= incoming.offset()),
            Standing::Complete => assert_eq!(incoming.offset(), payload.len() as u64),
        }
        let from = usize::try_from(incoming.offset()).unwrap();
        for chunk in payload[from..cut.unwrap_or(payload.len()).max(from)].chunks(1_000) {
            let (offset, hash) = (incoming.offset(), *blake3::hash(chunk).as_bytes());
            incoming.append(offset, Bytes::copy_from_slice(chunk), hash).await?;
        }
        if cut.is_some() { Ok(None) } else { incoming.finish().await.map(Some) }
    }

    /// The payload of a round: a function of site, round and model, so that a run gives the same model every time.
    async fn payload(&self, header: &RoundHeader, process: &Process, act: Act) -> Option<Vec<u8>> {
        if let Some(kept) = self.payloads.lock().unwrap().get(&header.key()) {
            return Some(kept.clone());
        }
        let plan = self.log.lock().unwrap().studies[&header.study].plan.clone();
        let mut payload = if let Some(coefficients) = Coefficients::of(&plan, &header.task) {
            let point = coefficients.from_file(&values(process, header.model.unwrap()).await).unwrap();
            let mut set = match &plan.tasks[&header.task].component {
                Component::Cox(cox) => fits::hazards(self.index, point[0], header.round > cox.newton.rounds),
                _ => fits::report(self.index, &point),
            };
            if act == Act::Withhold {
                withhold(&mut set);
            }
            masks::reported(header, &plan, set)
        } else if plan::masks::reports_figures(&plan, &header.task) {
            masks::reported(header, &plan, self.figures(header, act))
        } else {
            // The model that the header names is there and is what it is called.
            let model = header.model.unwrap();
            let size = process.models.size(model).await.ok()??;
            let bytes = process.models.read(model, 0..size).await.unwrap();
            assert_eq!(canon::digest("model", 1, &bytes), model);
            let mut values: Vec<Vec<f32>> = delta(self, header);
            if let Component::NnTrain(train) = &plan.tasks[&header.task].component
                && let Some(stop) = &train.early_stop
            {
                let index = usize::try_from(header.round).unwrap() - 1;
                let told = self.losses.lock().unwrap().get(index).map(|loss| (*loss, self.rows()));
                let (loss, rows) = told.unwrap_or((0.0, 0));
                *values.last_mut().unwrap() = stop.entries(loss, rows, self.rows(), header.quantise.clip).to_vec();
            }
            let slices: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
            let quantiser = Quantiser::new(&header.quantise).unwrap();
            quantiser.encode(self.rows(), &header.tensors, &slices, &mut || 0).unwrap().into_bytes()
        };
        match act {
            Act::Short => payload.truncate(payload.len() - 4),
            Act::Foul if !header.tensors.is_empty() => payload[8..12].copy_from_slice(&[0xff; 4]),
            _ => {
                self.payloads.lock().unwrap().insert(header.key(), payload.clone());
            }
        }
        Some(payload)
    }

    fn figures(&self, header: &RoundHeader, act: Act) -> FigureSet {
        let log = self.log.lock().unwrap();
        let announced = plan::figures(&log.studies[&header.study].plan, &header.task);
        let mut set = FigureSet { sums: BTreeMap::new(), withheld: BTreeMap::new() };
        for (i, figure) in announced.iter().enumerate() {
            let value = (i as f64 + 1.0) * f64::from(self.index + 1);
            set.sums.insert(figure.name.to_string(), vec![value; usize::try_from(figure.values).unwrap()]);
        }
        // The higher the learning rate, the more of the rows are right.
        if let (Some(_), Some(plan)) = (&log.studies[&header.study].sweep, log.plans.get(&header.job))
            && set.sums.contains_key("correct")
        {
            let n = set.sums["n"][0];
            set.sums.insert("correct".into(), vec![n * rate(plan)]);
        }
        if act == Act::Foul {
            set.sums.insert("patients".into(), vec![1.0]);
        }
        if act == Act::Withhold {
            withhold(&mut set);
        }
        set
    }
}

/// Leaves the number of rows only.
fn withhold(set: &mut FigureSet) {
    let names: Vec<String> = set.sums.keys().filter(|name| *name != "n").cloned().collect();
    for name in names {
        set.sums.remove(&name);
        set.withheld.insert(name, "withheld by a disclosure rule of the site".into());
    }
}

/// Learning rate of a plan.
pub fn rate(plan: &Plan) -> f64 {
    match &plan.tasks["train"].component {
        Component::NnTrain(train) => train.optimizer.lr(),
        other => panic!("{}", other.name()),
    }
}

/// Values of a model's file.
pub async fn values(process: &Process, model: Digest) -> Vec<f32> {
    let size = process.models.size(model).await.unwrap().unwrap();
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < size {
        bytes.extend(process.models.read(model, bytes.len() as u64..size).await.unwrap());
    }
    let start = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    bytes[start..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// What training gave at a site.
pub fn delta(peer: &Peer, header: &RoundHeader) -> Vec<Vec<f32>> {
    let mut state = Digest::of(format!("{}/{}/{:?}", peer.id, header.round, header.model).as_bytes());
    let mut next = || {
        state = Digest::of(state.as_bytes());
        f32::from(state.as_bytes()[0]) / 2_560.0 - 0.05
    };
    header.tensors.iter().map(|t| (0..t.len()).map(|_| next()).collect()).collect()
}
