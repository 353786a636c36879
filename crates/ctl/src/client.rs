//! The coordinator's REST API: TLS pinned to its own CA, a bearer token, and its problems in words.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::arguments::Connection;
use crate::config::{self, Saved};

/// Why something did not happen, with what the exit status says of it.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
pub(crate) struct Failure {
    /// Kind.
    pub(crate) kind: FailureKind,
    /// In words.
    pub(crate) words: String,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// What was typed cannot be used.
    Usage,
    /// The coordinator refused.
    Refused,
    /// The coordinator cannot be reached.
    NotReachable,
    /// A log is not what it should be.
    NotVerified,
    /// A log is whole, and whose it is was not checked.
    Unknown,
}

impl Failure {
    /// A failure in words.
    pub(crate) fn new(kind: FailureKind, words: impl Into<String>) -> Self {
        Self { kind, words: words.into() }
    }
}

/// RFC 9457 problem details as the coordinator sends them.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    #[serde(default)]
    reference: String,
    #[serde(default)]
    problems: Vec<Mistake>,
}

#[derive(Deserialize)]
struct Mistake {
    place: String,
    reason: String,
}

/// A connection to a coordinator.
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Client {
    /// A connection as the arguments, the environment, or an earlier `login` say.
    pub(crate) fn new(connection: &Connection) -> Result<Self> {
        let saved = config::load(&config::path()?)?;
        let needed = |what: &str| Failure::new(FailureKind::Usage, format!("say {what}, or log in: hospesctl login"));
        let read = |path: &Path, what: &str| {
            std::fs::read_to_string(path).with_context(|| format!("read the {what} in {}", path.display()))
        };
        let url = connection.url.clone().or_else(|| saved.as_ref().map(|s| s.url.clone()));
        let url = url.ok_or_else(|| needed("where the coordinator is (--url or HOSPES_URL)"))?;
        // What was kept belongs to one coordinator; another one gets neither its token nor its trust.
        let saved = saved.filter(|s| s.url == url.trim_end_matches('/'));
        let token = match &connection.token_file {
            Some(path) => Some(read(path, "token")?),
            None => saved.as_ref().map(|s| s.token.clone()),
        };
        let token = token.ok_or_else(|| needed("where your token is (--token-file or HOSPES_TOKEN_FILE)"))?;
        let ca_pem = match &connection.ca {
            Some(path) => Some(read(path, "CA")?),
            None => saved.map(|s| s.ca_pem),
        };
        Self::connect(&url, &token, ca_pem.as_deref())
    }

    /// A connection to a coordinator that one is logging in to.
    pub(crate) fn of(saved: &Saved) -> Result<Self> {
        Self::connect(&saved.url, &saved.token, Some(&saved.ca_pem))
    }

    fn connect(url: &str, token: &str, ca_pem: Option<&str>) -> Result<Self> {
        let mut http = reqwest::Client::builder()
            .https_only(true)
            .connect_timeout(Duration::from_secs(15))
            .read_timeout(Duration::from_secs(90));
        if let Some(pem) = ca_pem {
            let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).unwrap_or_default();
            if certificates.is_empty() {
                let words = "the CA file holds no certificate in PEM form";
                return Err(Failure::new(FailureKind::Usage, words).into());
            }
            http = http.tls_certs_only(certificates);
        }
        let http = http.build().context("set up TLS")?;
        Ok(Self { http, url: url.trim_end_matches('/').to_owned(), token: token.trim().to_owned() })
    }

    /// Reads.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.json(self.http.get(self.at(path))).await
    }

    /// Changes.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.json(self.http.post(self.at(path)).json(body)).await
    }

    /// Takes away.
    pub(crate) async fn delete(&self, path: &str) -> Result<Value> {
        self.json(self.http.delete(self.at(path))).await
    }

    /// Reads text.
    pub(crate) async fn text(&self, path: &str) -> Result<String> {
        self.send(self.http.get(self.at(path))).await?.text().await.context("the answer broke off")
    }

    /// Downloads to a writer, telling the number of bytes as they come. One that breaks off is an error.
    pub(crate) async fn download(
        &self,
        path: &str,
        to: &mut dyn std::io::Write,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<()> {
        let mut response = self.send(self.http.get(self.at(path))).await?;
        let length = response.content_length();
        let mut done = 0;
        while let Some(chunk) = response.chunk().await.context("the download broke off")? {
            to.write_all(&chunk)?;
            done += chunk.len() as u64;
            progress(done, length);
        }
        Ok(())
    }

    fn at(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.url)
    }

    async fn json(&self, request: reqwest::RequestBuilder) -> Result<Value> {
        let bytes = self.send(request).await?.bytes().await.context("the answer broke off")?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).context("the coordinator's answer is no JSON")
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response> {
        let request = request.bearer_auth(&self.token);
        let response =
            request.send().await.map_err(|error| Failure::new(FailureKind::NotReachable, self.why(&error)))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        let Ok(problem) = serde_json::from_str::<Problem>(&text) else {
            return Err(Failure::new(FailureKind::Refused, format!("the coordinator answered {status}")).into());
        };
        let mut words = problem.detail;
        for mistake in problem.problems {
            let mistake = format!("{}: {}", mistake.place, mistake.reason);
            // The detail may say it already.
            if !words.contains(&mistake) {
                words.push_str(&format!("\n  {mistake}"));
            }
        }
        if !problem.reference.is_empty() {
            words.push_str(&format!("\n  (reference {} in the coordinator's log)", problem.reference));
        }
        Err(Failure::new(FailureKind::Refused, words).into())
    }

    /// Why there was no answer, and what to do.
    fn why(&self, error: &reqwest::Error) -> String {
        let mut causes: Vec<&(dyn std::error::Error + 'static)> = vec![error];
        while let Some(cause) = causes.last().and_then(|c| c.source()) {
            causes.push(cause);
        }
        let root = causes.last().map(ToString::to_string).unwrap_or_default();
        let tls = causes.iter().any(|cause| {
            let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            cause.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>())
        });
        let remedy = if tls {
            "its certificate is not of the CA that you trust: check the URL, or log in again with the words that the \
             operator tells you"
        } else if error.is_timeout() {
            "it does not answer: check the URL, the network and the proxy (HTTPS_PROXY, NO_PROXY)"
        } else {
            "check the URL, and whether the coordinator runs"
        };
        format!("the coordinator at {} cannot be reached: {root}\n  {remedy}", self.url)
    }
}
