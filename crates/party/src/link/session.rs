//! The session: one owner of everything about one coordinator, in a loop that waits for whatever comes next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hospes_protocol::grpc::federation_client::FederationClient;
use hospes_protocol::grpc::{CoordinatorFrame, SiteFrame, convert};
use hospes_protocol::id::{FederationId, Timestamp};
use hospes_protocol::limits;
use hospes_protocol::message::{FromSite, Hello, ToSite, Welcome};
use hospes_protocol::version::{self, SUPPORTED};
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::back_off::BackOff;
use super::dial::{Address, Dialer, Meter, within};
use super::error::{self, LinkError};
use super::tls::{self, Anchor, Identity};
use super::transfer::Transfers;
use super::{LinkCommand, LinkConfig, LinkEvent, renewal};

/// Messages that wait while there is no session.
const WAITING_MESSAGES: usize = 4_096;
/// Messages of the coordinator that wait for the engine; then no more are read.
const UNREAD_MESSAGES: usize = 256;
/// Frames between this loop and HTTP/2.
const FRAMES: usize = 16;
/// Time for the goodbye to get out.
const GOODBYE: Duration = Duration::from_secs(2);

/// One connection with a session on it, as transfers use it.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) client: FederationClient<Channel>,
    pub(super) meter: Arc<Meter>,
    /// Cancelled when the session on it ends.
    pub(super) ended: CancellationToken,
}

/// A session that was opened.
pub(super) struct Open {
    pub(super) line: Line,
    pub(super) welcome: Welcome,
    pub(super) frames: mpsc::Sender<SiteFrame>,
    incoming: Streaming<CoordinatorFrame>,
}

/// How a session ended.
enum End {
    /// The engine wants no more.
    Closed,
    /// Something happened; try again.
    Lost(LinkError),
    /// The coordinator said goodbye.
    Goodbye(String),
    /// The preferred coordinator is there again.
    Prefer,
}

/// What woke the loop.
enum Wake {
    Frame(Result<Option<CoordinatorFrame>, Status>),
    Writable,
    Beat,
    Silence,
    Command(Option<LinkCommand>),
    Deliverable(bool),
    Prefer,
}

/// Runs a link until it is closed.
pub(super) async fn run(
    config: LinkConfig,
    events: mpsc::Sender<(FederationId, LinkEvent)>,
    commands: mpsc::Receiver<LinkCommand>,
) {
    let config = Arc::new(config);
    let (identity, seen) = watch::channel(Identity::new(&config.chain_pem, &config.key_pem));
    let renewal = tokio::spawn(renewal::run(Arc::clone(&config), identity, events.clone()));
    let (line, lines) = watch::channel(None);
    let timing = &config.timing;
    let session = Session {
        back_off: BackOff::new(timing.back_off_first, timing.back_off_longest, config.jitter_seed),
        transfers: Transfers::new(Arc::clone(&config), events.clone(), lines),
        identity: seen,
        line,
        events,
        commands,
        inbox: VecDeque::new(),
        outbox: VecDeque::new(),
        _renewal: AbortOnDropHandle::new(renewal),
        config,
    };
    Box::pin(session.run()).await;
}

struct Session {
    config: Arc<LinkConfig>,
    identity: watch::Receiver<Identity>,
    events: mpsc::Sender<(FederationId, LinkEvent)>,
    commands: mpsc::Receiver<LinkCommand>,
    line: watch::Sender<Option<Line>>,
    transfers: Transfers,
    /// For the engine.
    inbox: VecDeque<LinkEvent>,
    /// For the coordinator.
    outbox: VecDeque<FromSite>,
    back_off: BackOff,
    _renewal: AbortOnDropHandle<()>,
}

