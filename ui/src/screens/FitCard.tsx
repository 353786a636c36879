import { useTranslation } from "react-i18next";
import { named } from "../i18n/engine";
import { brief, count, decimal, level as levelOf } from "../i18n/format";
import { visible } from "../i18n/visible";
import type { CoefficientView, FitView, JobView } from "../ipc/types";
import { Card } from "../parts/Card";
import { type Column, Table } from "../parts/Table";
import { FitExport } from "./FitExport";
import { ForestFigure } from "./ForestFigure";
import forms from "./Forms.module.css";
import styles from "./ReportCard.module.css";

interface Props {
  job: JobView;
  fit: FitView;
}

/** p values below this are not told apart by people. */
const SMALLEST_P = 0.001;

const pValue = (p: number) => (p < SMALLEST_P ? `< ${decimal(SMALLEST_P)}` : decimal(p));
/** A statistic beyond this is no longer read by its digits. */
const LARGE = 1e6;
const statistic = (value: number) => (Math.abs(value) < LARGE ? decimal(value, 2) : brief(value));
const orNone = (value: number | null | undefined) =>
  value === null || value === undefined ? "–" : brief(value);
const range = (low: number | null, high: number | null) => `${orNone(low)} – ${orNone(high)}`;

/** A released regression: how well it fits, its coefficients, their picture, and the table as a file. */
export function FitCard({ job, fit }: Props) {
  const { t } = useTranslation();
  return (
    <Card
      title={t("models.fit", { task: visible(fit.task) })}
      lead={t("models.fitLead", { family: named("words.family", fit.family), sites: count(fit.sites) })}
    >
      <p className={forms.small}>{t("models.researchOnly")}</p>
      <Quality fit={fit} />
      <Coefficients fit={fit} />
      <ForestFigure fit={fit} />
      <FitExport job={job} task={fit.task} />
    </Card>
  );
}

/** Figures of the whole fit; those that its family has. */
function Quality({ fit }: { fit: FitView }) {
  const { t } = useTranslation();
  const all: [string, string | null][] = [
    [t("models.rows"), count(fit.rows)],
    [t("models.events"), fit.events === null ? null : count(fit.events)],
    [t("models.deviance"), fit.deviance === null ? null : brief(fit.deviance)],
    [t("models.nullDeviance"), fit.null_deviance === null ? null : brief(fit.null_deviance)],
    [named("words.figure", "log_likelihood"), brief(fit.log_likelihood)],
    [t("models.aic"), brief(fit.aic)],
    [named("words.figure", "c_index"), fit.c_index === null ? null : decimal(fit.c_index)],
    [
      t("models.converged"),
      t(fit.converged ? "models.convergedYes" : "models.convergedNo", { rounds: count(fit.iterations) }),
    ],
  ];
  return (
    <dl className={styles.numbers}>
      {all.map(
        ([name, value]) =>
          value !== null && (
            <div key={name}>
              <dt>{name}</dt>
              <dd className={styles.value}>{value}</dd>
            </div>
          ),
      )}
    </dl>
  );
}

function Coefficients({ fit }: { fit: FitView }) {
  const { t } = useTranslation();
  const level = levelOf(fit.confidence);
  const ratio = fit.coefficients.find((c) => c.ratio !== null)?.ratio ?? null;
  const number = { isNumber: true };
  const columns: Column<CoefficientView>[] = [
    { key: "name", name: t("models.term"), cell: (c) => <bdi>{visible(c.name)}</bdi> },
    { key: "estimate", name: t("models.estimate"), ...number, cell: (c) => brief(c.estimate) },
    { key: "error", name: t("models.standardError"), ...number, cell: (c) => brief(c.error) },
    { key: "interval", name: t("models.level", { level }), ...number, cell: (c) => range(c.low, c.high) },
    { key: "statistic", name: fit.statistic, ...number, cell: (c) => statistic(c.statistic) },
    { key: "p", name: t("models.p"), ...number, cell: (c) => pValue(c.p) },
  ];
  if (ratio !== null) {
    const name = named("words.ratio", ratio.of);
    columns.push(
      { key: "ratio", name, ...number, cell: (c) => orNone(c.ratio?.value) },
      {
        key: "ratioInterval",
        name: t("models.levelOf", { level, name }),
        ...number,
        cell: (c) => (c.ratio === null ? "–" : range(c.ratio.low, c.ratio.high)),
      },
    );
  }
  return (
    <Table
      label={t("models.coefficients", { task: visible(fit.task) })}
      caption={t("models.coefficientsCaption", { rows: count(fit.rows), sites: count(fit.sites), level })}
      items={fit.coefficients}
      id={(c) => c.name}
      columns={columns}
    />
  );
}
