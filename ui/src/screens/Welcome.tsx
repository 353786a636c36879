import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import { Button } from "../parts/Button";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { Notice } from "../parts/Notice";
import { useSession } from "../shell/session";
import { DoorFrame } from "./DoorFrame";
import styles from "./Forms.module.css";

/** The first start: nobody is known yet. What comes after it can be left and taken up again, on the home screen. */
export function Welcome() {
  const { t } = useTranslation();
  const { signedIn } = useSession();
  const [name, setName] = useState("");
  const [passphrase, setPassphrase] = useState("");
  const [again, setAgain] = useState("");
  const signIn = useAction("log_in", () => signedIn(name));
  const setUp = useAction("set_up", () => signIn.mutate({ name, passphrase }));
  const differs = again !== "" && passphrase !== again;
  return (
    <DoorFrame>
      <Form
        className={styles.form ?? ""}
        onSubmit={(event) => {
          event.preventDefault();
          if (passphrase === again) setUp.mutate({ name, passphrase });
        }}
      >
        <h1 className={styles.title}>{t("signIn.welcome")}</h1>
        <p className={styles.lead}>{t("signIn.welcomeLead")}</p>
        <Field
          label={t("signIn.yourName")}
          help={t("signIn.nameHelp")}
          name="name"
          value={name}
          onChange={setName}
          autoFocus
        />
        <Field
          label={t("signIn.newPassphrase")}
          help={t("signIn.passphraseHelp")}
          name="passphrase"
          value={passphrase}
          onChange={setPassphrase}
          isSecret
          minLength={10}
        />
        <Field label={t("signIn.again")} name="again" value={again} onChange={setAgain} isSecret />
        {differs && <Notice weight="attention">{t("signIn.differs")}</Notice>}
        <FaultNotice fault={setUp.error ?? signIn.error} />
        <Button
          type="submit"
          kind="primary"
          isPending={setUp.isPending || signIn.isPending}
          isDisabled={differs}
        >
          {t("signIn.begin")}
        </Button>
      </Form>
    </DoorFrame>
  );
}
