import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { named } from "../i18n/engine";
import { list } from "../i18n/format";
import { useAction } from "../ipc/hooks";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { DigestChip } from "../parts/DigestChip";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { Notice } from "../parts/Notice";
import { useMe } from "../shell/session";
import forms from "./Forms.module.css";

/** Who I am here, and my passphrase. */
export function Account() {
  const { t } = useTranslation();
  const { person } = useMe();
  const [old, setOld] = useState("");
  const [next, setNext] = useState("");
  const [again, setAgain] = useState("");
  const change = useAction("change_passphrase", () => {
    setOld("");
    setNext("");
    setAgain("");
  });
  const differs = again !== "" && next !== again;
  return (
    <Card
      title={t("settings.account")}
      lead={person && list(person.roles.map((role) => named("words.role", role)))}
    >
      {person?.key && (
        <div>
          <div className={forms.small}>{t("settings.signingKey")}</div>
          <DigestChip digest={person.key} of={t("settings.signingKey")} />
        </div>
      )}
      <Form
        className={forms.form ?? ""}
        onSubmit={(event) => {
          event.preventDefault();
          if (!differs) change.mutate({ old, new: next });
        }}
      >
        <h3>{t("settings.changePassphrase")}</h3>
        <p className={forms.prose}>{t("settings.changePassphraseHelp")}</p>
        <Field label={t("settings.oldPassphrase")} name="old" value={old} onChange={setOld} isSecret />
        <Field
          label={t("signIn.newPassphrase")}
          help={t("signIn.passphraseHelp")}
          name="new"
          value={next}
          onChange={setNext}
          isSecret
          minLength={10}
        />
        <Field label={t("signIn.again")} name="again" value={again} onChange={setAgain} isSecret />
        {differs && <Notice weight="attention">{t("signIn.differs")}</Notice>}
        <FaultNotice fault={change.error} />
        <div role="status">{change.isSuccess && <Notice>{t("settings.changed")}</Notice>}</div>
        <div className={forms.actions}>
          <Button type="submit" kind="primary" isPending={change.isPending} isDisabled={differs}>
            {t("settings.changePassphrase")}
          </Button>
        </div>
      </Form>
    </Card>
  );
}
