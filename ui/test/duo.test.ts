import { describe, expect, it } from "vitest";
import { readTerms, writeTerms } from "../src/screens/duo";

describe("terms of use", () => {
  it("come back as they were", () => {
    for (const tags of [
      [],
      ["DUO:0000042"],
      ["DUO:0000007", "MONDO:0005267", "DUO:0000021"],
      ["DUO:0000006", "DUO:0000025=2027-12-31", "DUO:0000046"],
      ["DUO:0000004", "DUO:0009999"],
    ]) {
      expect(writeTerms(readTerms(tags))).toEqual(tags);
    }
  });

  it("drop a disease that no term asks for, and a day without its term", () => {
    const terms = readTerms(["DUO:0000007", "MONDO:0005267", "DUO:0000025=2027-12-31"]);
    expect(writeTerms({ ...terms, permission: "DUO:0000042", modifiers: [] })).toEqual(["DUO:0000042"]);
  });
});
