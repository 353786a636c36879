// @vitest-environment jsdom
import { act } from "react";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { NewWay, Role, Step, WayTried, WayView } from "../src/ipc/types";
import { Network } from "../src/screens/Network";
import { Screen } from "./screen";

const WAY: WayView = {
  federation: "f",
  name: "Hearts",
  url: "https://coordinator.example",
  proxy: "http://old.example:3128",
  has_credentials: true,
  authorities: [{ name: "CN=Hospital CA", digest: "aa", until: Date.UTC(2030, 0, 15, 12) }],
};

const GOOD: Step = { test: "proxy", outcome: "good", finding: "The proxy is used.", request: null };
const BAD: Step = { test: "tcp", outcome: "failed", finding: "It answers 403.", request: "Let it through." };

let screen: Screen;

async function stand(roles: Role[], tried: (despite: string | null) => WayTried): Promise<void> {
  const people = [{ id: "p", name: "Petra", roles, organisation: null, state: "active", key: "k" }];
  const set_way = (args: unknown) => tried((args as { despite: string | null }).despite);
  const choose_file = { file: "file-1", name: "own.pem", bytes: 1_200 };
  await screen.show(<Network />, { people, ways: [WAY], set_way, choose_file }, "Petra");
}

const radio = (value: string, at: number) =>
  [...screen.place.querySelectorAll<HTMLInputElement>(`input[type=radio][value="${value}"]`)][at];

const asked = () => screen.args("set_way") as { way: NewWay; despite: string | null };

beforeEach(() => {
  screen = new Screen();
});
afterEach(() => screen.away());

describe("the way to a coordinator", () => {
  it("is shown without a password, with the network's own certificates", async () => {
    await stand(["auditor"], () => ({ steps: [], kept: false }));
    expect(await screen.faults()).toEqual([]);
    expect(screen.text()).toContain("http://old.example:3128, with a name and password");
    expect(screen.text()).toMatch(/CN=Hospital CA, until .*2030/);
    expect(screen.place.querySelector("form")).toBeNull();
  });

  it("is tested and kept, and what was typed is forgotten", async () => {
    await stand(["administrator"], () => ({ steps: [GOOD], kept: true }));
    expect(await screen.faults()).toEqual([]);
    expect(screen.button("Test and keep: Hearts").disabled).toBe(true);
    await screen.press(radio("url", 0));
    expect(screen.button("Test and keep: Hearts").disabled).toBe(true);
    await screen.type("address", "http://me:secret@new.example:3128");
    await screen.press(radio("file", 0));
    await screen.press(screen.button("Choose a certificate file"));
    expect(screen.text()).toContain("own.pem");
    await screen.submit();
    expect(asked()).toEqual({
      way: {
        federation: "f",
        proxy: { url: "http://me:secret@new.example:3128" },
        extra_ca: { file: "file-1" },
      },
      despite: null,
    });
    expect(screen.text()).toContain("The proxy is used.");
    expect(screen.text()).toContain("It is kept, and the connection goes over it from now on.");
    expect(screen.place.querySelector("[name=address]")).toBeNull();
  });

  it("changes nothing where a step fails, unless somebody says why it shall all the same", async () => {
    await stand(["administrator"], (despite) => ({ steps: [GOOD, BAD], kept: despite !== null }));
    // The second of both choices is none of our own.
    await screen.press(radio("usual", 0));
    await screen.submit();
    expect(asked()).toEqual({ way: { federation: "f", proxy: "usual", extra_ca: "keep" }, despite: null });
    expect(screen.text()).toContain("It answers 403.");
    expect(screen.text()).toContain("Let it through.");
    expect(screen.text()).toContain("Nothing has changed");
    expect(radio("usual", 0)?.checked).toBe(true);
    await screen.press(screen.button("Keep it all the same: Hearts"));
    const dialog = document.querySelector("[role=dialog]");
    await screen.slide(dialog?.querySelector("textarea") ?? null, "opened tonight");
    await act(async () => dialog?.querySelector("form")?.requestSubmit());
    await screen.settle();
    expect(screen.times("set_way")).toBe(2);
    expect(asked().despite).toBe("opened tonight");
    expect(screen.text()).toContain("It is kept, and the connection goes over it from now on.");
  });
});
