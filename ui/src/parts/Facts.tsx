import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import type { Fact } from "../ipc/types";
import styles from "./Facts.module.css";

interface Props {
  facts: Fact[];
  /** The words are this page's own, in the person's language already. */
  isOurs?: boolean;
}

/** Labelled facts; what nobody stated reads "not stated", never blank. */
export function Facts({ facts, isOurs = false }: Props) {
  const { t } = useTranslation();
  const said = (words: string) => (isOurs ? words : <Engine>{words}</Engine>);
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
