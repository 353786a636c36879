// @vitest-environment jsdom
import { act } from "react";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { STARTING_MS } from "../src/ipc/hooks";
import type { Away, EngineState, Fault, StartStep, Status } from "../src/ipc/types";
import { Beginning } from "../src/screens/Beginning";
import { App } from "../src/shell/App";
import { seePolicy } from "../src/shell/preferences";
import { type Answers, Screen } from "./screen";
import { STATUS } from "./stage";

const OWN = "the administrator's own";
const KEY = "of the key file alone";

let screen: Screen;
let engine: EngineState;
let step: StartStep = "looking";

const refusal = (fault: Fault) => () => Promise.reject(fault);

/** Before the door, with the engine in this state. */
const stand = (state: EngineState, more: Answers = {}) => {
  engine = state;
  const about = () => ({ software: "hospes 0.1.0", engine, step, folder: "/home/hospes" });
  const away = refusal({ code: "not_running", words: "this machine has no site yet" });
  const me = { id: "p", name: "Petra", roles: ["administrator"], organisation: null, ends: 0 };
  return screen.show(<App />, { about, status: away, log_in: me, people: [], datasets: [], ...more });
};

/** Through the steps as far as the keys. */
async function introduce(): Promise<void> {
  await screen.submit();
  await screen.type("name", " Petra ");
  await screen.type("passphrase", OWN);
  await screen.type("again", OWN);
  await screen.submit();
}

const secrets = () => [...screen.place.querySelectorAll<HTMLInputElement>("input")];
const shown = () => {
  const typed = secrets().filter(({ type }) => type !== "password");
  return screen.text() + typed.map(({ value }) => value).join(" ");
};

beforeEach(() => {
  screen = new Screen();
  step = "looking";
});
afterEach(() => screen.away());

/** Buttons as they stand, from the top. */
const buttons = () => [...screen.place.querySelectorAll("button")].map((found) => found.textContent);

describe("the first run", () => {
  it("asks for the language once, and leads on before it tells of backups", async () => {
    await stand("not_set_up");
    expect(screen.place.querySelectorAll("input[type=radio]")).toHaveLength(4);
    expect(screen.place.querySelector("select")).toBeNull();
    expect(buttons()).toEqual(["Continue", "Restore from a backup"]);
    expect(screen.text()).toContain("Did this hospital have a site before");
    expect(await screen.faults()).toEqual([]);
    await screen.press(screen.input("de"));
    expect(buttons()).toEqual(["Weiter", "Aus einer Sicherung wiederherstellen"]);
    await screen.press(screen.input("en"));
    // From then on where it always stands.
    await screen.submit();
    expect(screen.place.querySelectorAll("select")).toHaveLength(1);
    expect(buttons()).toEqual(["Back", "Continue"]);
  });

  it("lays down a site with its keys in the keychain, and signs its administrator in", async () => {
    await stand("not_set_up", {
      initialise: () => {
        engine = "here";
        return null;
      },
    });
    expect(screen.text()).not.toContain("does not run on this machine");
    expect(await screen.faults()).toEqual([]);
    await introduce();
    expect(await screen.faults()).toEqual([]);
    expect(shown()).not.toContain(OWN);
    await screen.submit();
    expect(screen.args("initialise")).toEqual({ administrator: "Petra", passphrase: OWN, keys: "keychain" });
    expect(screen.args("log_in")).toEqual({ name: "Petra", passphrase: OWN });
    expect(screen.text()).toContain("Good day, Petra");
    expect(screen.place.innerHTML).not.toContain(OWN);
  });

  it("asks for a passphrase of the key file, and sends both, each where it belongs", async () => {
    await stand("not_set_up");
    await introduce();
    await screen.press(screen.input("file"));
    await screen.type("key", KEY);
    await screen.type("keyAgain", "something else");
    await screen.submit();
    expect(screen.times("initialise")).toBe(0);
    await screen.type("keyAgain", KEY);
    expect(shown()).not.toContain(KEY);
    await screen.submit();
    const keys = { file: { passphrase: KEY } };
    expect(screen.args("initialise")).toEqual({ administrator: "Petra", passphrase: OWN, keys });
  });

  it("goes no further with two passphrases that differ", async () => {
    await stand("not_set_up");
    await screen.submit();
    await screen.type("name", "Petra");
    await screen.type("passphrase", OWN);
    await screen.type("again", `${OWN}?`);
    await screen.submit();
    expect(screen.text()).toContain("The two passphrases differ.");
    expect(screen.place.querySelector("[name=key], [value=keychain]")).toBeNull();
  });

  it("stays where it is when the keychain fails, so that a key file can be chosen", async () => {
    const initialise = refusal({ code: "keys", words: "there is no keychain", reference: "r-1" });
    await stand("not_set_up", { initialise });
    await introduce();
    await screen.submit();
    expect(screen.text()).toContain("there is no keychain");
    expect(screen.text()).toContain("r-1");
    expect(screen.input("file")).not.toBeNull();
    expect(screen.times("log_in")).toBe(0);
  });
});

