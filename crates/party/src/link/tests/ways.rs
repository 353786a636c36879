//! Another way to the coordinator of a federation that was joined: tried before it is kept, and used at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hospes_protocol::id::FederationId;
use hospes_protocol::words;

use super::coordinator::{Authority, Coordinator, now};
use super::proxies::ConnectProxy;
use crate::config::Executor;
use crate::error::PartyError;
use crate::link::Outcome;
use crate::tests::World;
use crate::view::{Enrolment, LinkView, NewAuthorities, NewProxy, NewWay, WayTried, WayView};

/// A site that joined through a proxy, and what it joined.
struct Joined {
    world: World,
    federation: FederationId,
    coordinator: Coordinator,
    first: ConnectProxy,
}

fn url(proxy: &ConnectProxy) -> String {
    format!("http://{}", proxy.address)
}

fn tunnels(proxy: &ConnectProxy) -> usize {
    proxy.heads.lock().unwrap().len()
}

impl Joined {
    /// With real links, unlike other engines in tests.
    async fn through_a_proxy(folder: &Path) -> Self {
        let (coordinator, first) = (Coordinator::start().await, ConnectProxy::start(None, false).await);
        let mut world = World::create_linked(folder, Executor::Thread, now().as_millis()).await;
        world.staff().await;
        let invitation = coordinator.invitation();
        let enrolment = Enrolment {
            words: words::of_digest(&invitation.ca),
            invitation: invitation.to_string(),
            organisation: "Cleveland Clinic".into(),
            proxy: Some(url(&first)),
            extra_ca: None,
            again: None,
        };
        let federation = world.handle.enrol(world.who("ana"), enrolment).await.unwrap().federation;
        let joined = Self { world, federation, coordinator, first };
        joined.connected().await;
        joined
    }

