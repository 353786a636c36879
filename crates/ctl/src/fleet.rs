//! The federation and its sites.

use anyhow::Result;
use serde_json::json;

use crate::arguments::SitesCommand;
use crate::client::Client;
use crate::output;

/// `whoami`
pub(crate) async fn whoami(client: &Client, json: bool) -> Result<()> {
    let federation = client.get("federation").await?;
    if json {
        return output::json(&federation);
    }
    let text = |field: &str| output::text(&federation[field]);
    output::say(&format!("You are {} ({}) in {}.", text("caller"), text("role"), text("name")));
    output::say(&format!("Identity key of the coordinator: {}", text("identity")));
    output::say(&format!("Words of its CA, to read to sites: {}", text("ca_words")));
    Ok(())
}

/// `invite`
pub(crate) async fn invite(client: &Client, name: &str, hours: u32, json: bool) -> Result<()> {
    let seconds = hours.saturating_mul(3_600);
    let invitation = client.post("invitations", &json!({ "name": name, "seconds": seconds })).await?;
    if json {
        return output::json(&invitation);
    }
    output::say(&format!("Send this to {name}; it is shown only now and good once:\n"));
    output::say(&output::text(&invitation["invitation"]));
    output::say("\nTell these words by another way (telephone, contract), never in the same message:\n");
    output::say(&output::text(&invitation["ca_words"]));
    Ok(())
}

/// `sites …`
pub(crate) async fn sites(client: &Client, command: SitesCommand, json: bool) -> Result<()> {
    match command {
        SitesCommand::List => {
            let sites = client.get("sites").await?;
            if json {
                return output::json(&sites);
            }
            let columns = [
                ("Name", "name"),
                ("Organisation", "organisation"),
                ("State", "state"),
                ("Online since", "online_since"),
                ("Last seen", "last_seen"),
                ("Software", "software"),
                ("Id", "site"),
            ];
            output::table(&columns, &sites);
            Ok(())
        }
        SitesCommand::Show { site } => output::json(&client.get(&format!("sites/{site}")).await?),
        SitesCommand::Revoke { site, reason } => {
            let answer = client.post(&format!("sites/{site}/revoke"), &json!({ "reason": reason })).await?;
            if json {
                return output::json(&answer);
            }
            output::say("The site is revoked; its certificates no longer open a session.");
            Ok(())
        }
    }
}
