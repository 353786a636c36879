//! Command table, views, faults and events between engine and UI, and the router; no Tauri, no HTTP.
