import { Checkbox, CheckboxGroup, Label, Text } from "react-aria-components";
import styles from "./Checks.module.css";
import type { Option } from "./Choice";
import { Icon } from "./Icon";

interface Props<T extends string> {
  label: string;
  options: Option<T>[];
  value: T[];
  onChange: (value: T[]) => void;
  /** Many answers stand in columns. */
  isWide?: boolean;
  isDisabled?: boolean;
}

/** Any of a few answers. */
export function Checks<T extends string>({
  label,
  options,
  value,
  onChange,
  isWide = false,
  isDisabled = false,
}: Props<T>) {
  return (
    <CheckboxGroup
      value={value}
      onChange={(chosen) => onChange(chosen as T[])}
      isDisabled={isDisabled}
      className={styles.group ?? ""}
    >
      <Label className={styles.label ?? ""}>{label}</Label>
      <div className={isWide ? styles.wide : styles.narrow}>
        {options.map((option) => (
          <Checkbox key={option.value} value={option.value} className={styles.check ?? ""}>
            {({ isSelected }) => (
              <>
                <span className={styles.box}>{isSelected && <Icon name="check" size={14} />}</span>
                <span>
                  {option.label}
                  {option.help && (
                    <Text slot="description" className={styles.help ?? ""}>
                      {option.help}
                    </Text>
                  )}
                </span>
              </>
            )}
          </Checkbox>
        ))}
      </div>
    </CheckboxGroup>
  );
}
