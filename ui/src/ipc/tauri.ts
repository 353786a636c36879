// The only place that talks to Tauri (invariant I4): two commands and nothing else.
import { Channel, invoke } from "@tauri-apps/api/core";
import type { Transport } from "./transport";
import type { Notice } from "./types";

/** The engine behind the desktop app's window. */
export const tauri: Transport = {
  call: (command, args) => invoke("call", { request: { command, args } }),
  subscribe(on) {
    const channel = new Channel<Notice | null>();
    channel.onmessage = on;
    // Without it the page shows what it was told last; a command that fails says that the engine is away.
    invoke("subscribe", { channel }).catch(() => {});
  },
};
