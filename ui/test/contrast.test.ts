import { describe, expect, it } from "vitest";
import tokens from "../src/styles/tokens.css?raw";

type Colour = [number, number, number];

/** OKLCH to linear sRGB (Ottosson 2020, https://bottosson.github.io/posts/oklab). */
function linear(lightness: number, chroma: number, hue: number): Colour {
  const [a, b] = [chroma * Math.cos((hue * Math.PI) / 180), chroma * Math.sin((hue * Math.PI) / 180)];
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const rgb = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return rgb.map((channel) => Math.min(1, Math.max(0, channel))) as Colour;
}

const luminance = ([r, g, b]: Colour) => 0.2126 * r + 0.7152 * g + 0.0722 * b;

/** Contrast of WCAG 2.2. */
function contrast(one: Colour, other: Colour): number {
  const [dark = 0, light = 0] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

/** Tokens of a theme by name: `light-dark(oklch(…), oklch(…))`. */
function theme(which: 0 | 1): Map<string, Colour> {
  const found = new Map<string, Colour>();
  for (const [, name = "", pair = ""] of tokens.matchAll(/--([\w-]+):\s*light-dark\(([^;]+)\);/g)) {
    const both = [...pair.matchAll(/oklch\(([\d.]+)%\s+([\d.]+)\s+([\d.]+)\)/g)];
    const [, l, c, h] = both[which] ?? [];
    found.set(name, linear(Number(l) / 100, Number(c), Number(h)));
  }
  return found;
}

const GROUNDS = ["paper", "raised", "sunken", "hover"];
/** Text and what it stands on. */
const TEXTS: [string, string[]][] = [
  ["ink", [...GROUNDS, "accent-soft", "attention-soft", "danger-soft"]],
  ["muted", [...GROUNDS]],
  ["accent", [...GROUNDS, "accent-soft"]],
  ["attention", [...GROUNDS, "attention-soft"]],
  ["danger", [...GROUNDS, "danger-soft"]],
  ["privacy", ["paper", "raised", "privacy-soft"]],
  ["accent-ink", ["accent", "accent-strong"]],
  ["danger-ink", ["danger", "danger-strong"]],
];
/** Marks without which something could not be told: edges of fields, lines and dots of charts. */
const MARKS: [string, string[]][] = [
  ["mark", ["raised", "paper"]],
  ["accent", GROUNDS],
  ["attention-mark", ["raised", "paper"]],
];

describe.each([
  ["light", 0],
  ["dark", 1],
] as const)("colours of the %s theme", (_, which) => {
  const colours = theme(which);
  const of = (name: string): Colour => {
    const colour = colours.get(name);
    if (colour === undefined) throw new Error(`no token --${name}`);
    return colour;
  };

  it("have known contrasts: black on white is 21", () => {
    expect(contrast(linear(0, 0, 0), linear(1, 0, 0))).toBeCloseTo(21, 1);
  });

  it.each(TEXTS)("let %s be read wherever it stands (4.5:1)", (text, grounds) => {
    for (const ground of grounds) {
      expect(contrast(of(text), of(ground)), `${text} on ${ground}`).toBeGreaterThanOrEqual(4.5);
    }
  });

  it.each(MARKS)("let %s be seen wherever it stands (3:1)", (mark, grounds) => {
    for (const ground of grounds) {
      expect(contrast(of(mark), of(ground)), `${mark} on ${ground}`).toBeGreaterThanOrEqual(3);
    }
  });
});
