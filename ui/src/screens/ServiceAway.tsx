import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import type { Away } from "../ipc/types";
import { Button } from "../parts/Button";
import { FaultNotice } from "../parts/FaultNotice";
import { DoorFrame } from "./DoorFrame";
import styles from "./Forms.module.css";
import { Command, TryHere } from "./TryHere";

/** What whoever administers the machine types, by what is in the way. */
function mends(why: Away): string {
  if (why === "stopped") return "sudo systemctl enable --now hospes-site";
  return `sudo usermod -aG hospes ${why.no_access.account}`;
}

interface Props {
  why: Away;
  /** Where a site of this account would lie. */
  folder: string;
}

/** The machine's service is not to be had. The window goes on looking; a second site is laid down by choice only. */
export function ServiceAway({ why, folder }: Props) {
  const { t } = useTranslation();
  const look = useAction("start_engine");
  const kind = typeof why === "string" ? why : "no_access";
  return (
    <DoorFrame>
      <div className={styles.form}>
        <h1 className={styles.title}>{t(`setup.service.${kind}`)}</h1>
        <p className={styles.lead}>{t(`setup.service.${kind}Lead`)}</p>
        <Command command={mends(why)} />
        <FaultNotice fault={look.error} />
        <div className={styles.actions}>
          <Button kind="primary" isPending={look.isPending} onPress={() => look.mutate({})}>
            {t("setup.service.look")}
          </Button>
          <TryHere folder={folder} />
        </div>
      </div>
    </DoorFrame>
  );
}
