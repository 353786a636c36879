// @vitest-environment jsdom
import { act } from "react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import lock from "../package-lock.json";
import { About } from "../src/screens/About";
import { having, libraries, thirdParty } from "../src/screens/licences";
import { Screen } from "./screen";

const RULE = "=".repeat(100);
const FILE = `Words before.

${RULE}
long name 1.0.0 ((MIT OR Apache-2.0) AND Unicode-3.0)
short 10.0.0 (MIT)
short 9.0.0 (MIT)
${RULE}

One text.

=====
With a line of its own.

${RULE}
short 9.0.0 (MIT)
${RULE}

Another text.
`;

const named = (all: { name: string; version: string }[]) => all.map((l) => `${l.name} ${l.version}`);

describe("the libraries of others", () => {
  it("are read from the generated file, each with every text that concerns it", () => {
    const all = libraries(FILE);
    expect(named(all)).toEqual(["long name 1.0.0", "short 9.0.0", "short 10.0.0"]);
    expect(all[0]?.licence).toBe("(MIT OR Apache-2.0) AND Unicode-3.0");
    expect(all[1]?.texts).toEqual(["One text.\n\n=====\nWith a line of its own.", "Another text."]);
    expect(() => libraries(`\n${RULE}\nno library\n${RULE}\n\nA text.\n`)).toThrow();
  });

  it("are found by words of name and licence", () => {
    const all = libraries(FILE);
    expect(named(having(all, " mit SHORT"))).toEqual(["short 9.0.0", "short 10.0.0"]);
    expect(named(having(all, "unicode"))).toEqual(["long name 1.0.0"]);
    expect(having(all, "gpl")).toEqual([]);
  });

  it("are those of the engine and of the page, and the typeface, none without a text", async () => {
    const all = await thirdParty();
    const names = new Set(all.map(({ name }) => name));
    for (const name of ["serde", "tauri", "burn", "react", "echarts", "@fontsource-variable/inter"])
      expect(names, name).toContain(name);
    // What only builds or tests is in no program.
    for (const name of ["vite", "vitest", "proptest"]) expect(names, name).not.toContain(name);
    expect(all.filter(({ texts }) => texts.every((text) => text.length < 50))).toEqual([]);
    // What the page was built from at the last `cargo xtask codegen` is what it is built from now.
    const direct = Object.keys(lock.packages[""].dependencies);
    const versions = lock.packages as Record<string, { version?: string }>;
    const wanted = direct.map((name) => `${name} ${versions[`node_modules/${name}`]?.version}`);
    expect(named(all)).toEqual(expect.arrayContaining(wanted));
  });
});

describe("the settings", () => {
  let screen: Screen;
  beforeEach(async () => {
    // jsdom lays nothing out; a list shows no row in no space, and all rows where they are flat.
    vi.spyOn(Element.prototype, "clientHeight", "get").mockReturnValue(500);
    vi.spyOn(HTMLElement.prototype, "offsetHeight", "get").mockReturnValue(44);
    screen = new Screen();
    await screen.show(<About />, { status: { software: "hospes 1.0.0" } });
    for (let i = 0; i < 50 && screen.labelled("What Hospes is made of") === null; i++) await screen.settle();
  });
  afterEach(() => screen.away());

  it("show the libraries of others, find one and read out its licence", async () => {
    expect(await screen.faults()).toEqual([]);
    // Only what is in sight is there.
    expect(screen.place.querySelectorAll("[role=row]").length).toBeLessThan(40);
    await screen.type("libraries", "react-dom");
    expect(screen.place.querySelector("[role=status]")?.textContent).toBe("1 library");
    await screen.press(screen.place.querySelector<HTMLElement>('[aria-label^="Read: react-dom "]'));
    const dialog = document.querySelector("[role=dialog]");
    expect(dialog?.querySelector("pre")?.textContent).toContain("Permission is hereby granted");
    expect(dialog?.querySelector("[role=group]")?.getAttribute("tabindex")).toBe("0");
    await act(async () =>
      dialog?.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true })),
    );
    await screen.settle();
    expect(document.querySelector("[role=dialog]")).toBeNull();
    await screen.type("libraries", "no such library");
    expect(screen.place.querySelector("[role=status]")?.textContent).toBe("0 libraries");
  });
});
