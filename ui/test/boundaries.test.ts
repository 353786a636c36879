import { describe, expect, it } from "vitest";

const sources = import.meta.glob<string>("../src/**/*.{ts,tsx}", {
  eager: true,
  query: "?raw",
  import: "default",
});

/** Files whose imports match. */
function importing(what: RegExp): string[] {
  const line = new RegExp(`(?:from|import)\\s*\\(?\\s*["'](?:${what.source})["']`);
  return Object.entries(sources)
    .filter(([, code]) => line.test(code))
    .map(([path]) => path.replace("../src/", ""))
    .sort();
}

describe("the page", () => {
  it("talks to Tauri in one file (invariant I4)", () => {
    expect(importing(/@tauri-apps\/[^"']*/)).toEqual(["ipc/tauri.ts"]);
  });

  it("has each way to the engine behind its own entry, so that no bundle holds the other", () => {
    expect(importing(/[./\w]*\/tauri/)).toEqual(["desktop.tsx"]);
    expect(importing(/[./\w]*\/devhost/)).toEqual(["devhost.tsx"]);
  });

  it("reaches the network nowhere else", () => {
    const calls = /\b(?:fetch|XMLHttpRequest|EventSource|WebSocket|sendBeacon)\s*\(/;
    const found = Object.entries(sources).filter(([, code]) => calls.test(code));
    expect(found.map(([path]) => path)).toEqual(["../src/ipc/devhost.ts"]);
  });

  it("makes no markup out of text", () => {
    const found = Object.entries(sources).filter(([, code]) =>
      /dangerouslySetInnerHTML|innerHTML/.test(code),
    );
    expect(found).toEqual([]);
  });

  it("has no words of its own in its markup", () => {
    // A text between tags, or a label that is a plain string: words belong into the catalogues. The product's name is none.
    const between = />\s*([A-Za-z][A-Za-z ]{2,})\s*</g;
    const label = /\b(?:label|title|aria-label|alt|placeholder)="([A-Za-z][^"]*)"/g;
    for (const [path, code] of Object.entries(sources).filter(([path]) => path.endsWith(".tsx"))) {
      const words = [...code.matchAll(between), ...code.matchAll(label)].map(
        (match) => match[1]?.trim() ?? "",
      );
      expect(
        words.filter((word) => !["Hospes", "void"].includes(word)),
        path,
      ).toEqual([]);
    }
  });
});
