//! The engine as a service: it serves its socket, and one for staff where it is told to, until it is told to end.

use std::path::Path;

use anyhow::{Context, Result, bail};
use hospes_party::DeviceChoice;
use tokio::signal::unix::{SignalKind, signal};

use crate::engine;

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(
    folder: &Path,
    staff: Option<&Path>,
    runs_at_a_time: usize,
    device: Option<DeviceChoice>,
) -> Result<()> {
    let handle = engine::open(folder, runs_at_a_time, device).await?;
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tracing::info!(folder = %folder.display(), "the party runs");
    let to_staff = async {
        match staff {
            Some(socket) => hospes_ipc::staff::serve(socket, folder, handle.clone()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        served = hospes_ipc::socket::serve(folder, handle.clone()) => served.context("serve the local socket")?,
        served = to_staff => served.context("serve the socket for staff")?,
        () = handle.ended() => bail!("the engine ended by a fault of its own; the log says where"),
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("the party ends");
    handle.shut_down().await.map_err(hospes_ipc::Fault::from)?;
    Ok(())
}
