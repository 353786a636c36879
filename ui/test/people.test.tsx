// @vitest-environment jsdom
import { act } from "react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { PersonView, Role } from "../src/ipc/types";
import { PeopleSettings } from "../src/screens/PeopleSettings";
import { Screen } from "./screen";
import { press, settle, type } from "./stage";

const person = (id: string, name: string, ...roles: Role[]): PersonView => ({
  id,
  name,
  roles,
  organisation: null,
  state: "active",
  key: "k",
});

const STEFAN = person("p", "Stefan", "data_steward");
const ADA = person("a", "Ada", "administrator");
const ANNA = person("b", "Anna", "data_access_approver");

let screen: Screen;

const stand = async (people: PersonView[], phase = "operating", answers = {}) => {
  await screen.show(<PeopleSettings />, { people, proposals: [], status: { phase }, ...answers }, "Stefan");
  await screen.settle();
};

const offers = () =>
  [...screen.place.querySelectorAll("button[aria-label^=Change]")].map((b) => b.getAttribute("aria-label"));

beforeEach(() => {
  screen = new Screen();
});
afterEach(() => screen.away());

describe("the only administrator who forgot the passphrase", () => {
  it("is given a new key by two others, of whom a data steward begins", async () => {
    const code = "abcdefghijklmnop";
    await stand([ADA, ANNA, STEFAN], "operating", { change_person: { done: { code } } });
    expect(offers()).toEqual(["Change: Ada"]);
    await press(screen.button("Change: Ada"));
    const items = [...document.querySelectorAll("[role=menuitem]")];
    expect(items.map((item) => item.textContent)).toEqual(["New key"]);
    await press(items[0] ?? null);
    await settle();
    const dialog = document.querySelector("[role=dialog]");
    expect(dialog?.textContent).toContain("Ada is the only administrator");
    await type("signing", "a long passphrase");
    await act(async () => dialog?.querySelector("form")?.requestSubmit());
    await settle();
    expect(screen.args("change_person")).toEqual({
      id: "a",
      change: "new_key",
      passphrase: "a long passphrase",
    });
    // What is handed over can be copied.
    const writeText = vi.fn(async () => {});
    Object.defineProperty(navigator, "clipboard", { value: { writeText }, configurable: true });
    await press(screen.button("Copy: One-time code"));
    expect(writeText).toHaveBeenCalledExactlyOnceWith(code);
  });

  it("is not offered one while another administrator can act, or before the site operates", async () => {
    await stand([ADA, person("c", "Cleo", "administrator"), STEFAN]);
    expect(offers()).toEqual([]);
    await screen.away();
    screen = new Screen();
    await stand([ADA, STEFAN], "set_up");
    expect(offers()).toEqual([]);
    await screen.away();
    screen = new Screen();
    await stand([ADA, { ...STEFAN, organisation: "Another clinic" }]);
    expect(offers()).toEqual([]);
  });

  it("changes everybody else as before", async () => {
    await stand([person("p", "Stefan", "administrator"), ANNA]);
    expect(offers()).toEqual(["Change: Stefan", "Change: Anna"]);
    await press(screen.button("Change: Anna"));
    const items = [...document.querySelectorAll("[role=menuitem]")];
    expect(items.map((item) => item.textContent)).toEqual(["Roles", "New key", "Disable"]);
  });
});
