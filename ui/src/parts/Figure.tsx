import type { EChartsCoreOption } from "echarts/core";
import { type ReactNode, useId, useState } from "react";
import { useTranslation } from "react-i18next";
import { Chart } from "../charts/Chart";
import { Button } from "./Button";
import styles from "./Figure.module.css";
import { type Column, Table } from "./Table";

interface Props<T> {
  title: string;
  /** What the numbers say, in a sentence made from them. */
  caption: string;
  option: EChartsCoreOption;
  height?: number;
  /** The same numbers as a table. */
  columns: Column<T>[];
  items: T[];
  id: (item: T) => string;
  children?: ReactNode;
}

/** A chart with a caption made from its numbers, and the numbers. */
export function Figure<T>({ title, caption, option, height, columns, items, id, children }: Props<T>) {
  const { t } = useTranslation();
  const [isOpen, setOpen] = useState(false);
  const table = useId();
  return (
    <figure className={styles.figure}>
      <div className={styles.head}>
        <h3 className={styles.title}>{title}</h3>
        <Button
          kind="quiet"
          icon="table"
          aria-expanded={isOpen}
          aria-controls={table}
          onPress={() => setOpen(!isOpen)}
        >
          {isOpen ? t("parts.hideData") : t("parts.showData")}
        </Button>
      </div>
      <Chart option={option} label={title} {...(height === undefined ? {} : { height })} />
      {children}
      <figcaption className={styles.caption}>{caption}</figcaption>
      <div id={table} className={styles.data} hidden={!isOpen}>
        {isOpen && <Table label={title} columns={columns} items={items} id={id} />}
      </div>
    </figure>
  );
}
