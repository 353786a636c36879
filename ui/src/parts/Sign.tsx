import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Button, Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { call, words } from "../ipc/tauri";
import type { Review } from "../ipc/types";
import { Fault } from "./Fault";
import { Field } from "./Field";

/** The two signatures and the refusal. Which role may do what is decided in the engine; its words are shown here. */
export function Sign({ review }: { review: Review }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const [passphrase, setPassphrase] = useState("");
  const [reason, setReason] = useState("");
  // Without a digest the first signature no longer holds and is given again.
  const isSecond = review.state === "partly_approved" && review.approval_digest !== null;
  const waits =
    review.state === "partly_approved" || review.state === "received" || review.state === "under_review";

  const sign = useMutation({
    mutationFn: () =>
      isSecond
        ? call("countersign", { study: review.study, digest: review.approval_digest, passphrase })
        : call("approve", {
            approving: {
              study: review.study,
              dataset: null,
              max_runs: 1,
              ranges: {},
              release: "reviewed",
              checklist: {},
            },
            passphrase,
          }),
    onSettled: () => {
      setPassphrase("");
      return client.invalidateQueries();
    },
  });
  const refuse = useMutation({
    mutationFn: () => call("decide", { study: review.study, verdict: { refuse: { reason } } }),
    onSuccess: () => client.invalidateQueries(),
  });

  if (!waits) return null;
  return (
    <div className="actions">
      {!review.approvable && <p className="notice">{t("sign.blocked")}</p>}
      <Form
        onSubmit={(event) => {
          event.preventDefault();
          sign.mutate();
        }}
      >
        <h2>{isSecond ? t("sign.second") : t("sign.first")}</h2>
        <p>{isSecond ? t("sign.explainSecond") : t("sign.explainFirst", { count: review.outputs.runs })}</p>
        <Field
          label={t("sign.passphrase")}
          name="signing"
          value={passphrase}
          onChange={setPassphrase}
          secret
        />
        {sign.error && <Fault>{words(sign.error)}</Fault>}
        <Button type="submit" className="primary" isDisabled={sign.isPending || !review.approvable}>
          {isSecond ? t("sign.second") : t("sign.first")}
        </Button>
      </Form>
      <Form
        onSubmit={(event) => {
          event.preventDefault();
          refuse.mutate();
        }}
      >
        <h2>{t("sign.refuse")}</h2>
        <Field label={t("sign.reason")} name="reason" value={reason} onChange={setReason} long />
        {refuse.error && <Fault>{words(refuse.error)}</Fault>}
        <Button type="submit" isDisabled={refuse.isPending}>
          {t("sign.refuse")}
        </Button>
      </Form>
    </div>
  );
}