impl Session {
    async fn run(mut self) {
        let mut url = 0;
        loop {
            // Boxed: the TLS state of a dial would make every await of this loop large.
            let opening = Box::pin(open(Arc::clone(&self.config), url, self.identity.borrow().clone()));
            let Some(opened) = self.attend(opening).await else { return };
            let opened_at = Instant::now();
            let end = match opened {
                Ok(open) => {
                    self.inbox.push_back(LinkEvent::Connected(open.welcome.clone()));
                    let end = self.converse(open, url).await;
                    if opened_at.elapsed() >= self.config.timing.heartbeat * 3 {
                        self.back_off.reset();
                    }
                    end
                }
                Err(error) => End::Lost(error),
            };
            let (reason, retry_in) = match end {
                End::Closed => return,
                End::Lost(error) if error.is_final() => {
                    self.inbox.push_back(LinkEvent::Stopped { reason: error.to_string() });
                    return self.rest().await;
                }
                End::Lost(error) => (error.to_string(), self.pause(&mut url, error.is_slow())),
                End::Goodbye(reason) => {
                    let pause = self.pause(&mut url, false);
                    (format!("the coordinator closed the session: {reason}"), pause)
                }
                End::Prefer => {
                    url = 0;
                    ("going back to the preferred coordinator".to_owned(), Duration::ZERO)
                }
            };
            tracing::info!(federation = %self.config.federation, %reason, retry_ms = retry_in.as_millis(), "link down");
            self.inbox.push_back(LinkEvent::Disconnected { reason, retry_in });
            if self.attend(tokio::time::sleep(retry_in)).await.is_none() {
                return;
            }
        }
    }

    /// Chooses the next address, and how long to wait: not at all before an alternate that was not tried yet.
    fn pause(&mut self, url: &mut usize, slow: bool) -> Duration {
        let count = self.config.urls.len().max(1);
        *url = (*url + 1) % count;
        match (*url, slow) {
            (0, true) => self.back_off.longest(),
            (0, false) => self.back_off.next(),
            _ => Duration::ZERO,
        }
    }

