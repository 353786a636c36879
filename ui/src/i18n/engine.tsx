import i18next from "i18next";
import { useTranslation } from "react-i18next";
import { language } from ".";
import { visible } from "./visible";

/** The key under which a fixed phrase of the engine is translated. */
export function phraseKey(text: string): string {
  const slug = text.toLowerCase().replaceAll(/[^a-z0-9]+/g, "_");
  return `facts.${slug.replaceAll(/^_|_$/g, "")}`;
}

const CHECKLIST = "Checklist: ";

/** A fixed phrase of the engine in the person's language; anything else stays as it is. */
export function phrase(text: string): { text: string; isKnown: boolean } {
  if (text.startsWith(CHECKLIST)) return phrase(text.slice(CHECKLIST.length));
  const key = phraseKey(text);
  return i18next.exists(key) ? { text: i18next.t(key), isKnown: true } : { text, isKnown: false };
}

/** A name out of a closed list of the engine; one that is newer than this page is shown as it came. */
export function named(list: string, name: string): string {
  const key = `${list}.${name}`;
  return i18next.exists(key) ? i18next.t(key) : name.replaceAll("_", " ");
}

/** Words of the engine, which speaks English: marked so, that a screen reader says them as English. */
export function Engine({ children }: { children: string }) {
  useTranslation();
  const { text, isKnown } = phrase(children);
  // What is no phrase may repeat a text from outside.
  const shown = isKnown ? text : visible(text);
  return isKnown || language() === "en" ? shown : <span lang="en">{shown}</span>;
}
