// Pictures as ECharts wants them told: one accent and greys, lines labelled where they end, units on the axes.
import type { EChartsCoreOption } from "echarts/core";
import type { Interval } from "../ipc/types";
import type { Point } from "./curves";

const FONT = {
  fontFamily: "Inter Variable, Noto Sans CJK SC, sans-serif",
  fontSize: 12,
  color: "var(--muted)",
};
const LINE = { lineStyle: { color: "var(--line)" } };

interface Axis {
  name: string;
  min?: number;
  max?: number;
  format?: (value: number) => string;
  isWhole?: boolean;
  /** Ratios: twice as much is as far to one side as half is to the other. */
  isLog?: boolean;
}

function axis({ name, min, max, format, isWhole, isLog }: Axis, place: "x" | "y") {
  const name_ = place === "x" ? { nameGap: 30 } : { nameGap: 48, nameRotate: 90 };
  return {
    ...(isLog ? { type: "log", logBase: 2 } : { type: "value" }),
    name,
    nameLocation: "middle",
    nameTextStyle: FONT,
    ...name_,
    ...(min === undefined ? {} : { min }),
    ...(max === undefined ? {} : { max }),
    ...(isWhole ? { minInterval: 1 } : {}),
    // A line may begin where it is; bars say from where, by `min`.
    scale: place === "y" && min === undefined,
    axisLine: { show: place === "x", lineStyle: { color: "var(--mark)" } },
    axisTick: { show: false },
    axisLabel: { ...FONT, ...(format ? { formatter: format } : {}), hideOverlap: true },
    splitLine: { show: place === "y", ...LINE },
  };
}

const GRID = { left: 66, right: 24, top: 16, bottom: 50 };
const tooltip = (trigger: "axis" | "item") => ({
  trigger,
  renderMode: "richText",
  confine: true,
  backgroundColor: "var(--raised)",
  borderColor: "var(--mark)",
  borderWidth: 1,
  shadowBlur: 0,
  textStyle: { ...FONT, color: "var(--ink)" },
  axisPointer: { type: "line", lineStyle: { color: "var(--mark)", type: "dashed" }, label: { show: false } },
});

export interface Line {
  name: string;
  points: Point[];
  /** A baseline is grey and dashed. */
  isBaseline?: boolean;
  isStep?: boolean;
  hasDots?: boolean;
}

/** Lines over one pair of axes, each labelled at its end. */
export function lines(of: Line[], x: Axis, y: Axis): EChartsCoreOption {
  const format = y.format ?? String;
  return {
    grid: { ...GRID, right: 24 },
    xAxis: axis(x, "x"),
    yAxis: axis(y, "y"),
    tooltip: { ...tooltip("axis"), valueFormatter: (value: unknown) => format(Number(value)) },
    series: of.map((line) => ({
      type: "line",
      name: line.name,
      data: line.points.map((p) => [p.x, p.y]),
      step: line.isStep ? "end" : false,
      symbol: line.hasDots ? "circle" : "none",
      symbolSize: 7,
      silent: line.isBaseline === true,
      tooltip: { show: line.isBaseline !== true },
      z: line.isBaseline ? 1 : 3,
      itemStyle: { color: line.isBaseline ? "var(--mark)" : "var(--accent)" },
      lineStyle: {
        color: line.isBaseline ? "var(--mark)" : "var(--accent)",
        width: line.isBaseline ? 1.25 : 2,
        type: line.isBaseline ? "dashed" : "solid",
      },
      emphasis: { disabled: true },
      ...label(line),
    })),
  };
}

/** A line's name beside the line, a good way along it, where the others seldom are. */
function label(line: Line) {
  if (line.name === "" || line.points.length === 0) return {};
  const [from, to] = [line.points[0] as Point, line.points.at(-1) as Point];
  const at = [from.x + (to.x - from.x) * 0.64, from.y + (to.y - from.y) * 0.64];
  const text = { ...FONT, show: true, formatter: line.name, position: "right", offset: [6, 12] };
  return {
    markPoint: { symbol: "circle", symbolSize: 0.01, silent: true, label: text, data: [{ coord: at }] },
  };
}

