import type { Notice } from "./types";

/** The way to the engine: one command at a time, and what changes as it changes. */
export interface Transport {
  /** Runs one command of the engine's table. Rejects with a `Fault`. */
  call(command: string, args: object): Promise<unknown>;
  /** Tells what changes; `null` means that everything may have changed. */
  subscribe(on: (notice: Notice | null) => void): void;
}
