import type { Answer, Args, Command } from "./commands";
import type { Transport } from "./transport";
import type { Fault, Notice } from "./types";

let way: Transport | null = null;
const ended = new Set<() => void>();

/** Says how the engine is reached; once, before anything is shown. */
export function reachBy(transport: Transport): void {
  way = transport;
}

/** Calls back when the engine says that the session has ended; returns the way to stop that. */
export function onSessionEnded(callback: () => void): () => void {
  ended.add(callback);
  return () => ended.delete(callback);
}

/** Runs one command of the engine's table. Rejects with a `Fault`. */
export async function call<C extends Command>(command: C, args: Args<C>): Promise<Answer<C>> {
  try {
    if (way === null) throw { code: "not_running", words: "no way to the engine is set" } satisfies Fault;
    return (await way.call(command, args)) as Answer<C>;
  } catch (error) {
    const fault = faultOf(error);
    if (fault.code === "no_session") for (const callback of ended) callback();
    throw fault;
  }
}

/** Tells what changes, as it changes; `null` means that everything may have changed. */
export function subscribe(on: (notice: Notice | null) => void): void {
  way?.subscribe(on);
}

/** What was thrown as a fault, also where it is none. */
export function faultOf(error: unknown): Fault {
  if (typeof error === "object" && error !== null && "code" in error && "words" in error) {
    return error as Fault;
  }
  return { code: "command", words: error instanceof Error ? error.message : String(error) };
}
