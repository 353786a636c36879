import { useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { named } from "../i18n/engine";
import { moment } from "../i18n/format";
import { useAction, useAnswer } from "../ipc/hooks";
import type { Review } from "../ipc/types";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Confirm } from "../parts/Confirm";
import { DigestChip } from "../parts/DigestChip";
import { Notice } from "../parts/Notice";
import { type Moment, Timeline } from "../parts/Timeline";
import { useMe } from "../shell/session";
import forms from "./Forms.module.css";
import { Opinion } from "./Opinion";
import styles from "./Review.module.css";
import { FirstSignature, SecondSignature } from "./Signatures";
import { Verdicts } from "./Verdicts";

interface Props {
  review: Review;
  dataset: string | null;
}

/** What is done with a request: opinion, two signatures, refusal; and of an approval: suspension, revocation. */
export function Decision({ review, dataset }: Props) {
  const { t } = useTranslation();
  const { may, inside } = useMe();
  const isOutside = !inside();
  const policy = useAnswer("policy", {}, isOutside);
  const heading = useRef<HTMLHeadingElement>(null);
  const isDone = useRef(false);
  const [isSigned, setSigned] = useState(false);
  const { state } = review;
  // Without a digest the first signature no longer holds and is given again.
  const isSecond = state === "partly_approved" && review.approval_digest !== null;
  const isOpen = state === "received" || state === "under_review" || state === "partly_approved";
  // What is over is signed anew, after another opinion where the officer's suspension stands against it.
  const isGiven = state === "active" || state === "suspended";
  const isOver = state === "revoked" || state === "expired" || state === "refused";
  const isFirst = (isGiven || isOver || (isOpen && !isSecond)) && may("data_steward");
  // What is in force is revoked, also where a further approval is on its way.
  // A person of another organisation only turns down what the policy asks them to sign.
  const isAsked = !isOutside || (policy.data?.includes('four_eyes = "external"') ?? false);
  const mayRefuse = review.in_force === null && isAsked && may("data_steward", "data_access_approver");
  // Another document is another signature: what was typed for the one shown before is dropped.
  const drawn = `${review.approval_digest} ${dataset}`;
  // The page follows the engine: what is signed first is what stood here when its form was filled in.
  const { digest } = review.read;
  const [begun, setBegun] = useState({ dataset, digest });
  if (begun.dataset !== dataset) setBegun({ dataset, digest });
  const done = () => {
    isDone.current = true;
  };
  const signed = () => {
    done();
    setSigned(true);
  };
  // What was pressed goes with the state in which it was offered. The focus is not lost with it: the heading takes it.
  useEffect(() => {
    if (!isDone.current || document.activeElement !== document.body) return;
    isDone.current = false;
    heading.current?.focus();
  });
  return (
    <Card title={t("sign.title")} heading={heading} {...(isOpen && { lead: t("sign.lead") })}>
      <div role="status">
        {isSigned && isOpen && <Notice weight="good">{t("sign.given")}</Notice>}
        {isSigned && state === "active" && <Notice weight="good">{t("sign.complete")}</Notice>}
      </div>
      <div className={styles.columns2}>
        <Timeline label={t("sign.steps")} moments={steps(t, review)} />
        {review.approval_digest !== null && (
          <div>
            <div className={forms.small}>{t("review.approval")}</div>
            <DigestChip digest={review.approval_digest} of={t("review.approval")} />
          </div>
        )}
      </div>
      {(isOpen || ((isGiven || isOver) && may("data_steward"))) && !review.approvable && (
        <Notice weight="attention">{t("sign.blocked")}</Notice>
      )}
      {(isOpen || isOver) && may("privacy_officer") && <Opinion key={`opinion ${drawn}`} review={review} />}
      {isGiven && may("data_steward") && <Notice>{t("sign.again")}</Notice>}
      {isFirst && begun.dataset === dataset && begun.digest !== digest && (
        <Notice weight="attention">{t("sign.changed")}</Notice>
      )}
      {isFirst && (
        <FirstSignature
          key={`first ${drawn} ${digest}`}
          review={review}
          dataset={dataset}
          onSigned={signed}
        />
      )}
      {isOpen && isSecond && may("data_access_approver") && (
        <SecondSignature key={`second ${drawn}`} review={review} onSigned={signed} />
      )}
      {isOpen && !may(isSecond ? "data_access_approver" : "data_steward") && (
        <Notice>{t(isSecond ? "sign.needsApprover" : "sign.needsSteward")}</Notice>
      )}
      {isOpen && mayRefuse && <Refuse study={review.study} onDone={done} />}
      <Verdicts study={review.study} inForce={review.in_force} onDone={done} />
    </Card>
  );
}

function Refuse({ study, onDone }: { study: string; onDone: () => void }) {
  const { t } = useTranslation();
  const [isAsking, setAsking] = useState(false);
  const decide = useAction("decide", () => {
    setAsking(false);
    onDone();
  });
  return (
    <div className={forms.actions}>
      <Button onPress={() => setAsking(true)}>{t("sign.refuse")}</Button>
      <Confirm
        title={t("sign.refuse")}
        yes={t("sign.refuse")}
        reason={t("sign.reason")}
        isOpen={isAsking}
        action={decide}
        onClose={() => setAsking(false)}
        onYes={({ reason }) => decide.mutate({ study, verdict: { refuse: { reason } } })}
      >
        <p>{t("sign.refuseHelp")}</p>
      </Confirm>
    </div>
  );
}

type T = ReturnType<typeof useTranslation>["t"];

/** Opinion and the two signatures: given, or by whom they are missing. */
function steps(t: T, review: Review): Moment[] {
  const first = review.signatures.find((s) => s.role === "data_steward");
  const second = review.signatures.find((s) => s !== first);
  const signed = (id: string, by: typeof first, open: string): Moment => ({
    id,
    icon: by ? "check" : "clock",
    isDone: by !== undefined,
    what: by ? t("sign.signed", { name: by.by, role: named("words.role", by.role) }) : open,
    ...(by ? { when: moment(by.at) } : {}),
  });
  const { opinion } = review;
  const view: Moment = {
    id: "opinion",
    icon: opinion === null ? "clock" : opinion.view === "object" ? "alarm" : "check",
    isDone: opinion !== null,
    isBad: opinion?.view === "object",
    what: opinion
      ? t("sign.opinionGiven", {
          name: opinion.by,
          view: named("words.opinion", opinion.view),
          text: opinion.text,
        })
      : t("sign.noOpinion"),
    ...(opinion ? { when: moment(opinion.at) } : {}),
  };
  return [view, signed("first", first, t("sign.noFirst")), signed("second", second, t("sign.noSecond"))];
}
