// Reads the engine's sentences, so that a person has them in their own language.
//
// The engine speaks English everywhere: its log is bound by hashes, and what it keeps and sends is read by auditors without
// this page. `en/said/*.json` lists its sentences, each under a code, with what may stand at each place behind the place's
// name; a test finds every sentence of the engine's sources there (ADR 0024).
import i18next from "i18next";
import { language, locale, type Sentences, spoken } from ".";
import { day, exactBytes, exactly, exactNumber, list } from "./format";
import {
  type Group,
  Index,
  type Kind,
  type Place,
  readings,
  type Sentence,
  sentence,
  small,
} from "./reading";

/** Longest text that is taken apart; what is longer comes from elsewhere. */
const LONGEST = 4_000;
/** Texts of which the reading is remembered. */
const REMEMBERED = 2_000;
/** Letters that are looked at for one text, its parts each for themselves: what needs more is no text of the engine. */
const LOOKED_AT = 60_000;
const MOMENT = /^\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d+)?Z)?$/;
const JOINTS: Record<string, string> = {
  ". ": "parts.joint.stop",
  "; ": "parts.joint.semicolon",
  ": ": "parts.joint.colon",
};

/** The key under which a fixed phrase of a review is translated; nothing for a text with other letters than English has. */
export function phraseKey(text: string): string | null {
  if (/[^ -~]/.test(text)) return null;
  const slug = text.toLowerCase().replaceAll(/[^a-z0-9]+/g, "_");
  return `facts.${slug.replaceAll(/^_|_$/g, "")}`;
}

interface Table {
  /** Keys of sentences without places, by their words in small letters. */
  fixed: Map<string, string>;
  open: Index;
}

let made: Table | null = null;

/** Nothing while the sentences are not read yet. */
function table(): Table | null {
  const sentences = spoken();
  if (sentences === null) return null;
  made ??= tableOf(sentences);
  return made;
}

function tableOf(all: Sentences): Table {
  const fixed = new Map<string, string>();
  const open: Sentence[] = [];
  for (const [part, sentences] of Object.entries(all)) {
    for (const [code, english] of Object.entries(sentences)) {
      const key = `said.${part}.${code}`;
      if (english.includes("{{")) open.push(sentence(key, english));
      else fixed.set(small(english), key);
    }
  }
  return { fixed, open: new Index(open) };
}

/** What a text says; nothing if it is no sentence of the engine; false if it can be read in two ways. */
type Read = string | null | false;

let remembered = new Map<string, Read>();
let rememberedIn = "";
/** Letters that may still be looked at; nothing while no text is being read. */
let left: number | null = null;

class TooLong extends Error {}

/** Reads a text, and leaves it where that takes too long. */
function within(read: () => string | null): string | null {
  if (left !== null) return read();
  left = LOOKED_AT;
  try {
    return read();
  } catch (error) {
    if (error instanceof TooLong) return null;
    throw error;
  } finally {
    left = null;
  }
}

function look(text: string): void {
  left = (left ?? 0) - text.length - 1;
  if (left < 0) throw new TooLong();
}

/** One sentence of the engine in the person's language, or nothing if it is none. */
export function one(text: string): string | null {
  return within(() => read(text) || null);
}

function read(text: string): Read {
  const all = table();
  if (all === null || text.length > LONGEST) return null;
  look(text);
  if (rememberedIn !== language() || remembered.size > REMEMBERED) {
    remembered = new Map();
    rememberedIn = language();
  }
  const known = remembered.get(text);
  if (known !== undefined) return known;
  const found = search(all, text);
  remembered.set(text, found);
  return found;
}

function search(all: Table, text: string): Read {
  const low = small(text);
  const key = all.fixed.get(low) ?? phraseKey(text);
  if (key !== null && i18next.exists(key)) return i18next.t(key);
  for (const sentence of all.open.of(low)) {
    const found = readings(sentence, text, low);
    if (found === null) continue;
    const replace = filled(sentence.groups, found.least) ?? filled(sentence.groups, found.most);
    if (replace !== null && !found.isOne) return false;
    // By `replace`, since a place may be called like one of the library's own options.
    if (replace !== null) return i18next.t(sentence.key, { replace });
  }
  return null;
}

function filled(groups: Group[], values: string[]): Record<string, string> | null {
  const replace: Record<string, string> = {};
  for (const [at, { places, gaps }] of groups.entries()) {
    const words = together(places, gaps, values[at] ?? "");
    if (words === null) return null;
    for (const [number, { name }] of places.entries()) replace[name] = words[number] ?? "";
  }
  return replace;
}

