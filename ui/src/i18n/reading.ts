// Finds what stands at the places of a sentence. No text makes it slow: it looks for the words between the places, from the
// last to the first, and never tries a way twice, as a regular expression would.

/** What stands at a place of a sentence. */
export type Kind =
  /** A name, or anything else that is the same in every language. */
  | "text"
  /** A name without a quotation mark in it, behind which a mark tells its end. */
  | "unquoted"
  /** Names in quotation marks in a row; the first mark and the last are the sentence's. */
  | "quoted"
  /** A name, or what the engine says where there is none. */
  | "name"
  /** One word that is no word of a language: an id, an address. */
  | "id"
  | "number"
  /** A number of bytes, with or without separators. */
  | "bytes"
  /** A moment or a day, as the engine writes it. */
  | "moment"
  /** Hours and minutes. */
  | "time"
  /** Words of the engine, or nothing. */
  | "said"
  /** The same, or somebody else's: those are quoted. */
  | "words"
  /** Items in a row: words of the engine among names. */
  | "list";

/** Kinds of which only the words tell where they end. */
const OF_WORDS = new Set<Kind>(["said", "words", "list"]);
/** Kinds of which the letters tell where they may end. */
const SHAPES: { [kind in Kind]?: RegExp } = {
  number: /^[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?$/,
  bytes: /^(?:\d+|\d{1,3}(?:,\d{3})+) bytes?$/,
  time: /^\d\d:\d\d$/,
  id: /^\S+$/,
  unquoted: /^[^']+$/,
};
/** Longest number, time, id, address or unquoted name. */
const LONGEST_WORD = 300;
const PLACE = /\{\{(\w+)(?:, (\w+))?\}\}/;

export interface Place {
  name: string;
  kind: Kind;
}

/** Places with at most a blank between, of which only the words tell where one ends; mostly it is one place. */
export interface Group {
  places: Place[];
  gaps: string[];
}

export interface Sentence {
  /** Its key in the catalogues. */
  key: string;
  groups: Group[];
  /** What is always the same, in small letters: before, between and after the groups. */
  words: string[];
  /** Letters that are always the same: of two sentences that fit, the one with more is meant. */
  weight: number;
}

/** A text in small letters, each at its place; the engine's words have no others than these. */
export function small(text: string): string {
  return text.replaceAll(/[A-Z]+/g, (letters) => letters.toLowerCase());
}

/** A sentence by its English, `up to {{runs, number}} runs are allowed`. */
export function sentence(key: string, english: string): Sentence {
  // The pattern has two groups, so that words, names and kinds follow each other.
  const parts = english.split(PLACE);
  const words = [small(parts[0] ?? "")];
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
    words.push(small(parts[at + 2] ?? ""));
  }
  return { key, groups, words, weight: words.join("").length };
}

/** Sentences by a word that stands in few of them, so that a text is compared with few. */
export class Index {
  readonly #byWord = new Map<string, Sentence[]>();
  /** Those without a word of their own. */
  readonly #others: Sentence[] = [];

  constructor(sentences: Sentence[]) {
    const known = sentences.map((sentence) => ({ sentence, own: ownWords(sentence) }));
    const count = new Map<string, number>();
    for (const { own } of known) for (const word of own) count.set(word, (count.get(word) ?? 0) + 1);
    for (const { sentence, own } of known) {
      const [rarest] = own.sort((a, b) => (count.get(a) ?? 0) - (count.get(b) ?? 0));
      if (rarest === undefined) this.#others.push(sentence);
      else this.#byWord.set(rarest, [...(this.#byWord.get(rarest) ?? []), sentence]);
    }
  }

  /** Sentences that a text in small letters may be, the likeliest first. */
  of(low: string): Sentence[] {
    const words = new Set(low.match(/[a-z]+/g));
    const found = [...words].flatMap((word) => this.#byWord.get(word) ?? []);
    const fitting = [...found, ...this.#others].filter(({ words }) => begins(words, low) && ends(words, low));
    return fitting.sort((a, b) => b.weight - a.weight);
  }
}

/** Words that stand in a sentence whatever stands at its places. */
function ownWords({ words }: Sentence): string[] {
  const last = words.length - 1;
  return words.flatMap((fixed, at) => {
    // A word that touches a place may go on there.
    const inside = fixed.slice(at === 0 ? 0 : fixed.search(/[^a-z]|$/));
    return (at === last ? inside : inside.replace(/[a-z]+$/, "")).match(/[a-z]+/g) ?? [];
  });
}

const begins = ([first = ""]: string[], low: string) =>
  low.startsWith(first) || (first.startsWith(" ") && low.startsWith(first.trimStart()));
const ends = (words: string[], low: string) => low.endsWith(words.at(-1) ?? "");

/** What stands at a sentence's groups if it is that text. */
export interface Readings {
  /** Each as short as can be, from the first on. */
  least: string[];
  /** Each as long as can be. */
  most: string[];
  /**
   * Whether these differ by no more than punctuation. Else something at a place repeats words of the sentence, maybe in order
   * to be taken for them.
   */
  isOne: boolean;
}

/** How a text, also given in small letters, can be read as a sentence; nothing if it is another. */
export function readings({ groups, words }: Sentence, text: string, low: string): Readings | null {
  const [first = ""] = words;
  // The blank before a sentence that follows another is not always kept.
  const from = (low.startsWith(first) ? first : first.trimStart()).length;
  const last = low.length - (words.at(-1) ?? "").length;
  if (last < from) return null;
  const stops: number[][] = [];
  stops[groups.length - 1] = [last];
  for (let at = groups.length - 2; at >= 0; at -= 1) {
    const fixed = words[at + 1] ?? "";
    const after = groups[at + 1];
    const next = stops[at + 1] ?? [];
    stops[at] = places(low, fixed, from, last).filter(
      (stop) => end(after, low, stop + fixed.length, next, true) !== null,
    );
  }
  const least = walk(groups, words, low, from, stops, false);
  const most = walk(groups, words, low, from, stops, true);
  if (least === null || most === null) return null;
  const values = (spans: Span[]) => spans.map(([begin, end]) => text.slice(begin, end));
  const isOne = least.every(([, end], at) => end === most[at]?.[1] || !/[a-z']/.test(words[at + 1] ?? ""));
  return { least: values(least), most: values(most), isOne };
}

type Span = [begin: number, end: number];

function walk(
  groups: Group[],
  words: string[],
  low: string,
  from: number,
  stops: number[][],
  isMost: boolean,
): Span[] | null {
  const spans: Span[] = [];
  let begin = from;
  for (const [at, group] of groups.entries()) {
    const stop = end(group, low, begin, stops[at] ?? [], isMost);
    if (stop === null) return null;
    spans.push([begin, stop]);
    begin = stop + (words[at + 1] ?? "").length;
  }
  return spans;
}

/** Where words stand in a text, between two places. */
function places(low: string, fixed: string, from: number, to: number): number[] {
  const found: number[] = [];
  for (let at = low.indexOf(fixed, from); at !== -1 && at <= to; at = low.indexOf(fixed, at + 1)) {
    found.push(at);
    // What is nothing is found at the end again and again.
    if (at === low.length) break;
  }
  return found;
}

/** Where a group that begins at a place ends, at one of some stops in a row: at the first that fits, or at the last. */
function end(
  group: Group | undefined,
  low: string,
  begin: number,
  stops: number[],
  isMost: boolean,
): number | null {
  const [first, second] = group?.places ?? [];
  const kind = second ? "said" : (first?.kind ?? "text");
  const shape = SHAPES[kind];
  const least = begin + (kind === "said" || kind === "words" ? 0 : 1);
  const lowest = firstFrom(stops, least);
  if (shape === undefined) return (isMost && lowest < stops.length ? stops.at(-1) : stops[lowest]) ?? null;
  const highest = firstFrom(stops, begin + LONGEST_WORD + 1) - 1;
  const fits = (stop: number) => shape.test(low.slice(begin, stop));
  // A number goes on as long as it can.
  if (isMost || kind === "number") {
    for (let at = highest; at >= lowest; at -= 1) if (fits(stops[at] ?? 0)) return stops[at] ?? null;
  } else {
    for (let at = lowest; at <= highest; at += 1) if (fits(stops[at] ?? 0)) return stops[at] ?? null;
  }
  return null;
}

/** The first index of numbers in a row that are not below a least one. */
function firstFrom(row: number[], least: number): number {
  let [low, high] = [0, row.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((row[middle] ?? 0) < least) low = middle + 1;
    else high = middle;
  }
  return low;
}
