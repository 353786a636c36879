import i18next from "i18next";
import { useTranslation } from "react-i18next";
import { language } from ".";
import { one, phraseKey, said } from "./said";
import { visible } from "./visible";

const CHECKLIST = "Checklist: ";

/** A phrase or one sentence of the engine in the person's language; anything else, such as a person's words, as it is. */
export function phrase(text: string): { text: string; isKnown: boolean } {
  if (text.startsWith(CHECKLIST)) return phrase(text.slice(CHECKLIST.length));
  const key = phraseKey(text);
  if (key !== null && i18next.exists(key)) return { text: i18next.t(key), isKnown: true };
  const found = language() === "en" ? null : one(text);
  return { text: found ?? text, isKnown: found !== null };
}

/** A name out of a closed list of the engine; one that is newer than this page is shown as it came. */
export function named(list: string, name: string): string {
  const key = `${list}.${name}`;
  return i18next.exists(key) ? i18next.t(key) : name.replaceAll("_", " ");
}

interface Props {
  children: string;
  /** Nobody typed it, and nothing else is it a name of: what has no translation is quoted as the machine's. */
  isMachine?: boolean;
}

/**
 * Words of the engine in the person's language. What has none is marked as English, that a screen reader says it so. Words of
 * somebody else may stand in it: nothing of them is hidden.
 */
export function Engine({ children, isMachine = false }: Props) {
  const { t } = useTranslation();
  const { text, isKnown } = phrase(children);
  if (isKnown || language() === "en") return visible(text);
  const found = said(children);
  if (found !== null) return visible(found);
  const words = <span lang="en">{visible(text)}</span>;
  return isMachine ? (
    <>
      {t("parts.machineSays")} <q>{words}</q>
    </>
  ) : (
    words
  );
}
