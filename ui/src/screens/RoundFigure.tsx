import { useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { lines } from "../charts/options";
import { named } from "../i18n/engine";
import { brief, count, decimal } from "../i18n/format";
import { Choice } from "../parts/Choice";
import { Figure } from "../parts/Figure";
import { curveOf, drawn, type FigureRow } from "./rounds";

/** A figure of the model that came to each round, on this site's rows; where there are several, somebody chooses one. */
export function RoundFigure({ task, rows }: { task: string; rows: FigureRow[] }) {
  const { t, i18n } = useTranslation();
  const { language } = i18n;
  const [chosen, setChosen] = useState<string | null>(null);
  const figures = drawn(rows);
  const figure = figures.find((name) => name === chosen) ?? figures[0] ?? "";
  const name = named("words.figure", figure);
  const points = useMemo(() => curveOf(rows, figure), [rows, figure]);
  const option = useMemo(
    () =>
      lines(
        [{ name: "", points, hasDots: points.length < 30 }],
        {
          name: t("jobs.round"),
          min: 1,
          max: Math.max(2, points.at(-1)?.x ?? 2),
          isWhole: true,
          format: count,
        },
        { name, format: brief },
      ),
    [points, name, language],
  );
  const [first, last] = [points[0], points.at(-1)];
  if (first === undefined || last === undefined) return null;
  const values = points.map((point) => point.y);
  return (
    <Figure
      title={t("models.figureOf", { figure: name, task })}
      caption={t("models.figureCaption", {
        figure: name,
        rows: count(rows.at(-1)?.rows ?? 0),
        from: decimal(first.y),
        first: count(first.x),
        to: decimal(last.y),
        last: count(last.x),
        low: decimal(Math.min(...values)),
        high: decimal(Math.max(...values)),
      })}
      option={option}
      items={rows}
      id={(row) => String(row.round)}
      columns={[
        { key: "round", name: t("jobs.round"), isNumber: true, cell: (row) => count(row.round) },
        ...figures.map((of) => ({
          key: of,
          name: named("words.figure", of),
          isNumber: true,
          cell: (row: FigureRow) => {
            const value = row.figures.get(of) ?? null;
            return value === null ? "–" : decimal(value, 4);
          },
        })),
        { key: "rows", name: t("models.rows"), isNumber: true, cell: (row) => count(row.rows) },
      ]}
    >
      {figures.length > 1 && (
        <Choice
          label={t("models.figure")}
          value={figure}
          onChange={setChosen}
          options={figures.map((of) => ({ value: of, label: named("words.figure", of) }))}
          isRow
        />
      )}
    </Figure>
  );
}
