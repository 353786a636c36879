// @vitest-environment jsdom
import { act } from "react";
import { afterEach, describe, expect, it } from "vitest";
import type { DatasetUse, MembershipView, PeerView, Role } from "../src/ipc/types";
import { DatasetUses } from "../src/screens/DatasetUses";
import { Federation } from "../src/screens/Federation";
import { Federations } from "../src/screens/Federations";
import { button, press, type Screen, settle, show, type } from "./stage";

const HEART: MembershipView = {
  federation: "fed",
  name: "Heart",
  url: "https://heart.example",
  site: "site",
  site_name: "Cleveland",
  words: "one two three four five six seven eight nine ten eleven twelve",
  identity: "feed",
  paused: null,
  left: null,
  epoch_offered: null,
  link: { connected: { since: 1_000 } },
  roster: 1,
  members: 3,
};

const LEFT: MembershipView = {
  ...HEART,
  paused: "this site left the federation: we merge",
  left: 2_000,
  link: "idle",
};

let screen: Screen;

async function stand(of: MembershipView, roles: Role[], isList = false): Promise<void> {
  screen = await show(isList ? <Federations /> : <Federation id="fed" />, roles, (command) => {
    if (command === "memberships") return [of];
    return command === "leave" ? null : [];
  });
}

afterEach(() => screen.end());

describe("leaving a federation", () => {
  it("says what it cannot undo, wants a reason, and is done once", async () => {
    await stand(HEART, ["administrator"]);
    await press(button("Leave this federation"));
    const dialog = () => document.querySelector("[role=dialog]");
    expect(dialog()?.textContent).toContain("What has left cannot be called back");
    expect(dialog()?.textContent).toContain("a new invitation");
    const submit = () =>
      act(async () => document.querySelector<HTMLFormElement>("[role=dialog] form")?.requestSubmit());
    await submit();
    expect(screen.of("leave")).toEqual([]);
    await type("reason", "we merge");
    await submit();
    await settle();
    expect(screen.of("leave")).toEqual([{ federation: "fed", reason: "we merge" }]);
    expect(dialog()).toBeNull();
  });

  it("begins anew each time that it is asked: a reason is for what it was written for", async () => {
    await stand(HEART, ["administrator"]);
    const reason = () => document.querySelector<HTMLTextAreaElement>("[name=reason]")?.value;
    await press(button("Pause"));
    await type("reason", "we move house");
    await press(button("Cancel"));
    await settle();
    await press(button("Pause"));
    expect(reason()).toBe("");
    await type("reason", "we move house");
    await act(async () => document.querySelector<HTMLFormElement>("[role=dialog] form")?.requestSubmit());
    await settle();
    expect(screen.of("pause")).toEqual([{ federation: "fed", reason: "we move house" }]);
    await press(button("Pause"));
    expect(reason()).toBe("");
    await press(button("Cancel"));
    await settle();
  });

  it("is not thrown away by a press beside it; a question without words is", async () => {
    const beside = () =>
      act(async () => {
        const veil = document.querySelector("[role=dialog]")?.parentElement?.parentElement;
        for (const kind of ["pointerdown", "pointerup", "click"]) {
          veil?.dispatchEvent(new MouseEvent(kind, { bubbles: true, button: 0 }));
        }
      });
    const dialog = () => document.querySelector("[role=dialog]");
    await stand(HEART, ["administrator"]);
    await press(button("Pause"));
    await beside();
    await settle();
    expect(dialog()).not.toBeNull();
    await screen.end();
    await stand({ ...HEART, paused: "we move house" }, ["administrator"]);
    await press(button("End the pause"));
    expect(dialog()).not.toBeNull();
    await beside();
    await settle();
    expect(dialog()).toBeNull();
  });

  it("is offered to administrators only", async () => {
    await stand(HEART, ["privacy_officer"]);
    expect([button("Pause") !== null, button("Leave this federation")]).toEqual([true, null]);
  });

  it.each([true, false])(
    "is seen afterwards, with its reason and no way to pause (list: %s)",
    async (isList) => {
      await stand(LEFT, ["administrator"], isList);
      expect(screen.place.textContent).toContain("Left on");
      expect(screen.place.textContent).toContain("we merge");
      expect(screen.place.textContent).not.toContain("Paused");
      expect([button("End the pause"), button("Leave this federation")]).toEqual([null, null]);
    },
  );

  it("leaves the words of this site's key to be read out, and as a code", async () => {
    await stand(HEART, ["auditor"]);
    const words = [...screen.place.querySelectorAll('ol[aria-label="Words of Cleveland"] li')];
    expect(words.map((li) => li.textContent)).toEqual(HEART.words.split(" "));
    expect(screen.place.querySelector('svg[role="img"][aria-label*="Words of Cleveland"]')).not.toBeNull();
  });
});