    /// Does `work` while commands are taken and events delivered. `None` if the engine wants no more.
    async fn attend<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            let wake = tokio::select! {
                done = &mut work => return Some(done),
                command = self.commands.recv() => Wake::Command(command),
                there = deliver(&self.events, &mut self.inbox, self.config.federation),
                    if !self.inbox.is_empty() => Wake::Deliverable(there),
            };
            let goes_on = match wake {
                Wake::Command(command) => self.take(command),
                Wake::Deliverable(there) => there,
                _ => true,
            };
            if !goes_on {
                return None;
            }
        }
    }

    /// After the link gave up: delivers why, and waits for the engine to close it.
    async fn rest(mut self) {
        self.transfers.stop();
        let _ = self.attend(std::future::pending::<()>()).await;
    }

    /// Takes a command; `false` if it was the last.
    fn take(&mut self, command: Option<LinkCommand>) -> bool {
        match command {
            None | Some(LinkCommand::Close) => return false,
            Some(LinkCommand::Send(message)) => {
                if self.line.borrow().is_none() && matches!(message, FromSite::Progress { .. }) {
                    return true;
                }
                if self.outbox.len() >= WAITING_MESSAGES {
                    tracing::warn!(federation = %self.config.federation, "messages for the coordinator overflow");
                    self.outbox.pop_front();
                }
                self.outbox.push_back(message);
            }
            Some(LinkCommand::Upload { upload, path }) => self.transfers.upload(upload, path),
            Some(LinkCommand::Withdraw { round, digest }) => self.transfers.withdraw(round, digest),
            Some(LinkCommand::Download { digest, to, most_bytes }) => self.transfers.download(digest, to, most_bytes),
            Some(LinkCommand::Card { job, model }) => self.transfers.card(job, model),
            Some(LinkCommand::Forget { digest }) => self.transfers.forget(digest),
        }
        true
    }

    /// Holds a session until it ends.
    async fn converse(&mut self, open: Open, url: usize) -> End {
        let Open { line, frames, mut incoming, .. } = open;
        let ended = line.ended.clone();
        let meter = Arc::clone(&line.meter);
        self.line.send_replace(Some(line));
        let end = self.exchange(&frames, &mut incoming, &meter, url).await;
        self.line.send_replace(None);
        if matches!(end, End::Closed) {
            // Nothing goes on while the goodbye gets out.
            self.transfers.stop();
        }
        if matches!(end, End::Closed | End::Prefer) {
            // An orderly goodbye; the coordinator closes the stream when it has it.
            if let Ok(goodbye) = convert::site_frame(FromSite::Goodbye) {
                let _ = timeout(GOODBYE, frames.send(goodbye)).await;
            }
            drop(frames);
            let _ = timeout(GOODBYE, async { while let Ok(Some(_)) = incoming.message().await {} }).await;
        }
        ended.cancel();
        end
    }

    async fn exchange(
        &mut self,
        frames: &mpsc::Sender<SiteFrame>,
        incoming: &mut Streaming<CoordinatorFrame>,
        meter: &Meter,
        url: usize,
    ) -> End {
        let timing = self.config.timing.clone();
        let mut beat = interval_at(Instant::now() + timing.heartbeat, timing.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let preferred = prefer(Arc::clone(&self.config), self.identity.clone(), url);
        let mut preferred = std::pin::pin!(preferred);
        loop {
            let wake = tokio::select! {
                frame = incoming.message(), if self.inbox.len() < UNREAD_MESSAGES => Wake::Frame(frame),
                permit = frames.reserve(), if !self.outbox.is_empty() => {
                    if let (Ok(permit), Some(message)) = (permit, self.outbox.pop_front()) {
                        match convert::site_frame(message) {
                            Ok(frame) => permit.send(frame),
                            Err(error) => tracing::error!(%error, "a message for the coordinator cannot be written"),
                        }
                    }
                    Wake::Writable
                }
                _ = beat.tick() => Wake::Beat,
                () = sleep_until(heard + timing.silence) => Wake::Silence,
                command = self.commands.recv() => Wake::Command(command),
                there = deliver(&self.events, &mut self.inbox, self.config.federation),
                    if !self.inbox.is_empty() => Wake::Deliverable(there),
                () = &mut preferred, if self.transfers.are_idle() => Wake::Prefer,
            };
            match wake {
                Wake::Frame(Ok(Some(frame))) => {
                    heard = Instant::now();
                    if let Some(end) = self.hear(frame) {
                        return end;
                    }
                }
                Wake::Frame(Ok(None)) => {
                    return End::Lost(LinkError::Broken("the coordinator ended the stream".into()));
                }
                Wake::Frame(Err(status)) => return End::Lost(of_status(&status, meter)),
                Wake::Beat => self.outbox.push_front(FromSite::Heartbeat { at: (self.config.clock)() }),
                // While the engine does not keep up nothing is read, and silence means nothing.
                Wake::Silence if self.inbox.len() >= UNREAD_MESSAGES => heard = Instant::now(),
                Wake::Silence => {
                    let seconds = timing.silence.as_secs();
                    return End::Lost(LinkError::TimedOut { step: "the coordinator", seconds });
                }
                Wake::Command(command) => {
                    if !self.take(command) {
                        return End::Closed;
                    }
                }
                Wake::Deliverable(false) => return End::Closed,
                Wake::Prefer => return End::Prefer,
                Wake::Writable | Wake::Deliverable(true) => {}
            }
        }
    }

    /// Takes a frame of the coordinator. What cannot be read is skipped: a newer coordinator may say more than this
    /// version knows.
    fn hear(&mut self, frame: CoordinatorFrame) -> Option<End> {
        match convert::to_site(frame) {
            Ok(ToSite::Heartbeat { at }) => {
                let skew = (self.config.clock)().since(at);
                (skew.abs() > limits::CLOCK_SKEW_MS).then_some(End::Lost(LinkError::Clock(skew)))
            }
            Ok(ToSite::Goodbye { reason }) => Some(End::Goodbye(reason)),
            Ok(ToSite::Welcome(_)) => Some(End::Lost(LinkError::Protocol("the coordinator greeted twice".into()))),
            Ok(message) => {
                self.inbox.push_back(LinkEvent::Message(message));
                None
            }
            Err(error) => {
                tracing::warn!(federation = %self.config.federation, %error, "a message of the coordinator was skipped");
                None
            }
        }
    }
}

