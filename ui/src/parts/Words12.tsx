import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { encode } from "uqr";
import styles from "./Words12.module.css";

/** White around a code, in modules, without which cameras do not find it. */
const QUIET = 4;

/** Twelve words of a key, numbered, to be read over the telephone, and as a code that a telephone's camera reads. */
export function Words12({ words, of }: { words: string; of: string }) {
  const { t } = useTranslation();
  const { size, data } = useMemo(() => encode(words, { border: QUIET }), [words]);
  const dark = data.flatMap((row, y) => row.flatMap((on, x) => (on ? `M${x},${y}h1v1h-1z` : [])));
  return (
    <div className={styles.block}>
      <ol className={styles.words} aria-label={of} translate="no" lang="en">
        {words.split(/\s+/).map((word, at) => (
          <li key={at}>{word}</li>
        ))}
      </ol>
      <svg
        className={styles.code}
        viewBox={`0 0 ${size} ${size}`}
        role="img"
        aria-label={t("parts.code", { of })}
      >
        <rect width={size} height={size} fill="white" />
        <path d={dark.join("")} fill="black" />
      </svg>
    </div>
  );
}
