//! A coordinator on a loopback port with the real TLS, gRPC, REST and store. In place of the schedule listens an ear that
//! records what reaches it and gives the plainest answers, so that these tests are about the door and not the house.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hospes_coordinator::aggregate::staging::{Staging, free_space};
use hospes_coordinator::audit::Audit;
use hospes_coordinator::config::{Home, Limits, Settings};
use hospes_coordinator::enrol::{Register, create_token};
use hospes_coordinator::models::Models;
use hospes_coordinator::schedule::{Command, Event, Live, Rejection, RejectionCode, Reply};
use hospes_coordinator::serve::{Coordinator, Parts};
use hospes_coordinator::store::{Role, Store};
use hospes_protocol::enrol::Invitation;
use hospes_protocol::id::{Digest, SiteId, Timestamp};
use hospes_protocol::message::{FromSite, ToSite, Welcome};
use hospes_protocol::version::Version;
use rustls::pki_types::CertificateDer;
use tokio::sync::{broadcast, mpsc};

use crate::clock::Turned;
use crate::site;

pub struct World {
    /// Deleted with the world.
    _folder: tempfile::TempDir,
    pub coordinator: Coordinator,
    pub store: Store,
    pub models: Models,
    pub live: broadcast::Sender<Live>,
    pub home: Arc<Home>,
    pub time: Turned,
    pub heard: Heard,
    pub operator: String,
    pub researcher: String,
    /// Ids of the two tokens.
    pub ids: BTreeMap<Role, uuid::Uuid>,
}

/// What reached the schedule.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    /// Waits until something that starts so was heard.
    pub async fn wait(&self, start: &str) {
        for _ in 0..500 {
            if self.0.lock().unwrap().iter().any(|w| w.starts_with(start)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("'{start}' did not come; heard: {:?}", self.0.lock().unwrap());
    }

    pub fn count(&self, start: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|w| w.starts_with(start)).count()
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(set: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let time = Turned::default();
        let clock = time.clock();
        let mut settings =
            Settings::new("Test", "https://localhost:1", "127.0.0.1:0".parse().unwrap(), "sqlite").unwrap();
        settings.server_names = vec!["127.0.0.1".into()];
        settings.limits = Limits { heartbeat_ms: 200, silence_ms: 1_500, greeting_ms: 3_000, ..Limits::default() };
        set(&mut settings);
        let home = Arc::new(Home::create(&folder.path().join("data"), settings, None, clock()).unwrap());
        let store = home.create_store().await.unwrap();
        let audit = Audit::default();
        let mut tokens = BTreeMap::new();
        for role in [Role::Operator, Role::Researcher] {
            let token = create_token(&store, &audit, clock(), role.as_str(), role, None).await.unwrap().unwrap();
            tokens.insert(role, token.to_string());
        }
        let ids = store.tokens().await.unwrap().iter().map(|t| (t.caller.role, t.caller.id)).collect();
        let (events, ear) = mpsc::channel(64);
        let heard = Heard::default();
        tokio::spawn(listen(ear, heard.clone(), home.clone(), clock.clone()));
        let register = Register { home: home.clone(), store: store.clone(), audit, clock };
        let staging = Staging::new(home.folder.join("staging"), free_space(), time.clock()).unwrap();
        let (live, _) = broadcast::channel(16);
        let models = Models::open(home.folder.join("models")).unwrap();
        let parts = Parts { register, epoch: 1, events, live: live.clone(), staging, models: models.clone() };
        let coordinator = Coordinator::start(parts).await.unwrap();
        Self {
            _folder: folder,
            coordinator,
            live,
            models,
            store,
            home,
            time,
            heard,
            operator: tokens[&Role::Operator].clone(),
            researcher: tokens[&Role::Researcher].clone(),
            ids,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.coordinator.address().port())
    }

    pub fn ca(&self) -> CertificateDer<'static> {
        self.home.ca.der().clone()
    }

    /// A client that trusts the CA and shows no certificate.
    pub fn client(&self) -> reqwest::Client {
        site::https(self.ca(), None)
    }

    /// An API call with the operator's token; status and body.
    pub async fn api(&self, method: &str, path: &str, body: Option<serde_json::Value>) -> (u16, serde_json::Value) {
        self.api_as(&self.operator, method, path, body).await
    }

    pub async fn api_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> (u16, serde_json::Value) {
        let mut request = self.client().request(method.parse().unwrap(), self.url(path)).bearer_auth(token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)))
    }

    /// An invitation for this name, as the site gets it.
    pub async fn invite(&self, name: &str) -> Invitation {
        let (status, body) = self.api("POST", "/api/v1/invitations", Some(serde_json::json!({ "name": name }))).await;
        assert_eq!(status, 201, "{body}");
        let invitation: Invitation = body["invitation"].as_str().unwrap().parse().unwrap();
        assert_eq!(invitation.ca, Digest::of(&self.ca()));
        invitation
    }

    pub async fn enrolled(&self, name: &str, seed: u8) -> site::Site {
        let invitation = self.invite(name).await;
        site::Site::enrol(self, &invitation, seed).await.unwrap()
    }
}

async fn listen(mut ear: mpsc::Receiver<Event>, heard: Heard, home: Arc<Home>, clock: hospes_coordinator::Clock) {
    let mut open: BTreeMap<SiteId, (u64, mpsc::Sender<Arc<ToSite>>, Timestamp)> = BTreeMap::new();
    while let Some(event) = ear.recv().await {
        match event {
            Event::Joined { site, session, out, .. } => {
                heard.note(format!("joined {site}"));
                let welcome = Welcome {
                    version: Version::V1,
                    federation: home.federation(),
                    identity: home.key.public(),
                    at: clock(),
                    epoch: 1,
                };
                let _ = out.send(Arc::new(ToSite::Welcome(welcome))).await;
                open.insert(site, (session, out, clock()));
            }
            Event::UploadRefused { site, .. } => heard.note(format!("upload refused of {site}")),
            Event::Left { site, session } => {
                heard.note(format!("left {site}"));
                if open.get(&site).is_some_and(|o| o.0 == session) {
                    open.remove(&site);
                }
            }
            Event::Message { site, message, .. } => {
                if let FromSite::Progress { done, .. } = &message {
                    heard.note(format!("progress {done} of {site}"));
                } else {
                    heard.note(format!("message of {site}"));
                }
            }
            Event::Uploaded { .. } => heard.note("uploaded".into()),
            Event::Operator { command, reply } => {
                let answer = match command {
                    Command::Submit { terms, by, .. } if terms.title == "too early" => {
                        let _ =
                            reply.send(Err(Rejection::new(RejectionCode::Conflict, format!("not now, {}", by.name))));
                        continue;
                    }
                    Command::Submit { terms, plan, .. } => {
                        heard.note(format!("submit {} {}", terms.title, plan.len()));
                        Reply::Study(hospes_protocol::id::StudyId::new(clock(), [7; 10]))
                    }
                    Command::Withdraw { study, .. } => {
                        heard.note(format!("withdraw {study}"));
                        Reply::Done
                    }
                    Command::Sessions => Reply::Sessions(open.iter().map(|(site, o)| (*site, o.2)).collect()),
                    Command::SiteLocked { site, .. } => {
                        heard.note(format!("locked {site}"));
                        open.remove(&site);
                        Reply::Done
                    }
                    Command::RosterChanged => {
                        heard.note("roster changed".into());
                        Reply::Done
                    }
                    _ => Reply::Done,
                };
                let _ = reply.send(Ok(answer));
            }
        }
    }
}
