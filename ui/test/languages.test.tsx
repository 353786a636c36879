// @vitest-environment jsdom
import { act } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

let place: HTMLElement;
let root: Root;

beforeEach(() => {
  globalThis.IS_REACT_ACT_ENVIRONMENT = true;
  // No language was spoken yet.
  vi.resetModules();
  place = document.body.appendChild(document.createElement("div"));
  root = createRoot(place);
});

afterEach(async () => {
  await act(async () => root.unmount());
  place.remove();
});

it("shows the engine's words in English until they are read in the language that was chosen", async () => {
  const { changeLanguage, speak } = await import("../src/i18n");
  const { Engine } = await import("../src/i18n/engine");
  await speak("en");
  await act(async () => root.render(<Engine>the round is over</Engine>));
  const english = "the round is over";
  expect(place.innerHTML).toBe(english);

  let read = Promise.resolve();
  act(() => {
    read = changeLanguage("de");
  });
  expect(place.innerHTML).toBe(`<span lang="en">${english}</span>`);
  await act(() => read);
  expect(place.innerHTML).toBe("die Runde ist vorbei");

  // What was spoken before is there at once.
  await act(async () => void changeLanguage("en"));
  expect(place.innerHTML).toBe(english);
  act(() => void changeLanguage("de"));
  expect(place.innerHTML).toBe("die Runde ist vorbei");

  await act(() => changeLanguage("fr"));
  expect(place.innerHTML).toBe("le tour est fini");
});

it("begins in another language than English", async () => {
  const { speak } = await import("../src/i18n");
  const { Engine } = await import("../src/i18n/engine");
  const read = speak("zh");
  await act(async () => root.render(<Engine isMachine>the round is over</Engine>));
  await act(() => read);
  expect(place.innerHTML).not.toContain("round");
  expect(place.querySelector("q, span")).toBeNull();
  // A page that is set up again, as tests do, has them at once.
  void speak("zh");
  await act(async () => root.render(<Engine isMachine>the run has ended: running</Engine>));
  expect(place.textContent).not.toContain("run has");
});
