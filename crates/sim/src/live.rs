//! A whole federation in this process: the coordinator and the sites' engines as they ship, joined over mutual TLS on
//! the loopback device, each with its own keys, database, ledger and frozen data.
//!
//! Only what belongs to a machine is made up: the people are of the simulation, their passphrases are cheap, training
//! runs in threads, and each site's identity follows from its name, as do the rows that a plan draws for its test, so that a
//! run can be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hospes_coordinator::audit::Audit;
use hospes_coordinator::config::{Home, Settings};
use hospes_coordinator::enrol::create_token;
use hospes_coordinator::serve::Coordinator;
use hospes_coordinator::store::Role as Access;
use hospes_party::keys::{KdfCost, SecretPlace};
use hospes_party::view::{Approving, Enrolment, NewDataset, NewPerson, Outcome, RequestState};
use hospes_party::{Config, Executor, Handle, Passphrase, Session, initialise, open, system_clock};
use hospes_protocol::approval::{ReleaseRule, Role, Trust};
use hospes_protocol::canon;
use hospes_protocol::id::StudyId;
use hospes_protocol::plan::{Component, Plan, Privacy};
use hospes_protocol::policy::Policy;
use hospes_protocol::study::Terms;
use serde_json::{Value, json};

use crate::federation::known_keys;

/// How long a state may take to come when nothing is computed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(25);
const ADMINISTRATOR: &str = "administrator";
const STEWARD: &str = "steward";
const APPROVER: &str = "approver";
const DATASET: &str = "simulated";

/// A coordinator and its sites, running until this is dropped.
pub struct Live {
    sites: Vec<Site>,
    desk: Desk,
    /// Held for their lifetimes: dropping them ends what runs and removes the folder.
    _coordinator: Coordinator,
    _folder: tempfile::TempDir,
}

struct Site {
    name: String,
    handle: Handle,
    steward: Session,
    approver: Session,
}

/// The operator's and researcher's desk: the REST API.
struct Desk {
    http: reqwest::Client,
    url: String,
    token: String,
}

/// What a run gave.
#[derive(Debug, Clone)]
pub struct Run {
    /// The final model as a safetensors file, if the plan trains one.
    pub model: Option<Vec<u8>>,
    /// The model's card, with the figures that the sites let leave.
    pub card: Option<Value>,
    /// The tables of the regressions that the plan fits.
    pub fits: Vec<Value>,
    /// The job as the API shows it.
    pub job: Value,
}

impl Live {
    /// Starts a coordinator, and a site for each file, with its people and data; enrols them.
    ///
    /// # Errors
    /// If a file cannot be registered, or something that should start does not.
    pub async fn start(subject: &str, files: &[(String, &Path)]) -> Result<Self> {
        ensure!(files.len() >= 2, "a federation has at least two sites");
        let names: BTreeSet<&String> = files.iter().map(|(name, _)| name).collect();
        ensure!(names.len() == files.len(), "two sites have the same name");
        // Another one may be there already; either will do.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let (coordinator, desk) = coordinator(&folder.path().join("coordinator")).await?;
        let mut sites = Vec::new();
        for (name, file) in files {
            let site = Site::start(name, subject, file, &desk, folder.path()).await;
            sites.push(site.with_context(|| format!("site '{name}'"))?);
        }
        let live = Self { sites, desk, _coordinator: coordinator, _folder: folder };
        for site in &live.sites {
            let all = u32::try_from(live.sites.len())?;
            until("the roster reaches every site", async || {
                let memberships = site.handle.memberships(&site.steward).await?;
                Ok(memberships.iter().any(|m| m.members == all).then_some(()))
            })
            .await?;
        }
        Ok(live)
    }

    /// Submits a study, has it signed at every site, and waits until its run has ended well.
    ///
    /// # Errors
    /// What is wrong with the study; the reason of the first refusal, or of the run's failure.
    pub async fn run(&self, terms: &Terms, plan: &Plan, progress: &mut dyn FnMut(&str)) -> Result<Run> {
        let submitted = self.desk.post("/api/v1/studies", &json!({ "terms": terms, "plan": plan })).await?;
        let study: StudyId = text(&submitted, "study")?.parse().map_err(|e| anyhow::anyhow!("study: {e}"))?;
        if plan.tasks.values().any(|task| is_masked(&task.component)) {
            self.compare_words().await?;
        }
        for site in &self.sites {
            site.approve(study).await.with_context(|| format!("site '{}' does not approve", site.name))?;
        }
        let job = self.ended(study, progress).await?;
        let model = match job["model"].as_str() {
            Some(digest) => {
                let (card, file) = (format!("/api/v1/models/{digest}/card"), format!("/api/v1/models/{digest}/file"));
                let card = until("the model's card is written", async || self.desk.try_get(&card).await).await?;
                Some((self.desk.bytes(&file).await?, card))
            }
            None => None,
        };
        let (model, card) = model.unzip();
        let fits = format!("/api/v1/jobs/{}/fits", text(&job, "job")?);
        let fits = until("every site has released the results", async || self.desk.try_get(&fits).await).await?;
        Ok(Run { model, card, fits: fits.as_array().cloned().unwrap_or_default(), job })
    }

