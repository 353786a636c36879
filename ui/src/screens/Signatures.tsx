import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { Engine, phrase } from "../i18n/engine";
import { count } from "../i18n/format";
import { useAction } from "../ipc/hooks";
import type { ReleaseRule, Review } from "../ipc/types";
import { Button } from "../parts/Button";
import { Choice } from "../parts/Choice";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { SigningField } from "../parts/SigningField";
import forms from "./Forms.module.css";
import styles from "./Review.module.css";
import { SeriesChoice } from "./SeriesChoice";
import { begin, boundsOf } from "./series";

/** Asked of the first signer, one for each of the Five Safes. They go into the document as they stand here, so that both
 * signers and the auditor read the same; each person sees them in their own language. */
const QUESTIONS = [
  "Is this an appropriate use of the data?",
  "Can those who take part be trusted to use them appropriately?",
  "Does the setting limit unauthorised use?",
  "Are the data appropriate, and no more than needed?",
  "Is the risk of what leaves acceptable?",
] as const;

type Reply = "yes" | "no" | "not sure";
type Replies = Partial<Record<(typeof QUESTIONS)[number], Reply>>;

/** Runs that one approval can allow; `MAX_RUNS` of the engine. */
const MOST_RUNS = 1_000;

/** How many runs were typed; `null` if it is no number of them. */
function runsOf(text: string): number | null {
  const runs = Number(text);
  return Number.isInteger(runs) && runs >= 1 && runs <= MOST_RUNS ? runs : null;
}

interface Props {
  review: Review;
  onSigned: () => void;
}

/** First signature: what is allowed, the checklist, the passphrase. */
export function FirstSignature({ review, dataset, onSigned }: Props & { dataset: string | null }) {
  const { t } = useTranslation();
  const [replies, setReplies] = useState<Replies>({});
  const [runs, setRuns] = useState("1");
  const [release, setRelease] = useState<ReleaseRule>("reviewed");
  const offer = review.data.series;
  const [versions, setVersions] = useState(() => begin(offer));
  const [passphrase, setPassphrase] = useState("");
  const approve = useAction("approve", onSigned);
  const isAnswered = QUESTIONS.every((question) => replies[question] !== undefined);
  const asksForMany = review.outputs.runs > 1;
  function sign() {
    const max_runs = asksForMany ? review.outputs.runs : runsOf(runs);
    const series = offer === null ? null : boundsOf(versions, offer.patients);
    // Nobody signs another number than the one that they typed.
    if (max_runs === null || series === undefined) return;
    const checklist = replies as Record<string, string>;
    const { study, read } = review;
    const approving = { study, read, dataset, series, max_runs, ranges: {}, release, checklist };
    approve.mutate({ approving, passphrase });
    setPassphrase("");
  }
  return (
    <Form
      className={forms.form ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        sign();
      }}
    >
      <h3>{t("sign.first")}</h3>
      <p className={forms.prose}>{t("sign.explainFirst", { count: review.outputs.runs })}</p>
      <Checklist
        replies={replies}
        onReply={(question, reply) => setReplies({ ...replies, [question]: reply })}
      />
      <div className={forms.pair}>
        {!asksForMany && (
          <Field
            label={t("sign.runs")}
            help={t("sign.runsHelp")}
            name="runs"
            type="number"
            min={1}
            max={MOST_RUNS}
            value={runs}
            onChange={setRuns}
            validate={(text) =>
              runsOf(text) === null ? t("sign.runsWrong", { most: count(MOST_RUNS) }) : null
            }
          />
        )}
        <Choice
          label={t("sign.release")}
          value={release}
          onChange={setRelease}
          options={[
            { value: "reviewed", label: t("sign.reviewed"), help: t("sign.reviewedHelp") },
            { value: "automatic", label: t("sign.automatic"), help: t("sign.automaticHelp") },
          ]}
        />
      </div>
      {offer !== null && <SeriesChoice offer={offer} value={versions} onChange={setVersions} />}
      <SigningField value={passphrase} onChange={setPassphrase} />
      <FaultNotice fault={approve.error} />
      {!isAnswered && <p className={forms.quiet}>{t("sign.answerFirst")}</p>}
      <div className={forms.actions}>
        <Button
          type="submit"
          kind="primary"
          isPending={approve.isPending}
          isDisabled={!review.approvable || !isAnswered}
        >
          {t("sign.first")}
        </Button>
      </div>
    </Form>
  );
}

interface ChecklistProps {
  replies: Replies;
  onReply: (question: (typeof QUESTIONS)[number], reply: Reply) => void;
}

function Checklist({ replies, onReply }: ChecklistProps) {
  const { t } = useTranslation();
  return (
    <div>
      <strong>{t("sign.checklist")}</strong>
      <div className={styles.checklist}>
        {QUESTIONS.map((question) => (
          <div key={question} className={styles.question}>
            <span>
              <Engine>{question}</Engine>
            </span>
            <Choice
              label={phrase(question).text}
              isLabelHidden
              isRow
              value={replies[question] ?? null}
              onChange={(reply) => onReply(question, reply)}
              options={[
                { value: "yes", label: t("sign.yes") },
                { value: "no", label: t("sign.no") },
                { value: "not sure", label: t("sign.notSure") },
              ]}
            />
          </div>
        ))}
      </div>
    </div>
  );
}

/** Second signature, on exactly the document whose digest is shown. */
export function SecondSignature({ review, onSigned }: Props) {
  const { t } = useTranslation();
  const [passphrase, setPassphrase] = useState("");
  const countersign = useAction("countersign", onSigned);
  const digest = review.approval_digest;
  return (
    <Form
      className={forms.form ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        if (digest !== null) countersign.mutate({ study: review.study, digest, passphrase });
        setPassphrase("");
      }}
    >
      <h3>{t("sign.second")}</h3>
      <p className={forms.prose}>{t("sign.explainSecond")}</p>
      <SigningField value={passphrase} onChange={setPassphrase} />
      <FaultNotice fault={countersign.error} />
      <div className={forms.actions}>
        <Button
          type="submit"
          kind="primary"
          isPending={countersign.isPending}
          isDisabled={!review.approvable}
        >
          {t("sign.second")}
        </Button>
      </div>
    </Form>
  );
}
