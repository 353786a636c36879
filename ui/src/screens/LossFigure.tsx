import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { lines } from "../charts/options";
import { brief, count, decimal } from "../i18n/format";
import { Figure } from "../parts/Figure";
import { type LossRow, lossCurve } from "./rounds";

/** Loss on this site's rows, round by round. */
export function LossFigure({ task, rows, height }: { task: string; rows: LossRow[]; height?: number }) {
  const { t, i18n } = useTranslation();
  const { language } = i18n;
  const option = useMemo(
    () =>
      lines(
        [{ name: "", points: lossCurve(rows), hasDots: rows.length < 30 }],
        {
          name: t("jobs.round"),
          min: 1,
          max: Math.max(2, rows.at(-1)?.round ?? 2),
          isWhole: true,
          format: count,
        },
        { name: t("models.loss"), format: brief },
      ),
    [rows, language],
  );
  const [first, last] = [rows[0], rows.at(-1)];
  const caption =
    first && last
      ? t("models.lossCaption", {
          task,
          from: decimal(first.before),
          to: decimal(last.after),
          first: count(first.round),
          last: count(last.round),
          rows: count(last.rows),
        })
      : "";
  return (
    <Figure
      title={t("models.lossOf", { task })}
      caption={caption}
      option={option}
      {...(height === undefined ? {} : { height })}
      items={rows}
      id={(row) => String(row.round)}
      columns={[
        { key: "round", name: t("jobs.round"), isNumber: true, cell: (row) => count(row.round) },
        {
          key: "before",
          name: t("models.lossBefore"),
          isNumber: true,
          cell: (row) => decimal(row.before, 4),
        },
        { key: "after", name: t("models.lossAfter"), isNumber: true, cell: (row) => decimal(row.after, 4) },
        { key: "rows", name: t("models.rows"), isNumber: true, cell: (row) => count(row.rows) },
      ]}
    />
  );
}
