// The commands a page may give, out of the engine's and the window's tables.
import type { Commands } from "./generated";

export { CHANGES, READS } from "./generated";

export type Command = keyof Commands;
export type Args<C extends Command> = Commands[C]["args"];
export type Answer<C extends Command> = Commands[C]["answer"];
