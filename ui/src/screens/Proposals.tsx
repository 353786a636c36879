import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import { moment } from "../i18n/format";
import { useAction, useAnswer } from "../ipc/hooks";
import type { Outcome, ProposalView } from "../ipc/types";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import confirm from "../parts/Confirm.module.css";
import { DigestChip } from "../parts/DigestChip";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { Notice } from "../parts/Notice";
import { Over } from "../parts/Over";
import { SigningField } from "../parts/SigningField";
import { useMe } from "../shell/session";

/** Changes that wait for a second person's signature; who proposed one does not sign it. */
export function Proposals({ onOutcome }: { onOutcome: (outcome: Outcome) => void }) {
  const { t } = useTranslation();
  const { person, may } = useMe();
  const proposals = useAnswer("proposals", {});
  const [asked, setAsked] = useState<ProposalView | null>(null);
  // To a person of another organisation the engine names only what they may second.
  const maySign = may("data_access_approver", "data_steward", "administrator");
  if (!proposals.data?.length) return <FaultNotice fault={proposals.error} />;
  return (
    <Card title={t("settings.proposals")} lead={t("settings.proposalsLead")}>
      {proposals.data.map((proposal) => (
        <Notice
          key={proposal.id}
          weight="attention"
          title={t("settings.proposedBy", { name: proposal.by, at: moment(proposal.at) })}
          beside={
            maySign &&
            proposal.by !== person?.name && (
              <Button onPress={() => setAsked(proposal)}>{t("settings.decide")}</Button>
            )
          }
        >
          <Engine>{proposal.words}</Engine>
        </Notice>
      ))}
      {asked && (
        <Reply
          proposal={asked}
          onClose={() => setAsked(null)}
          onOutcome={(outcome) => {
            setAsked(null);
            onOutcome(outcome);
          }}
        />
      )}
    </Card>
  );
}

interface ReplyProps {
  proposal: ProposalView;
  onClose: () => void;
  onOutcome: (outcome: Outcome) => void;
}

function Reply({ proposal, onClose, onOutcome }: ReplyProps) {
  const { t } = useTranslation();
  const [words, setWords] = useState("");
  const [passphrase, setPassphrase] = useState("");
  const answer = useAction("answer_proposal", onOutcome);
  function reply(agree: boolean) {
    const given = agree && proposal.needs_words ? words : null;
    answer.mutate({ proposal: proposal.id, agree, words: given, passphrase });
    setPassphrase("");
  }
  return (
    <Over title={t("settings.secondSignature")} isOpen isTyped onClose={onClose}>
      <Form
        className={confirm.form ?? ""}
        onSubmit={(event) => {
          event.preventDefault();
          reply(true);
        }}
      >
        <p>
          <Engine>{proposal.words}</Engine>
        </p>
        <DigestChip digest={proposal.id} of={t("settings.proposalDigest")} />
        {proposal.needs_words && (
          <Field
            label={t("settings.keyWords")}
            help={t("settings.keyWordsHelp")}
            name="words"
            value={words}
            onChange={setWords}
            rows={3}
            isMono
          />
        )}
        <SigningField value={passphrase} onChange={setPassphrase} />
        <FaultNotice fault={answer.error} />
        <div className={confirm.actions}>
          <Button onPress={onClose}>{t("parts.cancel")}</Button>
          <Button onPress={() => reply(false)} isDisabled={passphrase === ""} isPending={answer.isPending}>
            {t("settings.turnDown")}
          </Button>
          <Button type="submit" kind="primary" isPending={answer.isPending}>
            {t("settings.agree")}
          </Button>
        </div>
      </Form>
    </Over>
  );
}
