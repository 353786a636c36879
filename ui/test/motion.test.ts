import { describe, expect, it } from "vitest";

const sheets = Object.entries(
  import.meta.glob<string>("../src/**/*.css", { eager: true, query: "?raw", import: "default" }),
);
const tokens = sheets.find(([path]) => path.endsWith("/tokens.css"))?.[1] ?? "";

/** The body of a media query, which holds one rule or more. */
const media = (sheet: string, query: string) =>
  [...sheet.matchAll(/@media \(([^)]*)\) \{\n([\s\S]*?)\n\}/g)].find(([, of]) => of === query)?.[2] ?? "";

const REDUCED = "prefers-reduced-motion: reduce";
/** Longest motion, in milliseconds. */
const LONGEST = 150;

describe("motion", () => {
  it("is short, and none for those who ask for less", () => {
    expect(Number(/--quick: (\d+)ms/.exec(tokens)?.[1])).toBeLessThanOrEqual(LONGEST);
    expect(media(tokens, REDUCED)).toContain("--quick: 0ms");
    const moves = sheets.flatMap(([path, sheet]) =>
      [...sheet.matchAll(/\b(transition|animation):\s*([^;]+);/g)].map(([, kind, value = ""]) => ({
        path,
        sheet,
        kind,
        value,
      })),
    );
    expect(moves.length).toBeGreaterThan(2);
    const others = moves.filter(({ sheet, kind, value }) => {
      const isQuick = value.split(",").every((part) => part.includes("var(--quick)"));
      return value !== "none" && !isQuick && !media(sheet, REDUCED).includes(`${kind}: none`);
    });
    expect(others.map(({ path, kind, value }) => `${path}: ${kind}: ${value}`)).toEqual([]);
  });
});

describe("forced colours", () => {
  it("are the person's for every colour that the page has", () => {
    const own = [...tokens.matchAll(/--([\w-]+):\s*light-dark\(/g)].map(([, name]) => name);
    const forced = media(tokens, "forced-colors: active");
    const theirs = [...forced.matchAll(/--([\w-]+): [A-Z]\w+;/g)].map(([, name]) => name);
    expect(own.length).toBeGreaterThan(15);
    expect(own.filter((name) => !theirs.includes(name))).toEqual([]);
  });
});