/** Bars between edges; a count that is suppressed leaves a gap. */
export function histogram(edges: number[], counts: (number | null)[], x: Axis, y: Axis): EChartsCoreOption {
  const [from, to] = [edges[0] ?? 0, edges.at(-1) ?? 1];
  const format = x.format ?? String;
  return {
    grid: GRID,
    xAxis: { ...axis(x, "x"), min: from, max: to === from ? from + 1 : to },
    yAxis: axis({ ...y, isWhole: true, min: 0 }, "y"),
    tooltip: {
      ...tooltip("item"),
      formatter: ({ dataIndex }: { dataIndex: number }) =>
        `${format(edges[dataIndex] ?? 0)} – ${format(edges[dataIndex + 1] ?? 0)}: ${counts[dataIndex] ?? "?"}`,
    },
    series: [
      {
        type: "custom",
        itemStyle: { color: "var(--accent)" },
        data: counts.map((n, at) => [edges[at] ?? 0, edges[at + 1] ?? (edges[at] ?? 0) + 1, n ?? 0]),
        encode: { x: [0, 1], y: 2 },
        renderItem: (_: unknown, api: CustomApi) => {
          const [low, high] = [api.coord([api.value(0), api.value(2)]), api.coord([api.value(1), 0])];
          const shape = {
            x: low[0] + 0.5,
            y: low[1],
            width: Math.max(1, high[0] - low[0] - 1),
            height: high[1] - low[1],
          };
          return { type: "rect", shape, style: { fill: "var(--accent)" } };
        },
      },
    ],
  };
}

interface CustomApi {
  value: (at: number) => number;
  coord: (point: [number, number]) => [number, number];
  size: (of: [number, number]) => [number, number];
}

/** Bars with names, the longest first, lying so that names can be read. */
export function bars(of: { name: string; value: number }[], x: Axis): EChartsCoreOption {
  return {
    grid: { left: 8, right: 48, top: 8, bottom: 46, containLabel: true },
    xAxis: { ...axis({ ...x, isWhole: true }, "x"), splitLine: { show: true, ...LINE } },
    yAxis: {
      type: "category",
      inverse: true,
      data: of.map((bar) => bar.name),
      axisLine: { lineStyle: { color: "var(--mark)" } },
      axisTick: { show: false },
      axisLabel: { ...FONT, width: 140, overflow: "truncate" },
    },
    tooltip: tooltip("item"),
    series: [
      {
        type: "bar",
        data: of.map((bar) => bar.value),
        barMaxWidth: 22,
        itemStyle: { color: "var(--accent)", borderRadius: [0, 3, 3, 0] },
        emphasis: { disabled: true },
        label: {
          ...FONT,
          show: true,
          position: "right",
          formatter: ({ value }: { value: number }) => (x.format ?? String)(value),
        },
      },
    ],
  };
}

export interface Estimate {
  name: string;
  value: number;
  interval: Interval | null;
  /** What it is compared with is grey. */
  isBaseline: boolean;
}

/** Estimates with their intervals, one below the other; a line where there would be no effect, if that is given. */
export function estimates(of: Estimate[], x: Axis, none?: number): EChartsCoreOption {
  const colour = (at: number) => (of[at]?.isBaseline ? "var(--mark)" : "var(--accent)");
  return {
    grid: { left: 8, right: 32, top: 8, bottom: 46, containLabel: true },
    xAxis: { ...axis(x, "x"), scale: true, splitLine: { show: true, ...LINE } },
    yAxis: {
      type: "category",
      inverse: true,
      data: of.map((e) => e.name),
      axisLine: { show: false },
      axisTick: { show: false },
      // A name may have 128 characters; the table has them all.
      axisLabel: { ...FONT, color: "var(--ink)", width: 200, overflow: "truncate" },
    },
    tooltip: { show: false },
    series: [
      {
        type: "custom",
        data: of.map((e, at) => [
          e.interval?.low ?? e.value,
          e.interval?.high ?? e.value,
          at,
          e.value,
          none ?? e.value,
        ]),
        encode: { x: [0, 1, 3, 4], y: 2 },
        renderItem: (_: unknown, api: CustomApi) => {
          const row = api.value(2);
          const at = (value: number) => api.coord([value, row]);
          const [low, high, middle] = [at(api.value(0)), at(api.value(1)), at(api.value(3))];
          const stroke = { stroke: colour(row), lineWidth: 2 };
          const bar = (x: number) => ({
            type: "line",
            shape: { x1: x, y1: low[1] - 6, x2: x, y2: low[1] + 6 },
            style: stroke,
          });
          return {
            type: "group",
            children: [
              ...(none === undefined ? [] : [noEffect(at(none), api.size([0, 1])[1] / 2)]),
              { type: "line", shape: { x1: low[0], y1: low[1], x2: high[0], y2: high[1] }, style: stroke },
              bar(low[0]),
              bar(high[0]),
              {
                type: "circle",
                shape: { cx: middle[0], cy: middle[1], r: 5.5 },
                style: { fill: colour(row) },
              },
            ],
          };
        },
      },
    ],
  };
}

/** A row's part of the line at which there is no effect. */
function noEffect([x, y]: [number, number], half: number) {
  return {
    type: "line",
    shape: { x1: x, y1: y - half, x2: x, y2: y + half },
    style: { stroke: "var(--mark)", lineWidth: 1.25, lineDash: [4, 4] },
  };
}
