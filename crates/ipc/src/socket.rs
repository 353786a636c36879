//! The local socket of a running party: length-prefixed JSON, for processes of the same user or of root only.
//!
//! A request is `{"id": 7, "call": …}` with a [`Call`](crate::table::Call) in it; its answer is `{"id": 7, "ok": …}` or
//! `{"id": 7, "fault": …}`. Several may be under way on one connection: a window goes on while a file is read. The request
//! `{"subscribe": true}` turns the connection into a stream of [`Notice`]s. The socket for staff ([`crate::staff`]) speaks
//! the same, and besides hands files over.

use std::collections::HashMap;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use hospes_party::Handle;
use hospes_party::view::Notice;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, Semaphore, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use zeroize::Zeroizing;

use crate::fault::{Fault, FaultCode};
use crate::router::Router;
use crate::staff::Visit;

/// Name of the socket in the data folder.
pub const SOCKET: &str = "engine.sock";
/// Largest request or answer in bytes.
pub const FRAME_BYTES: u32 = 16 << 20;
/// Commands of one connection that are under way at a time; the next one waits.
const AT_ONCE: usize = 16;

/// Where the socket of the party in `folder` is.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(SOCKET)
}

/// The data folder where nobody names one: `HOSPES_DATA`, or `hospes` in the user's own data folder.
pub fn default_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("HOSPES_DATA")
        .or_else(|| set("XDG_DATA_HOME").map(|data| data.join("hospes")))
        .or_else(|| set("HOME").map(|home| home.join(".local/share/hospes")))
}

/// Serves the engine on the socket in `folder` until the future is dropped, and every connection with it.
///
/// # Errors
/// If the socket cannot be made.
pub async fn serve(folder: &Path, handle: Handle) -> std::io::Result<()> {
    // The engine holds an exclusive lock on its folder.
    let listener = listen(&path(folder), 0o600)?;
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        while connections.try_join_next().is_some() {}
        if !same_user(&stream) {
            tracing::warn!("a connection of another user was refused");
            continue;
        }
        connections.spawn(converse(stream, Caller::Own(Router::new(handle.clone()))));
    }
}

