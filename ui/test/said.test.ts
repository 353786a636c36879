import { afterEach, describe, expect, it } from "vitest";
import { catalogues, LANGUAGES, type Language, speak, spoken } from "../src/i18n";
import facts from "../src/i18n/en/facts.json";
import { one, phraseKey, said } from "../src/i18n/said";
import unsaid from "./unsaid.json";

/** Sources of all that a window can show of the engine: its errors, reasons, findings and reports. */
const sources = import.meta.glob<string>(
  [
    "../../crates/{cohort,ipc,party}/src/**/*.rs",
    "../../crates/ledger/src/{error,export,leaf,note,verify,witness}.rs",
    "../../crates/ledger/src/verify/*.rs",
    "../../crates/privacy/src/{duo,error,quantise}.rs",
    "../../crates/privacy/src/disclosure/*.rs",
    "../../crates/protocol/src/{canon,enrol,id,policy,release,text,version}.rs",
    "../../crates/protocol/src/study/roster.rs",
    "../../crates/protocol/src/{approval,round}/*.rs",
    "!../../crates/*/src/**/tests/**",
    "!../../crates/*/src/**/*tests.rs",
    // Names of columns and statements.
    "!../../crates/party/src/store/**",
    // The review for a terminal, whose words are those of the review itself.
    "!../../crates/party/src/requests/text.rs",
    "!../../crates/party/src/{seam,simulation}.rs",
    "!../../crates/ipc/src/{command,typescript}.rs",
  ],
  { eager: true, query: "?raw", import: "default" },
);

/** A comment, a text, a letter, what is only logged or asserted, or a bracket. */
const STEP =
  /\/\/[^\n]*|b?r#"[\s\S]*?"#|b?"((?:[^"\\]|\\[\s\S])*)"|'(?:[^'\\\n]|\\[^\n])'|'\\u\{[0-9a-fA-F]+\}'|((?:tracing::\w+|(?:debug_)?assert(?:_eq|_ne)?|matches|panic|unreachable)!\()|([()])/g;
