import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useAction, useAnswer, useManaged } from "../ipc/hooks";
import type { Outcome } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Confirm } from "../parts/Confirm";
import { Field } from "../parts/Field";
import { Notice } from "../parts/Notice";
import { TextDiff } from "../parts/TextDiff";
import { useMe } from "../shell/session";
import forms from "./Forms.module.css";
import { OutcomeNotice } from "./OutcomeNotice";
import { PolicyPreview, Weight } from "./PolicyPreview";
import { Proposals } from "./Proposals";

/** What this site never lets happen, whoever signs: the file, and what an edit of it changes. */
export function PolicySettings() {
  const { t } = useTranslation();
  const { may } = useMe();
  const policy = useAnswer("policy", {});
  const { policy: floor = null } = useManaged();
  const [outcome, setOutcome] = useState<Outcome | null>(null);
  return (
    <>
      <Proposals onOutcome={setOutcome} />
      {outcome && <OutcomeNotice outcome={outcome} />}
      <Card title={t("settings.policy")} lead={t("settings.policyLead")}>
        {floor && <Notice>{t("managed.policyHelp", { profile: floor })}</Notice>}
        <Answered of={policy}>
          {(toml) =>
            may("administrator", "data_steward") ? (
              <Editor toml={toml} onOutcome={setOutcome} />
            ) : (
              <pre className={forms.file}>
                <code>{toml}</code>
              </pre>
            )
          }
        </Answered>
      </Card>
    </>
  );
}

function Editor({ toml, onOutcome }: { toml: string; onOutcome: (outcome: Outcome) => void }) {
  const { t } = useTranslation();
  // What was not touched follows what counts; `from` is the policy that was edited.
  const [draft, setDraft] = useState<{ text: string; from: string; isSigned: boolean } | null>(null);
  // The next policy is the one that was signed here, as the engine writes it.
  if (draft?.isSigned && draft.from !== toml) setDraft(null);
  const text = draft?.text ?? toml;
  const [isAsking, setAsking] = useState(false);
  const set = useAction("set_policy", (outcome) => {
    setAsking(false);
    setDraft(draft && { ...draft, isSigned: true });
    onOutcome(outcome);
  });
  const isSame = text === toml;
  return (
    <>
      <div className={forms.editor}>
        <Field
          label={t("settings.policyFile")}
          name="policy"
          value={text}
          onChange={(text) => setDraft({ text, from: draft?.from ?? toml, isSigned: false })}
          rows={22}
          isMono
        />
      </div>
      {!isSame && (
        <>
          {draft !== null && draft.from !== toml && (
            <Notice weight="attention">{t("parts.changedMeanwhile")}</Notice>
          )}
          <h3>{t("settings.policyChanges")}</h3>
          <TextDiff before={toml} after={text} />
          <PolicyPreview toml={text} />
        </>
      )}
      <div className={forms.actions}>
        <Button kind="primary" isDisabled={isSame} onPress={() => setAsking(true)}>
          {t("settings.setPolicy")}
        </Button>
        <Button isDisabled={isSame} onPress={() => setDraft(null)}>
          {t("settings.discard")}
        </Button>
      </div>
      <Confirm
        title={t("settings.setPolicy")}
        yes={t("settings.setPolicy")}
        isSigned
        isOpen={isAsking}
        action={set}
        onClose={() => setAsking(false)}
        onYes={({ passphrase }) => set.mutate({ toml: text, passphrase })}
      >
        <Signing before={toml} after={text} />
      </Confirm>
    </>
  );
}

/** What is signed: the lines that change, and whether this signature is enough. */
function Signing({ before, after }: { before: string; after: string }) {
  const { t } = useTranslation();
  const preview = useAnswer("policy_preview", { toml: after });
  return (
    <>
      <p>{t("settings.setPolicyHelp")}</p>
      <TextDiff before={before} after={after} />
      <Answered of={preview}>
        {(of) => (
          <>
            <Weight of={of} />
            <p>
              {of.ends.length > 0 ? t("settings.ends", { count: of.ends.length }) : t("settings.endsNone")}
            </p>
          </>
        )}
      </Answered>
    </>
  );
}
