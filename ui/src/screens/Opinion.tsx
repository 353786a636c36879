import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import type { OpinionView, Review } from "../ipc/types";
import { Button } from "../parts/Button";
import { Choice } from "../parts/Choice";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import forms from "./Forms.module.css";

/** The privacy officer's opinion, before the second signature. */
export function Opinion({ review }: { review: Review }) {
  const { t } = useTranslation();
  const [view, setView] = useState<OpinionView | null>(null);
  const [text, setText] = useState("");
  const give = useAction("give_opinion", () => setText(""));
  return (
    <Form
      className={forms.form ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        if (view !== null) give.mutate({ study: review.study, view, text });
      }}
    >
      <h3>{t("sign.opinion")}</h3>
      <Choice
        label={t("sign.opinionIs")}
        value={view}
        onChange={setView}
        options={[
          { value: "agree", label: t("words.opinion.agree") },
          { value: "conditions", label: t("words.opinion.conditions"), help: t("sign.conditionsHelp") },
          { value: "object", label: t("words.opinion.object"), help: t("sign.objectHelp") },
        ]}
      />
      <Field
        label={t("sign.opinionText")}
        name="opinion"
        value={text}
        onChange={setText}
        rows={3}
        isOptional={view === "agree"}
      />
      <FaultNotice fault={give.error} />
      <div className={forms.actions}>
        <Button type="submit" kind="primary" isPending={give.isPending} isDisabled={view === null}>
          {t("sign.giveOpinion")}
        </Button>
      </div>
    </Form>
  );
}
