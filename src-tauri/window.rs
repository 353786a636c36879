//! The window: it is shown and hidden; closing it leaves the engine and the tray running.

use tauri::{AppHandle, Manager as _, Window, WindowEvent};

/// Label of the one window.
const MAIN: &str = "main";

/// Brings the window to the front, from wherever it is.
pub(crate) fn show(app: &AppHandle) {
    let Some(window) = app.get_webview_window(MAIN) else { return };
    for step in [window.show(), window.unminimize(), window.set_focus()] {
        if let Err(error) = step {
            tracing::warn!(%error, "the window cannot be shown");
        }
    }
}

/// Closing hides: quitting is in the tray, where it says what it means.
pub(crate) fn on_event(window: &Window, event: &WindowEvent) {
    if let WindowEvent::CloseRequested { api, .. } = event {
        match window.hide() {
            Ok(()) => api.prevent_close(),
            Err(error) => tracing::warn!(%error, "the window cannot be hidden; it is closed"),
        }
    }
}
