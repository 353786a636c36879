// What a data steward chooses while registering a file, and what follows from it.
import type {
  AskedQuery,
  Chosen,
  ColumnView,
  GapView,
  NewDataset,
  ScanProfile,
  SurveyView,
} from "../ipc/types";
import { readTerms, type Terms, writeTerms } from "./duo";

/** Types that a column can be corrected to; an image stays one. */
export const KINDS = ["number", "category", "date", "text"] as const;

/** How strictly identifiers can be looked for. */
export const SCANS: readonly ScanProfile[] = ["default", "hipaa_safe_harbor"];

/** Where rows come from: a file by the name that stands for it, a query on a server, or a query in a file of SQLite. */
export interface Source {
  /** Nothing for a server. */
  path: string;
  /** What a person calls it. */
  name: string;
  /** Of a file; a folder has none. */
  bytes: number | null;
  query: AskedQuery | null;
}

export const ofFile = ({ file, name, bytes }: Chosen): Source => ({ path: file, name, bytes, query: null });

export interface Draft {
  name: string;
  /** Sheet of a workbook that was looked into. */
  sheet: string | null;
  /** Texts that mean a missing value, one in each line, as they are typed. */
  missing: string;
  /** How strictly identifiers are looked for. */
  scan: ScanProfile;
  /** How strictly they were looked for in what the survey shows. */
  scanned: ScanProfile;
  /** Column that tells patients apart. */
  subject: string | null;
  /** Corrected types by column. */
  kinds: Record<string, string>;
  /** By column, whether it is in the copy, where a person decided otherwise than the scan. */
  copied: Record<string, boolean>;
  isPublic: boolean;
  terms: Terms;
}

export const EMPTY: Draft = {
  name: "",
  sheet: null,
  missing: "",
  scan: "default",
  scanned: "default",
  subject: null,
  kinds: {},
  copied: {},
  isPublic: false,
  terms: readTerms([]),
};

export const isImage = (column: ColumnView) => column.kind.startsWith("image");

/** What was decided for a column, if anything was: one may bear a name that every object knows, such as `constructor`. */
function decided<T>(of: Record<string, T>, { name }: ColumnView): T | undefined {
  return Object.hasOwn(of, name) ? of[name] : undefined;
}

/** Its type, corrected or as the scan has it. */
export const kindOf = (draft: Draft, column: ColumnView) => decided(draft.kinds, column) ?? column.kind;

/** Whether a column is in the frozen copy; the one that tells patients apart always is, as keyed hashes. */
export function isCopied(draft: Draft, column: ColumnView): boolean {
  return column.name === draft.subject || (decided(draft.copied, column) ?? !column.masked);
}

/** Columns in the copy that the scan would leave out. */
export function keptAnyway(draft: Draft, columns: ColumnView[]): string[] {
  const own = columns.filter((column) => column.name !== draft.subject);
  return own.filter((column) => column.masked && isCopied(draft, column)).map((column) => column.name);
}

/** Texts that mean a missing value, each once. */
export function markersOf({ missing }: Draft): string[] {
  const typed = missing.split("\n").map((line) => line.trim());
  return [...new Set(typed)].filter((text) => text !== "");
}

/** Whether the survey shows what the file is with the choices of now. */
export function isCounted(draft: Draft, { missing }: SurveyView): boolean {
  return draft.scan === draft.scanned && JSON.stringify(markersOf(draft)) === JSON.stringify(missing);
}

/** Texts of which the survey asks whether they mean a missing value, with the columns of the copy that have them. */
export function questions(draft: Draft, { columns, gaps }: SurveyView): [marker: string, gaps: GapView[]][] {
  const inside = columns.filter((column) => column.name !== draft.subject && isCopied(draft, column));
  const names = new Set(inside.map(({ name }) => name));
  const asked = gaps.filter((gap) => !gap.is_missing && names.has(gap.column));
  const markers = [...new Set(asked.map(({ marker }) => marker))];
  return markers.map((marker) => [marker, asked.filter((gap) => gap.marker === marker)]);
}

/** What the engine is asked for: what a person decided, and what means missing as the survey showed it. */
export function newDataset(
  draft: Draft,
  columns: ColumnView[],
  { path, query }: Pick<Source, "path" | "query">,
): NewDataset {
  const other = columns.filter((column) => column.name !== draft.subject);
  const corrected = columns.filter((column) => kindOf(draft, column) !== column.kind);
  return {
    name: draft.name.trim(),
    path,
    query,
    sheet: draft.sheet,
    missing: markersOf(draft),
    scan: draft.scan,
    subject: draft.subject ?? "",
    kinds: Object.fromEntries(corrected.map((column) => [column.name, kindOf(draft, column)])),
    mask: other.filter((column) => !column.masked && !isCopied(draft, column)).map(({ name }) => name),
    keep: keptAnyway(draft, columns),
    public: draft.isPublic,
    duo: writeTerms(draft.terms),
  };
}
