import { tauri } from "./ipc/tauri";
import { start } from "./start";

void start(tauri);
