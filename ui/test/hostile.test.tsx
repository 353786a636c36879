// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { changeLanguage, LANGUAGES, type Language } from "../src/i18n";
import { beginning, visible, within } from "../src/i18n/visible";
import type { NameMark, PersonView, Review } from "../src/ipc/types";
import { PeopleSettings } from "../src/screens/PeopleSettings";
import { Review as ReviewScreen } from "../src/screens/Review";
import { Screen } from "./screen";

let screen: Screen;

/** With a Cyrillic letter each. */
const SAM = "s\u0430m";
const CLINIC = "\u0421leveland clinic";
const MARKS: NameMark[] = [
  { of: "person", name: SAM, like: "sam", letters: ["\u0430 (U+0430)"] },
  { of: "organisation", name: CLINIC, like: null, letters: ["\u0421 (U+0421)"] },
];
const SCRIPT = "<img src=x onerror=alert(1)><script>alert(2)</script>";

const REVIEW: Review = {
  study: "study",
  federation: "federation",
  study_digest: "aa",
  plan_digest: "bb",
  banners: [],
  title: `A study ${SCRIPT} \u202egnp.exe`,
  summary: `${SCRIPT} asks this site.`,
  state: "under_review",
  in_force: null,
  project: [{ label: "Purpose", value: `${SCRIPT} a\u200bb \u202edetrever ${"word ".repeat(400)}END` }],
  people: {
    facts: [{ label: "Who asks", value: SAM }],
    peers: [{ site: "one", name: "Site 1", organisation: CLINIC, trust: "asserted_only" }],
  },
  settings: [],
  data: {
    facts: [],
    columns_read: [SCRIPT, ...Array.from({ length: 1_000 }, (_, n) => `column ${n}`)],
    columns_missing: [],
    candidates: [],
    series: null,
  },
  outputs: { items: [], runs: 1, bytes_per_run: 0, bytes_in_all: 0, sentences: [] },
  privacy: null,
  computation: [SCRIPT],
  findings: [{ rule: "requester", refuses: false, words: SCRIPT }],
  marks: MARKS,
  changes: [{ place: SCRIPT, before: "a\u202eb", after: SCRIPT }],
  opinion: null,
  signatures: [],
  approval_digest: null,
  read: { digest: "r1", study: "aa", data: "dd", sites: "ss", policy: "pp", opinion: "oo" },
  approvable: true,
};

const read = (review: Partial<Review> = {}) =>
  screen.show(<ReviewScreen study="study" />, {
    review: { ...REVIEW, ...review },
    datasets: [],
    people: [],
    name_marks: [],
  });

const tab = (name: string) =>
  [...screen.place.querySelectorAll<HTMLElement>("[role=tab]")].find((t) => t.textContent?.startsWith(name));

beforeEach(() => {
  screen = new Screen();
});
afterEach(() => screen.away());

