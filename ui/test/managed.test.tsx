// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ComputeLimits, Managed, Preferences } from "../src/ipc/types";
import { Join } from "../src/screens/Join";
import { Looks } from "../src/screens/Looks";
import { Machine } from "../src/screens/Machine";
import { PolicyPreview } from "../src/screens/PolicyPreview";
import { Retention } from "../src/screens/Retention";
import { adopt } from "../src/shell/preferences";
import { Screen } from "./screen";

const QUIET: ComputeLimits["quiet"] = [{ days: ["monday", "friday"], from: 480, to: 1_050 }];

const MANAGED: Managed = {
  file: "/etc/hospes/managed.toml",
  policy: "strict",
  proxy: "http://proxy.example:3128",
  extra_ca: "/etc/hospes/ca.pem",
  only: ["one.example"],
  share: 50,
  threads: 4,
  quiet: QUIET,
  yields: true,
  device: "cpu",
  idle_minutes: 5,
  tries: 4,
  wait_minutes: 30,
  retention_months: 120,
  no_export: true,
  autostart: true,
  updates: { url: "https://updates.example/hospes-release.json", key: "ab".repeat(32) },
  no_updates: false,
};

const PREFERENCES: Preferences = {
  theme: "system",
  density: "comfortable",
  language: null,
  autostart: false,
  quiet: false,
};

const people = [
  { id: "p", name: "Petra", roles: ["administrator"], organisation: null, state: "active", key: "k" },
];

const device = {
  choice: "cpu",
  decided_by: "it",
  cards: [],
  used: null,
  reason: null,
  worker_memory_bytes: null,
  runs_at_a_time: 1,
};

let screen: Screen;

beforeEach(() => {
  adopt(PREFERENCES);
  screen = new Screen();
});
afterEach(() => screen.away());

/** The box whose label begins like this. */
const box = (label: string) => {
  const labels = [...screen.place.querySelectorAll("label")];
  return labels.find((found) => found.textContent?.startsWith(label))?.querySelector("input") ?? null;
};

describe("what the hospital's IT set", () => {
  it("disables starting with the machine, and says whose it is", async () => {
    await screen.show(<Looks />, { people, managed: MANAGED }, "Petra");
    expect(await screen.faults()).toEqual([]);
    const autostart = box("Start with this machine");
    expect([autostart?.disabled, autostart?.checked]).toEqual([true, true]);
    expect(autostart?.closest("label")?.textContent).toContain("Set by your IT.");
    await screen.press(autostart);
    expect(screen.times("set_preferences")).toBe(0);
    // The others are the person's own.
    expect(box("Notifications")?.disabled).toBe(false);
  });

  it("leaves starting with the machine to the person where it is not set", async () => {
    await screen.show(<Looks />, { people, managed: { ...MANAGED, autostart: false } }, "Petra");
    const autostart = box("Start with this machine");
    expect([autostart?.disabled, autostart?.checked]).toEqual([false, false]);
    expect(screen.text()).not.toContain("Set by your IT");
  });

  it("bounds the limits of training, and keeps quiet hours and waiting as they are", async () => {
    const own: ComputeLimits["quiet"] = [{ days: ["sunday"], from: 0, to: 60 }];
    const compute_limits = { quiet: [...QUIET, ...own], share: 40, threads: 2, yields: true };
    await screen.show(<Machine />, { people, managed: MANAGED, compute_limits, device }, "Petra");
    expect(await screen.faults()).toEqual([]);
    expect(screen.place.querySelector<HTMLInputElement>("input[type=range]")?.max).toBe("50");
    expect(screen.text()).toContain("Set by your IT: at most 50%.");
    expect(screen.field("threads").max).toBe("4");
    expect(box("Wait while somebody works here")?.disabled).toBe(true);
    const removes = [1, 2].map((at) => screen.button(`Remove: Quiet hours ${at}`).disabled);
    expect(removes).toEqual([true, false]);
    expect([screen.field("from1").disabled, screen.field("from2").disabled]).toEqual([true, false]);
    await screen.press(screen.button("Remove: Quiet hours 2"));
    await screen.submit();
    expect(screen.args("set_compute_limits")).toEqual({ limits: { ...compute_limits, quiet: QUIET } });
  });

  it("is listed as a whole, and nowhere if there is nothing", async () => {
    const compute_limits = { quiet: [], share: 100, threads: null, yields: false };
    await screen.show(<Machine />, { people, managed: MANAGED, compute_limits, device }, "Petra");
    for (const words of [
      "at least as strict as strict",
      "one.example",
      "at most 4",
      "the processor only",
      "after 5 min without use",
      "Wrong passphrases in a row that cost no timeat most 4",
      "at least 30",
      "kept for at least 120 months",
      "not written to files",
      "/etc/hospes/managed.toml",
    ]) {
      expect(screen.text()).toContain(words);
    }
    await screen.away();
    screen = new Screen();
    await screen.show(<Machine />, { people, managed: null, compute_limits, device }, "Petra");
    expect(screen.text()).not.toContain("What your IT set");
  });

  it("bounds the retention of the log", async () => {
    await screen.show(<Retention />, { people, managed: MANAGED, audit_retention: 120 }, "Petra");
    expect(await screen.faults()).toEqual([]);
    expect(screen.text()).toContain("Set by your IT. At least 120. Empty: for good.");
    await screen.type("months", "119");
    expect(screen.button("Set retention").disabled).toBe(true);
    await screen.type("months", "121");
    expect(screen.button("Set retention").disabled).toBe(false);
  });

  it("is said where a federation is joined", async () => {
    await screen.show(<Join />, { people, managed: MANAGED }, "Petra");
    expect(await screen.faults()).toEqual([]);
    expect(screen.text()).toContain("only these federations may be joined: one.example");
  });

  it("is said of a policy that is looser", async () => {
    const change = { place: "disclosure.min_cell", before: "10", after: "3", effect: "loosens" };
    const below = ["disclosure.min_cell from 10 to 3"];
    const policy_preview = { changes: [change], loosens: [], below, needs_second_signature: true, ends: [] };
    await screen.show(<PolicyPreview toml="x" />, { people, policy_preview }, "Petra");
    expect(await screen.faults()).toEqual([]);
    expect(screen.text()).toContain("Your IT does not allow it");
    expect(screen.text()).toContain("disclosure.min_cell from 10 to 3");
    expect(screen.text()).not.toContain("a second person must sign it");
  });
});
