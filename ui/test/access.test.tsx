// @vitest-environment jsdom
import { act } from "react";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Role, SignInRules as Rules } from "../src/ipc/types";
import { SignInRules } from "../src/screens/SignInRules";
import { Screen } from "./screen";

const RULES: Rules = { idle_minutes: 10, tries: 3, longest_wait_minutes: 15 };

let screen: Screen;

const stand = (roles: Role[], managed: object | null = null) => {
  const people = [{ id: "p", name: "Petra", roles, organisation: null, state: "active", key: "k" }];
  return screen.show(<SignInRules />, { people, managed, sign_in_rules: RULES }, "Petra");
};

/** Signs what is asked in front of the screen. */
async function sign(passphrase: string): Promise<void> {
  const dialog = document.querySelector("[role=dialog]");
  await screen.slide(dialog?.querySelector<HTMLInputElement>("input[type=password]") ?? null, passphrase);
  await act(async () => dialog?.querySelector("form")?.requestSubmit());
  await screen.settle();
}

beforeEach(() => {
  screen = new Screen();
});
afterEach(() => screen.away());

describe("the rules of signing in", () => {
  it("are set by an administrator, who signs them", async () => {
    await stand(["administrator"]);
    expect(await screen.faults()).toEqual([]);
    expect(screen.field("idle_minutes").value).toBe("10");
    expect(screen.text()).toContain("From 2 to 60.");
    await screen.type("idle_minutes", "5");
    await screen.type("longest_wait_minutes", "30");
    await screen.submit();
    expect(screen.times("set_sign_in_rules")).toBe(0);
    await sign("a long passphrase");
    expect(screen.args("set_sign_in_rules")).toEqual({
      rules: { idle_minutes: 5, tries: 3, longest_wait_minutes: 30 },
      passphrase: "a long passphrase",
    });
    expect(screen.text()).toContain("These rules hold from now on.");
  });

  it("are not asked for outside of their bounds", async () => {
    await stand(["administrator"]);
    for (const [rule, wrong, right] of [
      ["idle_minutes", "61", "60"],
      ["tries", "2", "4"],
      ["longest_wait_minutes", "", "5"],
    ] as const) {
      await screen.type(rule, wrong);
      expect(screen.button("Set these rules").disabled, rule).toBe(true);
      await screen.type(rule, right);
      expect(screen.button("Set these rules").disabled, rule).toBe(false);
    }
  });

  it("have the bounds of the hospital's IT where it set some", async () => {
    await stand(["administrator"], { idle_minutes: 1, tries: 4, wait_minutes: 20 });
    expect(screen.text()).toContain("Set by your IT. From 1 to 1.");
    expect(screen.text()).toContain("Set by your IT. From 3 to 4.");
    expect(screen.text()).toContain("Set by your IT. From 20 to 60.");
  });

  it("are only to be read by others", async () => {
    await stand(["auditor"]);
    expect(await screen.faults()).toEqual([]);
    expect(screen.place.querySelector("form")).toBeNull();
    expect(screen.text()).toContain("Minutes without use until somebody is signed out10");
  });
});
