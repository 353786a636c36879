//! The federation and its sites.

use anyhow::Result;
use serde_json::{Value, json};

use crate::arguments::{InvitationsCommand, SitesCommand};
use crate::client::{Client, Failure, FailureKind};
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
        SitesCommand::Show { site } => {
            let site = find(client, &site).await?;
            let site = client.get(&format!("sites/{site}")).await?;
            if json {
                return output::json(&site);
            }
            output::fields(
                &[
                    ("Name", "name"),
                    ("Organisation", "organisation"),
                    ("Id", "site"),
                    ("Identity key", "identity"),
                    ("State", "state"),
                    ("Reason", "reason"),
                    ("Enrolled", "enrolled"),
                    ("Online since", "online_since"),
                    ("Last seen", "last_seen"),
                    ("Software", "software"),
                ],
                &site,
            );
            let columns =
                [("Certificate", "serial"), ("Issued", "issued"), ("Ends", "expires"), ("Revoked", "revoked")];
            output::table(&columns, &site["certificates"]);
            Ok(())
        }
        SitesCommand::Revoke { site, reason } => {
            let words = "The site is revoked; its certificates no longer open a session.";
            change(client, &site, "revoke", &json!({ "reason": reason }), words, json).await
        }
        SitesCommand::Suspend { site, reason } => {
            let words = "The site is suspended; `hospesctl sites resume` lets it in again.";
            change(client, &site, "suspend", &json!({ "reason": reason }), words, json).await
        }
        SitesCommand::Resume { site } => {
            change(client, &site, "resume", &json!({}), "The site may come back.", json).await
        }
    }
}

/// `invitations …`
pub(crate) async fn invitations(client: &Client, command: InvitationsCommand, json: bool) -> Result<()> {
    match command {
        InvitationsCommand::List => {
            let invitations = client.get("invitations").await?;
            if json {
                return output::json(&invitations);
            }
            let columns = [
                ("Site", "name"),
                ("State", "state"),
                ("Made by", "created_by"),
                ("Made", "created"),
                ("Ends", "expires"),
                ("Id", "id"),
            ];
            output::table(&columns, &invitations);
            Ok(())
        }
        InvitationsCommand::Withdraw { invitation } => {
            let answer = client.delete(&format!("invitations/{}", output::segment(&invitation))).await?;
            output::done(&answer, "The invitation is no longer good.", json)
        }
    }
}

async fn change(client: &Client, site: &str, verb: &str, body: &Value, words: &str, json: bool) -> Result<()> {
    let site = find(client, site).await?;
    let answer = client.post(&format!("sites/{site}/{verb}"), body).await?;
    output::done(&answer, words, json)
}

/// The id of the site that was typed by name or id.
pub(crate) async fn find(client: &Client, typed: &str) -> Result<String> {
    let sites = client.get("sites").await?;
    let fits = |site: &&Value| {
        let name = site["name"].as_str().unwrap_or_default();
        site["site"].as_str() == Some(typed) || name.to_lowercase() == typed.to_lowercase()
    };
    // Of a name that a revoked site gave up, the one that has it now is meant.
    let all = || sites.as_array().into_iter().flatten().filter(fits);
    let found = all().find(|s| s["state"] != "revoked").or_else(|| all().next()).and_then(|s| s["site"].as_str());
    let refuse = || Failure::new(FailureKind::Refused, format!("there is no site '{typed}'; see hospesctl sites list"));
    Ok(found.ok_or_else(refuse)?.to_owned())
}
