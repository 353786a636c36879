import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { Engine } from "../i18n/engine";
import { moment } from "../i18n/format";
import { visible } from "../i18n/visible";
import { useAction, useAnswer } from "../ipc/hooks";
import { Button } from "../parts/Button";
import { FaultNotice } from "../parts/FaultNotice";
import { Notice } from "../parts/Notice";
import styles from "./Banners.module.css";
import { useMe } from "./session";

/** What is above every screen: that the engine is away, a stop, alarms, and that data are public. */
export function Banners() {
  const { t } = useTranslation();
  const { inside, may } = useMe();
  // What lets data leave again is for those who can take the evidence out.
  const mayRelease = may("auditor", "privacy_officer", "administrator");
  const status = useAnswer("status", {});
  const acknowledge = useAction("acknowledge");
  const { data, error } = status;
  const isAway = error?.code === "not_running";
  if (!isAway && !error && !data?.stopped && !data?.public_data && !data?.alarms.length) return null;
  return (
    <div className={styles.banners}>
      {isAway ? (
        <Notice weight="danger" title={t("shell.away")}>
          {data ? t("shell.awaySince", { at: moment(status.dataUpdatedAt) }) : t("shell.awayHelp")}
        </Notice>
      ) : (
        <FaultNotice fault={error} />
      )}
      {data?.stopped && (
        <Notice weight="danger" title={t("shell.stopped")}>
          {visible(data.stopped)}
        </Notice>
      )}
      {data?.alarms.map((alarm) => {
        const finding = data.ledger.finding?.alarm === alarm.id ? data.ledger.finding : null;
        return (
          <Notice
            key={alarm.id}
            weight="danger"
            title={t(finding ? "shell.ledgerAlarm" : "shell.alarm", { at: moment(alarm.at) })}
            beside={
              inside() && (
                <>
                  {finding && <Link href="/audit">{t("shell.toAudit")}</Link>}
                  {(!finding || mayRelease) && (
                    <Button
                      isPending={acknowledge.isPending}
                      onPress={() => acknowledge.mutate({ alarm: alarm.id })}
                    >
                      {t("shell.acknowledge")}
                    </Button>
                  )}
                </>
              )
            }
          >
            {finding && <p>{t("shell.ledgerAlarmHelp")}</p>}
            <Engine>{finding ? finding.words : alarm.words}</Engine>
          </Notice>
        );
      })}
      <FaultNotice fault={acknowledge.error} />
      {data?.public_data && <Notice weight="attention">{t("shell.publicData")}</Notice>}
    </div>
  );
}
