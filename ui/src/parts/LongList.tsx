// biome-ignore-all lint/a11y/useSemanticElements: rows that are placed one by one cannot be rows of a <table>
// biome-ignore-all lint/a11y/useFocusableInteractive: the table is read, not worked in; what scrolls has the focus
import { useVirtualizer } from "@tanstack/react-virtual";
import { type ReactNode, useEffect, useRef } from "react";
import styles from "./LongList.module.css";

export interface LongColumn<T> {
  key: string;
  name: string;
  /** Width as a track of a grid: `80px`, `minmax(0, 1fr)`. */
  width: string;
  isNumber?: boolean;
  cell: (item: T) => ReactNode;
}

interface Props<T> {
  label: string;
  columns: LongColumn<T>[];
  items: T[];
  id: (item: T) => string | number;
  /** Rows in all, those not asked for yet included; `null` where nobody knows. */
  total: number | null;
  /** Asks for more; called when the end of what is here comes into sight. */
  onEnd: () => void;
}

/** A table of a million rows: only those in sight are there, and more are asked for as they come into sight. */
export function LongList<T>({ label, columns, items, id, total, onEnd }: Props<T>) {
  const place = useRef<HTMLDivElement>(null);
  const rows = useVirtualizer({
    count: items.length,
    getScrollElement: () => place.current,
    estimateSize: () => 44,
    overscan: 8,
    getItemKey: (at) => {
      const item = items[at];
      return item === undefined ? at : id(item);
    },
  });
  const shown = rows.getVirtualItems();
  const last = shown.at(-1)?.index ?? -1;
  useEffect(() => {
    if (items.length > 0 && last >= items.length - 10 && items.length < (total ?? Number.POSITIVE_INFINITY))
      onEnd();
  }, [last, items.length, total, onEnd]);
  const tracks = { gridTemplateColumns: columns.map((column) => column.width).join(" ") };
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard
    <div ref={place} role="group" className={styles.place} aria-label={label} tabIndex={0}>
      <div
        role="table"
        aria-label={label}
        aria-rowcount={total === null ? -1 : total + 1}
        className={styles.table}
      >
        <div role="rowgroup" className={styles.head}>
          <div role="row" aria-rowindex={1} className={styles.row} style={tracks}>
            {columns.map((column) => (
              <div role="columnheader" key={column.key} className={column.isNumber ? styles.number : ""}>
                {column.name}
              </div>
            ))}
          </div>
        </div>
        <div role="rowgroup" className={styles.body} style={{ height: rows.getTotalSize() }}>
          {shown.map(({ index, key, start }) => {
            const item = items[index];
            if (item === undefined) return null;
            return (
              <div
                role="row"
                key={String(key)}
                data-index={index}
                ref={rows.measureElement}
                aria-rowindex={index + 2}
                className={`${styles.row} ${styles.floating}`}
                style={{ ...tracks, transform: `translateY(${start}px)` }}
              >
                {columns.map((column) => (
                  <div role="cell" key={column.key} className={column.isNumber ? styles.number : ""}>
                    {column.cell(item)}
                  </div>
                ))}
              </div>
            );
          })}
        </div>
      </div>
    </div>
  );
}
