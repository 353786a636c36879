/** Characters that cannot be seen or that change what is seen: controls, bidirectional and other formats, private use; and marks
 * that are stacked upon a letter until they cover the lines beside it (UTS 39, section 5.4: more than four). */
const HIDDEN = /[\p{Cc}\p{Cf}\p{Co}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]|(?<=\p{Mn}{4})\p{Mn}/gu;

/** A text from outside in which nothing is hidden: what cannot be seen is written as its number. */
export function visible(text: string): string {
  return text.replaceAll(HIDDEN, (c) => {
    if (c === "\n" || c === "\t") return c;
    const code = (c.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
    return `[U+${code}]`;
  });
}

/** Scripts that are written from right to left. */
const LEFTWARDS = /[\p{sc=Arab}\p{sc=Hebr}\p{sc=Syrc}\p{sc=Thaa}\p{sc=Nkoo}\p{sc=Adlm}]/u;

/** A text from outside within a sentence: nothing is hidden in it, and its direction changes no number or name after it. */
export function within(text: string): string {
  const shown = visible(text);
  return LEFTWARDS.test(shown) ? `\u2068${shown}\u2069` : shown;
}

/** The beginning of a text, not cut within a character. */
export function beginning(text: string, chars: number): string {
  const last = text.charCodeAt(chars - 1);
  return text.slice(0, last >= 0xd800 && last < 0xdc00 ? chars - 1 : chars);
}
