import { describe, expect, it } from "vitest";
import facts from "../src/i18n/en/facts.json";
import { phraseKey } from "../src/i18n/said";

/** The engine's own code: what it says to people stands there. */
const engine = Object.values(
  import.meta.glob<string>("../../crates/party/src/**/*.rs", {
    eager: true,
    query: "?raw",
    import: "default",
  }),
);

/** What a review says stands there. */
const review = engine.filter((code) => code.includes("Fact::new("));

/** A text of the engine's code, which may go on in the next line. */
const TEXT = String.raw`"((?:[^"\\]|\\[\s\S])*)"`;

function texts(before: string, sources = review): string[] {
  const found = sources.flatMap((code) => [...code.matchAll(new RegExp(`${before}\\s*${TEXT}`, "g"))]);
  return found.map((match) => (match[1] ?? "").replaceAll(/\\\n\s*/g, ""));
}

const missing = (phrases: string[]) => {
  const known = new Set(Object.keys(facts).map((key) => `facts.${key}`));
  return phrases.filter((text) => !known.has(phraseKey(text) ?? ""));
};

describe("a fact of a review", () => {
  it("has words in the catalogue for its label", () => {
    // `stated` and `change` are how the engine shortens it.
    const labels = texts(String.raw`\b(?:Fact::new|Fact::stated|stated|change)\(`);
    expect(labels.length).toBeGreaterThan(45);
    expect(missing(labels)).toEqual([]);
  });

  it("has words in the catalogue for a value that is always the same", () => {
    const values = texts(String.raw`Fact::new\(\s*"[^"]+",`);
    expect(values.length).toBeGreaterThan(3);
    expect(missing(values)).toEqual([]);
  });
});

describe("the note of a round whose update was cut", () => {
  it("has words in the catalogue", () => {
    const notes = texts(String.raw`\bconst CUT: &str =`, engine);
    expect(notes).toHaveLength(1);
    expect(missing(notes)).toEqual([]);
  });
});
