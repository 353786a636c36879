import { useState } from "react";
import { useTranslation } from "react-i18next";
import { named } from "../i18n/engine";
import { moment } from "../i18n/format";
import { useAction } from "../ipc/hooks";
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
  const { may } = useMe();
  const { state } = review;
  // Without a digest the first signature no longer holds and is given again.
  const isSecond = state === "partly_approved" && review.approval_digest !== null;
  const isOpen = state === "received" || state === "under_review" || state === "partly_approved";
  const mayRefuse = may("data_steward", "data_access_approver");
  return (
    <Card title={t("sign.title")} lead={t("sign.lead")}>
      <div className={styles.columns2}>
        <Timeline label={t("sign.steps")} moments={steps(t, review)} />
        {review.approval_digest !== null && (
          <div>
            <div className={forms.small}>{t("review.approval")}</div>
            <DigestChip digest={review.approval_digest} of={t("review.approval")} />
          </div>
        )}
      </div>
      {isOpen && !review.approvable && <Notice weight="attention">{t("sign.blocked")}</Notice>}
      {isOpen && may("privacy_officer") && <Opinion review={review} />}
      {isOpen && !isSecond && may("data_steward") && <FirstSignature review={review} dataset={dataset} />}
      {isOpen && isSecond && may("data_access_approver") && <SecondSignature review={review} />}
      {isOpen && !may(isSecond ? "data_access_approver" : "data_steward") && (
        <Notice>{t(isSecond ? "sign.needsApprover" : "sign.needsSteward")}</Notice>
      )}
      {isOpen && mayRefuse && <Refuse study={review.study} />}
      <Verdicts study={review.study} state={state} />
    </Card>
  );
}

function Refuse({ study }: { study: string }) {
  const { t } = useTranslation();
  const [isAsking, setAsking] = useState(false);
  const decide = useAction("decide", () => setAsking(false));
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