    async fn connected(&self) {
        for _ in 0..600 {
            let membership = self.world.handle.memberships(self.world.who("ana")).await.unwrap().remove(0);
            if matches!(membership.link, LinkView::Connected { .. }) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the link does not come up");
    }

    async fn set(
        &self,
        who: &str,
        proxy: NewProxy,
        extra_ca: NewAuthorities,
        despite: Option<&str>,
    ) -> Result<WayTried, PartyError> {
        let way = NewWay { federation: self.federation, proxy, extra_ca };
        self.world.handle.set_way(self.world.who(who), way, despite.map(Into::into)).await
    }

    async fn way(&self) -> WayView {
        self.world.handle.ways(self.world.who("odo")).await.unwrap().remove(0)
    }

    /// The newest entry of the log about it: how it ended, and what it says.
    async fn entered(&self) -> (String, String) {
        let query = crate::view::AuditQuery { actions: vec!["settings_changed".into()], ..Default::default() };
        let page = self.world.handle.audit(self.world.who("ana"), query).await.unwrap();
        let entry = page.entries.into_iter().next().expect("nothing was entered");
        (entry.outcome, entry.detail)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_proxy_is_kept_once_it_was_tried_and_the_link_goes_over_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let joined = Joined::through_a_proxy(folder.path()).await;
    let second = ConnectProxy::start(Some("Basic bWU6c2VjcmV0"), false).await;
    let sessions = joined.coordinator.state().sessions.len();
    let with_password = format!("http://me:secret@{}", second.address);
    let tried = joined.set("ana", NewProxy::Url(with_password), NewAuthorities::Keep, None).await.unwrap();
    assert!(tried.kept && tried.steps.iter().all(|s| s.outcome != Outcome::Failed), "{tried:#?}");
    for _ in 0..600 {
        if joined.coordinator.state().sessions.len() > sessions {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    joined.connected().await;
    // TLS and the answer were tested over it, and the link was opened.
    assert!(tunnels(&second) >= 3, "{}", tunnels(&second));
    // Nobody is shown the password, and it is not in the log.
    let way = joined.way().await;
    assert_eq!((way.proxy, way.has_credentials), (Some(url(&second)), true));
    let (outcome, detail) = joined.entered().await;
    assert_eq!(outcome, "success");
    assert!(detail.contains(&url(&second)) && detail.contains(&url(&joined.first)), "{detail}");
    assert!(!detail.contains("secret"), "{detail}");
    joined.world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_leads_nowhere_changes_nothing_unless_an_administrator_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let joined = Joined::through_a_proxy(folder.path()).await;
    let closed = ConnectProxy::start(None, true).await;
    let sessions = joined.coordinator.state().sessions.len();
    let tried = joined.set("ana", NewProxy::Url(url(&closed)), NewAuthorities::Keep, None).await.unwrap();
    assert!(!tried.kept);
    let failed = tried.steps.iter().find(|s| s.outcome == Outcome::Failed).unwrap();
    assert!(failed.test == "tcp" && failed.finding.contains("403"), "{failed:?}");
    assert!(failed.request.as_ref().unwrap().contains("CONNECT"), "{failed:?}");
    assert_eq!(joined.way().await.proxy, Some(url(&joined.first)));
    assert_eq!(joined.coordinator.state().sessions.len(), sessions, "the link was touched");
    let (outcome, detail) = joined.entered().await;
    assert!(outcome == "failed" && detail.contains("not kept, the test failed at 'tcp'"), "{detail}");

    let denied = joined.set("sam", NewProxy::Usual, NewAuthorities::Keep, Some("now")).await;
    assert!(matches!(denied, Err(PartyError::Denied { .. })), "{denied:?}");
    let no_proxy = joined.set("ana", NewProxy::Url("socks5://p:1080".into()), NewAuthorities::Keep, Some("now")).await;
    assert!(matches!(no_proxy, Err(PartyError::Input { place: "proxy", .. })), "{no_proxy:?}");

    let why = "the proxy is opened tonight";
    let forced = joined.set("ana", NewProxy::Url(url(&closed)), NewAuthorities::Keep, Some(why)).await.unwrap();
    assert!(forced.kept && forced.steps.iter().any(|s| s.outcome == Outcome::Failed), "{forced:#?}");
    assert_eq!(joined.way().await.proxy, Some(url(&closed)));
    let (outcome, detail) = joined.entered().await;
    assert!(outcome == "success" && detail.contains(why) && detail.contains("'tcp'"), "{detail}");
    // And back.
    let back = joined.set("ana", NewProxy::Url(url(&joined.first)), NewAuthorities::Keep, None).await.unwrap();
    assert!(back.kept, "{back:#?}");
    joined.connected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_named_and_a_file_without_any_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let joined = Joined::through_a_proxy(folder.path()).await;
    let file = |name: &str, text: &str| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let empty = NewAuthorities::File(file("empty.pem", ""));
    let refused = joined.set("ana", NewProxy::Keep, empty, Some("all the same")).await;
    assert!(matches!(refused, Err(PartyError::Input { place: "extra_ca", .. })), "{refused:?}");
    let own = NewAuthorities::File(file("own.pem", &Authority::new("Hospital CA").pem()));
    let tried = joined.set("ana", NewProxy::Keep, own, None).await.unwrap();
    assert!(tried.kept, "{tried:#?}");
    let way = joined.way().await;
    assert_eq!(way.proxy, Some(url(&joined.first)), "what is left out stays");
    assert!(matches!(way.authorities.as_slice(), [one] if one.name.contains("Hospital CA")), "{way:?}");
    let tried = joined.set("ana", NewProxy::Keep, NewAuthorities::Usual, None).await.unwrap();
    assert!(tried.kept && joined.way().await.authorities.is_empty(), "{tried:#?}");
    joined.world.handle.leave(joined.world.who("ana"), joined.federation, "we merge".into()).await.unwrap();
    assert!(joined.world.handle.ways(joined.world.who("ana")).await.unwrap().is_empty());
    let left = joined.set("ana", NewProxy::Usual, NewAuthorities::Keep, None).await;
    assert!(matches!(&left, Err(PartyError::State(words)) if words.contains("has left")), "{left:?}");
}
