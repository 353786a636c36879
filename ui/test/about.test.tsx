// @vitest-environment jsdom
import type { ReactNode } from "react";
import { afterEach, describe, expect, it } from "vitest";
import type { EngineState } from "../src/ipc/types";
import { About } from "../src/screens/About";
import { Home } from "../src/screens/Home";
import { STATUS as OPERATING, type Screen, settle, show } from "./stage";

const STATUS = { ...OPERATING, software: "hospes/0.1.0" };
const HERE = "This site runs only while this app is open.";

let screen: Screen;

async function stand(part: ReactNode, engine: EngineState): Promise<string> {
  screen = await show(part, ["administrator"], (command) => {
    if (command === "status") return STATUS;
    if (command === "about") return { software: "hospes/0.1.0", engine, folder: "/home/hospes" };
    return [];
  });
  await settle();
  return screen.place.textContent ?? "";
}

afterEach(() => screen.end());

describe("a site that runs in the app itself", () => {
  it("says at home and in the settings that it ends with the app", async () => {
    expect(await stand(<Home />, "here")).toContain(HERE);
    await screen.end();
    expect(await stand(<About />, "here")).toContain(HERE);
  });

  it("is not what a service is, which goes on", async () => {
    expect(await stand(<Home />, "service")).not.toContain(HERE);
    await screen.end();
    const about = await stand(<About />, "service");
    expect(about).not.toContain(HERE);
    expect(about).toContain("runs as a service of this machine");
  });
});