/// Makes a socket for whom the mode lets in.
pub(crate) fn listen(path: &Path, mode: u32) -> std::io::Result<UnixListener> {
    // Whoever asks knows that no other process serves it, so a socket that lies here is left from one that is gone.
    if path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

fn same_user(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

/// Who is at the other end of a connection.
pub(crate) enum Caller {
    /// The engine's own account, or root: whatever file it names, it could read or write itself.
    Own(Router),
    /// Somebody under an account of their own.
    Staff(Visit),
}

impl Caller {
    /// The way to the engine; none while there is no site.
    fn router(&self) -> Option<&Router> {
        match self {
            Self::Own(router) => Some(router),
            Self::Staff(visit) => visit.router(),
        }
    }

    /// The same, as soon as there is a site.
    async fn arrival(&self) -> &Router {
        match self {
            Self::Own(router) => router,
            Self::Staff(visit) => visit.arrival().await,
        }
    }

    /// Longest request in bytes that is read now.
    fn longest(&self) -> u32 {
        match self {
            Self::Own(_) => FRAME_BYTES,
            Self::Staff(visit) => visit.longest(),
        }
    }

    async fn answer(&self, mut request: Value) -> Result<Value, Fault> {
        match self {
            Self::Own(router) => router.call(request.get_mut("call").map(Value::take).unwrap_or_default()).await,
            Self::Staff(visit) => visit.answer(request).await,
        }
    }
}

/// Answers a connection until it ends, and logs out whoever was logged in on it.
pub(crate) async fn converse(stream: UnixStream, caller: Caller) {
    let caller = Arc::new(caller);
    if let Err(error) = requests(stream, &caller).await {
        tracing::debug!(%error, "a local connection ended");
    }
    if let Some(router) = caller.router() {
        router.close().await;
    }
}

async fn requests(stream: UnixStream, caller: &Arc<Caller>) -> std::io::Result<()> {
    let (mut requests, answers) = stream.into_split();
    let answers = Arc::new(Mutex::new(answers));
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut under_way = JoinSet::new();
    let ended = loop {
        // Nobody closes it, so there is always a place to wait for.
        let Ok(place) = places.clone().acquire_owned().await else { break Ok(()) };
        let request = match read(&mut requests, || caller.longest()).await {
            Ok(Some(request)) => request,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        if request.get("subscribe").is_some() {
            let mut answers = answers.lock().await;
            break tokio::select! {
                told = notices(&mut answers, caller) => told,
                // Nothing is asked after it: what comes is the end, and a place for somebody else.
                _ = requests.read_u8() => Ok(()),
            };
        }
        let id = request.get("id").and_then(Value::as_u64);
        let (caller, answers) = (caller.clone(), answers.clone());
        under_way.spawn(async move {
            let reply = match caller.answer(request).await {
                Ok(value) => json!({ "id": id, "ok": value }),
                Err(fault) => json!({ "id": id, "fault": fault }),
            };
            // Whoever went away waits for no answer.
            let _ = write(&mut *answers.lock().await, &reply).await;
            drop(place);
        });
        while under_way.try_join_next().is_some() {}
    };
    // What was asked for is carried out, also if nobody waits any more; only then is the person logged out.
    while under_way.join_next().await.is_some() {}
    ended
}

async fn notices(stream: &mut OwnedWriteHalf, caller: &Caller) -> std::io::Result<()> {
    let had_site = caller.router().is_some();
    let router = caller.arrival().await;
    let mut notices = router.notices();
    if !had_site {
        // There is everything now that there was not.
        write(stream, &json!({ "ok": Value::Null })).await?;
    }
    loop {
        let notice = tokio::select! {
            notice = notices.recv() => notice,
            () = router.handle().ended() => return Ok(()),
        };
        let reply = match notice {
            Ok(notice) => json!({ "ok": notice }),
            // A reader that fell behind asks for everything again.
            Err(RecvError::Lagged(_)) => json!({ "ok": Value::Null }),
            Err(RecvError::Closed) => return Ok(()),
        };
        write(stream, &reply).await?;
    }
}

/// Reads a frame. How long it may be is asked when it comes: it may follow somebody's log-in.
async fn read(stream: &mut (impl AsyncReadExt + Unpin), longest: impl Fn() -> u32) -> std::io::Result<Option<Value>> {
    let length = match stream.read_u32().await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    if length > longest() {
        return Err(std::io::Error::other("a frame is too large"));
    }
    // It may hold a passphrase.
    let mut bytes = Zeroizing::new(vec![0; length as usize]);
    stream.read_exact(&mut bytes).await?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

async fn write(stream: &mut (impl AsyncWriteExt + Unpin), value: &impl Serialize) -> std::io::Result<()> {
    // Large enough for whatever holds a passphrase: a vector that grows leaves copies behind that nobody erases.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 << 10));
    serde_json::to_writer(&mut *bytes, value)?;
    let length = u32::try_from(bytes.len()).ok().filter(|n| *n <= FRAME_BYTES);
    let length = length.ok_or_else(|| std::io::Error::other("an answer is too large"))?;
    stream.write_u32(length).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// Who waits for the answer to which request; nobody can any more once the connection broke.
type Waiting = Arc<std::sync::Mutex<Option<HashMap<u64, oneshot::Sender<Value>>>>>;

/// A connection to a running party. Requests on it do not wait for each other.
pub struct Client {
    requests: Mutex<OwnedWriteHalf>,
    waiting: Waiting,
    next: AtomicU64,
    answers: AbortHandle,
    /// Whether the party is another account's, which reads and writes no file of this one.
    pub(crate) hands_over: bool,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

async fn reach(folder: &Path) -> Result<UnixStream, Fault> {
    UnixStream::connect(&path(folder)).await.map_err(|error| {
        let words = format!("the party in {} is not running, or belongs to another user ({error})", folder.display());
        Fault::new(FaultCode::NotRunning, words)
    })
}

fn broken(error: &std::io::Error) -> Fault {
    Fault::new(FaultCode::NotRunning, format!("the party went away ({error})"))
}

impl Client {
    /// Connects to the party in `folder`.
    ///
    /// # Errors
    /// [`FaultCode::NotRunning`] if it is not running.
    pub async fn connect(folder: &Path) -> Result<Self, Fault> {
        Ok(Self::on(reach(folder).await?, false))
    }

    /// On a connection that is there already.
    pub(crate) fn on(stream: UnixStream, hands_over: bool) -> Self {
        let (answers, requests) = stream.into_split();
        let waiting = Waiting::new(std::sync::Mutex::new(Some(HashMap::new())));
        let answers = tokio::spawn(hand_out(answers, waiting.clone())).abort_handle();
        Self { requests: Mutex::new(requests), waiting, next: AtomicU64::new(0), answers, hands_over }
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// The engine's [`Fault`], or [`FaultCode::NotRunning`] if the connection broke.
    pub async fn request(&self, call: &impl Serialize) -> Result<Value, Fault> {
        #[derive(Serialize)]
        struct Plain<'a, T> {
            call: &'a T,
        }
        self.ask(&Plain { call }).await
    }

    /// A number that no other request on this connection has.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a request of any kind and waits for its answer.
    pub(crate) async fn ask(&self, request: &impl Serialize) -> Result<Value, Fault> {
        #[derive(Serialize)]
        struct Numbered<'a, T> {
            id: u64,
            #[serde(flatten)]
            request: &'a T,
        }
        let gone = || Fault::new(FaultCode::NotRunning, "the party closed the connection");
        let id = self.number();
        let (answer, mut reply) = oneshot::channel();
        match lock(&self.waiting).as_mut() {
            Some(waiting) => drop(waiting.insert(id, answer)),
            None => return Err(gone()),
        }
        if let Err(error) = write(&mut *self.requests.lock().await, &Numbered { id, request }).await {
            if let Some(waiting) = lock(&self.waiting).as_mut() {
                waiting.remove(&id);
            }
            return Err(broken(&error));
        }
        let mut reply = (&mut reply).await.map_err(|_| gone())?;
        if let Some(fault) = reply.get_mut("fault") {
            let fault = serde_json::from_value(fault.take());
            return Err(fault.unwrap_or_else(|_| Fault::new(FaultCode::Command, "the party answered in another way")));
        }
        reply.get_mut("ok").map(Value::take).ok_or_else(gone)
    }

    /// Whether the party closed the connection.
    pub fn is_closed(&self) -> bool {
        lock(&self.waiting).is_none()
    }

    /// Carries a command out, typed.
    ///
    /// # Errors
    /// As [`Client::carry_out`].
    pub async fn call<T: DeserializeOwned>(&self, call: &crate::table::Call) -> Result<T, Fault> {
        let other = |e: serde_json::Error| Fault::new(FaultCode::Command, e.to_string());
        let value = self.carry_out(call.clone()).await?;
        serde_json::from_value(value).map_err(other)
    }
}

/// Hands answers to whoever waits for them, until the connection breaks.
async fn hand_out(mut answers: OwnedReadHalf, waiting: Waiting) {
    while let Ok(Some(reply)) = read(&mut answers, || FRAME_BYTES).await {
        let id = reply.get("id").and_then(Value::as_u64);
        let who = lock(&waiting).as_mut().zip(id).and_then(|(waiting, id)| waiting.remove(&id));
        if let Some(who) = who {
            // They may have stopped waiting.
            let _ = who.send(reply);
        }
    }
    // Everybody who still waits hears that nothing comes.
    lock(&waiting).take();
}

fn lock<T>(what: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing that could be half done happens while it is held.
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream of notices.
pub struct Notices {
    stream: UnixStream,
}

impl Notices {
    /// Listens to the party in `folder`.
    ///
    /// # Errors
    /// [`FaultCode::NotRunning`] if it is not running.
    pub async fn of(folder: &Path) -> Result<Self, Fault> {
        Self::on(reach(folder).await?).await
    }

    /// On a connection that is there already.
    pub(crate) async fn on(mut stream: UnixStream) -> Result<Self, Fault> {
        write(&mut stream, &json!({ "subscribe": true })).await.map_err(|e| broken(&e))?;
        Ok(Self { stream })
    }

    /// The next notice; `Ok(None)` means that some were lost and everything may have changed.
    ///
    /// # Errors
    /// [`FaultCode::NotRunning`] if the party went away.
    pub async fn next(&mut self) -> Result<Option<Notice>, Fault> {
        let gone = |words: String| Fault::new(FaultCode::NotRunning, words);
        let reply = read(&mut self.stream, || FRAME_BYTES).await.map_err(|e| broken(&e))?;
        let value = reply.and_then(|mut r| r.get_mut("ok").map(Value::take));
        let value = value.ok_or_else(|| gone("the party went away".into()))?;
        serde_json::from_value(value).map_err(|e| gone(e.to_string()))
    }
}
