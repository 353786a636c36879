// Terms of the GA4GH Data Use Ontology (https://github.com/EBISPOT/DUO, CC BY 4.0) that the engine knows.

/** What data may be used for; one of them. */
export const PERMISSIONS = [
  "DUO:0000004",
  "DUO:0000042",
  "DUO:0000006",
  "DUO:0000007",
  "DUO:0000011",
] as const;

/** Research on a disease names it. */
export const DISEASE_SPECIFIC = "DUO:0000007";
/** Use that ends on a day names it. */
export const TIME_LIMIT = "DUO:0000025";

/** What narrows it, or obliges who uses it. */
export const MODIFIERS = [
  "DUO:0000012",
  "DUO:0000015",
  "DUO:0000016",
  "DUO:0000018",
  "DUO:0000019",
  "DUO:0000020",
  "DUO:0000021",
  "DUO:0000022",
  "DUO:0000024",
  "DUO:0000025",
  "DUO:0000026",
  "DUO:0000027",
  "DUO:0000028",
  "DUO:0000029",
  "DUO:0000043",
  "DUO:0000044",
  "DUO:0000045",
  "DUO:0000046",
] as const;

export type Permission = (typeof PERMISSIONS)[number];
export type Modifier = (typeof MODIFIERS)[number];

/** Terms of use as a person fills them in. */
export interface Terms {
  permission: Permission | null;
  modifiers: Modifier[];
  /** A MONDO id. */
  disease: string;
  /** Last day of use, `2027-12-31`. */
  until: string;
  /** Tags that this page does not know; they stay. */
  others: string[];
}

/** Reads a dataset's tags. */
export function readTerms(tags: string[]): Terms {
  const terms: Terms = { permission: null, modifiers: [], disease: "", until: "", others: [] };
  for (const tag of tags) {
    const [term = "", day] = tag.split("=");
    if (PERMISSIONS.includes(term as Permission) && terms.permission === null)
      terms.permission = term as Permission;
    else if (MODIFIERS.includes(term as Modifier)) {
      terms.modifiers.push(term as Modifier);
      if (day) terms.until = day;
    } else if (term.startsWith("MONDO:") && terms.disease === "") terms.disease = term;
    else terms.others.push(tag);
  }
  return terms;
}

/** Writes them as tags; a disease and a day only where their terms are chosen. */
export function writeTerms({ permission, modifiers, disease, until, others }: Terms): string[] {
  const tags: string[] = permission === null ? [] : [permission];
  if (permission === DISEASE_SPECIFIC && disease.trim() !== "") tags.push(disease.trim());
  for (const modifier of modifiers) {
    tags.push(modifier === TIME_LIMIT && until.trim() !== "" ? `${modifier}=${until.trim()}` : modifier);
  }
  return [...tags, ...others];
}
