import { useEffect, useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import type { Fault, StartStep } from "../ipc/types";
import { Button } from "../parts/Button";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { DoorFrame } from "./DoorFrame";
import styles from "./Forms.module.css";

/** Longest start where nothing is in its way, in milliseconds. */
const LONG_MS = 20_000;

/** The engine is being looked for, or starts: nothing has to be done, unless what it waits for wants somebody. */
export function Starting({ step }: { step?: StartStep | undefined }) {
  const { t } = useTranslation();
  const [isLong, setLong] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLong(true), LONG_MS);
    return () => clearTimeout(timer);
  }, []);
  return (
    <DoorFrame>
      <div role="status" className={styles.form}>
        <h1 className={styles.title}>{t("setup.starting")}</h1>
        <p className={styles.lead}>{t("setup.startingLead")}</p>
        {step !== undefined && <p className={styles.small}>{t(`setup.startStep.${step}`)}</p>}
        {isLong && <p className={styles.small}>{t("setup.startingLong")}</p>}
      </div>
    </DoorFrame>
  );
}

/** The site's keys lie in a file of which only people know the passphrase. */
export function Locked() {
  const { t } = useTranslation();
  const [passphrase, setPassphrase] = useState("");
  const unlock = useAction("unlock");
  return (
    <DoorFrame>
      <Form
        className={styles.form ?? ""}
        onSubmit={(event) => {
          event.preventDefault();
          unlock.mutate({ passphrase });
          setPassphrase("");
        }}
      >
        <h1 className={styles.title}>{t("setup.locked")}</h1>
        <p className={styles.lead}>{t("setup.lockedLead")}</p>
        <Field
          label={t("setup.keyPassphrase")}
          name="key"
          value={passphrase}
          onChange={setPassphrase}
          isSecret
          autoFocus
        />
        <FaultNotice fault={unlock.error} />
        <Button type="submit" kind="primary" isPending={unlock.isPending}>
          {t("setup.unlock")}
        </Button>
      </Form>
    </DoorFrame>
  );
}

/** The engine did not start. */
export function Failed({ fault, folder }: { fault: Fault; folder: string }) {
  const { t } = useTranslation();
  const start = useAction("start_engine");
  return (
    <DoorFrame>
      <div className={styles.form}>
        <h1 className={styles.title}>{t("setup.failed")}</h1>
        <p className={styles.lead}>{t("setup.failedLead")}</p>
        <FaultNotice fault={fault} />
        <FaultNotice fault={start.error} />
        <p className={styles.small}>
          {t("setup.folder")} <code>{folder}</code>
        </p>
        <Button kind="primary" isPending={start.isPending} onPress={() => start.mutate({})}>
          {t("setup.tryAgain")}
        </Button>
      </div>
    </DoorFrame>
  );
}
