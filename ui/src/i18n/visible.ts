/** Characters that cannot be seen or that change what is seen: controls, bidirectional and other formats, private use. */
const HIDDEN = /[\p{Cc}\p{Cf}\p{Co}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/** A text from outside in which nothing is hidden: what cannot be seen is written as its number. */
export function visible(text: string): string {
  return text.replaceAll(HIDDEN, (c) => {
    if (c === "\n" || c === "\t") return c;
    const code = (c.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
    return `[U+${code}]`;
  });
}
