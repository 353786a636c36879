import { useTranslation } from "react-i18next";
import { Field } from "./Field";
import styles from "./NewPassphrase.module.css";
import { Notice } from "./Notice";

/** Fewest characters of a passphrase; the engine's own rule. */
const LEAST = 10;

/** A new passphrase as it was typed, both times. */
export interface Twice {
  first: string;
  again: string;
}

export const NOTHING: Twice = { first: "", again: "" };

/** Whether both times the same was typed; the engine asks for more. */
export const agrees = ({ first, again }: Twice) => first === again;

interface Props {
  value: Twice;
  onChange: (value: Twice) => void;
  /** What it is for, where it is not the person's own. */
  label?: string;
  help?: string;
  /** Of the field; that of the second one follows from it where two such pieces stand together. */
  name?: string;
}

/** A passphrase that is chosen: typed twice, since nobody can see or reset it. */
export function NewPassphrase({ value, onChange, label, help, name = "passphrase" }: Props) {
  const { t } = useTranslation();
  const differs = value.again !== "" && !agrees(value);
  return (
    <>
      <Field
        label={label ?? t("signIn.newPassphrase")}
        help={help ?? t("signIn.passphraseHelp")}
        name={name}
        value={value.first}
        onChange={(first) => onChange({ ...value, first })}
        isSecret
        minLength={LEAST}
      />
      <div className={styles.again}>
        <Field
          label={t("signIn.again")}
          name={name === "passphrase" ? "again" : `${name}Again`}
          value={value.again}
          onChange={(again) => onChange({ ...value, again })}
          isSecret
        />
        <div role="status" className={styles.differs}>
          {differs && <Notice weight="attention">{t("signIn.differs")}</Notice>}
        </div>
      </div>
    </>
  );
}
