import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import { exactly } from "../i18n/format";
import { visible } from "../i18n/visible";
import type { Fact } from "../ipc/types";
import styles from "./Facts.module.css";
import { LongText } from "./LongText";

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
    if (isOurs) return visible(words);
    return MOMENT.test(words) ? exactly(Date.parse(words)) : <LongText>{words}</LongText>;
  };
  return (
    <dl className={styles.facts}>
      {facts.map((fact) => (
        <div key={fact.label} className={styles.fact}>
          <dt>{isOurs ? fact.label : <Engine>{fact.label}</Engine>}</dt>
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
