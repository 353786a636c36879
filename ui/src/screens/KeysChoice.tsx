import { useTranslation } from "react-i18next";
import type { NewKeys } from "../ipc/types";
import { Choice } from "../parts/Choice";
import { agrees, NewPassphrase, NOTHING, type Twice } from "../parts/NewPassphrase";
import styles from "./Forms.module.css";

/** Where a site's keys are to be kept, as it was chosen and typed so far. */
export interface Keeping {
  where: "keychain" | "file";
  passphrase: Twice;
}

export const IN_KEYCHAIN: Keeping = { where: "keychain", passphrase: NOTHING };

/** The choice as the engine takes it; `null` while the passphrase is not twice the same. */
export function keysOf({ where, passphrase }: Keeping): NewKeys | null {
  if (where === "keychain") return where;
  return agrees(passphrase) ? { file: { passphrase: passphrase.first } } : null;
}

interface Props {
  value: Keeping;
  onChange: (value: Keeping) => void;
  /** Where the site's data will lie. */
  folder: string;
}

/** Where the keys of a site that is laid down are kept, and where the site lies. */
export function KeysChoice({ value, onChange, folder }: Props) {
  const { t } = useTranslation();
  return (
    <>
      <Choice
        label={t("setup.where")}
        value={value.where}
        onChange={(where) => onChange({ ...value, where })}
        options={[
          { value: "keychain", label: t("setup.keychain"), help: t("setup.keychainHelp") },
          { value: "file", label: t("setup.file"), help: t("setup.fileHelp") },
        ]}
      />
      {value.where === "file" && (
        <NewPassphrase
          name="key"
          label={t("setup.keyPassphrase")}
          help={t("setup.keyPassphraseHelp")}
          value={value.passphrase}
          onChange={(passphrase) => onChange({ ...value, passphrase })}
        />
      )}
      <p className={styles.small}>
        {t("setup.folder")} <code>{folder}</code>
      </p>
    </>
  );
}
