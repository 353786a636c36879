//! The desktop app: a window, its tray and its dialogs around a page, and an engine where the machine has no service. No
//! logic here: what the page asks for goes through [`Page`], what a person should be told comes from
//! `hospes_ipc::attention`.
//!
//! The page has `call` and `subscribe` and nothing else (invariant I6); sessions live on the connection in this process,
//! so that no token ever reaches the page, and dialogs are opened here, so that no path does.

mod dialogs;
mod notifications;
mod tray;
mod window;
mod words;

use std::sync::Arc;

use hospes_ipc::Fault;
use hospes_ipc::local::{Local, program};
use hospes_ipc::page::{Host as _, Page, PreferencesFile};
use hospes_ipc::staff::Service;
use serde_json::{Value, json};
use tauri::ipc::Channel;
use tauri::{AppHandle, Manager as _, State};
use tauri_plugin_autostart::MacosLauncher;

use dialogs::Desk;
use words::Speech;

/// Argument with which the app starts together with the machine: in the tray, without its window.
const HIDDEN: &str = "--hidden";

/// Runs one command of the page.
#[tauri::command]
async fn call(page: State<'_, Arc<Page>>, request: Value) -> Result<Value, Fault> {
    page.call(request).await
}

/// Tells the page what changes; `null` means that everything may have changed.
#[tauri::command]
async fn subscribe(page: State<'_, Arc<Page>>, channel: Channel<Value>) -> Result<(), Fault> {
    let page = page.inner().clone();
    tauri::async_runtime::spawn(async move {
        page.watch(|notice| channel.send(json!(notice)).is_ok()).await;
    });
    Ok(())
}

/// Opens the window and runs until the person quits.
///
/// # Errors
/// If the window system cannot be reached, or there is no folder for the party's data or the person's preferences.
pub fn run() -> anyhow::Result<()> {
    let nowhere = || anyhow::anyhow!("neither HOSPES_DATA nor HOME says where the site's data folder is");
    let folder = hospes_ipc::socket::default_folder().ok_or_else(nowhere)?;
    let preferences = PreferencesFile::of_user().ok_or_else(nowhere)?;
    let local = Local::new(folder, program()?, Service::of_system());
    tauri::Builder::default()
        // First: a second start shows the window of the first and ends.
        .plugin(tauri_plugin_single_instance::init(|app, arguments, _folder| {
            // Unless it is the start with the machine, at which nobody asked for a window.
            if !arguments.iter().any(|argument| argument == HIDDEN) {
                window::show(app);
            }
        }))
        .plugin(tauri_plugin_dialog::init())
        .plugin(tauri_plugin_notification::init())
        .plugin(tauri_plugin_autostart::init(MacosLauncher::LaunchAgent, Some(vec![HIDDEN])))
        .setup(move |app| {
            let app = app.handle();
            let speech = Arc::new(Speech::new(preferences.read()));
            let desk = Desk::new(app.clone(), speech.clone());
            if preferences.starts()
                && let Err(error) = desk.prefer(preferences.read())
            {
                tracing::warn!(error, "what the hospital's IT set does not hold");
            }
            app.manage(Arc::new(Page::new(desk, local.clone(), preferences.clone())));
            follow(app, local, speech);
            if !std::env::args().any(|argument| argument == HIDDEN) {
                window::show(app);
            }
            Ok(())
        })
        .on_window_event(window::on_event)
        .invoke_handler(tauri::generate_handler![call, subscribe])
        .run(tauri::generate_context!())?;
    Ok(())
}

/// Finds or runs the engine, and shows in the tray and in notifications what becomes of it.
fn follow(app: &AppHandle, local: Arc<Local>, speech: Arc<Speech>) {
    let tray = tray::Tray::new(app, local.clone(), speech.clone());
    let keeping = local.clone();
    tauri::async_runtime::spawn(async move { keeping.keep().await });
    let app = app.clone();
    tauri::async_runtime::spawn(async move {
        hospes_ipc::attention::follow(&local, |mood, engine, occasions| {
            // Both wait for the window's own thread or for the desktop, which may be slow; the page must not wait with them.
            tokio::task::block_in_place(|| {
                tray.show(mood, engine);
                for occasion in occasions {
                    notifications::tell(&app, &speech, occasion);
                }
            });
        })
        .await;
    });
}
