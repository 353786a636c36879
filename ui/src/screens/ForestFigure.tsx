import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { estimates } from "../charts/options";
import { named } from "../i18n/engine";
import { brief, count, level as levelOf, list } from "../i18n/format";
import { visible, within } from "../i18n/visible";
import type { FitView } from "../ipc/types";
import { Figure } from "../parts/Figure";
import forms from "./Forms.module.css";

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
  /** Names of those that are too large or too small for a picture: they would leave the others no room. */
  left: string[];
}

/** What the coordinator calls the intercept; a column has no such name. */
const INTERCEPT = "(intercept)";
/** The largest ratio that is drawn, and the smallest one over 1; the largest coefficient. */
const [LARGEST_RATIO, LARGEST] = [1e6, 1e9];
/** Rows of a picture, and names in its caption; the table beside it has all. */
const [ROWS, NAMES] = [50, 12];
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
    const fits = (x: number | null): x is number =>
      x !== null && (ratio === null ? Math.abs(x) <= LARGEST : x >= 1 / LARGEST_RATIO && x <= LARGEST_RATIO);
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
  const level = levelOf(fit.confidence);
  const shown = useMemo(() => drawn.slice(0, ROWS), [drawn]);
  const option = useMemo(
    () =>
      estimates(
        shown.map(({ name, value, low, high }) => ({
          name,
          value,
          interval: { low, high },
          isBaseline: false,
        })),
        { name, format: brief, isLog: ratio !== null },
        none,
      ),
    [shown, name, ratio, none, language],
  );
  // At most so many names, and how many others there are: two at least.
  const names = (all: string[]) => {
    if (all.length <= NAMES + 1) return list(all.map(within));
    const others = t("models.forestOthers", { others: count(all.length - NAMES) });
    return list([...all.slice(0, NAMES).map(within), others]);
  };
  const tooFar = left.length > 0 && t("models.forestLeft", { names: names(left) });
  if (drawn.length === 0) return tooFar && <p className={forms.small}>{tooFar}</p>;
  // Ratios are compared as they are drawn.
  const distance = (e: Effect) => Math.abs(ratio === null ? e.value : Math.log(e.value));
  const furthest = drawn.reduce((a, b) => (distance(b) > distance(a) ? b : a));
  const clear = drawn.filter((e) => e.low > none || e.high < none);
  const caption = [
    t("models.forestCaption", {
      figure: name,
      none: brief(none),
      level,
      name: within(furthest.name),
      value: brief(furthest.value),
      low: brief(furthest.low),
      high: brief(furthest.high),
      clear: clear.length === 0 ? t("models.forestNone") : names(clear.map((e) => e.name)),
    }),
    tooFar,
    shown.length < drawn.length &&
      t("models.forestShown", { shown: count(shown.length), all: count(drawn.length) }),
  ];
  return (
    <Figure
      title={t("models.forest")}
      caption={caption.filter((sentence) => sentence !== false).join(" ")}
      option={option}
      height={shown.length * ROW_PX + AXIS_PX}
      items={drawn}
      id={(e) => e.name}
      columns={[
        { key: "name", name: t("models.term"), cell: (e) => <bdi>{e.name}</bdi> },
        { key: "value", name, isNumber: true, cell: (e) => brief(e.value) },
        {
          key: "interval",
          name: t("models.level", { level }),
          isNumber: true,
          cell: (e) => `${brief(e.low)} – ${brief(e.high)}`,
        },
      ]}
    />
  );
}
