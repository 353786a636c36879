import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { calibration, type Point, roc } from "../charts/curves";
import { lines } from "../charts/options";
import { count, decimal, percent } from "../i18n/format";
import type { Metrics } from "../ipc/types";
import { Figure } from "../parts/Figure";

const DIAGONAL: Point[] = [
  { x: 0, y: 0 },
  { x: 1, y: 1 },
];
const share = (value: number) => percent(value);

interface Props {
  metrics: Metrics;
}

/** ROC curve beside chance. */
export function RocFigure({ metrics }: Props) {
  const { t, i18n } = useTranslation();
  const { language } = i18n;
  const points = useMemo(() => roc(metrics), [metrics]);
  const option = useMemo(
    () =>
      lines(
        [
          { name: t("models.chance"), points: DIAGONAL, isBaseline: true },
          { name: "", points },
        ],
        { name: t("models.falsePositiveRate"), min: 0, max: 1, format: share },
        { name: t("models.truePositiveRate"), min: 0, max: 1, format: share },
      ),
    [points, language],
  );
  if (points.length === 0) return null;
  const half = points.find((p) => p.y >= 0.8);
  return (
    <Figure
      title={t("models.roc")}
      caption={t("models.rocCaption", {
        auc: metrics.auc === null ? t("models.undefined") : decimal(metrics.auc),
        alarms: percent(half?.x ?? 1),
      })}
      option={option}
      items={points}
      id={(p) => `${p.x} ${p.y}`}
      columns={[
        { key: "x", name: t("models.falsePositiveRate"), isNumber: true, cell: (p) => percent(p.x, 1) },
        { key: "y", name: t("models.truePositiveRate"), isNumber: true, cell: (p) => percent(p.y, 1) },
      ]}
    />
  );
}

/** Predicted risk against observed share. */
export function CalibrationFigure({ metrics }: Props) {
  const { t, i18n } = useTranslation();
  const { language } = i18n;
  const points = useMemo(() => calibration(metrics.calibration), [metrics]);
  const option = useMemo(
    () =>
      lines(
        [
          { name: t("models.perfect"), points: DIAGONAL, isBaseline: true },
          { name: "", points, hasDots: true },
        ],
        { name: t("models.predicted"), min: 0, max: 1, format: share },
        { name: t("models.observed"), min: 0, max: 1, format: share },
      ),
    [points, language],
  );
  const worst = points.reduce<(typeof points)[number] | null>(
    (a, b) => (a === null || Math.abs(b.y - b.x) > Math.abs(a.y - a.x) ? b : a),
    null,
  );
  if (worst === null) return null;
  return (
    <Figure
      title={t("models.calibration")}
      caption={t("models.calibrationCaption", {
        predicted: percent(worst.x),
        observed: percent(worst.y),
        count: worst.rows,
      })}
      option={option}
      items={points}
      id={(p) => String(p.x)}
      columns={[
        { key: "x", name: t("models.predicted"), isNumber: true, cell: (p) => percent(p.x, 1) },
        { key: "y", name: t("models.observed"), isNumber: true, cell: (p) => percent(p.y, 1) },
        { key: "rows", name: t("models.rows"), isNumber: true, cell: (p) => count(p.rows) },
      ]}
    />
  );
}

/** Precision against recall, beside the share of positive rows. */
export function PrecisionFigure({ metrics }: Props) {
  const { t, i18n } = useTranslation();
  const { language } = i18n;
  const base = metrics.positives / Math.max(1, metrics.rows);
  const points = useMemo(
    () => (metrics.detail?.precision_recall ?? []).map(([x, y]) => ({ x, y })),
    [metrics],
  );
  const option = useMemo(
    () =>
      lines(
        [
          {
            name: t("models.prevalence"),
            isBaseline: true,
            points: [
              { x: 0, y: base },
              { x: 1, y: base },
            ],
          },
          { name: "", points },
        ],
        { name: t("models.recall"), min: 0, max: 1, format: share },
        { name: t("models.precision"), min: 0, max: 1, format: share },
      ),
    [points, language],
  );
  if (points.length === 0) return null;
  const average = metrics.detail?.average_precision;
  return (
    <Figure
      title={t("models.precisionRecall")}
      caption={t("models.precisionCaption", {
        average: average === null || average === undefined ? t("models.undefined") : decimal(average),
        base: percent(base),
      })}
      option={option}
      items={points}
      id={(p) => `${p.x} ${p.y}`}
      columns={[
        { key: "x", name: t("models.recall"), isNumber: true, cell: (p) => percent(p.x, 1) },
        { key: "y", name: t("models.precision"), isNumber: true, cell: (p) => percent(p.y, 1) },
      ]}
    />
  );
}
