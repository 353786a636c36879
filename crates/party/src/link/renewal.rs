//! Renewal of the client certificate, at two thirds of its lifetime, with a new key each time.

use std::sync::Arc;
use std::time::Duration;

use hospes_protocol::enrol::{RenewAnswer, RenewRequest};
use hospes_protocol::id::{FederationId, Timestamp};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::back_off::BackOff;
use super::enrol::{self, ANSWER_BYTES};
use super::error::LinkError;
use super::session::way;
use super::tls::{self, Identity};
use super::{LinkConfig, LinkEvent};

/// First pause after a failed renewal; the longest is the time between two looks.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// Renews for as long as the link is there.
pub(super) async fn run(
    config: Arc<LinkConfig>,
    identity: watch::Sender<Identity>,
    events: mpsc::Sender<(FederationId, LinkEvent)>,
) {
    let longest = config.timing.renewal;
    let mut back_off = BackOff::new(FIRST_PAUSE.min(longest), longest, config.jitter_seed ^ 1);
    loop {
        let present = identity.borrow().clone();
        let due = match tls::validity("client certificate", &present.chain_pem) {
            Ok((from, until)) => due(from, until),
            Err(error) => {
                tracing::error!(%error, "the client certificate cannot be renewed");
                return;
            }
        };
        let left = due.since((config.clock)());
        if left > 0 {
            // Not one long sleep: machines are suspended, and clocks are set.
            sleep(Duration::from_millis(left.unsigned_abs()).min(longest)).await;
            continue;
        }
        match renew(&config, &present).await {
            Ok(next) => {
                back_off.reset();
                let event =
                    LinkEvent::CertificateRenewed { chain_pem: next.chain_pem.clone(), key_pem: next.key_pem.clone() };
                identity.send_replace(next);
                if events.send((config.federation, event)).await.is_err() {
                    return;
                }
                // Certificates are backdated; a very short one is due again at once.
                sleep(longest).await;
            }
            Err(error) => {
                let pause = back_off.next();
                tracing::warn!(federation = %config.federation, %error, "the client certificate was not renewed");
                sleep(pause).await;
            }
        }
    }
}

/// When a certificate is renewed: at two thirds of its lifetime.
fn due(from: Timestamp, until: Timestamp) -> Timestamp {
    from.plus_millis(until.since(from) / 3 * 2)
}

async fn renew(config: &LinkConfig, present: &Identity) -> Result<Identity, LinkError> {
    let (key, csr_pem) = enrol::tls_key(config.site)?;
    let body = serde_json::to_vec(&RenewRequest { csr_pem }).map_err(|e| LinkError::Protocol(e.to_string()))?;
    let mut last = LinkError::Url { url: String::new(), reason: "the membership has no address" };
    for url in 0..config.urls.len() {
        let asked = async {
            let (address, dialer) = way(config, url, Some(present), tls::HTTP1)?;
            let request = enrol::post(&address, "/renew", Full::new(Bytes::from(body.clone())))?;
            let (status, answer) = dialer.request(&address, request, ANSWER_BYTES).await?;
            enrol::read::<RenewAnswer>(status, &answer)
        };
        match asked.await {
            Ok(answer) => {
                enrol::check_certificate(&answer.certificate_pem, &key, config.site, config.federation)?;
                let key_pem = enrol::key_pem(&key, &answer.certificate_pem);
                return Ok(Identity::new(&answer.certificate_pem, &key_pem));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_at_two_thirds_of_the_lifetime() {
        let at = Timestamp::from_millis;
        assert_eq!(due(at(1_000), at(31_000)), at(21_000));
    }
}