describe("before the sign-in", () => {
  const later = () =>
    act(async () => void (await new Promise((done) => setTimeout(done, STARTING_MS + 300))));

  it("an engine that starts is waited for calmly, and it says for what", async () => {
    step = "keychain";
    await stand("starting");
    expect(screen.text()).toContain("Hospes is starting");
    expect(screen.text()).toContain("Opening the keychain");
    expect(screen.place.querySelector("[role=alert]")).toBeNull();
    step = "engine";
    await later();
    expect(screen.text()).toContain("Starting the site");
    expect(await screen.faults()).toEqual([]);
  });

  it("a start that is over shows the sign-in, also where nobody told", async () => {
    await stand("starting");
    engine = "here";
    await later();
    expect(screen.text()).not.toContain("Hospes is starting");
    expect(screen.field("passphrase").type).toBe("password");
  });

  it("an answer that is lost is asked for again", async () => {
    let asked = 0;
    const here = { software: "hospes 0.1.0", engine: "here", step, folder: "/home/hospes" };
    await stand("here", { about: () => (asked++ === 0 ? new Promise(() => {}) : here) });
    expect(screen.text()).toContain("Hospes is starting");
    await later();
    expect(screen.field("passphrase").type).toBe("password");
  });

  it("a locked key file is opened with its passphrase, which is gone afterwards", async () => {
    await stand("locked", { unlock: refusal({ code: "keys", words: "another passphrase" }) });
    await screen.type("key", KEY);
    await screen.submit();
    expect(await screen.faults()).toEqual([]);
    expect(screen.args("unlock")).toEqual({ passphrase: KEY });
    expect([screen.field("key").value, screen.field("key").type]).toEqual(["", "password"]);
    expect(screen.text()).toContain("another passphrase");
  });

  it("an engine that failed says why, and is tried again", async () => {
    await stand({ failed: { fault: { code: "disk_full", words: "no space", reference: "r-2" } } });
    expect(screen.text()).toContain("no space");
    expect(screen.text()).toContain("r-2");
    await screen.press(screen.button("Try again"));
    expect(screen.times("start_engine")).toBe(1);
  });
});

