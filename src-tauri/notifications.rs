//! Notifications of the operating system: that something wants a person, and nothing of what it is.

use hospes_ipc::attention::Occasion;
use tauri::AppHandle;
use tauri_plugin_notification::NotificationExt as _;

use crate::words::Speech;

/// Tells the person, unless they asked for quiet.
pub(crate) fn tell(app: &AppHandle, speech: &Speech, occasion: Occasion) {
    if speech.is_quiet() {
        return;
    }
    let words = speech.words();
    let body = match occasion {
        Occasion::Request => words.request,
        Occasion::Expiry => words.expiry,
        Occasion::Alarm => words.alarm,
    };
    if let Err(error) = app.notification().builder().title("Hospes").body(body).show() {
        tracing::warn!(%error, "a notification cannot be shown");
    }
}
