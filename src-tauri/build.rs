//! Build script of the desktop app: the two commands are all that the page can call (invariant I6).

fn main() {
    if !std::path::Path::new("ui/dist/desktop.html").exists() {
        // Tauri embeds the page at compile time and would only say that a folder is missing.
        println!(
            "cargo::error=the page is not built; run `npm --prefix ui ci` and `npm --prefix ui run build`, or `cargo xtask test`"
        );
        return;
    }
    let manifest = tauri_build::AppManifest::new().commands(&["call", "subscribe"]);
    if let Err(error) = tauri_build::try_build(tauri_build::Attributes::new().app_manifest(manifest)) {
        println!("cargo::error={error:#}");
    }
}
