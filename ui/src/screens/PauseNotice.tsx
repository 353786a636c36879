import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { clock } from "../i18n/format";
import type { Status } from "../ipc/types";
import { Notice } from "../parts/Notice";

/** That training waits, and for what: what this site's own limits ask for, so nothing has to be done. */
export function PauseNotice({ status }: { status: Status }) {
  const { t } = useTranslation();
  const { pause } = status;
  // An engine that is older than this page says nothing about it.
  if (!pause) return null;
  return (
    <Notice beside={<Link href="/settings/machine">{t("settings.machine")}</Link>}>
      {pause === "somebody_works"
        ? t("machine.somebodyWorks")
        : t("machine.quietUntil", { until: clock(pause.quiet_hours.until, status.at) })}
    </Notice>
  );
}
