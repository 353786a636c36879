// @vitest-environment jsdom
import { afterEach, describe, expect, it } from "vitest";
import { exactly } from "../src/i18n/format";
import type { EgressView } from "../src/ipc/types";
import { EgressLog } from "../src/screens/EgressLog";
import { type Screen, show } from "./stage";

const ITEM: EgressView = {
  federation: "federation",
  study: "study",
  round: { job: "job", task: "train", epoch: 1, round: 3, attempt: 1 },
  kind: "update",
  digest: "aa",
  bytes: 64,
  state: "sent",
  left: Date.UTC(2026, 4, 1, 12, 5),
  at: Date.UTC(2026, 4, 1, 12),
  ended: Date.UTC(2026, 4, 1, 12, 10),
  protection: "unmasked",
  public_data: false,
};

let screen: Screen;

async function stand(...items: EgressView[]): Promise<void> {
  screen = await show(<EgressLog />, ["auditor"], (command) => (command === "egress" ? items : []));
}

afterEach(() => screen.end());

describe("what left", () => {
  it("says when it was entered, when it left, and when its arrival was confirmed", async () => {
    await stand(ITEM);
    const { textContent } = screen.place;
    expect(textContent).toContain(`Entered ${exactly(ITEM.at)}`);
    expect(textContent).toContain(`Left ${exactly(ITEM.left ?? 0)}`);
    expect(textContent).toContain(`Arrival confirmed ${exactly(ITEM.ended ?? 0)}`);
  });

  it("says of every entry that the coordinator can read it, and which was made of public data", async () => {
    await stand(ITEM, { ...ITEM, digest: "bb", public_data: true });
    const rows = [...screen.place.querySelectorAll("tbody tr")].map((row) => row.textContent ?? "");
    expect(rows).toHaveLength(2);
    for (const row of rows) expect(row).toContain("The coordinator can read this.");
    expect(rows.map((row) => row.includes("Public data"))).toEqual([false, true]);
  });

  it("says nothing of the kind before it happened", async () => {
    await stand({ ...ITEM, state: "waiting", left: null, ended: null });
    expect(screen.place.textContent).not.toMatch(/Left \w+ \d|confirmed|Ended/);
    await screen.end();
    await stand({ ...ITEM, state: "withdrawn", left: null });
    expect(screen.place.textContent).toContain(`Ended ${exactly(ITEM.ended ?? 0)}`);
  });
});
