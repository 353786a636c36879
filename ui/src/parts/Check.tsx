import { Checkbox, Text } from "react-aria-components";
import styles from "./Checks.module.css";
import { Icon } from "./Icon";

interface Props {
  label: string;
  value: boolean;
  onChange: (value: boolean) => void;
  help?: string;
  /** The words are for screen readers only: in a table they would stand in every row. */
  isLabelHidden?: boolean;
  isDisabled?: boolean;
}

/** Yes or no. */
export function Check({ label, value, onChange, help, isLabelHidden = false, isDisabled = false }: Props) {
  return (
    <Checkbox
      isSelected={value}
      onChange={onChange}
      isDisabled={isDisabled}
      className={styles.check ?? ""}
      {...(isLabelHidden ? { "aria-label": label } : {})}
    >
      <span className={styles.box}>{value && <Icon name="check" size={14} />}</span>
      {!isLabelHidden && (
        <span>
          {label}
          {help && (
            <Text slot="description" className={styles.help ?? ""}>
              {help}
            </Text>
          )}
        </span>
      )}
    </Checkbox>
  );
}
