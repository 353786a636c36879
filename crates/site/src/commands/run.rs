//! The engine as a service: it serves its socket, and one for staff where it is told to, until it is told to end. With the
//! one for staff it also waits for a site where there is none yet.

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
    let site = engine::site(folder, staff.is_some(), runs_at_a_time, device).await?;
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    match site.handle() {
        Some(_) => tracing::info!(folder = %folder.display(), "the party runs"),
        None => tracing::info!(folder = %folder.display(), "there is no site yet; staff may set it up"),
    }
    let to_staff = async {
        match staff {
            Some(socket) => hospes_ipc::staff::serve(socket, folder, site.clone()).await,
            None => std::future::pending().await,
        }
    };
    let to_own = async { hospes_ipc::socket::serve(folder, site.arrives().await).await };
    let ended = async { site.arrives().await.ended().await };
    tokio::select! {
        served = to_own => served.context("serve the local socket")?,
        served = to_staff => served.context("serve the socket for staff")?,
        fault = site.look_out() => bail!(fault),
        () = ended => bail!("the engine ended by a fault of its own; the log says where"),
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("the party ends");
    if let Some(handle) = site.handle() {
        handle.shut_down().await.map_err(hospes_ipc::Fault::from)?;
    }
    Ok(())
}
