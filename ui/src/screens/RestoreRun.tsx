import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import type { Chosen } from "../ipc/types";
import { Button } from "../parts/Button";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { Notice } from "../parts/Notice";
import { ChooseFile } from "./ChooseFile";
import { DoorFrame } from "./DoorFrame";
import styles from "./Forms.module.css";
import { IN_KEYCHAIN, KeysChoice, keysOf } from "./KeysChoice";
import { ServiceKeys } from "./ServiceSite";

interface Props {
  /** Where the site's data will lie. */
  folder: string;
  /** Whether it is the service's site, of which the service keeps the keys. */
  isService?: boolean;
  onBack: () => void;
}

/** The first start on this machine, with the site of a backup. When it is in its place, its people sign in. */
export function RestoreRun({ folder, isService = false, onBack }: Props) {
  const { t } = useTranslation();
  const [file, setFile] = useState<Chosen | null>(null);
  const [passphrase, setPassphrase] = useState("");
  const [keeping, setKeeping] = useState(IN_KEYCHAIN);
  const restore = useAction("restore");
  const ofService = useAction("restore_site");
  const isPending = restore.isPending || ofService.isPending;
  const keys = keysOf(keeping);
  return (
    <DoorFrame>
      <Form
        className={styles.form ?? ""}
        onSubmit={(event) => {
          event.preventDefault();
          if (file === null) return;
          if (isService) ofService.mutate({ path: file.file, passphrase });
          else if (keys !== null) restore.mutate({ file: file.file, passphrase, keys });
        }}
      >
        <h1 className={styles.title}>{t("backup.restore")}</h1>
        <p className={styles.lead}>{t("backup.restoreLead")}</p>
        <ChooseFile
          purpose="backup"
          words={t("backup.chooseFile")}
          chosen={file}
          onChosen={setFile}
          isDisabled={isPending}
        />
        <Field
          label={t("backup.passphrase")}
          help={t("backup.passphraseAsGiven")}
          name="backup"
          value={passphrase}
          onChange={setPassphrase}
          isSecret
        />
        {isService ? (
          <>
            <p>{t("backup.restoreLogged")}</p>
            <ServiceKeys folder={folder} />
          </>
        ) : (
          <KeysChoice value={keeping} onChange={setKeeping} folder={folder} />
        )}
        <FaultNotice fault={restore.error ?? ofService.error} />
        <div role="status">{isPending && <Notice>{t("backup.restoring")}</Notice>}</div>
        <div className={styles.actions}>
          <Button onPress={onBack} isDisabled={isPending}>
            {t("setup.back")}
          </Button>
          <Button type="submit" kind="primary" isPending={isPending} isDisabled={file === null}>
            {t("backup.restore")}
          </Button>
        </div>
      </Form>
    </DoorFrame>
  );
}
