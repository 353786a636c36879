//! The desktop app: a window, and two commands into the party's router. No logic here.

/// Opens the window and runs until it is closed.
///
/// # Errors
/// If the window system cannot be reached.
pub fn run() -> anyhow::Result<()> {
    tauri::Builder::default().run(tauri::generate_context!())?;
    Ok(())
}
