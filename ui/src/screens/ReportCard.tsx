import { useTranslation } from "react-i18next";
import { named } from "../i18n/engine";
import { brief, count, decimal, moment, percent } from "../i18n/format";
import type { FeatureStatistics, Interval, Metrics, ReportView } from "../ipc/types";
import { Card } from "../parts/Card";
import { Table } from "../parts/Table";
import { Confusion, ConfusionOfClasses } from "./Confusion";
import { CalibrationFigure, PrecisionFigure, RocFigure } from "./CurveFigures";
import forms from "./Forms.module.css";
import styles from "./ReportCard.module.css";
import { accuracy, brier, type Judged, loss } from "./rounds";
import { Subgroups } from "./Subgroups";

/** What one task found out about a model on this site's rows. It does not leave. */
export function ReportCard({ of }: { of: Judged }) {
  const { t } = useTranslation();
  return (
    <Card
      title={t("models.report", { task: of.task })}
      lead={t("models.reportLead", { at: moment(of.round.at) })}
    >
      <Body report={of.report} />
      <p className={forms.small}>{t("models.stays")}</p>
    </Card>
  );
}

/** Quality on a set of rows, whatever the label. */
function Body({ report }: { report: ReportView }) {
  const { t } = useTranslation();
  if ("grouped" in report) return <Subgroups {...report.grouped} inFull={(of) => <Body report={of} />} />;
  if ("metrics" in report) return <YesNo metrics={report.metrics} />;
  if ("classes" in report) {
    const m = report.classes;
    return (
      <>
        <Numbers
          rows={m.rows}
          intervals={m.intervals}
          of={[
            ["accuracy", m.correct / Math.max(1, m.rows)],
            ["macro_f1", m.macro_f1],
          ]}
        />
        <ConfusionOfClasses metrics={m} />
      </>
    );
  }
  if ("number" in report) {
    const { rows, rmse, mae, r_squared, intervals } = report.number;
    const of: [string, number | null][] = [
      ["rmse", rmse],
      ["mae", mae],
      ["r_squared", r_squared],
    ];
    return <Numbers rows={rows} intervals={intervals} of={of} />;
  }
  if ("survival" in report) {
    const m = report.survival;
    return (
      <>
        <Numbers rows={m.rows} intervals={m.intervals} of={[["c_index", m.c_index]]} />
        <p>{t("models.pairs", { events: count(m.events), pairs: count(m.comparable) })}</p>
      </>
    );
  }
  if ("regression" in report) {
    const { rows, log_likelihood } = report.regression;
    return <Numbers rows={rows} intervals={{}} of={[["log_likelihood", log_likelihood]]} />;
  }
  return <Statistics rows={report.statistics.rows} features={report.statistics.features} />;
}

function YesNo({ metrics }: { metrics: Metrics }) {
  const { t } = useTranslation();
  return (
    <>
      <Numbers
        rows={metrics.rows}
        intervals={metrics.detail?.intervals ?? {}}
        of={[
          ["auc", metrics.auc],
          ["accuracy", accuracy(metrics)],
          ["brier", brier(metrics)],
          ["average_precision", metrics.detail?.average_precision ?? null],
          ["loss", loss(metrics)],
        ]}
      />
      <p>
        {t("models.positives", {
          count: metrics.positives,
          rows: count(metrics.rows),
          share: percent(metrics.positives / Math.max(1, metrics.rows)),
        })}
      </p>
      <div className={styles.pair}>
        <Confusion metrics={metrics} />
        <RocFigure metrics={metrics} />
        <CalibrationFigure metrics={metrics} />
        <PrecisionFigure metrics={metrics} />
      </div>
    </>
  );
}

interface NumbersProps {
  rows: number;
  intervals: Record<string, Interval>;
  of: [string, number | null][];
}

/** Figures with their intervals; one that only one class allows for is undefined, and says so. */
function Numbers({ rows, intervals, of }: NumbersProps) {
  const { t } = useTranslation();
  return (
    <dl className={styles.numbers}>
      {of.map(([figure, value]) => {
        const interval = intervals[figure];
        return (
          <div key={figure}>
            <dt>{named("words.figure", figure)}</dt>
            <dd className={styles.value}>{value === null ? t("models.undefined") : decimal(value)}</dd>
            {interval && (
              <dd className={styles.interval}>
                {t("parts.interval", { low: decimal(interval.low), high: decimal(interval.high) })}
              </dd>
            )}
          </div>
        );
      })}
      <div>
        <dt>{t("models.rows")}</dt>
        <dd className={styles.value}>{count(rows)}</dd>
      </div>
    </dl>
  );
}

function Statistics({ rows, features }: { rows: number; features: FeatureStatistics[] }) {
  const { t } = useTranslation();
  const mean = (f: FeatureStatistics) => (f.present > 0 ? f.sum / f.present : null);
  const spread = (f: FeatureStatistics) => {
    if (f.present < 2) return null;
    const variance = (f.sum_of_squares - (f.sum * f.sum) / f.present) / (f.present - 1);
    return Math.sqrt(Math.max(0, variance));
  };
  const shown = (value: number | null) => (value === null ? "–" : brief(value));
  return (
    <>
      <Numbers rows={rows} intervals={{}} of={[]} />
      <Table
        label={t("models.statistics")}
        items={features}
        id={(feature) => feature.name}
        columns={[
          { key: "name", name: t("models.feature"), cell: (f) => f.name },
          { key: "present", name: t("models.present"), isNumber: true, cell: (f) => count(f.present) },
          { key: "mean", name: t("models.mean"), isNumber: true, cell: (f) => shown(mean(f)) },
          { key: "sd", name: t("models.sd"), isNumber: true, cell: (f) => shown(spread(f)) },
        ]}
      />
    </>
  );
}
