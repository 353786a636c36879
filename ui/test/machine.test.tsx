// @vitest-environment jsdom
import { act } from "react";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ComputeLimits, DeviceView, Pause, Role } from "../src/ipc/types";
import { Jobs } from "../src/screens/Jobs";
import { fillIn, minutesOf, readOut, timeOf } from "../src/screens/limits";
import { Machine } from "../src/screens/Machine";
import { Screen } from "./screen";

const LIMITS: ComputeLimits = {
  quiet: [
    { days: ["monday", "friday"], from: 450, to: 1_080 },
    { days: ["sunday"], from: 1_320, to: 0 },
  ],
  share: 75,
  threads: 4,
  yields: true,
};

const DEVICE: DeviceView = {
  choice: "auto",
  decided_by: "people",
  cards: [{ card: "discrete:0", name: "Card A", speed: 12.5, reason: null }],
  used: "Card A",
  reason: null,
  worker_memory_bytes: null,
  runs_at_a_time: 1,
};

let screen: Screen;

const stand = (limits: ComputeLimits, roles: Role[], device: DeviceView = DEVICE) => {
  const people = [{ id: "p", name: "Petra", roles, organisation: null, state: "active", key: "k" }];
  return screen.show(<Machine />, { people, device, compute_limits: limits }, "Petra");
};

beforeEach(() => {
  screen = new Screen();
});
afterEach(() => screen.away());

describe("limits of training", () => {
  it("come back as they were, every minute of a day and every day", () => {
    for (let minutes = 0; minutes < 24 * 60; minutes++) expect(minutesOf(timeOf(minutes))).toBe(minutes);
    expect(readOut(fillIn(LIMITS))).toEqual(LIMITS);
    expect([minutesOf(""), minutesOf("24:00"), minutesOf("7:30")]).toEqual([null, null, null]);
  });

  it("are sent as the form shows them where nothing was changed", async () => {
    await stand(LIMITS, ["administrator"]);
    expect(await screen.faults()).toEqual([]);
    expect([screen.field("from1").value, screen.field("to1").value]).toEqual(["07:30", "18:00"]);
    await screen.submit();
    expect(screen.args("set_compute_limits")).toEqual({ limits: LIMITS });
    expect(screen.text()).toContain("These limits hold from now on.");
  });

  it("are sent as they were changed: a day, a time, threads, share and waiting", async () => {
    await stand({ quiet: [], share: 100, threads: null, yields: false }, ["administrator"]);
    await screen.press(screen.button("Add quiet hours"));
    await screen.press(screen.input("friday"));
    await screen.press(screen.input("sunday"));
    await screen.type("from1", "22:15");
    await screen.type("to1", "06:00");
    expect(screen.text()).toContain("To, on the next day");
    await screen.type("threads", "2");
    const slider = screen.place.querySelector<HTMLInputElement>("input[type=range]");
    await screen.slide(slider, "30");
    const yields = [...screen.place.querySelectorAll("label")].find((label) =>
      label.textContent?.startsWith("Wait while somebody works here"),
    );
    await screen.press(yields?.querySelector("input"));
    await screen.submit();
    expect(screen.args("set_compute_limits")).toEqual({
      limits: {
        quiet: [{ days: ["monday", "tuesday", "wednesday", "thursday", "sunday"], from: 1_335, to: 360 }],
        share: 30,
        threads: 2,
        yields: true,
      },
    });
  });

  it("are not sent without a day", async () => {
    const quiet: ComputeLimits["quiet"] = [{ days: ["monday"], from: 0, to: 60 }];
    await stand({ ...LIMITS, quiet }, ["administrator"]);
    await screen.press(screen.input("monday"));
    expect(screen.button("Set these limits").disabled).toBe(true);
    await act(async () => screen.button("Remove: Quiet hours 1").focus());
    await screen.press(screen.button("Remove: Quiet hours 1"));
    // What was pressed is gone; the focus is not.
    expect(document.activeElement).toBe(screen.button("Add quiet hours"));
    await screen.submit();
    expect(screen.args("set_compute_limits")).toEqual({ limits: { ...LIMITS, quiet: [] } });
  });

  it("are only to be read by others, with the card that is used", async () => {
    await stand(LIMITS, ["auditor"]);
    expect(await screen.faults()).toEqual([]);
    expect(screen.place.querySelector("form")).toBeNull();
    expect(screen.text()).toContain("Monday and Friday, 07:30 to 18:00");
    expect(screen.text()).toContain("Sunday, 22:00 to 00:00 the next day");
    expect(screen.text()).toContain("Large work runs on: Card A");
    expect(screen.text()).toContain("12.5 times");
  });
});

describe("what networks are trained on", () => {
  const offered = () =>
    [...screen.place.querySelectorAll<HTMLInputElement>("input[type=radio]")].map(({ value }) => value);

  it("is chosen by a rule or by a card's name, and holds from the next work on", async () => {
    await stand(LIMITS, ["administrator"]);
    expect(await screen.faults()).toEqual([]);
    expect(offered()).toEqual(["auto", "cpu", "gpu", "discrete:0"]);
    expect(screen.input("auto")?.checked).toBe(true);
    expect(screen.text()).toContain("Card A only");
    await screen.press(screen.input("discrete:0"));
    await screen.submit(1);
    expect(screen.args("set_device")).toEqual({ choice: "discrete:0" });
    expect(screen.text()).toContain("This holds from the next work on.");
  });

  it("shows a card that was chosen and is not there any more", async () => {
    const reason = "the graphics card that was chosen is not there";
    await stand(LIMITS, ["administrator"], { ...DEVICE, choice: "virtual:2", used: null, reason });
    expect(offered()).toEqual(["auto", "cpu", "gpu", "discrete:0", "virtual:2"]);
    expect(screen.input("virtual:2")?.checked).toBe(true);
    expect(screen.text()).toContain("virtual:2 only");
  });

  it("is not chosen by others, nor where the start of the engine or the IT decided it", async () => {
    await stand(LIMITS, ["auditor"]);
    expect([offered(), screen.text().includes("whichever is faster")]).toEqual([[], true]);
    for (const [decided_by, words] of [
      ["start", "the processor only (Said where the engine was started"],
      ["it", "the processor only (Set by your IT.)"],
    ] as const) {
      await screen.away();
      screen = new Screen();
      await stand(LIMITS, ["administrator"], { ...DEVICE, choice: "cpu", decided_by });
      expect([decided_by, offered()]).toEqual([decided_by, []]);
      expect(screen.text()).toContain(words);
    }
  });
});

describe("training that waits", () => {
  const at = new Date(2026, 2, 2, 9, 30).getTime();
  const jobs = (pause: Pause | null) =>
    screen.show(<Jobs />, { status: { at, pause, memberships: [], alarms: [] }, jobs: [], memberships: [] });

  it("says until when, and for whom, and nothing where it does not wait", async () => {
    await jobs({ quiet_hours: { until: new Date(2026, 2, 2, 18, 0).getTime() } });
    expect(screen.text()).toMatch(/Training waits until (18:00|6:00\sPM): quiet hours\./);
    await screen.away();
    screen = new Screen();
    await jobs("somebody_works");
    expect(screen.text()).toContain("Training waits while somebody works here.");
    expect(screen.place.querySelector("[role=alert]")).toBeNull();
    await screen.away();
    screen = new Screen();
    await jobs(null);
    expect(screen.text()).not.toContain("Training waits");
  });
});
