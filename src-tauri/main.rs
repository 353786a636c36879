//! The desktop app. No logic here: see `lib.rs`.

#![cfg_attr(not(debug_assertions), windows_subsystem = "windows")]

fn main() -> anyhow::Result<()> {
    hospes_ipc::forbid_core_dumps();
    hospes::run()
}
