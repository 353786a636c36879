//! The site's end of a link in a test.

use std::sync::Arc;
use std::time::Duration;

use hospes_protocol::id::FederationId;
use hospes_protocol::sign::{PublicKey, SecretKey};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::coordinator::{Coordinator, now};
use crate::link::{ExtraCa, LinkCommand, LinkConfig, LinkEvent, ProxyChoice, Timing, spawn};

/// The site's identity key.
pub(super) fn identity() -> PublicKey {
    SecretKey::from_seed(&[11; 32]).public()
}

/// Times that suit a test.
pub(super) fn quick() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(100),
        silence: Duration::from_millis(1_500),
        dial: Duration::from_secs(10),
        back_off_first: Duration::from_millis(20),
        back_off_longest: Duration::from_millis(200),
        stall: Duration::from_millis(700),
        verify: Duration::from_secs(20),
        prefer: Duration::from_millis(200),
        renewal: Duration::from_millis(100),
    }
}

/// Configuration of an enrolled site.
pub(super) fn config(coordinator: &Coordinator) -> LinkConfig {
    let (federation, site) = (coordinator.federation(), identity().site_id());
    let (chain_pem, key_pem) = coordinator.authority.client(federation, site, -2, 30);
    LinkConfig {
        federation,
        coordinator: coordinator.key.public(),
        site,
        urls: vec![coordinator.url()],
        ca_pem: coordinator.authority.pem(),
        chain_pem,
        key_pem: Zeroizing::new(key_pem),
        proxy: ProxyChoice::None,
        extra_ca: ExtraCa::None,
        epoch: 1,
        software: "hospes/test".into(),
        clock: Arc::new(now),
        jitter_seed: 1,
        timing: quick(),
    }
}

/// A running link and the engine's ear.
pub(super) struct Site {
    pub(super) commands: mpsc::Sender<LinkCommand>,
    events: mpsc::Receiver<(FederationId, LinkEvent)>,
}

impl Site {
    pub(super) fn start(config: LinkConfig) -> Self {
        let (sender, events) = mpsc::channel(64);
        Self { commands: spawn(config, sender), events }
    }

    pub(super) async fn tell(&self, command: LinkCommand) {
        self.commands.send(command).await.unwrap();
    }

    /// The next event; the test fails if none comes.
    pub(super) async fn event(&mut self) -> LinkEvent {
        let event = tokio::time::timeout(Duration::from_secs(60), self.events.recv()).await;
        event.expect("no event came").expect("the link ended").1
    }

    /// Whether the link ended.
    pub(super) async fn ended(&mut self) -> bool {
        let ended = async { while self.events.recv().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(10), ended).await.is_ok()
    }

    /// Waits until the session is up.
    pub(super) async fn connected(&mut self) {
        loop {
            if matches!(self.event().await, LinkEvent::Connected(_)) {
                return;
            }
        }
    }

    /// The reason of the next disconnection.
    pub(super) async fn disconnected(&mut self) -> String {
        loop {
            if let LinkEvent::Disconnected { reason, .. } = self.event().await {
                return reason;
            }
        }
    }

    /// Events until `wanted` finds its own, saying yes to every upload; also how often that was asked.
    pub(super) async fn until<T>(&mut self, mut wanted: impl FnMut(LinkEvent) -> Option<T>) -> (T, u32) {
        let mut asked = 0;
        loop {
            match self.event().await {
                LinkEvent::MayLeave { reply, .. } => {
                    asked += 1;
                    reply.send(Ok(())).unwrap();
                }
                event => {
                    if let Some(found) = wanted(event) {
                        return (found, asked);
                    }
                }
            }
        }
    }
}
