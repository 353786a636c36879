//! Diagnosis: why can the coordinator not be reached? Each step is one plain sentence and, where it fails and the hospital's
//! IT department can mend it, one sentence to pass on to them.

use std::sync::Arc;
use std::time::Instant;

use hospes_protocol::enrol::Invitation;
use hospes_protocol::message::FromSite;
use hospes_protocol::text::shown;
use serde::{Deserialize, Serialize};

use super::LinkConfig;
use super::dial::{self, Address, Dialer, Wire, within};
use super::enrol::{self, Asked, Reach};
use super::error::LinkError;
use super::session;
use super::tls::{self, Identity};

/// Steps of every way, in order, once the address is known.
const WAY: &[&str] = &["proxy", "name", "tcp", "tls", "answer", "clock"];
/// Steps that only a member can take.
const MEMBER: &[&str] = &["certificate", "session"];
/// Most characters of a name that is shown.
const NAME: usize = 200;

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[ts(rename = "StepOutcome")]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Well.
    Good,
    /// Well enough to work, but look at it.
    Notice,
    /// Not.
    Failed,
    /// Not tried, since one before it failed or does not apply.
    Skipped,
}

/// One step of a diagnosis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
pub struct Step {
    /// What was tested: `address`, `proxy`, `name`, `tcp`, `tls`, `answer`, `clock`, and of a member `certificate` and
    /// `session`; before a site joins, `invitation` and `authority` come first and `version` last.
    pub test: String,
    /// How it went.
    pub outcome: Outcome,
    /// One plain sentence.
    pub finding: String,
    /// One sentence for the IT department, if it is theirs to mend.
    pub request: Option<String>,
}

/// Collects steps; after a failure the rest is skipped.
#[derive(Default)]
struct Steps(Vec<Step>);

impl Steps {
    fn add(&mut self, test: &str, outcome: Outcome, finding: impl Into<String>) {
        self.0.push(Step { test: test.to_owned(), outcome, finding: finding.into(), request: None });
    }

    fn result<T>(&mut self, test: &str, result: Result<T, LinkError>, good: impl FnOnce(&T) -> String) -> Option<T> {
        match result {
            Ok(value) => {
                self.add(test, Outcome::Good, good(&value));
                Some(value)
            }
            Err(error) => {
                self.fail(test, &error);
                None
            }
        }
    }

    fn fail(&mut self, test: &str, error: &LinkError) {
        let mut finding = error.to_string();
        if let Some(first) = finding.get(..1) {
            finding = format!("{}{}.", first.to_uppercase(), &finding[1..]);
        }
        let request = error.request();
        self.0.push(Step { test: test.to_owned(), outcome: Outcome::Failed, finding, request });
    }

    fn skip(&mut self, tests: &[&str]) {
        for test in tests {
            self.add(test, Outcome::Skipped, "Not tested, since a step before it failed.");
        }
    }
}

