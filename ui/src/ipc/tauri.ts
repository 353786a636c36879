// The only place that talks to Tauri (invariant I4): two commands and nothing else.
import { Channel, invoke } from "@tauri-apps/api/core";
import type { Notice } from "./types";

/** Why a command did not do what was asked: a code for the program, words for the person. */
export interface Fault {
  code: string;
  words: string;
}

const ended = new Set<() => void>();

/** Calls back when the engine says that the session has ended; returns the way to stop that. */
export function onSessionEnded(callback: () => void): () => void {
  ended.add(callback);
  return () => ended.delete(callback);
}

/** Runs one command of the engine's table. Rejects with a Fault. */
export async function call<T>(command: string, args: Record<string, unknown> = {}): Promise<T> {
  try {
    return await invoke<T>("call", { request: { command, args } });
  } catch (error) {
    if (typeof error === "object" && error !== null && "code" in error && error.code === "no_session") {
      for (const callback of ended) callback();
    }
    throw error;
  }
}

/** Tells what changes, as it changes; null means that everything may have changed. */
export function subscribe(on: (notice: Notice | null) => void): Promise<void> {
  const channel = new Channel<Notice | null>();
  channel.onmessage = on;
  return invoke("subscribe", { channel });
}

/** The fault's words, also of something that is no fault. */
export function words(error: unknown): string {
  if (typeof error === "object" && error !== null && "words" in error) return String(error.words);
  return String(error);
}