/** What stands before a text that names a step of the store, or a statement. */
const BEFORE = /(?:\.at\(|begin\(|expect\(|query\w*(?:::<[^(]*>)?\(|step: |reason = |serde\([^\n]*)\s*$/;
const STATEMENT =
  /^\s*(?:SELECT|INSERT|UPDATE|DELETE|CREATE|PRAGMA|WITH|BEGIN|COMMIT|ALTER|DROP|VACUUM|ATTACH)\b/;
const TESTS = /^#\[cfg\((?:all\()?test\b[^\n]*\n(?:#\[[^\n]*\n)*mod \w+ \{/m;

/** A text of the sources with all its places alike, in small letters. */
function normal(text: string): string {
  const plain = text.replaceAll(/\\\r?\n\s*/g, "").replaceAll('\\"', '"').replaceAll("\\n", "\n");
  const [open, close] = ["\u0001", "\u0002"];
  const places = plain.replaceAll("{{", open).replaceAll("}}", close).replaceAll(/\{[^{}]*\}/g, "{}");
  return places.replaceAll(open, "{").replaceAll(close, "}").toLowerCase();
}

/** All texts of a source, and those of two words and more that may be shown. */
function texts(source: string): { all: string[]; shown: string[] } {
  const tests = TESTS.exec(source);
  const code = tests === null ? source : source.slice(0, tests.index);
  const all: string[] = [];
  const shown: string[] = [];
  let depth = 0;
  for (const step of code.matchAll(STEP)) {
    const [, text, macro, bracket] = step;
    if (macro !== undefined) depth += 1;
    else if (bracket !== undefined) depth = depth === 0 ? 0 : depth + (bracket === "(" ? 1 : -1);
    if (text === undefined) continue;
    const words = normal(text);
    all.push(words);
    const before = code.slice(Math.max(0, step.index - 120), step.index);
    const isShown = depth === 0 && !STATEMENT.test(text) && !BEFORE.test(before);
    const count = words.replaceAll("{}", " ").match(/[a-z]{2,}/g)?.length ?? 0;
    if (isShown && words.trim().includes(" ") && count >= 2) shown.push(words);
  }
  return { all, shown };
}

const found = Object.entries(sources).map(([path, source]) => ({ path, ...texts(source) }));
const sentences = Object.entries(spoken()).flatMap(([part, codes]) =>
  Object.entries(codes).map(([code, english]) => ({ key: `${part}.${code}`, english })),
);
/** A sentence of the catalogue as a text of the sources. */
const asSource = (english: string) => english.replaceAll(/\{\{[^}]*\}\}/g, "{}").toLowerCase();

/** Something for each place. */
const EXAMPLES: Record<string, string> = {
  text: "Herz",
  id: "abc1",
  number: "7",
  moment: "2026-01-02T03:04:05.000Z",
  time: "08:00",
  said: " without bias",
  words: "the round is over",
  list: "Alpha, Beta",
};
const example = (english: string) =>
  english.replaceAll(/\{\{\w+(?:, (\w+))?\}\}/g, (_, kind = "text") => EXAMPLES[kind as string] ?? "?");

const others = Object.keys(LANGUAGES).filter((language) => language !== "en") as Language[];

afterEach(() => speak("en"));

describe("sentences of the engine", () => {
  it("stand in the catalogue, every one", () => {
    expect(found.length).toBeGreaterThan(150);
    const known = new Set(sentences.map(({ english }) => asSource(english)));
    const exempt = new Set(Object.values(unsaid).flat());
    const missing = found.flatMap(({ path, shown }) =>
      shown
        .filter((text) => !known.has(text) && !exempt.has(text) && !(phraseKey(text).slice(6) in facts))
        .map((text) => `${path}: ${text}`),
    );
    // Write it into said/*.json of each language, or into unsaid.json where no window shows it.
    expect(missing).toEqual([]);
  });

  it("stand in the catalogue only if the engine says them", () => {
    const all = new Set(found.flatMap((source) => source.all));
    const code = Object.values(sources).join("\n").toLowerCase();
    // A word may be the name of a variant that is shown as it is.
    const isSaid = (text: string) => all.has(text) || (/^\w+$/.test(text) && code.includes(text));
    expect(sentences.filter(({ english }) => !isSaid(asSource(english))).map(({ key }) => key)).toEqual([]);
    const shown = new Set(found.flatMap((source) => source.shown));
    expect(
      Object.values(unsaid)
        .flat()
        .filter((text) => !shown.has(text)),
    ).toEqual([]);
  });

  it("have places of kinds that are known, each once", () => {
    for (const { key, english } of sentences) {
      const places = [...english.matchAll(/\{\{(\w+)(?:, (\w+))?\}\}/g)];
      expect(new Set(places.map(([, name]) => name)).size, key).toBe(places.length);
      for (const [, , kind = "text"] of places) expect(Object.keys(EXAMPLES), key).toContain(kind);
    }
  });

  it.each(others)("are read, each as itself, and said in %s", (language) => {
    speak(language);
    const tree = catalogues()[language]?.said as Record<string, Record<string, string>>;
    for (const { key, english } of sentences) {
      const [part = "", code = ""] = key.split(".");
      const words = tree[part]?.[code] ?? "";
      const text = one(example(english));
      // What stands between the places is this language's.
      const fixed = words.split(/\{\{\w+\}\}/);
      expect(text, key).not.toBeNull();
      for (const piece of fixed) expect(text, key).toContain(piece);
      expect(text, key).not.toMatch(/\{\{|\}\}/);
    }
  });

  it.each(others)("differ from English in %s, but for words that are the same", (language) => {
    const tree = catalogues()[language]?.said as Record<string, Record<string, string>>;
    const same = sentences.filter(({ key, english }) => {
      const [part = "", code = ""] = key.split(".");
      const words = tree[part]?.[code];
      return words === english.replaceAll(/, \w+\}\}/g, "}}") && / \w+ \w+/.test(asSource(english));
    });
    expect(same.map(({ key }) => key)).toEqual([]);
  });
});

describe("words of the engine", () => {
  it("are read with their numbers, moments and names", () => {
    speak("de");
    const runs = one("up to 1200 runs are allowed; in each, everything listed leaves again");
    expect(runs).toMatch(/^bis zu 1.200 Läufe/);
    expect(one("the approval expired at 2026-01-02T03:04:05.000Z")).toMatch(/2026/);
    expect(one("the dataset has no column age, sex")).toBe("dem Datensatz fehlt age, sex");
  });

  it("are read where several follow each other", () => {
    speak("de");
    expect(said("the worker process failed: it could not be started: no such file")).toBe(
      "der Arbeitsprozess ist fehlgeschlagen: es konnte nicht gestartet werden: „no such file“",
    );
    expect(said("give the first signature needs the role data steward or data-access approver")).toBe(
      "dafür (die erste Unterschrift geben) braucht es die Rolle Datenverantwortung oder Zugriffsfreigabe",
    );
    speak("zh");
    expect(said("name: is empty")).toBe("姓名：为空");
  });

  it("are read where only the words tell where one ends", () => {
    speak("de");
    const fit = one(
      "fits a linear regression together with the other sites, with 'age' as offset, with 'w' as weights, in at most 3 " +
        "rounds; each sends sums over its rows, and the coordinator can read each site's sums",
    );
    expect(fit).toContain("mit „age“ als Offset, mit „w“ als Gewichte");
  });

  it("of somebody else are no sentence of the engine", () => {
    speak("de");
    for (const text of ["the weather is fine", "ja: nein", "Köln", "", "ENOENT (os error 2)"]) {
      expect(said(text), text).toBeNull();
    }
  });

  it("say the summary of a request", () => {
    speak("fr");
    const summary = said(
      "Ana (CHU) asks this site and 2 others to compute 'heart'. It uses 3 of 5 columns of 'cohort', 80 patients. 4 " +
        "things leave this site, 900 bytes in one run.",
    );
    expect(summary).toBe(
      "Ana (CHU) demande à ce site et à 2 autres de calculer « heart ». Elle utilise 3 colonnes sur 5 de « cohort », " +
        "80 patients. 4 éléments quittent ce site, 900 octets par exécution.",
    );
  });
});