/// Delivers the oldest event; `false` if the engine is gone. Dropped before it is done, nothing is lost.
async fn deliver(
    events: &mpsc::Sender<(FederationId, LinkEvent)>,
    inbox: &mut VecDeque<LinkEvent>,
    federation: FederationId,
) -> bool {
    let Ok(permit) = events.reserve().await else { return false };
    if let Some(event) = inbox.pop_front() {
        permit.send((federation, event));
    }
    true
}

/// On an alternate: ends when the preferred coordinator can be reached again.
async fn prefer(config: Arc<LinkConfig>, identity: watch::Receiver<Identity>, url: usize) {
    if url == 0 {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(config.timing.prefer).await;
        let identity = identity.borrow().clone();
        let reached = async {
            let (address, dialer) = way(&config, 0, Some(&identity), tls::HTTP2)?;
            dialer.dial(&address).await
        };
        if reached.await.is_ok() {
            return;
        }
    }
}

/// Address and dialer of one of the membership's coordinators.
pub(super) fn way(
    config: &LinkConfig,
    url: usize,
    identity: Option<&Identity>,
    protocol: &[u8],
) -> Result<(Address, Dialer), LinkError> {
    let none = || LinkError::Url { url: String::new(), reason: "the membership has no address" };
    let address = Address::parse(config.urls.get(url).ok_or_else(none)?)?;
    let anchor = Anchor::Federation { ca_pem: config.ca_pem.clone(), extra: config.extra_ca.clone() };
    let tls = tls::client_config(&anchor, identity, &config.clock, protocol)?;
    Ok((address, Dialer { proxy: config.proxy.clone(), tls, step: config.timing.dial }))
}

/// Dials and says hello.
pub(super) async fn open(config: Arc<LinkConfig>, url: usize, identity: Identity) -> Result<Open, LinkError> {
    let (from, until) = tls::validity("client certificate", &identity.chain_pem)?;
    let now = (config.clock)();
    if now >= until {
        return Err(LinkError::ClientCertificate(format!(
            "it ended {until} and was not renewed in time; enrol again with a new invitation, the site keeps its identity"
        )));
    }
    if now.plus_millis(limits::CLOCK_SKEW_MS) < from {
        return Err(LinkError::ClientCertificate(format!(
            "it is good from {from} on, and this machine's clock says {now}; set the clock"
        )));
    }
    let (address, dialer) = way(&config, url, Some(&identity), tls::HTTP2)?;
    let (stream, meter) = dialer.dial(&address).await?;
    let client = client(stream, &address, &config).await?;
    let line = Line { client, meter, ended: CancellationToken::new() };
    within(config.timing.dial, "the coordinator", greet(&config, line)).await
}

async fn client(
    stream: super::dial::Encrypted,
    address: &Address,
    config: &LinkConfig,
) -> Result<FederationClient<Channel>, LinkError> {
    let wrong = |_| LinkError::Url { url: address.authority(), reason: "it is no URL" };
    let origin = format!("https://{}", address.authority()).parse().map_err(wrong)?;
    // The scheme only keeps tonic from wanting TLS of its own; the stream is encrypted already.
    let endpoint = Endpoint::from_shared(format!("http://{}", address.authority()))
        .map_err(|e| LinkError::Broken(e.to_string()))?
        .origin(origin)
        .http2_keep_alive_interval(config.timing.heartbeat)
        .keep_alive_timeout(config.timing.silence)
        .keep_alive_while_idle(true)
        // A download that waits for the disk must not hold up the session on the same connection.
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(32 << 20);
    let mut stream = Some(TokioIo::new(stream));
    let once = tower::service_fn(move |_: http::Uri| {
        let stream = stream.take().ok_or_else(|| std::io::Error::other("the connection is used up"));
        std::future::ready(stream)
    });
    let channel = endpoint.connect_with_connector(once).await.map_err(|e| error::of_chain(&e))?;
    Ok(FederationClient::new(channel).max_decoding_message_size(limits::FRAME_BYTES))
}

