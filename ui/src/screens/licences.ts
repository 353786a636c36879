/** A library of others in the programs, and the texts under which it is used. */
export interface Library {
  name: string;
  version: string;
  licence: string;
  texts: string[];
}

/** Stands above and below the names of those whom a text concerns. */
const RULE = "=".repeat(100);
/** `serde 1.0.0 (MIT OR Apache-2.0)` */
const NAMED = /^(.+?) (\S+) \((.+)\)$/;

/** The libraries that a file of `cargo xtask codegen` names, by name. */
export function libraries(file: string): Library[] {
  const [, ...parts] = file.split(`\n${RULE}\n`);
  const found = new Map<string, Library>();
  for (let at = 0; at + 1 < parts.length; at += 2) {
    const text = parts[at + 1]?.trim() ?? "";
    for (const line of parts[at]?.split("\n") ?? []) {
      const [, name, version, licence] = NAMED.exec(line) ?? [];
      if (!name || !version || !licence) throw new Error(`'${line}' names no library`);
      const library = found.get(line) ?? { name, version, licence, texts: [] };
      library.texts.push(text);
      found.set(line, library);
    }
  }
  const order = new Intl.Collator("en", { numeric: true });
  return [...found.values()].sort(
    (a, b) => order.compare(a.name, b.name) || order.compare(a.version, b.version),
  );
}

/** Those that have these words in name or licence. */
export function having(all: Library[], words: string): Library[] {
  const sought = words.toLowerCase().split(/\s+/).filter(Boolean);
  return all.filter(({ name, licence }) => {
    const said = `${name} ${licence}`.toLowerCase();
    return sought.every((word) => said.includes(word));
  });
}

/** All of them, read when somebody asks. */
export async function thirdParty(): Promise<Library[]> {
  const { default: file } = await import("../../../third-party-licences.txt?raw");
  return libraries(file);
}
