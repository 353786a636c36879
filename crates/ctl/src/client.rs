//! The coordinator's REST API: TLS pinned to its own CA, a bearer token, and its problems in words.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::arguments::Connection;

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
    /// A connection as the arguments or the environment say.
    pub(crate) fn new(connection: &Connection) -> Result<Self> {
        let needed = |what: &str| Failure::new(FailureKind::Usage, format!("say {what}"));
        let url = connection.url.as_deref().ok_or_else(|| needed("where the coordinator is: --url or HOSPES_URL"))?;
        let token = connection.token_file.as_deref();
        let token = token.ok_or_else(|| needed("where your token is: --token-file or HOSPES_TOKEN_FILE"))?;
        let token = std::fs::read_to_string(token).with_context(|| format!("read the token in {}", token.display()))?;
        let mut http = reqwest::Client::builder().https_only(true).connect_timeout(Duration::from_secs(15));
        if let Some(ca) = &connection.ca {
            let pem = std::fs::read(ca).with_context(|| format!("read the CA in {}", ca.display()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem);
            http = http.tls_certs_only(certificates.with_context(|| format!("{} holds no certificate", ca.display()))?);
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

    /// Downloads to a writer, telling the number of bytes as they come.
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
        let response = request.bearer_auth(&self.token).send().await.map_err(|error| {
            let mut words = format!("the coordinator at {} cannot be reached", self.url);
            let mut source: Option<&dyn std::error::Error> = Some(&error);
            while let Some(cause) = source {
                if cause.source().is_none() {
                    words.push_str(&format!(": {cause}"));
                }
                source = cause.source();
            }
            Failure::new(FailureKind::NotReachable, words)
        })?;
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
            words.push_str(&format!("\n  {}: {}", mistake.place, mistake.reason));
        }
        if !problem.reference.is_empty() {
            words.push_str(&format!("\n  (reference {} in the coordinator's log)", problem.reference));
        }
        Err(Failure::new(FailureKind::Refused, words).into())
    }
}
