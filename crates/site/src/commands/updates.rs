//! Newer versions of Hospes: looked for, told, and their packages written to files. Installing is the machine's
//! administrator's.

use std::path::PathBuf;

use anyhow::Result;
use hospes_ipc::Call;
use hospes_party::view::{UpdateFound, UpdateSaved, UpdateSource, UpdatesView};

use super::{Asking, audit};
use crate::arguments::UpdatesCommand;
use crate::output;

/// `updates …`
pub(crate) async fn updates(asking: &mut Asking, command: UpdatesCommand) -> Result<()> {
    let view: UpdatesView = match command {
        UpdatesCommand::Save { file } => return save(asking, file).await,
        UpdatesCommand::Check => asking.ask(&Call::CheckUpdates {}).await?,
        UpdatesCommand::Set { from, key } => set(asking, Some(UpdateSource { url: from, key })).await?,
        UpdatesCommand::Off => set(asking, None).await?,
        UpdatesCommand::Show => asking.ask(&Call::Updates {}).await?,
    };
    asking.answer(&view, tell)
}

async fn set(asking: &mut Asking, source: Option<UpdateSource>) -> Result<UpdatesView> {
    let passphrase = asking.sign()?;
    let () = asking.ask(&Call::SetUpdates { source, passphrase }).await?;
    asking.ask(&Call::Updates {}).await
}

async fn save(asking: &mut Asking, file: PathBuf) -> Result<()> {
    let path = audit::new_file(file)?;
    let saved: UpdateSaved = asking.ask(&Call::SaveUpdate { path: path.clone() }).await?;
    asking.answer(&saved, |saved| {
        output::say(&format!("The package of version {} was written to {}.", saved.version, path.display()));
        output::say(&format!("{} bytes, SHA-256 {}, as its makers signed it.", saved.bytes, saved.digest));
    })
}

fn tell(view: &UpdatesView) {
    output::say(&format!("Version {} runs here.", view.running));
    match &view.source {
        Some(source) => output::say(&format!("Newer ones are looked for at {}, signed by {}.", source.url, source.key)),
        None => output::say("Nobody looks for newer ones."),
    }
    if view.by_it {
        output::say("That is set by your IT.");
    }
    if let Some(trouble) = &view.trouble {
        output::say(&format!("The last look came to nothing: {trouble}."));
    }
    match &view.found {
        Some(found) if found.is_newer => newer(found),
        Some(found) => output::say(&format!("This is the newest version, as heard {}.", output::moment(found.heard))),
        None => {}
    }
}

fn newer(found: &UpdateFound) {
    output::say(&format!("Version {} is there, since {}:", found.version, output::moment(found.issued)));
    found.notes.lines().for_each(output::say);
    match &found.package {
        Some(package) => {
            output::say(&format!("Its package for this machine: {} ({} bytes).", package.file, package.bytes));
            output::say(&format!(
                "Fetch it with 'hospes-site updates save {}', then: {}",
                package.file, package.command
            ));
        }
        None => output::say("It has no package for this machine."),
    }
}