describe("where the machine has a service", () => {
  const states: [string, Away, string[]][] = [
    ["does not run", "stopped", ["sudo systemctl enable --now hospes-site"]],
    [
      "may not use",
      { no_access: { account: "clara" } },
      ["sudo usermod -aG hospes clara", "log out of the machine"],
    ],
  ];

  it.each(states)("that %s, it says what to do and lays nothing down", async (title, why, words) => {
    await stand({ service_away: { why } });
    for (const said of [title, ...words]) expect(screen.text()).toContain(said);
    expect(screen.place.querySelector("[name=name], [name=passphrase]")).toBeNull();
    expect(await screen.faults()).toEqual([]);
    await screen.press(screen.button("Look again"));
    expect(screen.times("start_engine")).toBe(1);
    expect(screen.times("initialise")).toBe(0);
  });

  it("a site of one's own is for those who ask for it twice", async () => {
    await stand({ service_away: { why: "stopped" } });
    await screen.press(screen.button("Try out on this account"));
    expect(document.body.textContent).toContain("/home/hospes");
    expect(screen.times("try_here")).toBe(0);
    await screen.press(screen.button("Cancel"));
    expect(screen.times("try_here")).toBe(0);
    await screen.press(screen.button("Try out on this account"));
    await act(async () => document.querySelector<HTMLFormElement>("[role=dialog] form")?.requestSubmit());
    await screen.settle();
    expect(screen.times("try_here")).toBe(1);
  });
});

describe("where the service waits for its first person", () => {
  let phase: string;

  /** Before a service, whose site is set up or not. */
  const wait = (more: Answers = {}) => {
    const about = {
      software: "hospes 0.1.0",
      engine: "service",
      folder: "/var/lib/hospes",
      own_folder: "/home/hospes",
    };
    const status = () => ({ ...STATUS, software: "hospes 0.1.0", phase });
    const managed = { file: "/etc/hospes/managed.toml", policy: "strict", quiet: [] };
    const lists = { requests: [], proposals: [], memberships: [], jobs: [] };
    return stand("service", { about, status, managed, ...lists, ...more });
  };

  beforeEach(() => {
    phase = "empty";
  });

  it("the wizard sets the service's site up, shows what the IT set, and asks for no place of the keys", async () => {
    await wait({
      set_up: () => {
        phase = "set_up";
        return "p";
      },
    });
    expect(screen.text()).toContain("nobody has set it up yet");
    expect(buttons()).toEqual(["Continue", "Restore from a backup", "Try out on this account"]);
    expect(await screen.faults()).toEqual([]);
    await introduce();
    expect(screen.text()).toContain("/var/lib/hospes");
    expect(screen.text()).toContain("at least as strict as strict");
    expect(screen.text()).toContain("under which account of this machine");
    expect(screen.place.querySelector("[value=keychain], [name=key]")).toBeNull();
    expect(await screen.faults()).toEqual([]);
    await screen.submit();
    await screen.settle();
    expect(screen.args("set_up")).toEqual({ name: "Petra", passphrase: OWN });
    expect([screen.times("set_up"), screen.times("initialise"), screen.times("log_in")]).toEqual([1, 0, 1]);
    expect(screen.text()).toContain("Good day, Petra");
    expect(screen.place.innerHTML).not.toContain(OWN);
  });

  it("a backup is restored in place of a new site, and its people sign in", async () => {
    const file = { file: "file-7", name: "hospes.hospes-backup", bytes: 2_000_000 };
    let isFull = true;
    await wait({
      choose_file: file,
      restore_site: () => {
        if (isFull) return refusal({ code: "disk_full", words: "less than 1024 MiB free" })();
        phase = "operating";
        return null;
      },
    });
    await screen.press(screen.button("Restore from a backup"));
    expect(screen.text()).toContain("under which account of this machine");
    expect(screen.text()).toContain("/var/lib/hospes");
    expect(screen.place.querySelector("[value=keychain], [name=key]")).toBeNull();
    expect(await screen.faults()).toEqual([]);
    await screen.press(screen.button("Choose the backup"));
    expect(screen.args("choose_file")).toEqual({ purpose: "backup" });
    await screen.type("backup", KEY);
    await screen.submit();
    expect(screen.text()).toContain("less than 1024 MiB free");
    isFull = false;
    await screen.submit();
    await screen.settle();
    expect(screen.args("restore_site")).toEqual({ path: "file-7", passphrase: KEY });
    expect([screen.times("restore_site"), screen.times("restore")]).toEqual([2, 0]);
    expect(screen.text()).toContain("restored from a backup. Sign in");
    expect(screen.place.innerHTML).not.toContain(KEY);
  });

  it("a failure is said where it happened, and what was typed stays", async () => {
    let isFull = true;
    const full: Fault = {
      code: "disk_full",
      words: "less than 64 MiB free; nothing was made",
      reference: "r-3",
    };
    await wait({
      set_up: () => {
        if (isFull) return Promise.reject(full);
        phase = "set_up";
        return "p";
      },
    });
    await introduce();
    await screen.submit();
    expect(screen.text()).toContain("less than 64 MiB free; nothing was made");
    expect(screen.times("log_in")).toBe(0);
    isFull = false;
    await screen.submit();
    await screen.settle();
    expect(screen.times("set_up")).toBe(2);
    expect(screen.text()).toContain("Good day, Petra");
  });

  it("somebody else may be first, which is said at the sign-in", async () => {
    const words = "somebody has set this site up already";
    await wait({ set_up: refusal({ code: "state", words }) });
    await introduce();
    await screen.submit();
    expect(screen.text()).toContain(words);
    phase = "set_up";
    await screen.changed();
    expect(screen.text()).toContain("This site has been set up");
    expect(screen.field("passphrase").value).toBe("");
    expect(screen.times("log_in")).toBe(0);
  });

  it("a site of one's own is for those who ask for it twice, and asking leads no further in the wizard", async () => {
    await wait();
    await screen.press(screen.button("Try out on this account"));
    expect(document.body.textContent).toContain("/home/hospes");
    await act(async () => document.querySelector<HTMLFormElement>("[role=dialog] form")?.requestSubmit());
    await screen.settle();
    expect([screen.times("try_here"), screen.times("set_up")]).toEqual([1, 0]);
    expect(screen.text()).not.toContain("Who is the first administrator?");
  });
});

