//! The page over loopback, for tests in a browser: the same [`Page`] and the same policy as in the app's window, with
//! dialogs that are answered beforehand.
//!
//! It is for tests on one machine. Whoever asks must come from the page that it served (`Origin`), by its own name
//! (`Host`, against names that lead here from elsewhere), with a random token that is in no address but the one it prints.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use hospes_ipc::local::Local;
use hospes_ipc::page::{Answered, Host, OpenPurpose, Page, Preferences, PreferencesFile, SavePurpose};
use hospes_ipc::staff::Service;
use hospes_ipc::{Fault, FaultCode};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// Most bytes of a request.
const REQUEST_BYTES: usize = 1 << 20;
/// The app's settings, whose policy for the page holds here too.
const SETTINGS: &str = include_str!("../../tauri.conf.json");

/// A page over loopback.
pub struct Devhost {
    url: String,
    dialogs: Dialogs,
    page: Arc<Page>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Devhost {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Dialogs whose answers were given beforehand, in order; without one, the person closes the dialog.
#[derive(Clone, Default)]
struct Dialogs(Arc<Mutex<VecDeque<PathBuf>>>);

impl Dialogs {
    fn next(&self) -> Answered<'_, Option<PathBuf>> {
        let next = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        Box::pin(std::future::ready(next))
    }
}

impl Host for Dialogs {
    fn open(&self, _purpose: OpenPurpose) -> Answered<'_, Option<PathBuf>> {
        self.next()
    }
    fn save(&self, _purpose: SavePurpose, _suggested: String) -> Answered<'_, Option<PathBuf>> {
        self.next()
    }
    fn prefer(&self, _preferences: Preferences) -> Result<(), String> {
        Ok(())
    }
}

#[derive(Clone)]
struct Served {
    page: Arc<Page>,
    folder: Arc<Path>,
    token: Arc<str>,
    /// `127.0.0.1:port`, as this host is called.
    name: Arc<str>,
    policy: HeaderValue,
}

impl Devhost {
    /// Serves the built page in `page` on the engine whose data lie in `data`; where none runs, one is run here, whose work
    /// on data `program` does. With 0, the system chooses the port.
    ///
    /// # Errors
    /// If the page is not built, or nothing can be listened on.
    pub async fn start(data: &Path, page: &Path, program: PathBuf, port: u16) -> Result<Self> {
        Self::start_beside(data, page, program, None, port).await
    }

    /// The same on a machine with this service.
    ///
    /// # Errors
    /// As [`Devhost::start`].
    pub async fn start_beside(
        data: &Path,
        page: &Path,
        program: PathBuf,
        service: Option<Service>,
        port: u16,
    ) -> Result<Self> {
        anyhow::ensure!(page.is_dir(), "{} is not built; run `npm --prefix ui run build:devhost`", page.display());
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await?;
        let name = listener.local_addr()?.to_string();
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
        let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let local = Local::new(data.to_owned(), program, service);
        let dialogs = Dialogs::default();
        let preferences = PreferencesFile::at(data.join("window.toml"));
        let served = Served {
            page: Arc::new(Page::new(dialogs.clone(), local.clone(), preferences)),
            folder: std::fs::canonicalize(page)?.into(),
            token: token.as_str().into(),
            name: name.as_str().into(),
            policy: policy()?,
        };
        let url = format!("http://{name}/devhost.html#token={token}");
        let page = served.page.clone();
        let router = Router::new()
            .route("/call", post(call))
            .route("/events", get(events))
            .fallback(get(file))
            .layer(middleware::from_fn_with_state(served.clone(), guard))
            .layer(axum::extract::DefaultBodyLimit::max(REQUEST_BYTES))
            .with_state(served);
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("devhost ended: {error}");
            }
        });
        let keeping = tokio::spawn(async move { local.keep().await });
        Ok(Self { url, dialogs, page, tasks: vec![serving, keeping] })
    }

    /// Where a browser opens it; the token is in the fragment, which no server sees.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The page behind it.
    pub fn page(&self) -> &Arc<Page> {
        &self.page
    }

    /// The answer of the next dialog that has none yet.
    pub fn choose(&self, path: PathBuf) {
        self.dialogs.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(path);
    }
}

/// The window's policy, with this host in place of the app's own way to the engine.
fn policy() -> Result<HeaderValue> {
    let settings: serde_json::Value = serde_json::from_str(SETTINGS)?;
    let policy = settings["app"]["security"]["csp"].as_str().context("the app has no policy for its page")?;
    let window = "connect-src ipc: http://ipc.localhost";
    anyhow::ensure!(policy.contains(window), "the app's policy reads otherwise: {policy}");
    Ok(HeaderValue::from_str(&policy.replace(window, "connect-src 'self'"))?)
}

/// Lets in only who uses this host's own name and comes from no other page.
async fn guard(State(served): State<Served>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let own = headers.get(header::HOST).is_some_and(|host| host.as_bytes() == served.name.as_bytes());
    let origin = format!("http://{}", served.name);
    let same = |origin_of: &HeaderValue| origin_of.as_bytes() == origin.as_bytes();
    let foreign = headers.get(header::ORIGIN).is_some_and(|o| !same(o));
    // A browser says where a command comes from; what says nothing is no page of ours.
    let unsaid = request.uri().path() == "/call" && headers.get(header::ORIGIN).is_none();
    if !own || foreign || unsaid {
        return refused(StatusCode::FORBIDDEN, "this host answers only the page that it served");
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, served.policy.clone());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn refused(status: StatusCode, words: &str) -> Response {
    (status, axum::Json(Fault::new(FaultCode::Denied, words))).into_response()
}

/// Compares without telling by its time how much of a guess is right.
fn is_token(served: &Served, given: &str) -> bool {
    let (given, token) = (given.as_bytes(), served.token.as_bytes());
    given.len() == token.len() && given.iter().zip(token).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

async fn call(State(served): State<Served>, headers: HeaderMap, body: Bytes) -> Response {
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()?.strip_prefix("Bearer "));
    if !given.is_some_and(|given| is_token(&served, given)) {
        return refused(StatusCode::UNAUTHORIZED, "the token is not this host's");
    }
    let answer = match serde_json::from_slice(&body) {
        Ok(request) => served.page.call(request).await,
        Err(_) => Err(Fault::new(FaultCode::Command, "the command is no JSON")),
    };
    match answer {
        Ok(value) => axum::Json(value).into_response(),
        Err(fault) => (StatusCode::UNPROCESSABLE_ENTITY, axum::Json(fault)).into_response(),
    }
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

async fn events(State(served): State<Served>, Query(Token { token }): Query<Token>) -> Response {
    if !is_token(&served, &token) {
        return refused(StatusCode::UNAUTHORIZED, "the token is not this host's");
    }
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let page = served.page.clone();
    tokio::spawn(async move { page.watch(|notice| tell.send(notice).is_ok()).await });
    let events = UnboundedReceiverStream::new(told)
        .map(|notice| Ok::<_, Infallible>(Event::default().data(json!(notice).to_string())));
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

async fn file(State(served): State<Served>, uri: Uri) -> Response {
    let path = Path::new(uri.path().trim_start_matches('/'));
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let bytes = if plain { tokio::fs::read(served.folder.join(path)).await.ok() } else { None };
    let kind = match path.extension().and_then(|e| e.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    };
    match bytes {
        Some(bytes) => ([(header::CONTENT_TYPE, kind)], bytes).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
