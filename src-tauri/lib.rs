//! The desktop app: a window, and two commands into the router of the party that runs on this machine. No logic here.
//!
//! The page has `call` and `subscribe` and nothing else (invariant I6); sessions live on the connection in this process,
//! so that no token ever reaches the page.

use std::path::PathBuf;

use hospes_ipc::socket::Client;
use hospes_ipc::{Call, Fault, FaultCode};
use serde_json::Value;
use tauri::State;
use tauri::ipc::Channel;
use tokio::sync::Mutex;

/// The connection of this window to the party.
struct Party {
    folder: PathBuf,
    client: Mutex<Option<Client>>,
}

/// Runs one command of the engine's table that a page may give.
#[tauri::command]
async fn call(party: State<'_, Party>, request: Value) -> Result<Value, Fault> {
    let request = Call::from_page(request)?;
    let mut client = party.client.lock().await;
    if client.is_none() {
        *client = Some(Client::connect(&party.folder).await?);
    }
    let Some(connected) = client.as_mut() else {
        return Err(Fault::new(FaultCode::NotRunning, "the party is not running"));
    };
    let answer = connected.request(&request).await;
    if answer.as_ref().is_err_and(|fault| fault.code == FaultCode::NotRunning) {
        // The next command connects again; whoever was logged in has to log in again.
        *client = None;
    }
    answer
}

/// Tells the page what changes; `null` means that everything may have changed.
#[tauri::command]
async fn subscribe(party: State<'_, Party>, channel: Channel<Value>) -> Result<(), Fault> {
    let folder = party.folder.clone();
    tauri::async_runtime::spawn(async move {
        loop {
            if let Ok(client) = Client::connect(&folder).await
                && let Ok(mut notices) = client.subscribe().await
            {
                while let Ok(notice) = notices.next().await {
                    if channel.send(serde_json::json!(notice)).is_err() {
                        return;
                    }
                }
            }
            // The party went away or is not there yet; the page asks again and shows what it is told.
            if channel.send(Value::Null).is_err() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        }
    });
    Ok(())
}

/// Opens the window and runs until it is closed.
///
/// # Errors
/// If the window system cannot be reached, or there is no folder for the party's data.
pub fn run() -> anyhow::Result<()> {
    let folder = hospes_ipc::socket::default_folder()
        .ok_or_else(|| anyhow::anyhow!("neither HOSPES_DATA nor HOME says where the site's data folder is"))?;
    tauri::Builder::default()
        .manage(Party { folder, client: Mutex::new(None) })
        .invoke_handler(tauri::generate_handler![call, subscribe])
        .run(tauri::generate_context!())?;
    Ok(())
}
