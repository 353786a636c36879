import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useAction, useAnswer } from "../ipc/hooks";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Confirm } from "../parts/Confirm";
import { Notice } from "../parts/Notice";
import { useMe } from "../shell/session";

/** The way to stop everything at once, and to go on. */
export function StopSettings() {
  const { t } = useTranslation();
  const { may } = useMe();
  const status = useAnswer("status", {});
  const [isAsking, setAsking] = useState(false);
  const stop = useAction("stop", () => setAsking(false));
  const isStopped = status.data?.stopped != null;
  const words = t(isStopped ? "settings.endStop" : "settings.stopAll");
  return (
    <Card title={t("settings.stop")} lead={t("settings.stopLead")}>
      {may("administrator") ? (
        <div>
          <Button
            kind={isStopped ? "plain" : "danger"}
            icon={isStopped ? "link" : "stop"}
            onPress={() => setAsking(true)}
          >
            {words}
          </Button>
        </div>
      ) : (
        <Notice>{t("settings.stopNeeds")}</Notice>
      )}
      <Confirm
        title={words}
        yes={words}
        isDangerous={!isStopped}
        {...(isStopped ? {} : { reason: t("approvals.reason") })}
        isOpen={isAsking}
        action={stop}
        onClose={() => setAsking(false)}
        onYes={({ reason }) => stop.mutate({ reason: isStopped ? null : reason })}
      >
        <p>{t(isStopped ? "settings.endStopHelp" : "settings.stopAllHelp")}</p>
      </Confirm>
    </Card>
  );
}
