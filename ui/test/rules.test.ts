import { describe, expect, it } from "vitest";
import words from "../src/i18n/en/words.json";
import { comesFrom } from "../src/screens/rules";

/** Where the engine gives a finding the name of its rule. */
const sources = Object.values(
  import.meta.glob<string>(
    ["../../crates/party/src/requests/*.rs", "../../crates/privacy/src/disclosure/mod.rs"],
    { eager: true, query: "?raw", import: "default" },
  ),
);
const NAMED =
  /\b(?:found\.refuse|found\.read|\bread)\(\s*"([^"]+)"|\brule: "([^"]+)"|=> "([a-z_]+(?:\.[a-z_]+)?)",\n/g;

const rules = new Set(
  sources.flatMap((source) =>
    source.includes("Finding") ? [...source.matchAll(NAMED)].map((m) => m[1] ?? m[2] ?? m[3] ?? "") : [],
  ),
);

describe("what a rule of a review comes from", () => {
  it("is known of every rule that the engine names, and has words", () => {
    expect([...rules]).toEqual(
      expect.arrayContaining(["requester", "data.columns", "study.sweep", "series", "disclosure.min_cell"]),
    );
    const from = [...rules].map((rule) => [rule, comesFrom(rule)] as const);
    expect(from.filter(([, name]) => name === null || !(name in words.ruleFrom))).toEqual([]);
  });
});
