import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { largest, median, missing, share } from "../charts/curves";
import { bars, histogram } from "../charts/options";
import { brief, count, percent } from "../i18n/format";
import type { ColumnProfile, Level, NumberProfile } from "../ipc/types";
import { Figure } from "../parts/Figure";

/** What is in a column: a histogram of a number, the codes of a category. */
export function ColumnFigure({ column }: { column: ColumnProfile }) {
  if (column.number !== null && column.number.counts.length > 0 && column.number.edges.length > 1) {
    return <NumberFigure column={column} number={column.number} />;
  }
  return column.levels.length > 0 ? <LevelFigure column={column} /> : null;
}

interface Bin {
  from: number;
  to: number;
  rows: number | null;
}

function NumberFigure({ column, number }: { column: ColumnProfile; number: NumberProfile }) {
  const { t, i18n } = useTranslation();
  const { language } = i18n;
  const { edges, counts } = number;
  const option = useMemo(
    () =>
      histogram(
        edges,
        counts,
        { name: column.name, format: brief },
        { name: t("models.rows"), format: count },
      ),
    [column, language],
  );
  const bins = counts.map((rows, at): Bin => ({ from: edges[at] ?? 0, to: edges[at + 1] ?? 0, rows }));
  const top = bins[largest(counts)];
  const caption = t("datasets.numberCaption", {
    mean: brief(number.mean),
    sd: brief(number.sd),
    median: brief(median(number) ?? number.mean),
    from: brief(top?.from ?? 0),
    to: brief(top?.to ?? 0),
    missing: percent(missing(column) ?? 0, 1),
  });
  return (
    <Figure
      title={column.name}
      caption={caption}
      option={option}
      items={bins}
      id={(bin) => String(bin.from)}
      columns={[
        { key: "from", name: t("datasets.from"), isNumber: true, cell: (bin) => brief(bin.from) },
        { key: "to", name: t("datasets.to"), isNumber: true, cell: (bin) => brief(bin.to) },
        {
          key: "rows",
          name: t("models.rows"),
          isNumber: true,
          cell: (bin) => (bin.rows === null ? t("datasets.withheld") : count(bin.rows)),
        },
      ]}
    />
  );
}

function LevelFigure({ column }: { column: ColumnProfile }) {
  const { t, i18n } = useTranslation();
  const { language } = i18n;
  const option = useMemo(
    () =>
      bars(
        column.levels.map((level) => ({ name: level.code, value: level.rows ?? 0 })),
        { name: t("models.rows"), format: count },
      ),
    [column, language],
  );
  const [first] = column.levels;
  const part = (level: Level) => (level.rows === null ? null : share(level.rows, column.present));
  const top = first ? part(first) : null;
  const caption = t("datasets.levelCaption", {
    count: column.levels.length,
    code: first?.code ?? "",
    share: top === null ? t("datasets.withheld") : percent(top),
    missing: percent(missing(column) ?? 0, 1),
  });
  return (
    <Figure
      title={column.name}
      caption={caption}
      option={option}
      height={Math.min(600, 70 + column.levels.length * 30)}
      items={column.levels}
      id={(level) => level.code}
      columns={[
        { key: "code", name: t("datasets.code"), cell: (level) => level.code },
        {
          key: "rows",
          name: t("models.rows"),
          isNumber: true,
          cell: (level) => (level.rows === null ? t("datasets.withheld") : count(level.rows)),
        },
        {
          key: "share",
          name: t("datasets.share"),
          isNumber: true,
          cell: (level) => {
            const of = part(level);
            return of === null ? "–" : percent(of, 1);
          },
        },
      ]}
    />
  );
}
