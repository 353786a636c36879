// @vitest-environment jsdom
import { act } from "react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { READS } from "../src/ipc/commands";
import type { Fault } from "../src/ipc/types";
import { App } from "../src/shell/App";
import { type Answers, Screen } from "./screen";
import { STATUS as OPERATING } from "./stage";

const OWN = "a long passphrase";
const WORDS = "one two three four five six seven eight nine ten eleven twelve";
const PETRA = { id: "p", name: "Petra", roles: ["administrator"], organisation: null };
const RULES = { idle_minutes: 10, tries: 3, longest_wait_minutes: 15 };
const PERSON = { ...PETRA, state: "active", key: "k" };
const STATUS = { ...OPERATING, software: "hospes 0.1.0" };

const refusal = (fault: Fault) => () => Promise.reject(fault);
const NO_SESSION: Fault = { code: "no_session", words: "the session has ended; log in again" };

let screen: Screen;

/** Before the door of a site that runs. */
const stand = (more: Answers = {}) => {
  const lists = { requests: [], proposals: [], memberships: [], jobs: [], datasets: [] };
  const about = { software: "hospes 0.1.0", engine: "here", folder: "/home/hospes" };
  const me = { ...PETRA, ends: 0 };
  return screen.show(<App />, {
    about,
    status: STATUS,
    log_in: me,
    people: [PERSON],
    sign_in_rules: RULES,
    ...lists,
    ...more,
  });
};

async function signIn(name = "Petra"): Promise<void> {
  await screen.type("name", name);
  await screen.type("passphrase", OWN);
  await screen.submit();
}

const pass = async (millis: number) => {
  await act(async () => void vi.advanceTimersByTime(millis));
  await screen.settle();
};

beforeEach(() => {
  screen = new Screen();
});
afterEach(async () => {
  await screen.away();
  vi.useRealTimers();
  location.hash = "";
});

describe("a session", () => {
  it("is asked for while somebody is here, and locks an unattended window when it has ended", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    let isOver = false;
    await stand({ whoami: () => (isOver ? Promise.reject(NO_SESSION) : { ...PETRA, ends: 0 }) });
    await pass(60_000);
    expect(screen.times("whoami")).toBe(0);
    await signIn();
    await pass(60_000);
    expect(screen.times("whoami")).toBe(2);
    expect(screen.text()).toContain("Good day, Petra");
    isOver = true;
    await pass(30_000);
    expect(screen.text()).not.toContain("Good day");
    expect(screen.text()).toContain("You were signed out because nobody worked here for a while.");
    await pass(60_000);
    expect(screen.times("whoami")).toBe(3);
    // Looking on keeps no session alive: only what reads nothing does.
    expect(screen.times("active")).toBe(0);
    expect(READS.whoami).toEqual(["people"]);
  });

  it("is of whom the engine names, however they typed it", async () => {
    await stand();
    await signIn(" PETRA ");
    expect(screen.args("log_in")).toEqual({ name: "PETRA", passphrase: OWN });
    expect(screen.text()).toContain("Good day, Petra");
    await act(async () => {
      location.hash = "#/settings/people";
    });
    await screen.settle();
    await screen.settle();
    expect(screen.button("Add a person")).not.toBeNull();
  });

  it("leaves nothing in the window after signing out, whatever the engine does", async () => {
    let answer = (_: Fault) => {};
    const whoami = () => new Promise((_, reject) => (answer = reject));
    await stand({ whoami, log_out: () => new Promise(() => {}) });
    await signIn();
    await act(async () => void document.dispatchEvent(new Event("visibilitychange")));
    await screen.press(screen.button("Sign out"));
    expect(screen.times("log_out")).toBe(1);
    expect(screen.text()).not.toContain("Good day");
    // An answer that comes late does not say that nobody worked here.
    await act(async () => answer(NO_SESSION));
    await screen.settle();
    expect(screen.text()).not.toContain("You were signed out");
  });
});

describe("a one-time code", () => {
  const activate = async () => {
    await screen.press(screen.button("I have a one-time code"));
    await screen.type("name", "Petra ");
    await screen.type("code", "abcd ");
    await screen.type("passphrase", OWN);
    await screen.type("again", OWN);
    await screen.submit();
  };

  it("for a new key shows the words by which a colleague confirms it", async () => {
    const made = { ...PERSON, state: "key_unconfirmed", key: "feed" };
    await stand({ activate: made, key_words: WORDS });
    await activate();
    await screen.settle();
    expect(screen.args("activate")).toEqual({ name: "Petra", code: "abcd", passphrase: OWN });
    expect(screen.args("key_words")).toEqual({ key: "feed" });
    expect(screen.times("log_in")).toBe(0);
    expect(document.activeElement?.textContent).toBe("Your new key waits for confirmation");
    const words = [...screen.place.querySelectorAll('ol[aria-label="Words of your new key"] li')];
    expect(words.map((li) => li.textContent)).toEqual(WORDS.split(" "));
    expect(await screen.faults()).toEqual([]);
    await screen.press(screen.button("Back to sign-in"));
    expect(screen.field("passphrase").value).toBe("");
  });

  it("is used once: where only the sign-in failed, only that is tried again", async () => {
    let isAway = true;
    const log_in = () =>
      isAway ? Promise.reject({ code: "store", words: "the disk is busy" }) : { ...PETRA, ends: 0 };
    await stand({ activate: PERSON, log_in });
    await activate();
    await screen.settle();
    expect(screen.text()).toContain("the disk is busy");
    isAway = false;
    await screen.submit();
    expect([screen.times("activate"), screen.times("log_in")]).toEqual([1, 2]);
    expect(screen.text()).toContain("Good day, Petra");
  });
});

describe("the first person", () => {
  it("is made once: where only the sign-in failed, only that is tried again", async () => {
    let [isAway, phase] = [true, "empty"];
    await stand({
      status: () => ({ ...STATUS, phase }),
      set_up: () => {
        phase = "set_up";
        return "p";
      },
      log_in: () =>
        isAway ? refusal({ code: "store", words: "the disk is busy" })() : { ...PETRA, ends: 0 },
    });
    await screen.submit();
    await screen.type("name", " Petra");
    await screen.type("passphrase", OWN);
    await screen.type("again", OWN);
    await screen.submit();
    await screen.submit();
    await screen.settle();
    expect(screen.args("set_up")).toEqual({ name: "Petra", passphrase: OWN });
    expect(screen.text()).toContain("Set up this site");
    expect(screen.text()).toContain("the disk is busy");
    isAway = false;
    await screen.submit();
    expect([screen.times("set_up"), screen.times("log_in")]).toEqual([1, 2]);
    expect(screen.text()).toContain("Good day, Petra");
  });
});
