// @vitest-environment jsdom
import { act, useState } from "react";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { DatasetView } from "../src/ipc/types";
import { TermsOfUse } from "../src/screens/TermsOfUse";
import { button, press, type Screen, settle, show } from "./stage";

const dataset = (duo: string) => ({ id: "heart", duo: [duo] }) as unknown as DatasetView;

/** The terms, and a colleague who changes them. */
function Windows() {
  const [now, setNow] = useState(dataset("DUO:0000042"));
  return (
    <>
      <TermsOfUse dataset={now} />
      <button type="button" onClick={() => setNow(dataset("DUO:0000006"))}>
        At another window
      </button>
    </>
  );
}

let screen: Screen;

const term = (name: string) => screen.place.querySelector<HTMLInputElement>(`input[value="${name}"]`);

beforeEach(async () => {
  screen = await show(<Windows />, ["data_steward"], () => dataset("DUO:0000004"));
});
afterEach(() => screen.end());

describe("terms of use", () => {
  it("follow what a colleague sets where nobody edits them", async () => {
    expect(term("DUO:0000042")?.checked).toBe(true);
    await press(button("At another window"));
    expect(term("DUO:0000006")?.checked).toBe(true);
    expect(screen.place.textContent).not.toContain("A colleague changed this");
  });

  it("stay as they are edited where a colleague sets others meanwhile, and say so before they are saved", async () => {
    await press(term("DUO:0000004"));
    await press(button("At another window"));
    expect(term("DUO:0000004")?.checked).toBe(true);
    expect(screen.place.textContent).toContain("A colleague changed this while you were editing.");
    await act(async () => screen.place.querySelector("form")?.requestSubmit());
    await settle();
    expect(screen.of("tag_dataset")).toEqual([{ dataset: "heart", duo: ["DUO:0000004"] }]);
    expect(screen.place.textContent).toContain("These terms hold from now on.");
    expect(screen.place.textContent).not.toContain("A colleague changed this");
  });
});
