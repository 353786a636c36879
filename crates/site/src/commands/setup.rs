//! Laying down a site, and joining a federation.

use std::path::Path;

use anyhow::{Result, bail};
use hospes_ipc::settings::{self, Settings};
use hospes_ipc::socket::Client;
use hospes_ipc::{Call, Fault, FaultCode, Router};
use hospes_party::Handle;
use hospes_party::view::{Enrolment, InvitationView, MembershipView};

use super::{Asking, federation};
use crate::arguments::Enrol;
use crate::{output, secret};

/// Lays down a site and its first administrator.
pub(crate) async fn init(
    folder: &Path,
    administrator: &str,
    key_file: bool,
    passphrase_file: Option<&Path>,
    json: bool,
) -> Result<()> {
    hospes_protocol::text::check_name(administrator)
        .map_err(|reason| Fault::new(FaultCode::Input, format!("the administrator's name {reason}")))?;
    settings::private_folder(folder)?;
    // A service may have a site that nobody is in yet.
    let running = Client::connect(folder).await.ok();
    let half_made = if running.is_none() { half_made(folder).await? } else { None };
    // Everything that may be mistyped is read and checked before anything is made.
    let prompt = format!("New passphrase of {administrator}: ");
    let passphrase = secret::new_of_person(passphrase_file, &prompt)?;
    let call = Call::SetUp { name: administrator.to_owned(), passphrase };
    if let Some(running) = running {
        running.request(&call).await?;
    } else {
        let handle = match half_made {
            Some(handle) => handle,
            None => make(folder, key_file).await?,
        };
        let router = Router::new(handle.clone());
        router.call(serde_json::to_value(&call)?).await?;
        handle.shut_down().await.map_err(Fault::from)?;
    }
    if json {
        return output::json(&serde_json::json!({ "administrator": administrator }));
    }
    output::say(&format!("This site lies in {}. {administrator} is its administrator.", folder.display()));
    output::say("Add the other people next: hospes-site user add NAME --role …");
    Ok(())
}

/// Makes the site without people.
async fn make(folder: &Path, key_file: bool) -> Result<Handle> {
    let settings = if key_file { Settings::File } else { Settings::keychain(folder)? };
    let config = settings.config(folder, std::env::current_exe()?, secret::of_new_key_file)?;
    Ok(settings::lay_down(folder, &settings, config).await?)
}

/// A site in the folder whose making stopped before it had an administrator.
async fn half_made(folder: &Path) -> Result<Option<Handle>> {
    let Some(settings) = Settings::find(folder)? else { return Ok(None) };
    let config = settings.config(folder, std::env::current_exe()?, secret::of_key_file)?;
    Ok(settings::half_made(folder, config).await?)
}

/// Joins a federation; the words come by a second channel and are typed.
pub(crate) async fn enrol(asking: &mut Asking, enrol: Enrol) -> Result<()> {
    let read = Call::ReadInvitation { invitation: enrol.invitation.clone() };
    let invitation: InvitationView = asking.connection.call(&read).await?;
    let words = match enrol.words {
        Some(words) => words,
        None => {
            output::say(&format!(
                "The invitation leads to {} and names this site '{}'.",
                invitation.url, invitation.site
            ));
            output::say("Ask the operator by telephone or from the contract for the coordinator's twelve words.");
            secret::line("The twelve words: ")?
        }
    };
    if words.is_empty() {
        bail!(Fault::new(FaultCode::Fingerprint, "without the words nobody can tell who sent the invitation"));
    }
    let again = match enrol.again {
        Some(typed) => Some(federation::which(asking, Some(typed)).await?),
        None => None,
    };
    let call = Call::Enrol {
        enrolment: Enrolment {
            invitation: enrol.invitation,
            words,
            organisation: enrol.organisation,
            proxy: enrol.proxy,
            extra_ca: enrol.extra_ca,
            again,
        },
    };
    let membership: MembershipView = asking.ask(&call).await?;
    asking.answer(&membership, |membership| {
        output::say(&format!("{} is a member of {} now.", membership.site_name, membership.name));
        output::say(&format!(
            "Read these words to the other members, so that they can verify you: {}",
            membership.words
        ));
    })
}
