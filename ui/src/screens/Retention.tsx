import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { count } from "../i18n/format";
import { useAction, useAnswer, useManaged } from "../ipc/hooks";
import type { Outcome } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Confirm } from "../parts/Confirm";
import { Field } from "../parts/Field";
import { useMe } from "../shell/session";
import forms from "./Forms.module.css";
import { OutcomeNotice } from "./OutcomeNotice";

/** Months that the engine takes. */
const LEAST = 12;

/** How long the log can tell of people, and for administrators the way to change it. */
export function Retention() {
  const { t } = useTranslation();
  const { may } = useMe();
  const kept = useAnswer("audit_retention", {});
  const [outcome, setOutcome] = useState<Outcome | null>(null);
  return (
    <Card title={t("audit.retention")} lead={t("audit.retentionLead")}>
      <Answered of={kept}>
        {(months) => (
          <>
            <p>{words(t, months)}</p>
            {may("administrator") && <Editor key={months} months={months} onOutcome={setOutcome} />}
          </>
        )}
      </Answered>
      {outcome && <OutcomeNotice outcome={outcome} />}
    </Card>
  );
}

function words(t: ReturnType<typeof useTranslation>["t"], months: number | null): string {
  return months === null ? t("audit.keptForGood") : t("audit.erasedAfter", { count: months });
}

interface EditorProps {
  months: number | null;
  onOutcome: (outcome: Outcome) => void;
}

function Editor({ months, onOutcome }: EditorProps) {
  const { t } = useTranslation();
  const { retention_months: managed = null } = useManaged();
  const least = Math.max(LEAST, managed ?? 0);
  const help = t("audit.monthsHelp", { least: count(least) });
  const now = months === null ? "" : String(months);
  const [typed, setTyped] = useState(now);
  const [isAsking, setAsking] = useState(false);
  const set = useAction("set_audit_retention", (outcome) => {
    setAsking(false);
    onOutcome(outcome);
  });
  const wanted = typed === "" ? null : Number(typed);
  const isSound = wanted === null || (Number.isInteger(wanted) && wanted >= least);
  return (
    <Form
      className={forms.form ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        setAsking(true);
      }}
    >
      <Field
        label={t("audit.months")}
        help={managed === null ? help : `${t("managed.byIt")} ${help}`}
        name="months"
        type="number"
        min={least}
        isOptional
        value={typed}
        onChange={setTyped}
      />
      <div className={forms.actions}>
        <Button type="submit" isDisabled={typed === now || !isSound}>
          {t("audit.setRetention")}
        </Button>
      </div>
      <Confirm
        title={t("audit.setRetention")}
        yes={t("audit.setRetention")}
        isSigned
        isOpen={isAsking}
        action={set}
        onClose={() => setAsking(false)}
        onYes={({ passphrase }) => set.mutate({ months: wanted, passphrase })}
      >
        <p>{words(t, wanted)}</p>
        <p>{t("audit.retentionHelp")}</p>
      </Confirm>
    </Form>
  );
}
