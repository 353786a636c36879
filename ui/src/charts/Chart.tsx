import { BarChart, CustomChart, LineChart } from "echarts/charts";
import { GridComponent, MarkPointComponent, TooltipComponent } from "echarts/components";
import { type EChartsCoreOption, type EChartsType, init, use } from "echarts/core";
import { SVGRenderer } from "echarts/renderers";
import { useEffect, useRef } from "react";
import styles from "./Chart.module.css";

use([BarChart, CustomChart, LineChart, GridComponent, MarkPointComponent, TooltipComponent, SVGRenderer]);

interface Props {
  option: EChartsCoreOption;
  /** What it shows; the caption says it in full. */
  label: string;
  height?: number;
}

/** A picture of numbers. Its colours are the tokens' names, so that it follows the theme by itself. */
export function Chart({ option, label, height = 260 }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const drawn = useRef<EChartsType>(null);
  useEffect(() => {
    if (place.current === null) return;
    const chart = init(place.current, null, { renderer: "svg" });
    drawn.current = chart;
    const watch = new ResizeObserver(() => chart.resize());
    watch.observe(place.current);
    return () => {
      watch.disconnect();
      chart.dispose();
      drawn.current = null;
    };
  }, []);
  useEffect(() => {
    drawn.current?.setOption({ animation: false, ...option }, { notMerge: true });
  }, [option]);
  return (
    <div role="img" aria-label={label} className={styles.chart}>
      <div ref={place} style={{ height }} />
    </div>
  );
}
