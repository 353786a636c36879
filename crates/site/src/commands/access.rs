//! How people get in, and how coordinators are reached.

use anyhow::{Result, bail};
use hospes_ipc::{Call, Fault, FaultCode};
use hospes_party::view::{NewAuthorities, NewProxy, NewWay, SignInRules, WayTried, WayView};

use super::{Asking, doctor, federation};
use crate::arguments::{Network, NetworkCommand, SignInCommand};
use crate::output;

/// `sign-in …`
pub(crate) async fn sign_in(asking: &mut Asking, command: SignInCommand) -> Result<()> {
    let mut rules: SignInRules = asking.ask(&Call::SignInRules {}).await?;
    if let SignInCommand::Set { idle, tries, longest_wait } = command {
        rules = SignInRules {
            idle_minutes: idle.unwrap_or(rules.idle_minutes),
            tries: tries.unwrap_or(rules.tries),
            longest_wait_minutes: longest_wait.unwrap_or(rules.longest_wait_minutes),
        };
        let passphrase = asking.sign()?;
        let () = asking.ask(&Call::SetSignInRules { rules, passphrase }).await?;
    }
    asking.answer(&rules, |rules| {
        output::say(&format!("A person is signed out after {} minutes without use.", rules.idle_minutes));
        output::say(&format!(
            "{} wrong passphrases in a row cost no time; the wait after more of them grows to {} minutes.",
            rules.tries, rules.longest_wait_minutes
        ));
    })
}

/// `network …`
pub(crate) async fn network(asking: &mut Asking, command: NetworkCommand) -> Result<()> {
    if let NetworkCommand::Set(network) = command {
        return set(asking, network).await;
    }
    let ways: Vec<WayView> = asking.ask(&Call::Ways {}).await?;
    asking.answer(&ways, |ways| {
        let row = |way: &WayView| {
            let password = if way.has_credentials { " (with a password)" } else { "" };
            let proxy = way.proxy.as_ref().map_or("as the machine is set".to_owned(), |url| format!("{url}{password}"));
            let authorities: Vec<String> =
                way.authorities.iter().map(|a| format!("{}, until {}", a.name, output::moment(a.until))).collect();
            vec![way.name.clone(), way.url.clone(), proxy, authorities.join("; ")]
        };
        output::table(&["Federation", "Coordinator", "Proxy", "Own CA certificates"], ways.iter().map(row));
    })
}

/// `network set`
async fn set(asking: &mut Asking, network: Network) -> Result<()> {
    let federation = federation::which(asking, network.federation).await?;
    let proxy = match (network.proxy, network.usual_proxy) {
        (Some(url), _) => NewProxy::Url(url),
        (None, true) => NewProxy::Usual,
        (None, false) => NewProxy::Keep,
    };
    let extra_ca = match (network.extra_ca, network.usual_ca) {
        (Some(file), _) => NewAuthorities::File(file),
        (None, true) => NewAuthorities::Usual,
        (None, false) => NewAuthorities::Keep,
    };
    let way = NewWay { federation, proxy, extra_ca };
    let tried: WayTried = asking.ask(&Call::SetWay { way, despite: network.despite }).await?;
    asking.answer(&tried, |tried| {
        doctor::say(&tried.steps);
        if tried.kept {
            output::say("It is kept, and the link is opened over it.");
        }
    })?;
    if !tried.kept {
        let words = "the test failed, so that nothing was changed; --despite REASON keeps it all the same";
        bail!(Fault::new(FaultCode::Link, words));
    }
    Ok(())
}
