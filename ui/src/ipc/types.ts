// What the engine and the window are asked with and what they answer, as Rust has it.
export type * from "./generated";