describe("a hostile request", () => {
  it("stays text wherever it stands", async () => {
    await read();
    for (const part of ["Project", "People", "Setting", "Data", "What leaves"]) {
      await screen.press(tab(part));
      expect(screen.place.querySelectorAll("img, script")).toHaveLength(0);
    }
    expect(screen.text()).toContain(SCRIPT);
    expect(screen.place.querySelector("h1")?.textContent).toBe(`A study ${SCRIPT} [U+202E]gnp.exe`);
  });

  it("hides nothing and turns nothing round", async () => {
    await read();
    expect(screen.text()).toContain("a[U+200B]b [U+202E]detrever");
    expect(screen.text()).not.toMatch(/[\u202e\u200b]/u);
  });

  it("is folded where it is long, and shown in full when asked", async () => {
    await read();
    expect(screen.text()).not.toContain("END");
    const all = [...screen.place.querySelectorAll("button")].find((b) =>
      /^Show all \(2,\d{3} characters\)$/.test(b.textContent ?? ""),
    );
    expect(all?.getAttribute("aria-expanded")).toBe("false");
    await screen.press(all);
    expect(screen.text()).toContain("END");
    await screen.press(screen.button("Show less"));
    expect(screen.text()).not.toContain("END");
    await screen.press(tab("Data"));
    expect(screen.text()).not.toContain("column 999");
    await screen.press(screen.button("Show all 1,001 columns"));
    expect(screen.text()).toContain("column 999");
  });

  it("of a megabyte costs no more than its beginning", async () => {
    await read({ project: [{ label: "Purpose", value: `a${"\u{1f600}".repeat(1 << 18)}` }] });
    const values = [...screen.place.querySelectorAll("dd")].map((value) => value.textContent ?? "");
    const value = values.find((text) => text.startsWith("a\u{1f600}")) ?? "";
    expect(value).toContain("Show all (524,289 characters)");
    expect(value.length).toBeLessThan(1_000);
    // Nothing is cut within a character, of which no address could be made.
    expect(() => encodeURIComponent(value)).not.toThrow();
  });

  it.each(Object.keys(LANGUAGES) as Language[])(
    "says in %s which names to look at twice",
    async (language) => {
      await read();
      const words = () => screen.text();
      expect(words()).toContain("looks like ‹sam›, but has other letters: \u0430 (U+0430)");
      expect(words()).toContain("mixes letters of different scripts: \u0421 (U+0421)");
      await changeLanguage(language);
      await screen.settle();
      const expected = {
        en: "looks like ‹sam›",
        de: "sieht aus wie ‹sam›",
        fr: "ressemble à ‹sam›",
        zh: "看起来像 ‹sam›",
      };
      expect(words()).toContain(expected[language]);
      expect(words()).toContain("(U+0430)");
      expect(await screen.faults()).toEqual([]);
    },
  );

  it("says so where it names more than are shown", async () => {
    await read();
    expect(screen.text()).not.toContain("there may be more");
    await screen.away();
    screen = new Screen();
    const letters = ["\u0445 (U+0445)"];
    const mark = (n: number): NameMark => ({ of: "column", name: `\u0445y${n}`, like: null, letters });
    await read({ marks: Array.from({ length: 100 }, (_, n) => mark(n)) });
    expect(screen.text()).toContain("Only the first 100 are named; there may be more.");
  });

  it("has the mark beside the name of a member", async () => {
    await read();
    await screen.press(tab("People"));
    const row = screen.place.querySelector("tbody tr")?.textContent;
    expect(row).toContain(`${CLINIC}mixes letters of different scripts`);
  });
});

describe("people of the site", () => {
  it("are marked where two look alike", async () => {
    const person = (name: string): PersonView => ({
      id: name === "sam" ? "p" : name,
      name,
      roles: ["data_steward"],
      organisation: null,
      state: "active",
      key: "k",
    });
    const answers = { people: [person("sam"), person(SAM)], proposals: [], status: { phase: "operating" } };
    await screen.show(<PeopleSettings />, { ...answers, name_marks: MARKS }, "Stefan");
    const rows = [...screen.place.querySelectorAll("tbody tr")].map((row) => row.textContent);
    expect(rows[0]).not.toContain("looks like");
    expect(rows[1]).toContain("looks like ‹sam›");
    expect(await screen.faults()).toEqual([]);
  });
});

describe("what cannot be seen", () => {
  it("is written as its number, and all other letters as they are", () => {
    const hidden = [
      "\u202e",
      "\u2066",
      "\u200b",
      "\ufeff",
      "\u00ad",
      "\u3164",
      "\u{e0041}",
      "\u001b",
      "\ue000",
    ];
    for (const c of hidden) expect(visible(`a${c}b`)).toMatch(/^a\[U\+[0-9A-F]{4,6}\]b$/);
    for (const text of [
      "Universitätsklinikum Köln",
      "東京大学病院",
      "مستشفى",
      "α ≤ β\n\tnext",
      "1\u202f000 %",
    ])
      expect(visible(text)).toBe(text);
  });

  it("does not stack up over the lines beside it", () => {
    expect(visible(`a${"\u0301".repeat(6)}b`)).toBe(`a${"\u0301".repeat(4)}[U+0301][U+0301]b`);
    // As much as Vietnamese and Hebrew need.
    expect(visible("e\u0302\u0323")).toBe("e\u0302\u0323");
  });

  it("turns nothing round that follows a name", () => {
    expect(within("مستشفى")).toBe("\u2068مستشفى\u2069");
    expect([within("Köln"), within("東京"), within("a\u202eb")]).toEqual(["Köln", "東京", "a[U+202E]b"]);
  });

  it("is not cut within a character", () => {
    expect(beginning("a\u{1f600}b", 2)).toBe("a");
    expect([beginning("a\u{1f600}b", 3), beginning("ab", 5)]).toEqual(["a\u{1f600}", "ab"]);
  });
});