describe("other members", () => {
  const ASSERTED: PeerView = {
    site: "two",
    name: "Hungary",
    organisation: "Institute of Cardiology",
    identity: "beef",
    trust: "asserted_only",
    vouched_by: [],
    vouched_here: false,
    words: null,
    compared: null,
    revoked: null,
    absent: false,
  };
  const VERIFIED: PeerView = {
    ...ASSERTED,
    site: "three",
    name: "Zurich",
    trust: "verified_here",
    words: "twelve eleven ten nine eight seven six five four three two one",
    compared: { by: "ida", at: 0 },
  };

  async function among(peers: PeerView[], roles: Role[] = ["data_steward"]): Promise<void> {
    screen = await show(<Federation id="fed" />, roles, (command) => {
      if (command === "memberships") return [HEART];
      if (command === "peers") return peers;
      return command.endsWith("verify_peer") ? peers[0] : [];
    });
  }

  it("are counted by how their keys are known, and named where the coordinator alone knows them", async () => {
    await among([ASSERTED, VERIFIED]);
    expect(screen.place.textContent).toContain("1 of 2 verified here, 0 vouched for");
    expect(screen.place.textContent).toContain("Asserted by the coordinator only: Hungary.");
    expect(screen.place.textContent).toContain("Words compared by ida on");
  });

  it("have words to be shown only once somebody here typed them", async () => {
    await among([ASSERTED]);
    expect(button("Show words")).toBeNull();
    await press(button("Compare words"));
    expect(document.querySelector("[role=dialog] svg[role=img]")).toBeNull();
    await type("words", VERIFIED.words ?? "");
    await act(async () => document.querySelector<HTMLFormElement>("[role=dialog] form")?.requestSubmit());
    await settle();
    expect(screen.of("verify_peer")).toEqual([{ federation: "fed", site: "two", words: VERIFIED.words }]);
    await screen.end();
    await among([VERIFIED]);
    await press(button("Show words"));
    const words = [...document.querySelectorAll("[role=dialog] li")].map((li) => li.textContent);
    expect(words.join(" ")).toBe(VERIFIED.words);
    await press(button("Close"));
    await settle();
  });

  it("are no longer verified where their key changed, which is said, and where somebody takes it back", async () => {
    await among([{ ...ASSERTED, revoked: 0 }]);
    expect(screen.place.textContent).toContain("No longer verified since");
    expect(button("Take back")).toBeNull();
    await screen.end();
    await among([VERIFIED], ["auditor"]);
    expect(button("Take back")).toBeNull();
    await screen.end();
    await among([VERIFIED]);
    await press(button("Take back"));
    await type("reason", "they lost the laptop");
    await act(async () => document.querySelector<HTMLFormElement>("[role=dialog] form")?.requestSubmit());
    await settle();
    const asked = { federation: "fed", site: "three", reason: "they lost the laptop" };
    expect(screen.of("unverify_peer")).toEqual([asked]);
  });
});

describe("what a dataset is used for", () => {
  const use = (more: Partial<DatasetUse>): DatasetUse => ({
    study: "study",
    title: "A study",
    federation_name: "Heart",
    state: "active",
    at: Date.UTC(2026, 4, 1, 12),
    expires: Date.UTC(2026, 10, 1, 12),
    runs: 2,
    bytes_left: 4_000,
    ...more,
  });

  it("is listed with its approval, its dates, its runs and what left, and in all", async () => {
    const uses = [use({}), use({ state: "superseded", at: 0, runs: 1, bytes_left: 1_000 })];
    screen = await show(<DatasetUses dataset="data" />, ["data_steward"], () => uses);
    expect(screen.of("dataset_uses")).toEqual([{ dataset: "data" }]);
    const rows = [...screen.place.querySelectorAll("tbody tr")].map((row) =>
      [...row.children].map((cell) => cell.textContent),
    );
    expect(rows.map((row) => [row[0], row[2], row[5], row[6]])).toEqual([
      ["A study", "Approved", "2", "4 kB"],
      ["A study", "Replaced by a newer approval", "1", "1 kB"],
    ]);
    expect(rows[0]?.[3]).toBe("May 1, 2026");
    expect(screen.place.querySelector("tfoot")?.textContent).toContain("5 kB left in 3 runs");
    expect(screen.place.querySelector("tbody a")?.getAttribute("href")).toBe("#/requests/study");
  });

  it("is said to be nothing where there is none", async () => {
    screen = await show(<DatasetUses dataset="data" />, ["auditor"], () => []);
    expect(screen.place.textContent).toContain("No study was approved for this version");
  });
});
