//! Files of a server that is no coordinator, over HTTPS: out of the building as links go, from the named host and no other,
//! and never more than was said beforehand.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::header::{CONTENT_LENGTH, HOST, LOCATION, USER_AGENT};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;

use super::ProxyChoice;
use super::dial::{self, Address, Encrypted, Wire, within};
use super::error::{self, LinkError};
use super::tls::{self, Anchor};
use crate::config::Clock;

/// Longest time for each step, and for the next bytes of an answer.
const STEP: Duration = Duration::from_secs(30);
/// Longest time for a whole file: a server that drips holds nothing up for ever.
const WHOLE: Duration = Duration::from_secs(3_600);
/// What such a server is called where it does not answer.
const SERVER: &str = "the server";

/// A file on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    address: Address,
    path: String,
}

impl Place {
    /// Reads `https://host[:port]/path`.
    ///
    /// # Errors
    /// What is wrong with it and what to write.
    pub(crate) fn parse(url: &str) -> Result<Self, &'static str> {
        let uri: Uri = url.trim().parse().map_err(|_| "write an address such as https://host/hospes-release.json")?;
        if uri.scheme_str() != Some("https") {
            return Err("it must begin with https://");
        }
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err("it must not contain a user name");
        }
        if uri.query().is_some() || uri.path().ends_with('/') || url.contains('#') {
            return Err("it must end with the name of a file");
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("the host is missing")?;
        let address = Address { host: host.to_owned(), port: uri.port_u16().unwrap_or(443) };
        Ok(Self { address, path: uri.path().to_owned() })
    }

    /// The file of this name in the same folder of the same server. The name holds nothing but letters, digits and marks
    /// that mean nothing in an address.
    pub(crate) fn beside(&self, name: &str) -> Self {
        let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        Self { address: self.address.clone(), path: format!("{folder}/{name}") }
    }

    fn host(&self) -> &str {
        &self.address.host
    }
}

/// Why a file did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The server cannot be reached or believed.
    #[error("{}", words(host, error))]
    Link {
        /// Server.
        host: String,
        /// Why.
        error: LinkError,
    },
    /// It has no such file.
    #[error("{host} answers {status} instead of the file")]
    Status {
        /// Server.
        host: String,
        /// What it answers.
        status: http::StatusCode,
    },
    /// It sends whoever asks to another place.
    #[error("{host} sends on to '{to}', where nothing is fetched from; set the address at which the file lies itself")]
    Redirect {
        /// Server.
        host: String,
        /// Where to.
        to: String,
    },
    /// It is longer than it may be.
    #[error("what {host} sends is longer than {most} bytes; the rest was not taken")]
    TooLong {
        /// Server.
        host: String,
        /// Most bytes.
        most: u64,
    },
    /// It cannot be kept here.
    #[error("it cannot be written")]
    Write(#[source] io::Error),
}

fn words(host: &str, error: &LinkError) -> String {
    match error {
        LinkError::Intercepted { issuer, .. } => format!(
            "the certificate of {host} was issued by '{issuer}', whom this machine does not believe: somebody on the way \
             opens the connection, or the hospital's own certificates are missing here"
        ),
        // What is said elsewhere of a connection that breaks is about coordinators.
        LinkError::Broken(_) => format!("the connection to {host} broke before everything was there"),
        other => other.to_string(),
    }
}

/// Fetches files.
#[derive(Clone)]
pub(crate) struct Fetcher {
    proxy: ProxyChoice,
    tls: Arc<ClientConfig>,
}

impl Fetcher {
    /// `own`: the hospital's own CAs, which are believed besides those of the machine.
    ///
    /// # Errors
    /// [`LinkError::Material`] if they cannot be used, or the machine believes nobody.
    pub(crate) fn new(proxy: ProxyChoice, own: Option<String>, clock: &Clock) -> Result<Self, LinkError> {
        let tls = tls::client_config(&Anchor::Public { own }, None, clock, tls::HTTP1)?;
        Ok(Self { proxy, tls })
    }

