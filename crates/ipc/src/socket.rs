//! The local socket of a running party: length-prefixed JSON, for processes of the same user or of root only.
//!
//! A request is a [`Call`](crate::table::Call); the answer is `{"ok": …}` or `{"fault": …}`. The request
//! `{"command": "subscribe"}` turns the connection into a stream of [`Notice`]s.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use hospes_party::Handle;
use hospes_party::view::Notice;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use zeroize::Zeroizing;

use crate::fault::{Fault, FaultCode};
use crate::router::Router;

/// Name of the socket in the data folder.
pub const SOCKET: &str = "engine.sock";
/// Largest request or answer in bytes.
pub const FRAME_BYTES: u32 = 16 << 20;

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

/// Serves the engine on the socket in `folder` until the future is dropped.
///
/// # Errors
/// If the socket cannot be made.
pub async fn serve(folder: &Path, handle: Handle) -> std::io::Result<()> {
    let path = path(folder);
    // The engine holds an exclusive lock on the folder, so what lies here is left from a process that is gone.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    loop {
        let (stream, _) = listener.accept().await?;
        if !same_user(&stream) {
            tracing::warn!("a connection of another user was refused");
            continue;
        }
        let handle = handle.clone();
        tokio::spawn(async move {
            let mut router = Router::new(handle);
            if let Err(error) = converse(stream, &mut router).await {
                tracing::debug!(%error, "a local connection ended");
            }
            router.close().await;
        });
    }
}

fn same_user(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn converse(mut stream: UnixStream, router: &mut Router) -> std::io::Result<()> {
    loop {
        let Some(request) = read(&mut stream).await? else { return Ok(()) };
        if request.get("command").and_then(Value::as_str) == Some("subscribe") {
            return notices(stream, router).await;
        }
        let reply = match router.call(request).await {
            Ok(value) => json!({ "ok": value }),
            Err(fault) => json!({ "fault": fault }),
        };
        write(&mut stream, &reply).await?;
    }
}

async fn notices(mut stream: UnixStream, router: &Router) -> std::io::Result<()> {
    let mut notices = router.notices();
    loop {
        let reply = match notices.recv().await {
            Ok(notice) => json!({ "ok": notice }),
            // A reader that fell behind asks for everything again.
            Err(RecvError::Lagged(_)) => json!({ "ok": Value::Null }),
            Err(RecvError::Closed) => return Ok(()),
        };
        write(&mut stream, &reply).await?;
    }
}

async fn read(stream: &mut UnixStream) -> std::io::Result<Option<Value>> {
    let length = match stream.read_u32().await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    if length > FRAME_BYTES {
        return Err(std::io::Error::other("a frame is too large"));
    }
    // It may hold a passphrase.
    let mut bytes = Zeroizing::new(vec![0; length as usize]);
    stream.read_exact(&mut bytes).await?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

async fn write(stream: &mut UnixStream, value: &impl Serialize) -> std::io::Result<()> {
    // Large enough for whatever holds a passphrase: a vector that grows leaves copies behind that nobody erases.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 << 10));
    serde_json::to_writer(&mut *bytes, value)?;
    let length = u32::try_from(bytes.len()).ok().filter(|n| *n <= FRAME_BYTES);
    let length = length.ok_or_else(|| std::io::Error::other("an answer is too large"))?;
    stream.write_u32(length).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// A connection to a running party.
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to the party in `folder`.
    ///
    /// # Errors
    /// [`FaultCode::NotRunning`] if it is not running.
    pub async fn connect(folder: &Path) -> Result<Self, Fault> {
        let path = path(folder);
        match UnixStream::connect(&path).await {
            Ok(stream) => Ok(Self { stream }),
            Err(error) => Err(Fault::new(
                FaultCode::NotRunning,
                format!("the party in {} is not running, or belongs to another user ({error})", folder.display()),
            )),
        }
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// The engine's [`Fault`], or [`FaultCode::NotRunning`] if the connection broke.
    pub async fn request(&mut self, request: &impl Serialize) -> Result<Value, Fault> {
        let broken =
            |error: std::io::Error| Fault::new(FaultCode::NotRunning, format!("the party went away ({error})"));
        write(&mut self.stream, request).await.map_err(broken)?;
        let mut reply = read(&mut self.stream).await.map_err(broken)?.unwrap_or_default();
        if let Some(fault) = reply.get_mut("fault") {
            let fault = serde_json::from_value(fault.take());
            return Err(fault.unwrap_or_else(|_| Fault::new(FaultCode::Command, "the party answered in another way")));
        }
        match reply.get_mut("ok") {
            Some(value) => Ok(value.take()),
            None => Err(Fault::new(FaultCode::NotRunning, "the party closed the connection")),
        }
    }

    /// Sends a command, typed.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn call<T: DeserializeOwned>(&mut self, call: &crate::table::Call) -> Result<T, Fault> {
        let other = |e: serde_json::Error| Fault::new(FaultCode::Command, e.to_string());
        let value = self.request(call).await?;
        serde_json::from_value(value).map_err(other)
    }

    /// Turns the connection into a stream of notices; `None` in the stream means *everything may have changed*.
    ///
    /// # Errors
    /// [`FaultCode::NotRunning`] if the connection broke.
    pub async fn subscribe(mut self) -> Result<Notices, Fault> {
        let request = json!({ "command": "subscribe" });
        write(&mut self.stream, &request).await.map_err(|e| Fault::new(FaultCode::NotRunning, e.to_string()))?;
        Ok(Notices { stream: self.stream })
    }
}

/// A stream of notices.
pub struct Notices {
    stream: UnixStream,
}

impl Notices {
    /// The next notice; `Ok(None)` means that some were lost and everything may have changed.
    ///
    /// # Errors
    /// [`FaultCode::NotRunning`] if the party went away.
    pub async fn next(&mut self) -> Result<Option<Notice>, Fault> {
        let gone = |words: String| Fault::new(FaultCode::NotRunning, words);
        let reply = read(&mut self.stream).await.map_err(|e| gone(e.to_string()))?;
        let value = reply.and_then(|mut r| r.get_mut("ok").map(Value::take));
        let value = value.ok_or_else(|| gone("the party went away".into()))?;
        serde_json::from_value(value).map_err(|e| gone(e.to_string()))
    }
}
