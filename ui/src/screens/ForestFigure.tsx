import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { estimates } from "../charts/options";
import { named } from "../i18n/engine";
import { brief, list, percent } from "../i18n/format";
import { visible } from "../i18n/visible";
import type { FitView } from "../ipc/types";
import { Figure } from "../parts/Figure";

export interface Effect {
  name: string;
  value: number;
  low: number;
  high: number;
}

/** What a forest plot of a regression draws: ratios where it has them, else coefficients, and where there is no effect. */
export interface Forest {
  /** `odds`, `rate`, `hazard`; `null` for coefficients. */
  ratio: string | null;
  /** The value of no effect. */
  none: number;
  drawn: Effect[];
  /** Names of those that are too large or too small for a picture. */
  left: string[];
}

/** What the coordinator calls the intercept; a column has no such name. */
const INTERCEPT = "(intercept)";
/** Pixels of a row, and of the axis below. */
const ROW_PX = 30;
const AXIS_PX = 62;

type Ends = [number | null, number | null, number | null];

/** The effects of a regression; its intercept is none. */
export function forest({ coefficients }: FitView): Forest {
  const ratio = coefficients.find((c) => c.ratio !== null)?.ratio?.of ?? null;
  const found: Forest = { ratio, none: ratio === null ? 0 : 1, drawn: [], left: [] };
  for (const { name: given, estimate, low, high, ratio: of } of coefficients) {
    const name = visible(given);
    // Only the intercept of a model with ratios has none.
    const isIntercept = ratio === null ? given === INTERCEPT : of === null;
    if (isIntercept) continue;
    const [value, from, to]: Ends = of === null ? [estimate, low, high] : [of.value, of.low, of.high];
    // On the logarithmic axis of ratios there is no 0.
    const fits = (x: number | null): x is number => x !== null && (ratio === null || x > 0);
    if (fits(value) && fits(from) && fits(to)) found.drawn.push({ name, value, low: from, high: to });
    else found.left.push(name);
  }
  return found;
}

/** The effects of a regression with their intervals, one below the other. */
export function ForestFigure({ fit }: { fit: FitView }) {
  const { t, i18n } = useTranslation();
  const { language } = i18n;
  const { ratio, none, drawn, left } = useMemo(() => forest(fit), [fit]);
  const name = ratio === null ? t("models.estimate") : named("words.ratio", ratio);
  const option = useMemo(
    () =>
      estimates(
        drawn.map(({ name, value, low, high }) => ({
          name,
          value,
          interval: { low, high },
          isBaseline: false,
        })),
        { name, format: brief, isLog: ratio !== null },
        none,
      ),
    [drawn, name, ratio, none, language],
  );
  if (drawn.length === 0) return null;
  // Ratios are compared as they are drawn.
  const distance = (e: Effect) => Math.abs(ratio === null ? e.value : Math.log(e.value));
  const furthest = drawn.reduce((a, b) => (distance(b) > distance(a) ? b : a));
  const clear = drawn.filter((e) => e.low > none || e.high < none);
  const caption = t("models.forestCaption", {
    figure: name,
    none: brief(none),
    level: percent(fit.confidence),
    name: furthest.name,
    value: brief(furthest.value),
    low: brief(furthest.low),
    high: brief(furthest.high),
    clear: clear.length === 0 ? t("models.forestNone") : list(clear.map((e) => e.name)),
  });
  return (
    <Figure
      title={t("models.forest")}
      caption={left.length === 0 ? caption : `${caption} ${t("models.forestLeft", { names: list(left) })}`}
      option={option}
      height={drawn.length * ROW_PX + AXIS_PX}
      items={drawn}
      id={(e) => e.name}
      columns={[
        { key: "name", name: t("models.term"), cell: (e) => <bdi>{e.name}</bdi> },
        { key: "value", name, isNumber: true, cell: (e) => brief(e.value) },
        {
          key: "interval",
          name: t("models.level", { level: percent(fit.confidence) }),
          isNumber: true,
          cell: (e) => `${brief(e.low)} – ${brief(e.high)}`,
        },
      ]}
    />
  );
}
