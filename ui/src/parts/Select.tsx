import styles from "./Select.module.css";

interface Props<T extends string> {
  /** For who cannot see where it stands. */
  label: string;
  options: { value: T; label: string; lang?: string }[];
  value: T;
  onChange: (value: T) => void;
}

/** One of a few, where little room is: in a table's row, at the foot of a page. */
export function Select<T extends string>({ label, options, value, onChange }: Props<T>) {
  return (
    <select
      aria-label={label}
      className={styles.select}
      value={value}
      onChange={(event) => onChange(event.target.value as T)}
    >
      {options.map((option) => (
        <option key={option.value} value={option.value} lang={option.lang}>
          {option.label}
        </option>
      ))}
    </select>
  );
}