/// Tests every step from this machine to one of the membership's coordinators, up to a session with hello and welcome.
///
/// With `session`, the last step opens a session of its own and says goodbye again; leave it out while a link of the same
/// membership is up, since a site has one session at a time.
pub async fn diagnose(config: &LinkConfig, url: usize, session: bool) -> Vec<Step> {
    let mut steps = Steps::default();
    let identity = Identity::new(&config.chain_pem, &config.key_pem);
    let way = session::way(config, url, Some(&identity), tls::HTTP1);
    let named = config.urls.get(url).cloned().unwrap_or_default();
    let Some((address, dialer)) = steps.result("address", way, |_| format!("The coordinator is at {named}.")) else {
        steps.skip(WAY);
        steps.skip(MEMBER);
        return steps.0;
    };
    let reach = Reach { proxy: config.proxy.clone(), clock: config.clock.clone(), step: config.timing.dial };
    if travel(&mut steps, &address, &dialer, &reach).await.is_none() {
        steps.skip(MEMBER);
        return steps.0;
    }
    match tls::validity("client certificate", &identity.chain_pem) {
        Ok((_, until)) if (config.clock)() >= until => {
            let ended = LinkError::ClientCertificate(format!("it ended {until}; enrol again with a new invitation"));
            steps.fail("certificate", &ended);
            steps.skip(&["session"]);
            return steps.0;
        }
        found => {
            let found = steps.result("certificate", found, |(_, until)| {
                format!("This site's certificate is good until {until} and is renewed by itself.")
            });
            if found.is_none() {
                steps.skip(&["session"]);
                return steps.0;
            }
        }
    }
    if !session {
        steps.add(
            "session",
            Outcome::Skipped,
            "Not tested, since the link of this site is in use; its own state says how it is.",
        );
        return steps.0;
    }
    let opened = session::open(Arc::new(config.clone()), url, identity).await;
    let opened = steps.result("session", opened, |open| {
        format!("The coordinator knows this site; both speak version {} of the protocol.", open.welcome.version.0)
    });
    if let Some(open) = opened
        && let Ok(goodbye) = hospes_protocol::grpc::convert::site_frame(FromSite::Goodbye)
    {
        let _ = open.frames.send(goodbye).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    steps.0
}

/// Tests every step from this machine to the coordinator of an invitation, before enrolment, and the file with a hospital's
/// own CA certificates where there is one. It sends nothing of the invitation, which is as good afterwards as before.
pub async fn diagnose_invitation(invitation: &Invitation, reach: &Reach, extra_ca_pem: Option<&str>) -> Vec<Step> {
    let mut steps = Steps::default();
    steps.result("invitation", enrol::in_time(invitation, reach), |()| {
        format!("The invitation for '{}' is good until {}.", shown(&invitation.site, NAME), invitation.expires)
    });
    if let Some(pem) = extra_ca_pem {
        steps.result("authority", tls::authorities(pem), |count| {
            format!("The file of your network's own certificates can be used; certificates in it: {count}.")
        });
    }
    let way = enrol::pinned(invitation, reach);
    let Some((address, dialer)) =
        steps.result("address", way, |_| format!("The coordinator is at {}.", invitation.url.trim()))
    else {
        steps.skip(WAY);
        steps.skip(&["version"]);
        return steps.0;
    };
    let Some(asked) = travel(&mut steps, &address, &dialer, reach).await else {
        steps.skip(&["version"]);
        return steps.0;
    };
    match asked.version() {
        Ok(Some(version)) => {
            let words = format!("The coordinator and this site both speak version {} of the protocol.", version.0);
            steps.add("version", Outcome::Good, words);
        }
        Ok(None) => {
            let words = "The coordinator does not say which versions of the protocol it speaks; it may be an old one.";
            steps.add("version", Outcome::Notice, words);
        }
        Err(error) => steps.fail("version", &error),
    }
    steps.0
}

/// Proxy, name, TCP, TLS, answer, clock. `None` if one of them failed.
async fn travel(steps: &mut Steps, address: &Address, dialer: &Dialer, reach: &Reach) -> Option<Asked> {
    let skip = |steps: &mut Steps, from: usize| {
        steps.skip(&WAY[from..]);
        None
    };
    let proxy = match dial::proxy_for(address, &dialer.proxy) {
        Ok(proxy) => proxy,
        Err(error) => {
            steps.fail("proxy", &error);
            return skip(steps, 1);
        }
    };
    match &proxy {
        None => steps.add("proxy", Outcome::Good, "No proxy is used."),
        Some(proxy) => {
            steps.add("proxy", Outcome::Good, format!("The proxy {} is used.", proxy.address.authority()));
        }
    }
    let (what, next) = match &proxy {
        None => ("the coordinator", address),
        Some(proxy) => ("the proxy", &proxy.address),
    };
    let resolved = within(reach.step, "the name server", dial::resolve(next)).await;
    let found = steps.result("name", resolved, |found| {
        let list: Vec<String> = found.iter().map(|s| s.ip().to_string()).collect();
        format!("The name {} stands for {}.", next.host, list.join(", "))
    });
    if found.is_none() {
        return skip(steps, 2);
    }
    let started = Instant::now();
    let wire = match &proxy {
        None => within(reach.step, what, dial::tcp(what, address)).await.map(Wire::Straight),
        Some(proxy) => within(reach.step, what, dial::tunnel(proxy, address)).await,
    };
    let took = started.elapsed().as_millis();
    let wire = steps.result("tcp", wire, |_| match &proxy {
        None => format!("TCP port {} of {} answers within {took} ms.", address.port, address.host),
        Some(_) => format!("The proxy opens a tunnel to {} within {took} ms.", address.authority()),
    });
    let Some(wire) = wire else { return skip(steps, 3) };
    let stream = within(reach.step, "TLS", dial::tls(wire, address, &dialer.tls)).await;
    let stream = steps.result("tls", stream, |(stream, _)| {
        let (version, exchange) = stream.agreed();
        format!(
            "The connection is encrypted ({}, {}) and the certificate is the federation's.",
            version.unwrap_or_else(|| "TLS".into()),
            exchange.unwrap_or_else(|| "key exchange unknown".into())
        )
    });
    if stream.is_none() {
        return skip(steps, 4);
    }
    drop(stream);
    answer(steps, address, dialer, reach).await
}

/// Whether the coordinator answers as one, and the clocks agree.
async fn answer(steps: &mut Steps, address: &Address, dialer: &Dialer, reach: &Reach) -> Option<Asked> {
    let started = Instant::now();
    let asked = enrol::ask(address, dialer, reach).await;
    let took = started.elapsed().as_millis();
    let asked = steps.result("answer", asked, |asked| {
        format!("The coordinator of '{}' answers within {took} ms.", shown(&asked.info.name, NAME))
    });
    let Some(asked) = asked else {
        steps.skip(&["clock"]);
        return None;
    };
    let agree = steps.result("clock", asked.skew(), |skew_ms| {
        format!("The clocks differ by at most {} s.", skew_ms.abs().div_euclid(1_000) + 1)
    });
    agree.map(|_| asked)
}
