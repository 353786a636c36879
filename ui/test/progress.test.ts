import { describe, expect, it } from "vitest";
import { timeLeft } from "../src/parts/Progress";

describe("the rest of long work", () => {
  it("takes as long as what is done of it did, in proportion", () => {
    expect(timeLeft(30_000, 0.25, 0.75)).toBe(90_000);
  });

  it("is not guessed before something can be told by it, nor of what is done", () => {
    expect(timeLeft(2_000, 0.5, 0.5)).toBeNull();
    expect(timeLeft(60_000, 0.01, 0.99)).toBeNull();
    expect(timeLeft(60_000, 1, 0)).toBeNull();
  });
});
