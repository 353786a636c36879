// @vitest-environment jsdom
import { act } from "react";
import { afterEach, describe, expect, it } from "vitest";
import type { Role } from "../src/ipc/types";
import { Retention } from "../src/screens/Retention";
import { button, type Screen, settle, show, type } from "./stage";

let screen: Screen;

async function stand(months: number | null, role: Role = "administrator"): Promise<void> {
  screen = await show(<Retention />, [role], (command) => {
    if (command === "audit_retention") return months;
    if (command === "set_audit_retention") return { done: { code: null } };
    return [];
  });
}

afterEach(() => screen.end());

const set = () => button("Set retention");

async function submit(): Promise<void> {
  await act(async () => document.querySelector<HTMLFormElement>("form")?.requestSubmit());
  await settle();
}

async function sign(): Promise<void> {
  await type("signing", "a long passphrase");
  await act(async () => document.querySelector<HTMLFormElement>("[role=dialog] form")?.requestSubmit());
  await settle();
}

describe("the retention of the log", () => {
  it("is set in months, signed, and not below twelve", async () => {
    await stand(null);
    expect(screen.place.textContent).toContain("kept whole for good");
    expect(set()?.disabled).toBe(true);
    await type("months", "11");
    expect(set()?.disabled).toBe(true);
    await type("months", "24");
    expect(set()?.disabled).toBe(false);
    await submit();
    expect(document.querySelector("[role=dialog]")?.textContent).toContain("erased after 24 months");
    await sign();
    expect(screen.of("set_audit_retention")).toEqual([{ months: 24, passphrase: "a long passphrase" }]);
  });

  it("is for good where no number is given", async () => {
    await stand(24);
    await type("months", "");
    await submit();
    await sign();
    expect(screen.of("set_audit_retention")).toEqual([{ months: null, passphrase: "a long passphrase" }]);
  });

  it("is shown to everybody, and changed by administrators only", async () => {
    await stand(24, "auditor");
    expect(screen.place.textContent).toContain("erased after 24 months");
    expect(set()).toBeNull();
  });
});
