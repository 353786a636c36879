import { FieldError, Input, Label, Text, TextArea, TextField } from "react-aria-components";
import styles from "./Field.module.css";

interface Props {
  label: string;
  value: string;
  onChange: (value: string) => void;
  name: string;
  help?: string;
  isSecret?: boolean;
  /** What is typed, where it is no text. */
  type?: "time" | "number";
  /** Least and greatest number. */
  min?: number;
  max?: number;
  rows?: number;
  isOptional?: boolean;
  isDisabled?: boolean;
  isMono?: boolean;
  autoFocus?: boolean;
  minLength?: number;
  /** Says what is wrong with what was typed; `null` if nothing is. */
  validate?: (value: string) => string | null;
}

/** A labelled field. */
export function Field(props: Props) {
  const { label, help, isSecret = false, type = "text", min, max, rows, isOptional, isMono, ...rest } = props;
  const range = { ...(min === undefined ? {} : { min }), ...(max === undefined ? {} : { max }) };
  const look = `${styles.input} ${isMono ? styles.mono : ""}`;
  return (
    <TextField
      {...rest}
      className={styles.field ?? ""}
      type={isSecret ? "password" : type}
      autoComplete="off"
      spellCheck="false"
      isRequired={!isOptional}
    >
      <Label className={styles.label ?? ""}>{label}</Label>
      {help && (
        <Text slot="description" className={styles.help ?? ""}>
          {help}
        </Text>
      )}
      {rows ? <TextArea rows={rows} className={look} /> : <Input className={look} {...range} />}
      <FieldError className={styles.error ?? ""} />
    </TextField>
  );
}
