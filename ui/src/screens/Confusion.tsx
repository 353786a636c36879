import { type ReactNode, useId, useState } from "react";
import { useTranslation } from "react-i18next";
import { confusionAt, share } from "../charts/curves";
import { count, decimal, percent } from "../i18n/format";
import type { ClassMetrics, Metrics } from "../ipc/types";
import { Range } from "../parts/Range";
import styles from "./Confusion.module.css";

/** Rows by label and prediction at a threshold that one moves, and what follows for patients. */
export function Confusion({ metrics }: { metrics: Metrics }) {
  const { t } = useTranslation();
  const bins = metrics.scores_positive.length;
  const [bin, setBin] = useState(Math.floor(bins / 2));
  if (bins === 0) return null;
  const at = confusionAt(metrics, bin);
  const threshold = bin / bins;
  const sensitivity = share(at.truePositive, at.truePositive + at.falseNegative);
  const specificity = share(at.trueNegative, at.trueNegative + at.falsePositive);
  const shown = (value: number | null) => (value === null ? t("models.undefined") : percent(value));
  return (
    <div className={styles.block}>
      <Range
        label={t("models.threshold")}
        value={bin}
        least={0}
        most={bins}
        onChange={setBin}
        shown={decimal(threshold)}
      />
      <Counts
        caption={t("models.confusionCaption", {
          threshold: decimal(threshold),
          sensitivity: shown(sensitivity),
          specificity: shown(specificity),
        })}
      >
        <thead>
          <tr>
            <td />
            <th scope="col">{t("models.predictedYes")}</th>
            <th scope="col">{t("models.predictedNo")}</th>
          </tr>
        </thead>
        <tbody>
          <tr>
            <th scope="row">{t("models.labelYes")}</th>
            <td className={styles.right}>{count(at.truePositive)}</td>
            <td className={styles.wrong}>{count(at.falseNegative)}</td>
          </tr>
          <tr>
            <th scope="row">{t("models.labelNo")}</th>
            <td className={styles.wrong}>{count(at.falsePositive)}</td>
            <td className={styles.right}>{count(at.trueNegative)}</td>
          </tr>
        </tbody>
      </Counts>
    </div>
  );
}

/** A table of counts with its caption, which scrolls by itself where the window is narrow. */
function Counts({ caption, children }: { caption: string; children: ReactNode }) {
  const id = useId();
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard
    // biome-ignore lint/a11y/useSemanticElements: a fieldset is for forms
    <div role="group" className={styles.scroll} aria-labelledby={id} tabIndex={0}>
      <table className={styles.table}>
        <caption id={id} className={styles.caption}>
          {caption}
        </caption>
        {children}
      </table>
    </div>
  );
}

/** Rows of each class by predicted class. */
export function ConfusionOfClasses({ metrics }: { metrics: ClassMetrics }) {
  const { t } = useTranslation();
  const classes = Array.from({ length: metrics.classes }, (_, at) => at);
  const cell = (truth: number, predicted: number) =>
    metrics.confusion[truth * metrics.classes + predicted] ?? 0;
  return (
    <Counts caption={t("models.classesCaption", { count: metrics.classes })}>
      <thead>
        <tr>
          <td />
          {classes.map((c) => (
            <th key={c} scope="col">
              {t("models.predictedClass", { name: count(c) })}
            </th>
          ))}
          <th scope="col">{t("words.figure.auc")}</th>
        </tr>
      </thead>
      <tbody>
        {classes.map((truth) => (
          <tr key={truth}>
            <th scope="row">{t("models.labelClass", { name: count(truth) })}</th>
            {classes.map((predicted) => (
              <td key={predicted} className={truth === predicted ? styles.right : undefined}>
                {count(cell(truth, predicted))}
              </td>
            ))}
            <td>{metrics.auc[truth] == null ? "–" : decimal(metrics.auc[truth] ?? 0)}</td>
          </tr>
        ))}
      </tbody>
    </Counts>
  );
}
