import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import type { InForce } from "../ipc/types";
import { Button } from "../parts/Button";
import { Confirm } from "../parts/Confirm";
import { useMe } from "../shell/session";
import forms from "./Forms.module.css";

type Asked = "suspend" | "takeOver" | "resume" | "revoke";

interface Props {
  study: string;
  /** The approval under which rounds run; a draft beside it changes nothing about what can be done with it. */
  inForce: InForce | null;
  onDone?: () => void;
}

/** What can be done with an approval, each saying what it can undo and what not. */
export function Verdicts({ study, inForce, onDone }: Props) {
  const { t } = useTranslation();
  const { inside } = useMe();
  const [asked, setAsked] = useState<Asked | null>(null);
  const close = () => setAsked(null);
  const decide = useAction("decide", () => {
    close();
    onDone?.();
  });
  const mayHold = inside("privacy_officer", "data_steward", "data_access_approver", "administrator");
  const mayRevoke = inside("data_steward", "data_access_approver");
  // Whoever suspended it, in that role, resumes it.
  const mayResume = ({ held_by }: InForce) => held_by === null || inside(held_by);
  const offered: Asked[] = [];
  if (inForce?.state === "active" && mayHold) offered.push("suspend");
  // Whoever else suspended it, the privacy officer takes it over, so that nobody else resumes it.
  const mayTakeOver = inside("privacy_officer") && inForce?.held_by !== "privacy_officer";
  if (inForce?.state === "suspended" && mayTakeOver) offered.push("takeOver");
  if (inForce?.state === "suspended" && mayHold && mayResume(inForce)) offered.push("resume");
  if (inForce !== null && mayRevoke) offered.push("revoke");
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
          if (asked === "suspend" || asked === "takeOver")
            decide.mutate({ study, verdict: { suspend: { reason } } });
          if (asked === "revoke") decide.mutate({ study, verdict: { revoke: { reason } } });
        }}
      >
        <p>{t(`approvals.${asked ?? "suspend"}Help`)}</p>
      </Confirm>
    </div>
  );
}
