import { useTranslation } from "react-i18next";
import { Field } from "./Field";

interface Props {
  value: string;
  onChange: (value: string) => void;
  autoFocus?: boolean;
}

/** The passphrase that opens a person's key for one signature. */
export function SigningField({ value, onChange, autoFocus = false }: Props) {
  const { t } = useTranslation();
  return (
    <Field
      label={t("parts.passphrase")}
      name="signing"
      value={value}
      onChange={onChange}
      isSecret
      autoFocus={autoFocus}
    />
  );
}
