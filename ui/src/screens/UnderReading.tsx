import { useTranslation } from "react-i18next";
import { count } from "../i18n/format";
import { useAction, useReading } from "../ipc/hooks";
import type { Fault } from "../ipc/types";
import { Button } from "../parts/Button";
import { FaultNotice } from "../parts/FaultNotice";
import { Notice } from "../parts/Notice";
import { Progress } from "../parts/Progress";
import forms from "./Forms.module.css";

interface Props {
  words: string;
  /** Whether something is being read. */
  isOn: boolean;
}

/** That a file or a query is being read, how far it is, and the way to stop it. */
export function UnderReading({ words, isOn }: Props) {
  return (
    <>
      {/* It is there before, so that what comes into it is read out. */}
      <div role="status">{isOn && <Notice>{words}</Notice>}</div>
      {isOn && <HowFar />}
    </>
  );
}

function HowFar() {
  const { t } = useTranslation();
  const reading = useReading().data ?? null;
  const stop = useAction("stop_reading");
  const { rows = 0, all = null } = reading ?? {};
  const button = (
    <Button isPending={stop.isPending} onPress={() => stop.mutate({})}>
      {t("register.stop")}
    </Button>
  );
  return (
    <>
      {all !== null ? (
        <Progress label={t("register.progress")} done={Math.min(rows, all)} all={all}>
          {button}
        </Progress>
      ) : (
        <div className={forms.actions}>
          {rows > 0 && <span className={forms.small}>{t("register.rowsRead", { rows: count(rows) })}</span>}
          {button}
        </div>
      )}
      <FaultNotice fault={stop.error} />
    </>
  );
}

/** Why nothing came of a reading; that its own person stopped it is no fault of the file. */
export function Unread({ fault }: { fault: Fault | null }) {
  const { t } = useTranslation();
  if (fault?.code === "stopped") return <Notice weight="attention">{t("register.stopped")}</Notice>;
  return <FaultNotice fault={fault} />;
}
