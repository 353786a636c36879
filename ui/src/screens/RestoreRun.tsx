import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import type { Chosen } from "../ipc/types";
import { Button } from "../parts/Button";
import { Choice } from "../parts/Choice";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { agrees, NewPassphrase, NOTHING } from "../parts/NewPassphrase";
import { Notice } from "../parts/Notice";
import { ChooseFile } from "./ChooseFile";
import { DoorFrame } from "./DoorFrame";
import styles from "./Forms.module.css";

interface Props {
  /** Where the site's data will lie. */
  folder: string;
  onBack: () => void;
}

/** The first start on this machine, with the site of a backup. When it is in its place, its people sign in. */
export function RestoreRun({ folder, onBack }: Props) {
  const { t } = useTranslation();
  const [file, setFile] = useState<Chosen | null>(null);
  const [passphrase, setPassphrase] = useState("");
  const [keys, setKeys] = useState<"keychain" | "file">("keychain");
  const [keyPassphrase, setKeyPassphrase] = useState(NOTHING);
  const restore = useAction("restore");
  const isAgreed = file !== null && (keys === "keychain" || agrees(keyPassphrase));
  return (
    <DoorFrame>
      <Form
        className={styles.form ?? ""}
        onSubmit={(event) => {
          event.preventDefault();
          if (!isAgreed) return;
          const kept = keys === "keychain" ? keys : { file: { passphrase: keyPassphrase.first } };
          restore.mutate({ file: file.file, passphrase, keys: kept });
        }}
      >
        <h1 className={styles.title}>{t("backup.restore")}</h1>
        <p className={styles.lead}>{t("backup.restoreLead")}</p>
        <ChooseFile
          purpose="backup"
          words={t("backup.chooseFile")}
          chosen={file}
          onChosen={setFile}
          isDisabled={restore.isPending}
        />
        <Field
          label={t("backup.passphrase")}
          help={t("backup.passphraseAsGiven")}
          name="backup"
          value={passphrase}
          onChange={setPassphrase}
          isSecret
        />
        <Choice
          label={t("setup.where")}
          value={keys}
          onChange={setKeys}
          options={[
            { value: "keychain", label: t("setup.keychain"), help: t("setup.keychainHelp") },
            { value: "file", label: t("setup.file"), help: t("setup.fileHelp") },
          ]}
        />
        {keys === "file" && (
          <NewPassphrase
            name="key"
            label={t("setup.keyPassphrase")}
            help={t("setup.keyPassphraseHelp")}
            value={keyPassphrase}
            onChange={setKeyPassphrase}
          />
        )}
        <p className={styles.small}>
          {t("setup.folder")} <code>{folder}</code>
        </p>
        <FaultNotice fault={restore.error} />
        <div role="status">{restore.isPending && <Notice>{t("backup.restoring")}</Notice>}</div>
        <div className={styles.actions}>
          <Button onPress={onBack} isDisabled={restore.isPending}>
            {t("setup.back")}
          </Button>
          <Button type="submit" kind="primary" isPending={restore.isPending} isDisabled={file === null}>
            {t("backup.restore")}
          </Button>
        </div>
      </Form>
    </DoorFrame>
  );
}