    /// Writes the file into `into`; how many bytes it has, which are `most` at most.
    ///
    /// # Errors
    /// [`FetchError`]; then a part of it may have been written.
    pub(crate) async fn get(
        &self,
        place: &Place,
        most: u64,
        into: &mut (impl Write + Send),
    ) -> Result<u64, FetchError> {
        let seconds = WHOLE.as_secs();
        let link = |error| FetchError::Link { host: place.host().to_owned(), error };
        let late = |_| link(LinkError::TimedOut { step: SERVER, seconds });
        tokio::time::timeout(WHOLE, self.fetch(place, most, into)).await.map_err(late)?
    }

    async fn fetch(&self, place: &Place, most: u64, into: &mut (impl Write + Send)) -> Result<u64, FetchError> {
        let link = |error| FetchError::Link { host: place.host().to_owned(), error };
        let stream = self.dial(&place.address).await.map_err(link)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| link(error::of_chain(&e)))?;
        let driver = Driver(tokio::spawn(async move {
            // What went wrong, whoever asked is told.
            let _ = connection.await;
        }));
        let request = http::Request::get(&place.path)
            .header(HOST, place.address.authority())
            .header(USER_AGENT, crate::SOFTWARE)
            .body(Empty::<Bytes>::new())
            .map_err(|e| link(LinkError::Protocol(e.to_string())))?;
        let asked = async { sender.send_request(request).await.map_err(|e| error::of_chain(&e)) };
        let response = within(STEP, SERVER, asked).await.map_err(link)?;
        check(place.host(), &response, most)?;
        let mut body = response.into_body();
        let mut bytes = 0;
        loop {
            let next = async { body.frame().await.transpose().map_err(|e| error::of_chain(&e)) };
            let Some(frame) = within(STEP, SERVER, next).await.map_err(link)? else { break };
            let Ok(data) = frame.into_data() else { continue };
            bytes += data.len() as u64;
            if bytes > most {
                return Err(FetchError::TooLong { host: place.host().to_owned(), most });
            }
            into.write_all(&data).map_err(FetchError::Write)?;
        }
        drop(driver);
        Ok(bytes)
    }

    async fn dial(&self, address: &Address) -> Result<Encrypted, LinkError> {
        let wire = match dial::proxy_for(address, &self.proxy)? {
            None => Wire::Straight(within(STEP, SERVER, dial::tcp(SERVER, address)).await?),
            Some(proxy) => within(STEP, "the proxy", dial::tunnel(&proxy, address)).await?,
        };
        let (stream, _) = within(STEP, "TLS", dial::tls(wire, address, &self.tls)).await?;
        Ok(stream)
    }
}

/// The task that moves a connection's bytes; it ends with whoever asked.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Refuses an answer by its head.
fn check<B>(host: &str, response: &http::Response<B>, most: u64) -> Result<(), FetchError> {
    let host = host.to_owned();
    let status = response.status();
    if status.is_redirection() {
        let to = response.headers().get(LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned());
        return Err(FetchError::Redirect { host, to: hospes_protocol::text::shown(&to.unwrap_or_default(), 200) });
    }
    if status != http::StatusCode::OK {
        return Err(FetchError::Status { host, status });
    }
    let said = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if said.is_some_and(|bytes| bytes > most) { Err(FetchError::TooLong { host, most }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_file_on_a_server_and_what_lies_beside_it_is_on_the_same() {
        let place = Place::parse("https://updates.example:8443/hospes/stable/hospes-release.json").unwrap();
        let package = place.beside("hospes_0.2.0_amd64.deb");
        assert_eq!(package.path, "/hospes/stable/hospes_0.2.0_amd64.deb");
        assert_eq!(package.address, place.address);
        assert_eq!(Place::parse("https://a.example/f.json").unwrap().beside("g").path, "/g");
        for wrong in [
            "http://updates.example/f.json",
            "https://updates.example",
            "https://updates.example/",
            "https://me:secret@updates.example/f.json",
            "https://updates.example/f.json?token=1",
            "file:///etc/passwd",
            "updates.example/f.json",
            "",
        ] {
            assert!(Place::parse(wrong).is_err(), "{wrong}");
        }
    }
}
