// @vitest-environment jsdom
import { afterEach, describe, expect, it } from "vitest";
import type { RequestView } from "../src/ipc/types";
import { Approvals } from "../src/screens/Approvals";
import { Home } from "../src/screens/Home";
import { button, STATUS as OPERATING, type Screen, settle, show } from "./stage";

const DAY = 24 * 60 * 60 * 1_000;
const NOW = Date.UTC(2026, 4, 1, 12);

/** A draft of a further approval, beside the one under which rounds run. */
const DRAFT: RequestView = {
  study: "study",
  federation: "federation",
  federation_name: "Heart",
  title: "A study",
  requester: "Ada",
  received: NOW - DAY,
  state: "partly_approved",
  expires: NOW + 300 * DAY,
  runs: [0, 9],
  reason: "of the draft",
  in_force: {
    approval: "approval",
    state: "active",
    held_by: null,
    expires: NOW + 90 * DAY,
    runs: [2, 3],
    reason: "of the approval",
  },
};

const STATUS = { ...OPERATING, at: NOW };

let screen: Screen;

async function stand(part: "approvals" | "home", requests: RequestView[]): Promise<void> {
  screen = await show(part === "home" ? <Home /> : <Approvals />, ["data_steward"], (command) => {
    if (command === "status") return STATUS;
    return command === "requests" ? requests : [];
  });
  await settle();
}

const text = () => screen.place.textContent ?? "";

afterEach(() => screen.end());

describe("an approval in force", () => {
  it("is shown as it is, with its own dates, runs and reason, beside a draft of a further one", async () => {
    await stand("approvals", [DRAFT]);
    expect(text()).toContain("Approved");
    expect(text()).not.toContain("Waits for the second signature");
    expect(text()).toContain("2 of 3 used");
    expect(text()).toContain("Jul 30, 2026");
    expect(text()).toContain("of the approval");
    expect(text()).not.toContain("of the draft");
    expect([button("Suspend") !== null, button("Revoke") !== null]).toEqual([true, true]);
  });

  it("is not what a draft alone is, nor what is over", async () => {
    await stand("approvals", [
      { ...DRAFT, in_force: null },
      { ...DRAFT, study: "old", title: "An old study", state: "expired", in_force: null },
    ]);
    expect(text()).toContain("Nothing is allowed at present");
    expect(text()).toContain("No longer in force");
    expect(text()).toContain("An old study");
    expect(text()).not.toContain("9 used");
  });

  it("is at home the next to end, by its own date", async () => {
    await stand("home", [DRAFT]);
    expect(text()).toContain("Jul 30, 2026");
    await screen.end();
    await stand("home", [{ ...DRAFT, in_force: null }]);
    expect(text()).toContain("none is in force");
  });
});
