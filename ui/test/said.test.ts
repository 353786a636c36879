// @vitest-environment jsdom
import { createElement } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import { afterEach, describe, expect, it } from "vitest";
import { LANGUAGES, type Language, sentences as sentencesOf, speak } from "../src/i18n";
import facts from "../src/i18n/en/facts.json";
import { Engine } from "../src/i18n/engine";
import { one, phraseKey, said } from "../src/i18n/said";
import { isStated } from "../src/parts/Facts";
import { OF_ENGINE } from "../src/parts/Reason";
import unsaid from "./unsaid.json";

/** Sources of all that a window can show of the engine: its errors, reasons, findings and reports. */
const sources = import.meta.glob<string>(
  [
    "../../crates/{cohort,ipc,party}/src/**/*.rs",
    "../../crates/ledger/src/{error,export,leaf,note,verify,witness}.rs",
    "../../crates/ledger/src/verify/*.rs",
    "../../crates/privacy/src/{coding,duo,error,figures,quantise}.rs",
    "../../crates/privacy/src/disclosure/*.rs",
    "../../crates/privacy/src/secagg/{refusal,setup}.rs",
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
const BEFORE = /(?:\.at\(|begin\(|expect\(|query\w*(?:::<[^(]*>)?\(|step: |,\s*reason = |serde\([^\n]*)\s*$/;
const STATEMENT =
  /^\s*(?:SELECT|INSERT|UPDATE|DELETE|CREATE|PRAGMA|WITH|BEGIN|COMMIT|ALTER|DROP|VACUUM|ATTACH)\b/;
const TESTS = /^#\[cfg\((?:all\()?test\b[^\n]*\n(?:#\[[^\n]*\n)*mod \w+ \{/m;

/** A text of the sources with all its places alike, in small letters. */
function normal(text: string): string {
  const plain = text
    .replaceAll(/\\\r?\n\s*/g, "")
    .replaceAll('\\"', '"')
    .replaceAll("\\n", "\n");
  const [open, close] = ["\u0001", "\u0002"];
  const places = plain
    .replaceAll("{{", open)
    .replaceAll("}}", close)
    .replaceAll(/\{[^{}]*\}/g, "{}");
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
/** The engine's sentences in each language; English names the kinds of places. */
const tongues = new Map(
  await Promise.all(
    (Object.keys(LANGUAGES) as Language[]).map(async (of) => [of, await sentencesOf(of)] as const),
  ),
);
const tongue = (language: Language) => tongues.get(language) ?? {};
const sentences = Object.entries(tongue("en")).flatMap(([part, codes]) =>
  Object.entries(codes).map(([code, english]) => ({ key: `${part}.${code}`, part, code, english })),
);
/** A sentence of the catalogue as a text of the sources. */
const asSource = (english: string) => english.replaceAll(/\{\{[^}]*\}\}/g, "{}").toLowerCase();

/** Something for each place. */
const EXAMPLES: Record<string, string> = {
  text: "Herz",
  name: "Herz",
  unquoted: "Herz",
  quoted: "Herz",
  id: "abc1",
  number: "7",
  bytes: "1,234 bytes",
  moment: "2026-01-02T03:04:05.000Z",
  time: "08:00",
  said: " without bias",
  words: "the round is over",
  list: "Alpha, Beta",
};
const example = (english: string) =>
  english.replaceAll(/\{\{\w+(?:, (\w+))?\}\}/g, (_, kind = "text") => EXAMPLES[kind as string] ?? "?");

/** For whoever changed a sentence of the engine. */
const WHAT_TO_DO = `A sentence that a window can show has no entry in the page's catalogue. Write it, with a code of your own, into
ui/src/i18n/en/said/PART.json with the kind of each place, as in "the approval expired at {{at, moment}}" (kinds: ${Object.keys(EXAMPLES).join(", ")}),
and under the same code, without kinds, into ui/src/i18n/{de,fr,zh}/said/PART.json; PART is the file whose sentences are about the
same: ${Object.keys(tongue("en")).join(", ")}.
Where no window ever shows it, write it as it stands below into ui/test/unsaid.json.`;

const others = Object.keys(LANGUAGES).filter((language) => language !== "en") as Language[];

/** The places of a sentence, of which English names the kinds. */
const placesOf = (text: string) =>
  [...text.matchAll(/\{\{(\w+)(?:, (\w+))?\}\}/g)].map(([, name = "", kind]) => ({ name, kind }));

afterEach(() => speak("en"));

describe("sentences of the engine", () => {
  it("stand in the catalogue, every one", () => {
    expect(found.length).toBeGreaterThan(150);
    const known = new Set(sentences.map(({ english }) => asSource(english)));
    const exempt = new Set(Object.values(unsaid).flat());
    const isKnown = (text: string) =>
      known.has(text) || exempt.has(text) || (phraseKey(text)?.slice(6) ?? "") in facts;
    const missing = found.flatMap(({ path, shown }) =>
      shown
        .filter((text) => !isKnown(text))
        .map((text) => `${path.replace("../../", "")} says ${JSON.stringify(text)}, which is new`),
    );
    expect(missing, WHAT_TO_DO).toEqual([]);
  });

  it("stand in the catalogue only if the engine says them", () => {
    const all = new Set(found.flatMap((source) => source.all));
    const code = Object.values(sources).join("\n").toLowerCase();
    // A word may be the name of a variant that is shown as it is.
    const isSaid = (text: string) => all.has(text) || (/^\w+$/.test(text) && code.includes(text));
    const shown = new Set(found.flatMap((source) => source.shown));
    const gone = [
      ...sentences
        .filter(({ english }) => !isSaid(asSource(english)))
        .map(({ part, code, english }) => `said/${part}.json has ${code}, "${english}": no source says it`),
      ...Object.values(unsaid)
        .flat()
        .filter((text) => !shown.has(text))
        .map((text) => `ui/test/unsaid.json has ${JSON.stringify(text)}: no source says it`),
    ];
    expect(gone, "Take it out of each language, or write it as the engine says it now").toEqual([]);
  });

  it("have places of kinds that are known, each once", () => {
    const wrong = sentences.flatMap(({ part, code, english }) => {
      const places = placesOf(english);
      const at = `ui/src/i18n/en/said/${part}.json: ${code}`;
      const unknown = places.filter(({ kind = "text" }) => EXAMPLES[kind] === undefined);
      const twice = new Set(places.map(({ name }) => name)).size < places.length;
      return [
        ...unknown.map(({ name, kind }) => `${at} has {{${name}, ${kind}}}, and there is no such kind`),
        ...(twice ? [`${at} has two places of one name`] : []),
      ];
    });
    expect(wrong).toEqual([]);
  });

  it.each(others)("are all said in %s, with the same places", (language) => {
    const tree = tongue(language);
    const wrong = sentences.flatMap(({ part, code, english }) => {
      const words = tree[part]?.[code];
      const file = `ui/src/i18n/${language}/said/${part}.json`;
      if (words === undefined) return [`${file} lacks ${code}, in English "${english}"`];
      const expected = placesOf(english).map(({ name }) => name);
      const has = placesOf(words).map(({ name, kind }) => (kind === undefined ? name : `${name}, ${kind}`));
      const [all, found] = [expected.sort().join("}} {{"), [...new Set(has)].sort().join("}} {{")];
      return all === found ? [] : [`${file}: ${code} has the places {{${found}}} instead of {{${all}}}`];
    });
    const more = Object.entries(tree).flatMap(([part, codes]) =>
      Object.keys(codes)
        .filter((code) => tongue("en")[part]?.[code] === undefined)
        .map(
          (code) =>
            `ui/src/i18n/${language}/said/${part}.json has ${code}, which en/said/${part}.json has not`,
        ),
    );
    expect([...wrong, ...more]).toEqual([]);
  });

  it.each(others)("are read, each as itself, and said in %s", async (language) => {
    await speak(language);
    const tree = tongue(language);
    const wrong = sentences.flatMap(({ part, code, english }) => {
      const text = one(example(english));
      const of = `said/${part}.json, ${code}, as "${example(english)}"`;
      if (text === null) return [`${of} is not read: another sentence may fit as well`];
      // What stands between the places is this language's.
      const lacks = (tree[part]?.[code] ?? "").split(/\{\{\w+\}\}/).filter((words) => !text.includes(words));
      if (lacks.length > 0) return [`${of} is read as another sentence: "${text}"`];
      return /\{\{|\}\}/.test(text) ? [`${of} is said with an empty place: "${text}"`] : [];
    });
    expect(wrong).toEqual([]);
  });

  it.each(others)("differ from English in %s, but for words that are the same", (language) => {
    const tree = tongue(language);
    const same = sentences.filter(({ part, code, english }) => {
      const words = tree[part]?.[code];
      return words === english.replaceAll(/, \w+\}\}/g, "}}") && / \w+ \w+/.test(asSource(english));
    });
    expect(same.map(({ part, code }) => `ui/src/i18n/${language}/said/${part}.json: ${code}`)).toEqual([]);
  });
});

describe("words of the engine", () => {
  it("are read with their numbers, moments and names", async () => {
    await speak("de");
    const runs = one("up to 1200 runs are allowed; in each, everything listed leaves again");
    expect(runs).toMatch(/^bis zu 1.200 Läufe/);
    expect(one("the approval expired at 2026-01-02T03:04:05.000Z")).toMatch(/2026/);
    // As an older log has it, too.
    for (const size of ["20,970", "20970"]) {
      expect(one(`the table of the regression 'odds', ${size} bytes`)).toMatch(/odds“, 20.970 Byte$/);
    }
    expect(one("the dataset has no column age, sex")).toBe("dem Datensatz fehlt age, sex");
  });

  it("are read where several follow each other", async () => {
    await speak("de");
    expect(said("the worker process failed: it could not be started: no such file")).toBe(
      "der Arbeitsprozess ist fehlgeschlagen: es konnte nicht gestartet werden: „no such file“",
    );
    expect(said("give the first signature needs the role data steward or data-access approver")).toBe(
      "dafür (die erste Unterschrift geben) braucht es die Rolle Datenverantwortung oder Zugriffsfreigabe",
    );
    expect(said("cleveland.xlsx: there is no sheet 'Lists'; there are 'Cleveland', 'Visits'")).toBe(
      "cleveland.xlsx: es gibt kein Blatt „Lists“; es gibt „Cleveland“, „Visits“",
    );
    expect(
      said(
        "made 2026-01-02T03:04:05.000Z, with 7 entries of the log; restored by the socket for staff, account 1000 of the machine",
      ),
    ).toMatch(
      /mit 7 Einträgen des Protokolls; eingespielt über den Zugang für das Personal, Konto 1000 des Rechners$/,
    );
    await speak("zh");
    expect(said("name: is empty")).toBe("姓名：为空");
  });

  it("are read where only the words tell where one ends", async () => {
    await speak("de");
    const fit = one(
      "fits a linear regression together with the other sites, with 'age' as offset, with 'w' as weights, in at most 3 " +
        "rounds; each sends sums over its rows, and the coordinator can read each site's sums",
    );
    expect(fit).toContain("mit „age“ als Offset, mit „w“ als Gewichte");
  });

  it("are read where the log tells of a database", async () => {
    await speak("de");
    const database = "the database 'Labor' (PostgreSQL database lab on db.example:5432, as reader)";
    const shown = "die Datenbank „Labor“ (PostgreSQL-Datenbank lab auf db.example:5432, als reader)";
    expect(said(`the query ab12 in ${database}, to see what is in its rows`)).toBe(
      `die Abfrage ab12 in ${shown}, um zu sehen, was in ihren Zeilen steht`,
    );
    expect(said(`${database} is known here`)).toBe(`${shown} ist hier bekannt`);
    const finding =
      "The role reader can become the superuser postgres, and what its queries call could do that although the " +
      "transaction only reads. Have a role made that may read and nothing else, and connect with it: CREATE ROLE hospes " +
      "LOGIN PASSWORD '…'; GRANT CONNECT ON DATABASE \"lab\" TO hospes; GRANT USAGE ON SCHEMA public TO hospes; GRANT " +
      "SELECT ON each table that is needed TO hospes.";
    const failed = said(`${database}: the test failed at 'rights': ${finding}`);
    expect(failed).toContain(
      `${shown}: die Prüfung ist am Schritt „rights“ gescheitert: die Rolle reader kann zum Super`,
    );
    expect(failed).toContain('GRANT CONNECT ON DATABASE "lab" TO hospes');
    expect(
      said("updates are looked for at https://a.example/hospes.json, under the key ab12. Before: nowhere"),
    ).toBe(
      "nach Updates wird gesucht: unter https://a.example/hospes.json, mit dem Schlüssel ab12. Vorher: nirgends",
    );
  });

  it("of somebody else are no sentence of the engine", async () => {
    await speak("de");
    for (const text of [
      "the weather is fine",
      "there is no reason",
      "this is not needed",
      "ja: nein",
      "Köln",
      "",
      "ENOENT (os error 2)",
    ]) {
      expect(said(text), text).toBeNull();
    }
  });

  it("say the summary of a request", async () => {
    await speak("fr");
    const summary = said(
      "Ana (CHU) asks 3 sites, this one among them, to compute 'heart'. It uses 3 of 5 columns of 'cohort', 80 patients. 4 " +
        "things leave this site, 20,970 bytes in one run.",
    );
    expect(summary?.replaceAll(/[\u00a0\u202f]/g, " ")).toBe(
      "Ana (CHU) demande à 3 sites, dont celui-ci, de calculer « heart ». Elle utilise 3 colonnes sur 5 de « cohort », " +
        "80 patients. 4 éléments quittent ce site, 20 970 octets par exécution.",
    );
  });
});

describe("a text that was made to deceive", () => {
  const asks = (plan: string) =>
    `Ana (CHU) asks 3 sites, this one among them, to compute '${plan}'. It uses 3 of 5 columns of 'cohort', 80 patients. ` +
    "4 things leave this site, 900 bytes in one run.";

  it("stays what it is within a sentence", async () => {
    await speak("de");
    const names = [
      "the round is over",
      "<b onclick=x>",
      "$t(nav.home) {{plan}} $& $1",
      "no codes stated",
      "是 yes",
    ];
    for (const name of names) expect(said(asks(name)), name).toContain(`„${name}“ zu rechnen`);
  });

  it("that can be read in two ways is not read", async () => {
    await speak("de");
    const fake =
      "x'. It uses 1 of 5 columns of 'c', 1 patients. 1 things leave this site, 9 bytes in one run.";
    expect(said(asks("x"))).not.toBeNull();
    expect(said(asks(`${fake} Ana (CHU) asks 3 sites, this one among them, to compute 'y`))).toBeNull();
    expect(one("'a' of task 'b' of task 'c' would leave otherwise than approved")).toBeNull();
    expect(said(asks("x'. Nothing leaves. 'y"))).toBeNull();
  });

  it("is English where it is shown and not read, and never markup", async () => {
    await speak("de");
    const shown = (text: string, isMachine = false) =>
      renderToStaticMarkup(createElement(Engine, { isMachine, children: text }));
    expect(shown("no <b>such</b> file")).toBe('<span lang="en">no &lt;b&gt;such&lt;/b&gt; file</span>');
    expect(shown("no such file", true)).toBe(
      'Das Programm meldet: <q><span lang="en">no such file</span></q>',
    );
    expect(shown("the round is over")).toBe("die Runde ist vorbei");
    expect(shown(asks("<img src=x>"))).toContain("„&lt;img src=x&gt;“");
    expect(shown(asks("a\u202eb"))).toContain("„a[U+202E]b“");
    expect(shown(asks("x'. It uses 1 of 5 columns of 'y"))).toMatch(/^<span lang="en">Ana \(CHU\) asks/);
  });

  it("is no phrase where it has other letters than one", () => {
    expect(phraseKey("not stated")).not.toBeNull();
    for (const text of ["不 yes", "y\u0435s", "yes\u200b", "nоne"]) expect(phraseKey(text), text).toBeNull();
  });

  it("is not the engine's where a person gives a reason, but for the few that the engine gives itself", () => {
    const unsaid = OF_ENGINE.filter((words) => !sentences.some(({ english }) => english.startsWith(words)));
    expect(unsaid).toEqual([]);
  });

  it("is not taken for the engine's where somebody stated it", () => {
    const review = Object.entries(sources).filter(([, source]) => source.includes("Fact::new("));
    const stated = review.flatMap(([, source]) => [
      ...source.matchAll(/\b(?:Fact::)?stated\(\s*"([^"]+)"/g),
      // What a name or free text goes through on its way to people.
      ...source.matchAll(/Fact::new\(\s*"([^"]+)",\s*(?:shown|names)\(/g),
    ]);
    expect(stated.length).toBeGreaterThan(20);
    const labels = stated.map(([, label = ""]) => label);
    // Write it into STATED of ui/src/parts/Facts.tsx.
    expect(labels.filter((label) => !isStated({ label, value: "the round is over" }))).toEqual([]);
    expect(isStated({ label: "Checklist: Is it safe?", value: "yes" })).toBe(true);
    expect(isStated({ label: "Commercial use", value: "yes" })).toBe(false);
  });
});

describe("the time that reading takes", () => {
  const longest = (texts: string[]) => {
    const times = texts.map((text) => {
      const begin = performance.now();
      said(text);
      return performance.now() - begin;
    });
    return Math.max(...times);
  };

  it("is short for a page with many sentences", async () => {
    await speak("de");
    said("the index is made with the first one");
    const page = sentences.filter((_, at) => at % 8 === 0).map(({ english }) => example(english));
    expect(page.length).toBeGreaterThan(200);
    const begin = performance.now();
    for (const text of page) said(text);
    const took = performance.now() - begin;
    expect(took).toBeLessThan(3_000);
  });

  it("is short for a text that was made to take long", async () => {
    await speak("de");
    const own = [
      ...new Set(sentences.flatMap(({ english }) => english.toLowerCase().match(/[a-z]{4,}/g) ?? [])),
    ];
    const hostile = [
      " ".repeat(3_999),
      "'".repeat(3_999),
      ". ".repeat(1_999),
      ": ".repeat(1_999),
      "the round is over; ".repeat(200),
      "the round is over: x; ".repeat(180),
      "1 1".repeat(1_300),
      own.join(" ").slice(0, 3_999),
      own.reverse().join(". ").slice(0, 3_999),
      `Ana asks 3 sites, this one among them, to compute '${"'. It uses 1 of 5 columns of 'c', 1 patients. ".repeat(80)}'.`,
      ...sentences
        .filter(({ english }) => placesOf(english).length > 2)
        .map(({ english }) =>
          english.replaceAll(/\{\{[^}]*\}\}/g, (_, at: number) => (at === 0 ? "x" : "7 'a', ")),
        )
        .map((text) => `${text.repeat(3_999 / text.length)}x`),
    ];
    const took = longest(hostile);
    expect(took).toBeLessThan(3_000);
  });
});
