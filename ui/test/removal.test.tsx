// @vitest-environment jsdom
import { act } from "react";
import { afterEach, describe, expect, it } from "vitest";
import { Route, Switch } from "wouter";
import { navigate } from "wouter/use-hash-location";
import type { DatasetView, Role } from "../src/ipc/types";
import { Dataset } from "../src/screens/Dataset";
import { button, press, type Screen, settle, show, type } from "./stage";

const HEART: DatasetView = {
  id: "heart",
  name: "Heart",
  snapshot: "aa",
  at: 1_000,
  rows: 303,
  subjects: 303,
  subjects_left: 303,
  columns: [],
  public: false,
  duo: [],
  missing: [],
  version: 1,
  former: null,
  query: null,
};

let screen: Screen;

/** Before a dataset, of which the removal ends so. */
async function stand(roles: Role[], removed: () => unknown = () => null, dataset = HEART): Promise<void> {
  const rooms = (
    <Switch>
      <Route path="/datasets/heart">
        <Dataset id="heart" />
      </Route>
      <Route path="/datasets">the list</Route>
    </Switch>
  );
  screen = await show(rooms, roles, (command) => {
    if (command === "datasets") return [dataset];
    if (command === "profile") return { dataset, profile: { rows: 303, subjects: 303, columns: [] } };
    return command === "remove_dataset" ? removed() : [];
  });
  // Signing in begins at the first screen.
  await act(async () => navigate("/datasets/heart"));
  await settle();
}

const dialog = () => document.querySelector("[role=dialog]");

/** Asks for it, and answers with a reason. */
async function remove(reason: string): Promise<void> {
  await press(button("Remove"));
  await type("reason", reason);
  await act(async () => dialog()?.querySelector("form")?.requestSubmit());
  await settle();
}

afterEach(async () => {
  await screen.end();
  location.hash = "";
});

describe("removing a dataset", () => {
  it("says what goes and what stays, takes a reason, and leads back to the list", async () => {
    await stand(["data_steward"]);
    await press(button("Remove"));
    expect(dialog()?.textContent).toContain(
      "This site's copy and the key that opens it are deleted, for good.",
    );
    expect(dialog()?.textContent).toContain("The file it came from and its other versions are not touched.");
    expect(dialog()?.textContent).toContain("What it was used for stays in the log.");
    // Without a reason nothing is asked.
    await act(async () => dialog()?.querySelector("form")?.requestSubmit());
    expect(screen.of("remove_dataset")).toEqual([]);
    await press(button("Cancel"));
    await remove(" its consent ended ");
    expect(screen.of("remove_dataset")).toEqual([{ dataset: "heart", reason: "its consent ended" }]);
    expect(location.hash).toBe("#/datasets");
    expect(screen.place.textContent).toBe("the list");
    expect(dialog()).toBeNull();
  });

  it("stays where it is when the engine refuses, and shows why", async () => {
    const words = "an approval of study s rests on this dataset; refuse or revoke it first";
    await stand(["data_steward"], () => Promise.reject({ code: "state", words }));
    await remove("its consent ended");
    expect(dialog()?.textContent).toContain(words);
    expect(location.hash).toBe("#/datasets/heart");
    // The next question begins without it.
    await press(button("Cancel"));
    await press(button("Remove"));
    expect(dialog()?.textContent).not.toContain(words);
  });

  it("is offered to data stewards only", async () => {
    await stand(["administrator", "privacy_officer", "data_access_approver", "auditor"]);
    expect(screen.place.textContent).toContain("Heart");
    expect(button("Remove")).toBeNull();
  });

  it("leaves a later version that says so", async () => {
    await stand(["data_steward"], () => null, { ...HEART, version: 3, former: "gone" });
    await press(
      [...document.querySelectorAll("[role=tab]")].find((tab) => tab.textContent === "Versions") ?? null,
    );
    expect(screen.place.textContent).toContain("This is version 3. The version before was removed.");
  });
});
