// @vitest-environment jsdom
import { act } from "react";
import { afterEach, describe, expect, it, vi } from "vitest";
import { useAction } from "../src/ipc/hooks";
import type { PolicyPreview } from "../src/ipc/types";
import { PolicySettings } from "../src/screens/PolicySettings";
import { button, press, type Screen, settle, show, type } from "./stage";

const NOW = "[disclosure]\nmin_subjects = 50\n";
const LOOSER = "[disclosure]\nmin_subjects = 5\n";

const PREVIEW: PolicyPreview = {
  changes: [
    { place: "approval.expires_days", before: "200", after: "100", effect: "tightens" },
    { place: "disclosure.min_subjects", before: "50", after: "5", effect: "loosens" },
  ],
  loosens: ["disclosure.min_subjects falls from 50 to 5"],
  below: [],
  needs_second_signature: true,
  ends: [{ study: "study", title: "Heart failure", running: 2 }],
};

let screen: Screen;

async function stand(preview: (toml: string) => unknown): Promise<void> {
  screen = await show(<PolicySettings />, ["administrator"], (command, args) => {
    if (command === "policy") return NOW;
    if (command === "policy_preview") return preview((args as { toml: string }).toml);
    if (command === "set_policy") return { done: { code: null } };
    return [];
  });
}

afterEach(() => screen.end());

const shown = () => document.querySelector('[aria-label="What it would do"]')?.textContent ?? null;

describe("a changed policy", () => {
  it("is shown with what it loosens and tightens, what would end, and that a second person must sign", async () => {
    await stand(() => PREVIEW);
    expect(shown()).toBeNull();
    expect(screen.of("policy_preview")).toEqual([]);
    await type("policy", LOOSER);
    await settle();
    expect(screen.of("policy_preview")).toEqual([{ toml: LOOSER }]);
    expect(shown()).toContain("a second person must sign it");
    expect(shown()).toContain("disclosure.min_subjects falls from 50 to 5");
    expect(shown()).toContain("1 approval would stop holding");
    expect(shown()).toContain("Heart failure (2 runs under way)");
    const rows = [...document.querySelectorAll('[aria-label="What changes"] tbody tr')];
    const cells = rows.map((row) => [...row.children].map((cell) => cell.textContent));
    expect(cells).toEqual([
      ["disclosure.min_subjects", "50", "5", "Loosens"],
      ["approval.expires_days", "200", "100", "Tightens"],
    ]);
  });

  it("can be signed all the same: the preview blocks nothing, and sends nothing else", async () => {
    await stand(() => PREVIEW);
    await type("policy", LOOSER);
    await settle();
    expect(button("Set this policy")?.disabled).toBe(false);
    expect(button("Discard changes")?.disabled).toBe(false);
    await press(button("Set this policy"));
    await type("signing", "a long passphrase");
    await act(async () => document.querySelector<HTMLFormElement>("[role=dialog] form")?.requestSubmit());
    await settle();
    expect(screen.of("set_policy")).toEqual([{ toml: LOOSER, passphrase: "a long passphrase" }]);
  });

  it("says that one signature is enough where nothing is loosened", async () => {
    await stand(() => ({
      ...PREVIEW,
      changes: [PREVIEW.changes[0]],
      loosens: [],
      needs_second_signature: false,
      ends: [],
    }));
    await type("policy", `${NOW}# stricter\n`);
    await settle();
    expect(shown()).toContain("It loosens nothing");
    expect(shown()).toContain("No approval would stop holding.");
    expect(shown()).not.toContain("a second person");
  });

  it("that cannot be read is shown with what is wrong, and can still be discarded", async () => {
    await stand(() => {
      throw { code: "input", words: "line 2: this is no number" };
    });
    await type("policy", "[disclosure]\nmin_subjects = many\n");
    await settle();
    expect(shown()).toContain("line 2: this is no number");
    await press(button("Discard changes"));
    await settle();
    expect(shown()).toBeNull();
  });

  it("stays as it was typed where a colleague changes the policy meanwhile, and says so", async () => {
    const theirs = "[disclosure]\nmin_subjects = 70\n";
    let now = NOW;
    // Makes the settings stale, as a notice of the engine does.
    function Colleague() {
      const change = useAction("set_audit_retention");
      return (
        <button type="button" onClick={() => change.mutate({ months: 12, passphrase: "" })}>
          At another window
        </button>
      );
    }
    const both = (
      <>
        <PolicySettings />
        <Colleague />
      </>
    );
    screen = await show(both, ["administrator"], (command) => {
      if (command === "policy") return now;
      if (command === "policy_preview") return PREVIEW;
      return [];
    });
    await type("policy", LOOSER);
    await settle();
    expect(screen.place.textContent).not.toContain("A colleague changed this");
    now = theirs;
    await press(button("At another window"));
    await settle();
    const field = () => screen.place.querySelector<HTMLTextAreaElement>('[name="policy"]')?.value;
    expect(field()).toBe(LOOSER);
    expect(screen.place.textContent).toContain("A colleague changed this while you were editing.");
    await press(button("Discard changes"));
    expect(field()).toBe(theirs);
  });

  it("is asked about once for what was typed in one go", async () => {
    await stand(() => PREVIEW);
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      for (const text of ["a", "ab", "abc"]) await type("policy", text);
      await act(async () => void (await vi.advanceTimersByTimeAsync(600)));
    } finally {
      vi.useRealTimers();
    }
    // At once for the first letter, and once more when the typing stops.
    expect(screen.of("policy_preview")).toEqual([{ toml: "a" }, { toml: "abc" }]);
  });
});
