//! What training may take of a machine that people work at too.

use anyhow::Result;
use hospes_ipc::Call;
use hospes_party::view::{CardView, ComputeLimits, DecidedBy, DeviceView};

use super::Asking;
use crate::arguments::{DeviceCommand, LimitsCommand};
use crate::output;

pub(crate) async fn limits(asking: &mut Asking, command: LimitsCommand) -> Result<()> {
    if let LimitsCommand::Set { quiet, share, threads, pause_while_active } = command {
        let limits = ComputeLimits { quiet, share, threads, yields: pause_while_active };
        let () = asking.ask(&Call::SetComputeLimits { limits }).await?;
    }
    let limits: ComputeLimits = asking.ask(&Call::ComputeLimits {}).await?;
    asking.answer(&limits, |limits| {
        let quiet: Vec<String> = limits.quiet.iter().map(ToString::to_string).collect();
        output::say(&match quiet.as_slice() {
            [] => "Training computes at any hour.".to_owned(),
            hours => format!("Training waits in quiet hours: {}.", hours.join(", ")),
        });
        let threads = limits.threads.map_or("all threads".to_owned(), |n| format!("at most {n} threads"));
        output::say(&format!("It takes {} % of the time, and {threads} of the processor.", limits.share));
        if limits.yields {
            output::say("It waits while somebody works at this machine.");
        }
    })
}

pub(crate) async fn device(asking: &mut Asking, command: DeviceCommand) -> Result<()> {
    if let DeviceCommand::Set { choice } = command {
        let () = asking.ask(&Call::SetDevice { choice }).await?;
    }
    let device: DeviceView = asking.ask(&Call::Device {}).await?;
    asking.answer(&device, |device| {
        let by = match device.decided_by {
            DecidedBy::People => "",
            DecidedBy::Start => "; the engine was started so",
            DecidedBy::It => "; set by your IT",
        };
        output::say(&format!("Networks are trained on {} ({}{by}).", device.choice.words(), device.choice));
        let reason = device.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        output::say(&format!("Large work runs on {}{reason}.", device.used.as_deref().unwrap_or("the processor")));
        if device.cards.is_empty() {
            return;
        }
        let row = |card: &CardView| {
            let speed = card.speed.map(|times| format!("{times:.1} times")).unwrap_or_default();
            vec![card.card.clone(), card.name.clone(), speed, card.reason.clone().unwrap_or_default()]
        };
        output::table(&["Card", "Name", "Speed against the processor", "Why not"], device.cards.iter().map(row));
    })
}
