import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { estimates } from "../charts/options";
import { named } from "../i18n/engine";
import { brief, decimal } from "../i18n/format";
import type { Compared, Comparison, Interval } from "../ipc/types";
import { Card } from "../parts/Card";
import { Figure } from "../parts/Figure";
import forms from "./Forms.module.css";

/** Figures of which less is better. */
const LESS_IS_BETTER = ["brier", "rmse", "mae"];

type Verdict = "better" | "worse" | "unclear";

/** Whether the federated model is better, as far as the interval of the difference tells. */
export function verdict({ figure, difference_interval: interval }: Compared): Verdict {
  if (interval === null || (interval.low <= 0 && interval.high >= 0)) return "unclear";
  return interval.low > 0 === LESS_IS_BETTER.includes(figure) ? "worse" : "better";
}

/** *This site alone* against *federated*, figure by figure, with 95 % intervals. */
export function CompareFigure({ comparison }: { comparison: Comparison }) {
  const { t } = useTranslation();
  return (
    <Card
      title={t("models.compare")}
      lead={
        comparison.alone === null
          ? t("models.compareLeadOwn", { federated: comparison.federated })
          : t("models.compareLead", { alone: comparison.alone, federated: comparison.federated })
      }
    >
      {comparison.figures.map((compared) => (
        <One key={compared.figure} compared={compared} />
      ))}
      <p className={forms.small}>{t("models.stays")}</p>
    </Card>
  );
}

function One({ compared }: { compared: Compared }) {
  const { t, i18n } = useTranslation();
  const { language } = i18n;
  const name = named("words.figure", compared.figure);
  const rows = [
    { name: t("models.alone"), value: compared.alone, interval: compared.alone_interval },
    { name: t("models.federated"), value: compared.federated, interval: compared.federated_interval },
  ];
  const option = useMemo(
    () =>
      estimates(
        rows.map((row, at) => ({ ...row, isBaseline: at === 0 })),
        { name, format: brief },
      ),
    [compared, language],
  );
  const interval = (i: Interval | null) =>
    i === null ? t("models.noInterval") : t("parts.interval", { low: decimal(i.low), high: decimal(i.high) });
  const caption = t(`models.compared_${verdict(compared)}`, {
    figure: name,
    alone: decimal(compared.alone),
    federated: decimal(compared.federated),
    difference: decimal(compared.difference),
    interval: interval(compared.difference_interval),
  });
  return (
    <Figure
      title={name}
      caption={caption}
      option={option}
      height={132}
      items={[
        ...rows,
        { name: t("models.difference"), value: compared.difference, interval: compared.difference_interval },
      ]}
      id={(row) => row.name}
      columns={[
        { key: "name", name: t("models.model"), cell: (row) => row.name },
        { key: "value", name, isNumber: true, cell: (row) => decimal(row.value, 4) },
        {
          key: "interval",
          name: t("models.interval"),
          isNumber: true,
          cell: (row) => interval(row.interval),
        },
      ]}
    />
  );
}
