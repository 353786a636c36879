import type { ReactNode } from "react";
import styles from "./Table.module.css";

export interface Column<T> {
  key: string;
  name: string;
  /** Numbers stand at the end, their digits below each other. */
  isNumber?: boolean;
  /** Its name is for screen readers only: a column of buttons. */
  isBare?: boolean;
  /** Short things that would look torn over two lines: moments. */
  isWhole?: boolean;
  cell: (item: T) => ReactNode;
}

interface Props<T> {
  /** What the table holds, for who cannot see where it stands. */
  label: string;
  columns: Column<T>[];
  items: T[];
  id: (item: T) => string;
  /** What the numbers say, above them. */
  caption?: string;
  foot?: ReactNode;
}

/** A table that is as wide as it needs and scrolls by itself where the window is narrow. The first cell names the row. */
export function Table<T>({ label, columns, items, id, caption, foot }: Props<T>) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard
    // biome-ignore lint/a11y/useSemanticElements: a fieldset is for forms
    <div role="group" className={styles.scroll} aria-label={label} tabIndex={0}>
      <table className={styles.table}>
        {caption !== undefined && <caption className={styles.caption}>{caption}</caption>}
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column.key} scope="col" className={column.isNumber ? styles.number : undefined}>
                {column.isBare ? <span className="hidden">{column.name}</span> : column.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {items.map((item) => (
            <tr key={id(item)}>
              {columns.map((column, at) => {
                const look = column.isNumber
                  ? styles.number
                  : column.isWhole || column.isBare
                    ? styles.whole
                    : undefined;
                return at === 0 ? (
                  <th key={column.key} scope="row" className={`${styles.first} ${look ?? ""}`}>
                    {column.cell(item)}
                  </th>
                ) : (
                  <td key={column.key} className={look}>
                    {column.cell(item)}
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
        {foot}
      </table>
    </div>
  );
}
