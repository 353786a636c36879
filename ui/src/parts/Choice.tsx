import { Label, Radio, RadioGroup, Text } from "react-aria-components";
import styles from "./Choice.module.css";

export interface Option<T extends string> {
  value: T;
  label: string;
  help?: string;
}

interface Props<T extends string> {
  label: string;
  options: Option<T>[];
  value: T | null;
  onChange: (value: T) => void;
  /** Short answers stand in one line. */
  isRow?: boolean;
  isLabelHidden?: boolean;
}

/** One of a few answers, each of which says what happens. */
export function Choice<T extends string>({
  label,
  options,
  value,
  onChange,
  isRow,
  isLabelHidden,
}: Props<T>) {
  return (
    <RadioGroup
      value={value}
      onChange={(chosen) => onChange(chosen as T)}
      className={`${styles.group} ${isRow ? styles.row : ""}`}
      orientation={isRow ? "horizontal" : "vertical"}
    >
      <Label className={isLabelHidden ? "hidden" : (styles.label ?? "")}>{label}</Label>
      <div className={styles.options}>
        {options.map((option) => (
          <Radio key={option.value} value={option.value} className={styles.radio ?? ""}>
            <span className={styles.dot} />
            <span>
              {option.label}
              {option.help && (
                <Text slot="description" className={styles.help ?? ""}>
                  {option.help}
                </Text>
              )}
            </span>
          </Radio>
        ))}
      </div>
    </RadioGroup>
  );
}
