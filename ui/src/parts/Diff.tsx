import { diffWordsWithSpace } from "diff";
import { useTranslation } from "react-i18next";
import { visible } from "../i18n/visible";
import type { Change } from "../ipc/types";
import styles from "./Diff.module.css";

/** What changed, place by place, word by word. Text and signs tell old from new, not colour alone. */
export function Diff({ changes }: { changes: Change[] }) {
  const { t } = useTranslation();
  return (
    <dl className={styles.diff}>
      {changes.map((change) => (
        <div key={change.place} className={styles.change}>
          <dt>
            <code>{visible(change.place)}</code>
          </dt>
          <dd>
            {change.before === null || change.after === null ? (
              <>
                {change.before !== null && <del className={styles.del}>{visible(change.before)}</del>}
                {change.after !== null && <ins className={styles.ins}>{visible(change.after)}</ins>}
                <span className={styles.note}>
                  {change.before === null ? t("parts.isNew") : t("parts.isGone")}
                </span>
              </>
            ) : (
              <Words before={change.before} after={change.after} />
            )}
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** Two texts as one, with what was taken out and what was put in. */
function Words({ before, after }: { before: string; after: string }) {
  return (
    <span className={styles.words}>
      {diffWordsWithSpace(visible(before), visible(after)).map((part, at) =>
        part.added ? (
          <ins key={at} className={styles.ins}>
            {part.value}
          </ins>
        ) : part.removed ? (
          <del key={at} className={styles.del}>
            {part.value}
          </del>
        ) : (
          <span key={at}>{part.value}</span>
        ),
      )}
    </span>
  );
}
