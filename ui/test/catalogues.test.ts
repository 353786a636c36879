import { describe, expect, it } from "vitest";
import { catalogues, LANGUAGES, type Language, sentences } from "../src/i18n";

type Tree = { [key: string]: string | Tree };

const FORMS = /_(zero|one|two|few|many|other)$/;

function flat(tree: Tree, before = ""): Map<string, string> {
  const found = new Map<string, string>();
  for (const [key, value] of Object.entries(tree)) {
    if (typeof value === "string") found.set(before + key, value);
    else for (const [inner, text] of flat(value, `${before}${key}.`)) found.set(inner, text);
  }
  return found;
}

const all = new Map(
  await Promise.all(
    Object.entries(catalogues()).map(async ([language, tree]) => {
      const said = await sentences(language as Language);
      return [language, flat({ ...tree, said })] as const;
    }),
  ),
);
const english = all.get("en") ?? new Map<string, string>();

/** A key without the ending that names a plural form. */
const stem = (key: string) => key.replace(FORMS, "");
const stems = (texts: Map<string, string>) => new Set([...texts.keys()].map(stem));
/** Keys that have plural forms. */
const plurals = new Set([...english.keys()].filter((key) => FORMS.test(key)).map(stem));

function placeholders(text: string): string[] {
  return [...new Set([...text.matchAll(/\{\{\s*([^},\s]+)/g)].map((match) => match[1] ?? ""))].sort();
}

const sources = Object.values(
  import.meta.glob<string>("../src/**/*.{ts,tsx}", { eager: true, query: "?raw", import: "default" }),
);
const code = sources.join("\n");

/** Keys that stand in the code as they are: all quoted words of the form `part.key`. */
const literal = new Set(
  [...code.matchAll(/["'`]([a-zA-Z]+(?:\.[A-Za-z_0-9]+)+)["'`]/g)].map((m) => m[1] ?? ""),
);
/** Beginnings of keys of which the end is computed. */
const computed = [...code.matchAll(/`([a-zA-Z]+(?:\.[A-Za-z_0-9]+)*[._])\$\{/g)].map(
  (match) => match[1] ?? "",
);
/** Lists whose names come from the engine: `named("words.role", …)`. */
const lists = [...code.matchAll(/named\(\s*"([^"]+)"/g)].map((match) => `${match[1]}.`);

describe("catalogues", () => {
  it("exist for every language that can be chosen, and no other", () => {
    expect([...all.keys()].sort()).toEqual(Object.keys(LANGUAGES).sort());
  });

  it.each(Object.keys(LANGUAGES))("say the same things in %s as in English", (language) => {
    expect([...stems(all.get(language) ?? new Map())].sort()).toEqual([...stems(english)].sort());
  });

  it.each(Object.keys(LANGUAGES))(
    "have every plural form that %s needs, and none that it has not",
    (language) => {
      const needed = new Intl.PluralRules(language).resolvedOptions().pluralCategories;
      const texts = all.get(language) ?? new Map<string, string>();
      for (const key of plurals) {
        const has = [...texts.keys()].filter((k) => FORMS.test(k) && stem(k) === key);
        // Nothing is a form of its own in i18next, for those who want it.
        const forms = has.map((k) => k.slice(key.length + 1)).filter((form) => form !== "zero");
        expect(forms.sort(), `${language}: ${key}`).toEqual([...needed].sort());
      }
    },
  );

  it.each(Object.keys(LANGUAGES))("use the same placeholders in %s as in English", (language) => {
    for (const [key, text] of all.get(language) ?? new Map<string, string>()) {
      const other = english.get(key) ?? english.get(`${stem(key)}_other`) ?? "";
      const allowed = placeholders(other);
      // A form for one thing, or for none, may leave the number out.
      const optional = FORMS.test(key) ? ["count"] : [];
      const used = placeholders(text);
      expect(
        used.filter((p) => !allowed.includes(p)),
        `${language}: ${key}`,
      ).toEqual([]);
      expect(
        allowed.filter((p) => !used.includes(p) && !optional.includes(p)),
        `${language}: ${key}`,
      ).toEqual([]);
    }
  });

  it.each(Object.keys(LANGUAGES))("leave no text empty in %s", (language) => {
    for (const [key, text] of all.get(language) ?? new Map<string, string>()) {
      expect(text.trim(), `${language}: ${key}`).not.toBe("");
    }
  });

  it("have every key that the page names", () => {
    const known = new Set([...english.keys(), ...stems(english)]);
    const parts = new Set([...english.keys()].map((key) => key.split(".")[0]));
    const missing = [...literal].filter((key) => {
      const isKey = parts.has(key.split(".")[0] ?? "");
      const isList = [...known].some((k) => k.startsWith(`${key}.`));
      return isKey && !known.has(key) && !isList;
    });
    expect(missing).toEqual([]);
  });

  it("have no key that the page does not name", () => {
    const begun = [...computed, ...lists, "facts."];
    const unused = [...stems(english)].filter(
      (key) => !literal.has(key) && !begun.some((beginning) => key.startsWith(beginning)),
    );
    expect(unused).toEqual([]);
  });

  it("never say that something was done successfully, and never shout", () => {
    for (const [key, text] of english) {
      expect(text, key).not.toMatch(/successfully|!/i);
    }
  });
});
