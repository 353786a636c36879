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
import { agrees, NewPassphrase, NOTHING } from "../parts/NewPassphrase";
import { Notice } from "../parts/Notice";
import { useMe } from "../shell/session";
import forms from "./Forms.module.css";

/** Who I am here, and my passphrase. */
export function Account() {
  const { t } = useTranslation();
  const { person } = useMe();
  const [old, setOld] = useState("");
  const [next, setNext] = useState(NOTHING);
  const change = useAction("change_passphrase", () => {
    setOld("");
    setNext(NOTHING);
  });
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
          if (agrees(next)) change.mutate({ old, new: next.first });
        }}
      >
        <h3>{t("settings.changePassphrase")}</h3>
        <p className={forms.prose}>{t("settings.changePassphraseHelp")}</p>
        <Field label={t("settings.oldPassphrase")} name="old" value={old} onChange={setOld} isSecret />
        <NewPassphrase name="new" value={next} onChange={setNext} />
        <FaultNotice fault={change.error} />
        <div role="status">{change.isSuccess && <Notice>{t("settings.changed")}</Notice>}</div>
        <div className={forms.actions}>
          <Button type="submit" kind="primary" isPending={change.isPending}>
            {t("settings.changePassphrase")}
          </Button>
        </div>
      </Form>
    </Card>
  );
}
