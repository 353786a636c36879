//! What training may take of a machine that people work at too.

use anyhow::Result;
use hospes_ipc::Call;
use hospes_party::view::ComputeLimits;

use super::Asking;
use crate::arguments::LimitsCommand;
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
