import { useTranslation } from "react-i18next";
import { language } from "../i18n";
import { phrase } from "../i18n/engine";
import { exactly } from "../i18n/format";
import type { Fact } from "../ipc/types";
import styles from "./Facts.module.css";

/** A moment as the engine writes it. */
const MOMENT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;

interface Props {
  facts: Fact[];
  /** The words are this page's own, in the person's language already. */
  isOurs?: boolean;
}

/** Labelled facts; what nobody stated reads "not stated", never blank. */
export function Facts({ facts, isOurs = false }: Props) {
  const { t } = useTranslation();
  const said = (words: string) => {
    if (isOurs) return words;
    if (MOMENT.test(words)) return exactly(Date.parse(words));
    // Most of it somebody stated in words of their own, which are not taken apart.
    const { text, isKnown } = phrase(words);
    return isKnown || language() === "en" ? text : <span lang="en">{text}</span>;
  };
  return (
    <dl className={styles.facts}>
      {facts.map((fact) => (
        <div key={fact.label} className={styles.fact}>
          <dt>{said(fact.label)}</dt>
          <dd>
            {fact.value === null ? (
              <em className={styles.missing}>{t("review.notStated")}</em>
            ) : (
              said(fact.value)
            )}
          </dd>
        </div>
      ))}
    </dl>
  );
}
