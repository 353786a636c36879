// @vitest-environment jsdom
import { act } from "react";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Role, UpdatesView } from "../src/ipc/types";
import { Home } from "../src/screens/Home";
import { Updates } from "../src/screens/Updates";
import { Screen as Page } from "./screen";
import { button, press, type Screen, STATUS, settle, show, type } from "./stage";

const SOURCE = { url: "https://updates.example/hospes-release.json", key: "ab".repeat(32) };
const PASSPHRASE = "a long passphrase";
const OFF: UpdatesView = {
  running: "0.1.0",
  source: null,
  by_it: false,
  found: null,
  tried: null,
  trouble: null,
};
const NEWER: UpdatesView = {
  ...OFF,
  source: SOURCE,
  found: {
    version: "0.2.0",
    is_newer: true,
    notes: "Mends two things.",
    issued: 1_790_000_000_000,
    heard: 1_790_000_000_000,
    package: {
      file: "hospes_0.2.0_amd64.deb",
      bytes: 50_000_000,
      digest: "cd".repeat(32),
      command: "sudo apt install ./hospes_0.2.0_amd64.deb",
    },
  },
};

let screen: Screen;

async function stand(updates: UpdatesView, role: Role = "administrator"): Promise<void> {
  screen = await show(<Updates />, [role], (command) => {
    if (command === "updates" || command === "check_updates") return updates;
    if (command === "choose_place") return { file: "file-7", name: "hospes_0.2.0_amd64.deb", bytes: null };
    if (command === "save_update") return { version: "0.2.0", bytes: 50_000_000, digest: "cd".repeat(32) };
    return null;
  });
}

const said = () => screen.place.textContent ?? "";

async function submit(): Promise<void> {
  await act(async () => document.querySelector("form")?.requestSubmit());
  await settle();
}

/** Signs what is asked in front of the screen. */
async function sign(): Promise<void> {
  await type("signing", PASSPHRASE);
  await act(async () => document.querySelector<HTMLFormElement>("[role=dialog] form")?.requestSubmit());
  await settle();
}

describe("updates", () => {
  afterEach(() => screen.end());

  it("are looked for nowhere until an administrator says where and under which key", async () => {
    await stand(OFF);
    expect(said()).toContain("nowhere");
    expect(button("Look now")).toBeNull();
    await type("url", SOURCE.url);
    await type("key", SOURCE.key);
    await submit();
    // Whose program is believed is not for whoever finds the window open.
    expect(screen.of("set_updates")).toEqual([]);
    const question = document.querySelector("[role=dialog]")?.textContent;
    expect(question).toContain(SOURCE.url);
    expect(question).toContain(SOURCE.key);
    await sign();
    expect(screen.of("set_updates")).toEqual([{ source: SOURCE, passphrase: PASSPHRASE }]);
    expect(document.querySelector("[role=dialog]")).toBeNull();
    expect(said()).toContain("stands in the audit log");
  });

  it("tell what changed, and the package is fetched to a chosen place", async () => {
    await stand(NEWER);
    expect(said()).toContain("Version 0.2.0 is there");
    expect(said()).toContain("Mends two things.");
    await press(button("Choose a place and fetch the package"));
    await settle();
    expect(screen.of("choose_place")).toEqual([{ purpose: "update", suggested: "hospes_0.2.0_amd64.deb" }]);
    expect(screen.of("save_update")).toEqual([{ path: "file-7" }]);
    expect(said()).toContain("sudo apt install ./hospes_0.2.0_amd64.deb");
    await press(button("Look nowhere"));
    expect(document.querySelector("[role=dialog]")?.textContent).toContain("nobody hears of what they mend");
    await sign();
    expect(screen.of("set_updates")).toEqual([{ source: null, passphrase: PASSPHRASE }]);
  });

  it("say why a look came to nothing", async () => {
    await stand({ ...NEWER, found: null, trouble: "its signature is not of the key that is set here" });
    expect(said()).toContain("The last look came to nothing");
    expect(said()).toContain("its signature is not of the key");
    await press(button("Look now"));
    expect(screen.of("check_updates")).toEqual([{}]);
  });

  it("are read by everybody, and set and fetched by administrators alone", async () => {
    await stand(NEWER, "data_steward");
    expect(said()).toContain("Version 0.2.0 is there");
    expect(document.querySelector("input")).toBeNull();
    expect(button("Choose a place and fetch the package")).toBeNull();
    expect(button("Look now")).toBeNull();
  });

  it("are where the IT says, and nowhere else", async () => {
    await stand({ ...NEWER, by_it: true });
    expect(said()).toContain("Set by your IT.");
    expect(document.querySelector<HTMLInputElement>("[name=url]")?.disabled).toBe(true);
    expect(button("Look there")).toBeNull();
    await screen.end();
    await stand({ ...OFF, by_it: true });
    expect(said()).toContain("nobody looks for updates here");
  });
});

describe("a newer version, at home", () => {
  let page: Page;

  /** Home of somebody of this organisation, or of another. */
  async function atHome(updates: UpdatesView, organisation: string | null = null): Promise<void> {
    page = new Page();
    const person = { id: "p", name: "Petra", roles: ["auditor"], organisation, state: "active", key: "k" };
    const lists = { requests: [], proposals: [], memberships: [], jobs: [], datasets: [] };
    await page.show(<Home />, { status: STATUS, people: [person], ...lists, updates }, "Petra");
    await page.settle();
  }

  const TOLD = "Version 0.2.0 of Hospes is there; this site runs 0.1.0.";
  const found = NEWER.found as NonNullable<UpdatesView["found"]>;

  beforeEach(() => localStorage.clear());
  afterEach(() => page.away());

  it("is told in a sentence that leads to the settings, to whoever is there", async () => {
    await atHome(NEWER);
    expect(page.text()).toContain(`${TOLD} Whoever administers this machine installs it.`);
    const links = [...page.place.querySelectorAll("a")].map((link) => link.getAttribute("href"));
    expect(links).toContain("#/settings/updates");
    expect(await page.faults()).toEqual([]);
  });

  it("is hidden by whoever read it, until there is a further one", async () => {
    await atHome(NEWER);
    await page.press(page.button("Hide this version"));
    expect(page.text()).not.toContain("of Hospes is there");
    await page.away();
    await atHome(NEWER);
    expect(page.text()).not.toContain("of Hospes is there");
    await page.away();
    await atHome({ ...NEWER, found: { ...found, version: "0.3.0" } });
    expect(page.text()).toContain("Version 0.3.0 of Hospes is there");
  });

  it("is nothing where none is known, nor for people of another organisation", async () => {
    for (const updates of [OFF, { ...NEWER, found: { ...found, is_newer: false } }]) {
      await atHome(updates);
      expect(page.text()).not.toContain("of Hospes is there");
      await page.away();
    }
    await atHome(NEWER, "Another clinic");
    expect(page.text()).not.toContain("of Hospes is there");
    expect(page.times("updates")).toBe(0);
  });
});
