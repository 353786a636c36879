import { tauri } from "./ipc/tauri";
import { start } from "./start";

start(tauri);
