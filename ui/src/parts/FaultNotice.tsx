import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import type { Fault } from "../ipc/types";
import { Notice } from "./Notice";

/** What went wrong: whose side by its title, what and what to do in the engine's words, and what leads to the log. */
export function FaultNotice({ fault }: { fault: Fault | null }) {
  const { t } = useTranslation();
  if (fault === null) return null;
  return (
    <Notice weight="danger" title={t(`fault.${fault.code}`)}>
      <Engine isMachine>{fault.words}</Engine>
      {fault.reference && <div>{t("fault.reference", { reference: fault.reference })}</div>}
    </Notice>
  );
}
