// Reads the engine's sentences, so that a person has them in their own language.
//
// The engine speaks English everywhere: its log is bound by hashes, and what it keeps and sends is read by auditors without
// this page. `en/said/*.json` lists its sentences, each under a code, with what may stand at each place behind the place's
// name; a test finds every sentence of the engine's sources there (ADR 0024).
import i18next from "i18next";
import { language, locale, spoken } from ".";
import { day, exactly, exactNumber, list } from "./format";

/** What stands at a place of a sentence, and how it is found: as little as possible, or as much. */
const KINDS = {
  /** A name, or anything else that is the same in every language. */
  text: ["([\\s\\S]+?)", "([\\s\\S]+)"],
  /** One word that is no word of a language: an id, an address. */
  id: ["(\\S+?)", "(\\S+)"],
  number: ["([+-]?\\d+(?:\\.\\d+)?(?:e[+-]?\\d+)?)", "([+-]?\\d+(?:\\.\\d+)?(?:e[+-]?\\d+)?)"],
  /** A moment or a day, as the engine writes it. */
  moment: ["([\\s\\S]+?)", "([\\s\\S]+)"],
  /** Hours and minutes. */
  time: ["(\\d\\d:\\d\\d)", "(\\d\\d:\\d\\d)"],
  /** Words of the engine, or nothing. */
  said: ["([\\s\\S]*?)", "([\\s\\S]*)"],
  /** The same, or somebody else's: those are quoted. */
  words: ["([\\s\\S]*?)", "([\\s\\S]*)"],
  /** Items in a row: words of the engine among names. */
  list: ["([\\s\\S]+?)", "([\\s\\S]+)"],
} as const;

type Kind = keyof typeof KINDS;

/** Kinds of which only the words tell where they end. */
const OF_WORDS = new Set<Kind>(["said", "words", "list"]);

interface Place {
  name: string;
  kind: Kind;
}

/** Places with at most a blank between, of which only the words tell where one ends; mostly it is one place. */
interface Group {
  places: Place[];
  gaps: string[];
}

interface Sentence {
  /** Its key in the catalogues. */
  key: string;
  groups: Group[];
  patterns: RegExp[];
  /** What it begins and ends with, in small letters. */
  begins: string;
  ends: string;
  /** Letters that are always the same: of two sentences that fit, the one with more is meant. */
  weight: number;
}

interface Table {
  /** Keys of sentences without places, by their words in small letters. */
  fixed: Map<string, string>;
  open: Sentence[];
}

/** Longest text that is taken apart; what is longer comes from elsewhere. */
const LONGEST = 4_000;
/** Texts of which the reading is remembered. */
const REMEMBERED = 2_000;
const PLACE = /\{\{(\w+)(?:, (\w+))?\}\}/;
const MOMENT = /^\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d+)?Z)?$/;
const JOINTS: Record<string, string> = {
  ". ": "parts.joint.stop",
  "; ": "parts.joint.semicolon",
  ": ": "parts.joint.colon",
};

/** The key under which a fixed phrase of a review is translated. */
export function phraseKey(text: string): string {
  const slug = text.toLowerCase().replaceAll(/[^a-z0-9]+/g, "_");
  return `facts.${slug.replaceAll(/^_|_$/g, "")}`;
}

/** A sentence by its English, `up to {{runs, number}} runs are allowed`. */
function sentence(key: string, english: string): Sentence {
  // The pattern has two groups, so that words, names and kinds follow each other.
  const parts = english.split(PLACE);
  const words = [parts[0] ?? ""];
  const groups: Group[] = [];
  for (let at = 1; at < parts.length; at += 3) {
    const place: Place = { name: parts[at] ?? "", kind: (parts[at + 1] ?? "text") as Kind };
    const before = groups.at(-1);
    const gap = words.at(-1) ?? "";
    const isOfWords = before !== undefined && OF_WORDS.has(before.places.at(-1)?.kind ?? "text");
    if (isOfWords && OF_WORDS.has(place.kind) && (gap === "" || gap === " ")) {
      before.places.push(place);
      before.gaps.push(gap);
      words.pop();
    } else {
      groups.push({ places: [place], gaps: [] });
    }
    words.push(parts[at + 2] ?? "");
  }
  const pattern = (most: 0 | 1) => {
    const inside = words.map((fixed, at) => {
      const [first, second] = groups[at]?.places ?? [];
      const place = second ? "said" : first?.kind;
      return fixed.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&") + (place ? KINDS[place][most] : "");
    });
    // The blank before a sentence that follows another is not always kept.
    return new RegExp(`^${inside.join("").replace(/^ /, " ?")}$`, "i");
  };
  return {
    key,
    groups,
    patterns: [pattern(0), pattern(1)],
    begins: (words[0] ?? "").trimStart().toLowerCase(),
    ends: (words.at(-1) ?? "").toLowerCase(),
    weight: words.join("").length,
  };
}

let made: Table | null = null;

function table(): Table {
  if (made !== null) return made;
  const fixed = new Map<string, string>();
  const open: Sentence[] = [];
  for (const [part, sentences] of Object.entries(spoken())) {
    for (const [code, english] of Object.entries(sentences)) {
      const key = `said.${part}.${code}`;
      if (english.includes("{{")) open.push(sentence(key, english));
      else fixed.set(english.toLowerCase(), key);
    }
  }
  made = { fixed, open: open.sort((a, b) => b.weight - a.weight) };
  return made;
}

let remembered = new Map<string, string | null>();
let rememberedIn = "";

/** One sentence of the engine in the person's language, or nothing if it is none. */
export function one(text: string): string | null {
  if (rememberedIn !== language() || remembered.size > REMEMBERED) {
    remembered = new Map();
    rememberedIn = language();
  }
  const known = remembered.get(text);
  if (known !== undefined) return known;
  const found = text.length > LONGEST ? null : search(text);
  remembered.set(text, found);
  return found;
}

function search(text: string): string | null {
  const low = text.toLowerCase();
  const key = table().fixed.get(low) ?? phraseKey(text);
  if (i18next.exists(key)) return i18next.t(key);
  const start = low.trimStart();
  for (const { key, groups, patterns, begins, ends } of table().open) {
    if (!start.startsWith(begins) || !low.endsWith(ends)) continue;
    for (const pattern of patterns) {
      const values = pattern.exec(text)?.slice(1);
      // Where little does not fit, much does not either.
      if (values === undefined) break;
      const replace = filled(groups, values);
      // By `replace`, since a place may be called like one of the library's own options.
      if (replace !== null) return i18next.t(key, { replace });
    }
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
    case "moment":
      if (!MOMENT.test(value)) return value;
      return value.length > 10 ? exactly(Date.parse(value)) : day(Date.parse(value));
    case "said":
      return value === "" ? value : said(value, true);
    case "words":
      return value === "" ? value : (said(value) ?? quoted(value));
    case "list":
      return row(value);
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
  const whole = one(text);
  if (whole !== null || text.length > LONGEST) return whole;
  const joints = [...text.matchAll(/[.;:] /g)];
  const rest = (words: string) => said(words, isWhole) ?? (isWhole ? null : quoted(words));
  for (const { 0: joint, index } of joints) {
    const before = one(text.slice(0, index));
    const ended = before === null && joint === ". " ? one(text.slice(0, index + 1)) : null;
    if (before === null && ended === null) continue;
    const after = rest(text.slice(index + joint.length));
    if (after === null) continue;
    return before !== null ? before + between(joint) + after : ended + blank() + after;
  }
  for (const { 0: joint, index } of isWhole ? [] : joints) {
    const why = joint === ": " ? said(text.slice(index + joint.length), true) : null;
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
