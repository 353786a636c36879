// @vitest-environment jsdom
import { act } from "react";
import { afterEach, describe, expect, it } from "vitest";
import type { RestoredView, Role } from "../src/ipc/types";
import { Backups } from "../src/screens/Backups";
import { RestoreRun } from "../src/screens/RestoreRun";
import { button, press, type Screen, settle, show, type } from "./stage";

const SECRET = "of this backup alone";

let screen: Screen;

const answers = (restored: RestoredView | null) => (command: string) => {
  if (command === "restored") return restored;
  if (command === "choose_place" || command === "choose_file")
    return { file: "file-7", name: "hospes.hospes-backup", bytes: 2_000_000 };
  if (command === "back_up") return { bytes: 2_000_000, digest: "ab".repeat(32), entries: 80, datasets: 2 };
  if (command === "confirm_restore") return { done: { code: null } };
  return command === "restore" ? null : [];
};

async function stand(role: Role = "administrator", restored: RestoredView | null = null): Promise<void> {
  screen = await show(<Backups />, [role], answers(restored));
}

async function submit(place = "form"): Promise<void> {
  await act(async () => document.querySelector<HTMLFormElement>(place)?.requestSubmit());
  await settle();
}

afterEach(() => screen.end());

describe("a backup", () => {
  it("is written to the chosen place, with a passphrase that was typed twice", async () => {
    await stand();
    await type("backup", SECRET);
    await type("backupAgain", "something else");
    await submit();
    expect(screen.of("choose_place")).toEqual([]);
    await type("backupAgain", SECRET);
    await submit();
    expect(screen.of("choose_place")).toMatchObject([{ purpose: "backup" }]);
    expect(screen.of("back_up")).toEqual([{ path: "file-7", passphrase: SECRET }]);
    expect(screen.place.textContent).toContain("hospes.hospes-backup is written");
    expect(screen.place.textContent).toContain("80 entries of the audit log and 2 datasets");
    expect(screen.place.innerHTML).not.toContain(SECRET);
  });

  it("is for administrators", async () => {
    await stand("data_steward");
    expect(document.querySelector("input")).toBeNull();
    expect(screen.place.textContent).toContain("An administrator makes backups");
  });
});

const RESTORED: RestoredView = {
  backup: "ab".repeat(32),
  made: 1_790_000_000_000,
  entries: 80,
  at: 1_790_000_000_000,
  confirmed: false,
  federations: [
    { federation: "f", name: "Heart Federation", lost: null },
    { federation: "g", name: "Stroke Federation", lost: { seen: 93, restored: 80 } },
  ],
};

describe("a restored site", () => {
  it("says what it waits for, and an administrator confirms it with a signature", async () => {
    await stand("administrator", RESTORED);
    const said = screen.place.textContent ?? "";
    expect(said).toContain("Nothing is computed or sent before people confirm this");
    expect(said).toContain("Heart Federation has not answered yet");
    expect(said).toContain("The coordinator has seen 93 entries of the log, and the backup has 80");
    await press(button("Let this site go on"));
    await type("signing", "a long passphrase");
    await submit("[role=dialog] form");
    expect(screen.of("confirm_restore")).toEqual([{ passphrase: "a long passphrase" }]);
  });

  it("is confirmed by nobody else, and once", async () => {
    await stand("auditor", RESTORED);
    expect(button("Let this site go on")).toBeNull();
    await screen.end();
    await stand("administrator", { ...RESTORED, confirmed: true });
    expect(button("Let this site go on")).toBeNull();
    expect(screen.place.textContent).toContain("Heart Federation has not answered yet");
  });

  it("comes from the chosen file, where there was no site", async () => {
    screen = await show(<RestoreRun folder="/home/hospes" onBack={() => {}} />, [], answers(null));
    await press(button("Choose the backup"));
    expect(screen.of("choose_file")).toEqual([{ purpose: "backup" }]);
    await type("backup", SECRET);
    await submit();
    expect(screen.of("restore")).toEqual([{ file: "file-7", passphrase: SECRET, keys: "keychain" }]);
  });
});
