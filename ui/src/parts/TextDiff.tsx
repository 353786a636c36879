import { diffLines } from "diff";
import { useTranslation } from "react-i18next";
import styles from "./TextDiff.module.css";

/** Lines of a file that would change; the others are left out. */
export function TextDiff({ before, after }: { before: string; after: string }) {
  const { t } = useTranslation();
  const parts = diffLines(before, after).filter((part) => part.added || part.removed);
  if (parts.length === 0) return <p>{t("parts.noChange")}</p>;
  return (
    <pre className={styles.diff}>
      {parts.map((part, at) => (
        <code key={at} className={part.added ? styles.ins : styles.del}>
          {part.value.replaceAll(/^(?!$)/gm, part.added ? "+ " : "− ")}
        </code>
      ))}
    </pre>
  );
}