/** What stands at places in a row; nothing if the text cannot be told apart. */
function together([place, ...others]: Place[], [gap = "", ...gaps]: string[], text: string): string[] | null {
  if (place === undefined) return [];
  if (others.length === 0) {
    const only = shown(place.kind, text);
    return only === null ? null : [only];
  }
  // Neither is empty, if that can be.
  const inner = [...text.slice(1).matchAll(gap === "" ? /(?=[\s,;(])/g : / /g)].map(({ index }) => index + 1);
  for (const at of [...inner, text.length, 0]) {
    if (!text.startsWith(gap, at)) continue;
    const first = shown(place.kind, text.slice(0, at));
    const rest = first === null ? null : together(others, gaps, text.slice(at + gap.length));
    if (first !== null && rest !== null) return [first, ...rest];
  }
  return null;
}

/** What stands at a place, for the person; nothing if it cannot stand there. */
function shown(kind: Kind, value: string): string | null {
  switch (kind) {
    case "number":
      return exactNumber(Number(value));
    case "bytes":
      return exactBytes(Number(value.replaceAll(/\D/g, "")));
    case "moment":
      if (!MOMENT.test(value)) return value;
      return value.length > 10 ? exactly(Date.parse(value)) : day(Date.parse(value));
    case "said":
      return value === "" ? value : said(value, true);
    case "words":
      return value === "" ? value : (said(value) ?? quoted(value));
    case "list":
      return row(value);
    case "quoted":
      return value.split("', '").join(
        i18next
          .t("parts.quoted", { replace: { words: "\n" } })
          .split("\n")
          .reverse()
          .join(", "),
      );
    case "name":
      return nameless(value) ?? value;
    default:
      return value;
  }
}

/**
 * Words of the engine in the person's language: a sentence, or several with `. `, `; ` or `: ` between, of which the last
 * may be somebody else's, which is quoted. Nothing where it has none; with `isWhole`, nothing either where a part is
 * somebody else's.
 */
export function said(text: string, isWhole = false): string | null {
  return within(() => several(text, isWhole));
}

function several(text: string, isWhole: boolean): string | null {
  const whole = read(text);
  if (whole !== null || text.length > LONGEST) return whole || null;
  look(text);
  const joints = [...text.matchAll(/[.;:] /g)];
  const rest = (words: string) => several(words, isWhole) ?? (isWhole ? null : quoted(words));
  for (const { 0: joint, index } of joints) {
    const before = read(text.slice(0, index));
    const ended = before === null && joint === ". " ? read(text.slice(0, index + 1)) : null;
    if (before === false || ended === false) return null;
    if (before === null && ended === null) continue;
    // What the engine adds to a sentence begins with the joint itself.
    const added = before !== null && read(text.slice(index));
    if (added) return before + added;
    const after = rest(text.slice(index + joint.length));
    if (after === null) continue;
    return before !== null ? before + between(joint) + after : ended + blank() + after;
  }
  for (const { 0: joint, index } of isWhole ? [] : joints) {
    const why = joint === ": " ? several(text.slice(index + joint.length), true) : null;
    if (why !== null) return quoted(text.slice(0, index)) + between(joint) + why;
  }
  const unended = text.endsWith(".") ? one(text.slice(0, -1)) : null;
  return unended === null ? null : unended + between(". ").trimEnd();
}

function between(joint: string): string {
  return i18next.t(JOINTS[joint] ?? "");
}

/** Between two sentences that have their full stops. */
function blank(): string {
  return language() === "zh" ? "" : " ";
}

/** Words of somebody else within a sentence; a bare name needs no marks. */
function quoted(words: string): string {
  return /^[\w./-]+$/.test(words) ? words : i18next.t("parts.quoted", { replace: { words } });
}

/** What the engine says in the place of a name where there is none: some words, always the same. */
function nameless(text: string): string | null {
  const key = text.includes(" ") ? table()?.fixed.get(small(text)) : undefined;
  return key === undefined ? null : i18next.t(key);
}

/** Items in a row, each in the person's language if it is the engine's. */
function row(text: string): string {
  const known = one(text);
  if (known !== null) return known;
  for (const joint of [" → ", "; ", ", "]) {
    if (text.includes(joint)) return text.split(joint).map(row).join(joint);
  }
  for (const [joint, put] of [
    [" and ", list],
    [" or ", oneOf],
  ] as const) {
    const items = text.split(joint).map(one);
    if (items.length > 1 && !items.includes(null)) return put(items.map((item) => item ?? ""));
  }
  return text;
}

function oneOf(items: string[]): string {
  return new Intl.ListFormat(locale(), { type: "disjunction" }).format(items);
}