/// Says hello and checks the welcome.
async fn greet(config: &LinkConfig, mut line: Line) -> Result<Open, LinkError> {
    let (frames, outgoing) = mpsc::channel(FRAMES);
    let sent = (config.clock)();
    let hello = FromSite::Hello(Hello {
        versions: SUPPORTED.to_vec(),
        site: config.site,
        software: config.software.clone(),
        at: sent,
        epoch: config.epoch,
    });
    let hello = convert::site_frame(hello).map_err(|e| LinkError::Protocol(e.to_string()))?;
    frames.send(hello).await.map_err(|_| LinkError::Broken("the stream is closed".into()))?;
    let meter = Arc::clone(&line.meter);
    let mut incoming =
        line.client.session(ReceiverStream::new(outgoing)).await.map_err(|s| of_status(&s, &meter))?.into_inner();
    let frame = incoming.message().await.map_err(|s| of_status(&s, &meter))?;
    let frame = frame.ok_or_else(|| {
        meter.fault().unwrap_or_else(|| LinkError::Broken("the coordinator ended the stream without a word".into()))
    })?;
    let welcome = match convert::to_site(frame).map_err(|e| LinkError::Protocol(e.to_string()))? {
        ToSite::Welcome(welcome) => welcome,
        ToSite::Goodbye { reason } => return Err(LinkError::Refused(reason)),
        _ => return Err(LinkError::Protocol("the coordinator did not begin with a welcome".into())),
    };
    check_welcome(config, &welcome, sent)?;
    Ok(Open { line, welcome, frames, incoming })
}

fn check_welcome(config: &LinkConfig, welcome: &Welcome, sent: Timestamp) -> Result<(), LinkError> {
    version::negotiate(&[welcome.version]).map_err(|e| LinkError::Protocol(e.to_string()))?;
    if welcome.federation != config.federation || welcome.identity.site_id() != config.federation {
        return Err(LinkError::Identity("it belongs to another federation"));
    }
    if welcome.identity != config.coordinator {
        return Err(LinkError::Identity("it has another identity key"));
    }
    let received = (config.clock)();
    // The welcome was written somewhere between the two; the middle is the best guess.
    let middle = sent.plus_millis(received.since(sent) / 2);
    let skew = middle.since(welcome.at);
    if skew.abs() > limits::CLOCK_SKEW_MS { Err(LinkError::Clock(skew)) } else { Ok(()) }
}

/// What a status means for the session.
pub(super) fn of_status(status: &Status, meter: &Meter) -> LinkError {
    let said = || {
        let text: String = status.message().chars().filter(|c| !c.is_control()).take(limits::TEXT_CHARS).collect();
        if text.is_empty() { status.code().description().to_owned() } else { text }
    };
    match status.code() {
        Code::PermissionDenied => {
            let said = said();
            // A suspension may end, and a coordinator restored from a backup may know the site again.
            let for_good = said.contains("revoked") && !said.contains("suspended");
            if for_good { LinkError::Revoked(said) } else { LinkError::ClientCertificate(said) }
        }
        Code::Unauthenticated => LinkError::ClientCertificate(said()),
        Code::FailedPrecondition | Code::InvalidArgument | Code::ResourceExhausted => LinkError::Refused(said()),
        _ => match meter.fault() {
            Some(fault) => fault,
            None if std::error::Error::source(status).is_some() => error::of_chain(status),
            None => LinkError::Broken(said()),
        },
    }
}
