import { Button, Label, ListBox, ListBoxItem, Popover, Select, SelectValue } from "react-aria-components";
import type { Option } from "./Choice";
import { Icon } from "./Icon";
import styles from "./Picker.module.css";

interface Props<T extends string> {
  label: string;
  options: Option<T>[];
  value: T | null;
  onChange: (value: T) => void;
  placeholder?: string;
  isDisabled?: boolean;
}

/** One of many. */
export function Picker<T extends string>(props: Props<T>) {
  const { label, options, value, onChange, placeholder, isDisabled = false } = props;
  return (
    <Select
      className={styles.picker ?? ""}
      value={value}
      isDisabled={isDisabled}
      onChange={(key) => onChange(String(key) as T)}
      placeholder={placeholder ?? ""}
    >
      <Label className={styles.label ?? ""}>{label}</Label>
      <Button className={styles.button ?? ""}>
        <SelectValue className={styles.value ?? ""}>
          {({ selectedText, defaultChildren }) => selectedText || defaultChildren}
        </SelectValue>
        <Icon name="down" size={16} />
      </Button>
      <Popover className={styles.popover ?? ""}>
        <ListBox className={styles.list ?? ""}>
          {options.map((option) => (
            <ListBoxItem
              key={option.value}
              id={option.value}
              textValue={option.label}
              className={styles.item ?? ""}
            >
              {option.label}
              {option.help && <span className={styles.help}>{option.help}</span>}
            </ListBoxItem>
          ))}
        </ListBox>
      </Popover>
    </Select>
  );
}