    /// Every site verifies every other: whom one knows from the coordinator only counts as its own, and a masked round of few
    /// sites would be refused.
    async fn compare_words(&self) -> Result<()> {
        let mut words = BTreeMap::new();
        for site in &self.sites {
            words.extend(site.handle.memberships(&site.steward).await?.into_iter().map(|m| (m.site, m.words)));
        }
        for site in &self.sites {
            for membership in site.handle.memberships(&site.steward).await? {
                let peers = site.handle.peers(&site.steward, membership.federation).await?;
                for peer in peers.iter().filter(|peer| peer.trust != Trust::VerifiedHere) {
                    let said = words.get(&peer.site).with_context(|| format!("'{}' is no site here", peer.name))?;
                    site.handle.verify_peer(&site.steward, membership.federation, peer.site, said.clone()).await?;
                }
            }
        }
        Ok(())
    }

    /// The run of a study when it has ended well.
    async fn ended(&self, study: StudyId, progress: &mut dyn FnMut(&str)) -> Result<Value> {
        let mut told = String::new();
        loop {
            let jobs = self.desk.get(&format!("/api/v1/jobs?study={study}")).await?;
            let Some(job) = jobs.as_array().and_then(|jobs| jobs.first()) else {
                tokio::time::sleep(LOOK).await;
                continue;
            };
            let detail = job["detail"].as_str().unwrap_or_default();
            if detail != told && !detail.is_empty() {
                told = detail.to_owned();
                progress(detail);
            }
            match job["state"].as_str() {
                Some("success") => return Ok(job.clone()),
                Some("failed" | "timeout" | "cancelled") => {
                    let details = self.desk.get(&format!("/api/v1/jobs/{}", text(job, "job")?)).await?;
                    bail!("the run ended as {}: {}", job["state"], reasons(&details));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

fn is_masked(component: &Component) -> bool {
    matches!(component, Component::NnTrain(train) if train.privacy == (Privacy::SecureAggregation {}))
}

/// Every reason that a failed job has, in words.
fn reasons(job: &Value) -> String {
    let mut found: Vec<String> = job["reason"].as_str().map(str::to_owned).into_iter().collect();
    for round in job["rounds"].as_array().into_iter().flatten() {
        for out in round["out"].as_array().into_iter().flatten() {
            let words = format!("{}: {}", out["name"].as_str().unwrap_or("?"), out["reason"].as_str().unwrap_or("?"));
            if !found.contains(&words) {
                found.push(words);
            }
        }
    }
    found.join("; ")
}

async fn coordinator(folder: &Path) -> Result<(Coordinator, Desk)> {
    // The port is free now and asked for again at once; were it taken between, the start would say so.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let url = format!("https://127.0.0.1:{port}");
    let mut settings = Settings::new("Simulation", &url, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "sqlite")?;
    settings.schedule.grace_ms = 2_000;
    settings.schedule.retry_ms = 200;
    settings.schedule.open_studies = u32::MAX;
    let clock = hospes_coordinator::system_clock();
    let schedule = settings.schedule.clone();
    let home = Home::create(folder, settings, None, clock())?;
    let store = home.create_store().await?;
    let token = create_token(&store, &Audit::default(), clock(), "simulation", Access::Operator, None).await?;
    let token = token.map_err(|rejection| anyhow::anyhow!("no token: {rejection:?}"))?.to_string();
    drop(store);
    let certificate = reqwest::Certificate::from_pem(home.ca.pem().as_bytes())?;
    let http = reqwest::Client::builder().https_only(true).no_proxy().tls_certs_only([certificate]).build()?;
    let coordinator = Coordinator::launch(home, clock, schedule).await?;
    Ok((coordinator, Desk { http, url, token }))
}

impl Desk {
    async fn get(&self, path: &str) -> Result<Value> {
        self.answer(self.http.get(format!("{}{path}", self.url))).await
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.answer(self.http.post(format!("{}{path}", self.url)).json(body)).await
    }

    /// `None` for what is not there yet.
    async fn try_get(&self, path: &str) -> Result<Option<Value>> {
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.token);
        let answer = request.send().await?;
        Ok(if answer.status().is_success() { Some(answer.json().await?) } else { None })
    }

    async fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.token);
        Ok(request.send().await?.error_for_status()?.bytes().await?.to_vec())
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Value> {
        let answer = request.bearer_auth(&self.token).send().await?;
        let good = answer.status().is_success();
        let body: Value = answer.json().await?;
        if good {
            return Ok(body);
        }
        let detail = body["detail"].as_str().unwrap_or("the coordinator refused");
        let mistakes = body["problems"].as_array().into_iter().flatten().map(|p| {
            format!("{}: {}", p["place"].as_str().unwrap_or_default(), p["reason"].as_str().unwrap_or_default())
        });
        // The detail may say them already.
        let rest: String = mistakes
            .filter(|mistake| !detail.contains(mistake.as_str()))
            .map(|mistake| format!("\n{mistake}"))
            .collect();
        bail!("{detail}{rest}")
    }
}

impl Site {
    async fn start(name: &str, subject: &str, file: &Path, desk: &Desk, folder: &Path) -> Result<Self> {
        let config = config(name, folder);
        initialise(&config).await?;
        let handle = open(config).await?;
        handle.set_up(ADMINISTRATOR.into(), passphrase(ADMINISTRATOR)).await?;
        let administrator = handle.log_in(ADMINISTRATOR.into(), passphrase(ADMINISTRATOR)).await?;
        done(handle.set_policy(&administrator, Policy::public_data().to_toml()?, passphrase(ADMINISTRATOR)).await?)?;
        let steward = person(&handle, &administrator, STEWARD, Role::DataSteward).await?;
        let approver = person(&handle, &administrator, APPROVER, Role::DataAccessApprover).await?;
        let dataset = NewDataset {
            name: DATASET.into(),
            path: std::path::absolute(file)?,
            query: None,
            sheet: None,
            missing: None,
            scan: Default::default(),
            subject: subject.to_owned(),
            kinds: Default::default(),
            mask: Default::default(),
            keep: Default::default(),
            // The simulation runs under the policy for public data, which takes nothing else; the copies are its own.
            public: true,
            duo: Vec::new(),
        };
        handle.add_dataset(&steward, dataset).await?;
        let invitation = desk.post("/api/v1/invitations", &json!({ "name": name })).await?;
        let enrolment = Enrolment {
            invitation: text(&invitation, "invitation")?,
            words: text(&invitation, "ca_words")?,
            organisation: name.to_owned(),
            proxy: None,
            extra_ca: None,
            again: None,
        };
        handle.enrol(&administrator, enrolment).await?;
        Ok(Self { name: name.to_owned(), handle, steward, approver })
    }

    /// Waits for the study and signs it as both people: exactly this plan, once, its results free at once.
    async fn approve(&self, study: StudyId) -> Result<()> {
        until("the study is offered", async || {
            let requests = self.handle.requests(&self.steward).await?;
            Ok(requests.iter().any(|r| r.study == study && r.state == RequestState::Received).then_some(()))
        })
        .await?;
        let read = self.handle.review(&self.steward, study, None).await?.read;
        let approving = Approving { release: ReleaseRule::Automatic, ..Approving::exactly(study, read) };
        let first = self.handle.approve(&self.steward, approving, passphrase(STEWARD)).await?;
        self.handle.countersign(&self.approver, study, first.digest, passphrase(APPROVER)).await?;
        Ok(())
    }
}

fn config(name: &str, folder: &Path) -> Config {
    let data = folder.join("sites").join(canon::digest("simulated-site-folder", 1, name.as_bytes()).short());
    let secrets = SecretPlace::File { path: data.join("keys"), passphrase: passphrase("keys") };
    let mut config = Config::new(data, secrets, std::path::PathBuf::new());
    config.executor = Executor::Thread;
    config.kdf = KdfCost::for_tests();
    config.clock = system_clock();
    config.session_idle_ms = i64::MAX / 4;
    // These sites are no hospital's: what its IT set for the machine is for the one that runs on it.
    config.managed = hospes_party::ManagedFile::none();
    config.known_keys = Some(Arc::new(known_keys(name)));
    config
}

fn passphrase(of: &str) -> Passphrase {
    Passphrase::from(format!("the passphrase of the simulated {of}"))
}

async fn person(handle: &Handle, administrator: &Session, name: &str, role: Role) -> Result<Session> {
    let new = NewPerson { name: name.to_owned(), roles: BTreeSet::from([role]), organisation: None };
    let code = done(handle.add_person(administrator, new, passphrase(ADMINISTRATOR)).await?)?;
    handle.activate(name.to_owned(), code.context("no code for a new person")?, passphrase(name)).await?;
    Ok(handle.log_in(name.to_owned(), passphrase(name)).await?)
}

fn done(outcome: Outcome) -> Result<Option<String>> {
    match outcome {
        Outcome::Done { code } => Ok(code),
        Outcome::Proposed(_) => bail!("a change at a simulated site waits for a second signature"),
    }
}

fn text(value: &Value, field: &str) -> Result<String> {
    value[field].as_str().map(str::to_owned).with_context(|| format!("the answer has no {field}"))
}

/// Asks until there is an answer.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        ensure!(Instant::now() < end, "it did not come to this in {} s: {what}", PATIENCE.as_secs());
        tokio::time::sleep(LOOK).await;
    }
}
