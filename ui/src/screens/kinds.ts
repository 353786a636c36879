import type { useTranslation } from "react-i18next";

type T = ReturnType<typeof useTranslation>["t"];

/** A column's type in words; that of an image names its size. */
export function kindWords(t: T, kind: string): string {
  const [word = "", size = ""] = kind.split(" ");
  return t(`words.column.${word}`, { size: size.replaceAll("x", " × ") });
}
