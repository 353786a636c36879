import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import { exactly } from "../i18n/format";
import { visible } from "../i18n/visible";
import type { Fact } from "../ipc/types";
import styles from "./Facts.module.css";
import { LongText } from "./LongText";

/** A moment as the engine writes it. */
const MOMENT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;

/** Labels of facts that people stated in words of their own, or named: a study, a coordinator, this site. */
const STATED = new Set([
  "Purpose",
  "Terms of use (DUO)",
  "Disease",
  "Purpose of use (HL7)",
  "Basis, Art. 6 GDPR",
  "Exception, Art. 9 GDPR",
  "Impact assessment",
  "Agreement between the parties",
  "Ethics decision",
  "EHDS permit",
  "United States basis",
  "Who asks",
  "Organisation",
  "Signing key of the requester, which signed this study",
  "Who vouches for it, as stated by the coordinator and not checked",
  "Controllers and roles",
  "Recipients of the results",
  "Federation",
  "Operator and country of the coordinator",
  "Safeguard for transfers abroad",
  "Retention and withdrawal of the model",
  "The settings",
  "Dataset",
]);
/** Labels of names in a row, or of the engine's "none". */
const NAMES = new Set(["Columns that are new", "Columns that are gone"]);
/** An answer to the checklist, of which the engine gives one itself. */
const ANSWER = /^Checklist: (?!dry run of this request$)/;

/** Whether the value of a fact is somebody's words and none of the engine's. */
export function isStated({ label, value }: Fact): boolean {
  return STATED.has(label) || (NAMES.has(label) && value !== "none") || ANSWER.test(label);
}

interface Props {
  facts: Fact[];
  /** The words are this page's own, in the person's language already. */
  isOurs?: boolean;
}

/** Labelled facts; what nobody stated reads "not stated", never blank. */
export function Facts({ facts, isOurs = false }: Props) {
  const { t } = useTranslation();
  const said = (fact: Fact, words: string) => {
    if (isOurs) return visible(words);
    if (MOMENT.test(words)) return exactly(Date.parse(words));
    return <LongText isStated={isStated(fact)}>{words}</LongText>;
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
              said(fact, fact.value)
            )}
          </dd>
        </div>
      ))}
    </dl>
  );
}
