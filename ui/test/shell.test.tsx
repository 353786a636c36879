// @vitest-environment jsdom
import { act } from "react";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Header } from "../src/shell/Header";
import { Rail } from "../src/shell/Rail";
import { Screen } from "./screen";

const membership = (name: string, left: number | null) => ({
  federation: name,
  name,
  site: `site in ${name}`,
  site_name: `Clinic in ${name}`,
  paused: left === null ? null : "this site left the federation: we merge",
  left,
  link: left === null ? { connected: { since: 1_000 } } : "idle",
});

let screen: Screen;

beforeEach(() => {
  screen = new Screen();
});
afterEach(() => screen.away());

describe("the header", () => {
  const stand = (...memberships: object[]) => {
    const ledger = { entries: 1, root: "aa", witnessed: [] };
    return screen.show(<Header />, { status: { ledger, memberships } }, "Stefan");
  };

  it("counts a federation that was left neither as a link nor as this site's name", async () => {
    await stand(membership("Old", 2_000), membership("Heart", null));
    expect(screen.text()).toContain("Clinic in Heart");
    expect(screen.text()).toContain("Connected");
    expect(screen.text()).not.toContain("Old");
  });

  it("says that the site is in no federation where it left the only one", async () => {
    await stand(membership("Old", 2_000));
    expect(screen.text()).toContain("This site");
    expect(screen.text()).toContain("In no federation");
  });
});

describe("the rail of a narrow window", () => {
  it("closes on Escape, and the button that opened it has the focus", async () => {
    await screen.show(<Rail />, { status: { waiting: 0 } }, "Stefan");
    const menu = () => screen.button("Menu");
    await screen.press(menu());
    expect(menu().getAttribute("aria-expanded")).toBe("true");
    screen.place.querySelector("a")?.focus();
    await act(async () => {
      document.activeElement?.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
    });
    expect(menu().getAttribute("aria-expanded")).toBe("false");
    expect(document.activeElement).toBe(menu());
  });
});
