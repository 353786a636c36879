import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import type { Away } from "../ipc/types";
import { Button } from "../parts/Button";
import { Confirm } from "../parts/Confirm";
import { Copy } from "../parts/Copy";
import { FaultNotice } from "../parts/FaultNotice";
import { DoorFrame } from "./DoorFrame";
import styles from "./Forms.module.css";

const LAY_DOWN = "sudo hospes-as-service init --administrator NAME --key-file";

/** What whoever administers the machine types, by what is in the way. */
function commands(why: Away): string[] {
  if (why === "stopped") return ["sudo systemctl start hospes-site"];
  if (why === "no_site") return [LAY_DOWN, "sudo systemctl enable --now hospes-site"];
  return [`sudo usermod -aG hospes ${why.no_access.account}`];
}

interface Props {
  why: Away;
  /** Where a site of this account would lie. */
  folder: string;
}

/** The machine's service is not to be had. The window goes on looking; a second site is laid down by choice only. */
export function ServiceAway({ why, folder }: Props) {
  const { t } = useTranslation();
  const [asks, setAsks] = useState(false);
  const look = useAction("start_engine");
  const tryHere = useAction("try_here", () => setAsks(false));
  const kind = typeof why === "string" ? why : "no_access";
  return (
    <DoorFrame>
      <div className={styles.form}>
        <h1 className={styles.title}>{t(`setup.service.${kind}`)}</h1>
        <p className={styles.lead}>{t(`setup.service.${kind}Lead`)}</p>
        {commands(why).map((command) => (
          <Command key={command} command={command} />
        ))}
        {why === "stopped" && (
          <>
            <p className={styles.small}>{t("setup.service.first")}</p>
            <Command command={LAY_DOWN} />
          </>
        )}
        <FaultNotice fault={look.error} />
        <div className={styles.actions}>
          <Button kind="primary" isPending={look.isPending} onPress={() => look.mutate({})}>
            {t("setup.service.look")}
          </Button>
          <Button onPress={() => setAsks(true)}>{t("setup.service.try")}</Button>
        </div>
      </div>
      <Confirm
        title={t("setup.service.tryTitle")}
        yes={t("setup.service.tryYes")}
        action={tryHere}
        isOpen={asks}
        onClose={() => setAsks(false)}
        onYes={() => tryHere.mutate({})}
      >
        <p>{t("setup.service.tryHelp", { folder })}</p>
      </Confirm>
    </DoorFrame>
  );
}

function Command({ command }: { command: string }) {
  return (
    <div className={styles.chosen} translate="no">
      <code>{command}</code>
      <Copy text={command} of={command} />
    </div>
  );
}