describe("what is left of the set-up", () => {
  const beginning = (
    people: unknown[],
    datasets: unknown[],
    memberships: unknown[],
    peers: unknown[] = [],
  ) => {
    const status = { phase: "set_up", memberships } as unknown as Status;
    return screen.show(<Beginning status={status} />, { people, datasets, peers });
  };
  const person = (...roles: string[]) => ({ name: roles[0], roles, state: "active", key: "k" });
  const steps = () => [...screen.place.querySelectorAll("li")].map((step) => step.textContent ?? "");

  it("names the next step in words, and where it is done", async () => {
    localStorage.clear();
    await beginning([person("administrator")], [], []);
    expect(steps()).toHaveLength(6);
    expect(steps().map((step) => /(Done|Next|Open)$/.exec(step)?.[0])).toEqual([
      "Next",
      "Open",
      "Open",
      "Open",
      "Open",
      "Open",
    ]);
    const links = [...screen.place.querySelectorAll("a")].map((link) => link.getAttribute("href"));
    expect(links).toContain("#/settings/people");
    expect(links).toContain("#/federations/join");
    expect(links).toContain("#/datasets/new");
    expect(await screen.faults()).toEqual([]);
  });

  it("is taken up again where it was left, and gone when all is done", async () => {
    localStorage.clear();
    const people = [person("administrator"), person("data_steward", "data_access_approver")];
    await beginning(people, [], [{ left: 1 }]);
    expect(steps()[3]).toMatch(/Open$/);
    await screen.away();
    screen = new Screen();
    const member = { left: null, federation: "heart" };
    await beginning(people, [], [member], [{ trust: "verified_here" }, { trust: "asserted_only" }]);
    expect(steps().map((step) => /(Done|Next|Open)$/.exec(step)?.[0])).toEqual([
      "Done",
      "Done",
      "Next",
      "Done",
      "Open",
      "Open",
    ]);
    const links = [...screen.place.querySelectorAll("a")].map((link) => link.getAttribute("href"));
    expect(links).toContain("#/federations/heart");
    await screen.away();
    screen = new Screen();
    seePolicy();
    await beginning(people, [{}], [member], [{ trust: "verified_here" }, { trust: "vouched_for" }]);
    expect(screen.text()).toBe("");
  });
});
