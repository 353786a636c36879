import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import type { RequestState } from "../ipc/types";
import { Button } from "../parts/Button";
import { Confirm } from "../parts/Confirm";
import { useMe } from "../shell/session";
import forms from "./Forms.module.css";

type Asked = "suspend" | "resume" | "revoke";

/** What can be done with an approval, each saying what it can undo and what not. */
export function Verdicts({ study, state }: { study: string; state: RequestState }) {
  const { t } = useTranslation();
  const { may } = useMe();
  const [asked, setAsked] = useState<Asked | null>(null);
  const close = () => setAsked(null);
  const decide = useAction("decide", close);
  const mayHold = may("privacy_officer", "data_steward", "data_access_approver", "administrator");
  const mayRevoke = may("data_steward", "data_access_approver");
  const offered: Asked[] = [];
  if (state === "active" && mayHold) offered.push("suspend");
  if (state === "suspended" && mayHold) offered.push("resume");
  if ((state === "active" || state === "suspended") && mayRevoke) offered.push("revoke");
  if (offered.length === 0) return null;
  return (
    <div className={forms.actions}>
      {offered.map((verdict) => (
        <Button
          key={verdict}
          kind={verdict === "revoke" ? "danger" : "plain"}
          onPress={() => setAsked(verdict)}
        >
          {t(`approvals.${verdict}`)}
        </Button>
      ))}
      <Confirm
        title={t(`approvals.${asked ?? "suspend"}`)}
        yes={t(`approvals.${asked ?? "suspend"}`)}
        isDangerous={asked === "revoke"}
        {...(asked === "resume" ? {} : { reason: t("approvals.reason") })}
        isOpen={asked !== null}
        action={decide}
        onClose={close}
        onYes={({ reason }) => {
          if (asked === "resume") decide.mutate({ study, verdict: "resume" });
          if (asked === "suspend") decide.mutate({ study, verdict: { suspend: { reason } } });
          if (asked === "revoke") decide.mutate({ study, verdict: { revoke: { reason } } });
        }}
      >
        <p>{t(`approvals.${asked ?? "suspend"}Help`)}</p>
      </Confirm>
    </div>
  );
}
