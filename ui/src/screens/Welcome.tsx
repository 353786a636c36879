import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import { Button } from "../parts/Button";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { agrees, NewPassphrase, NOTHING } from "../parts/NewPassphrase";
import { useSession } from "../shell/session";
import { DoorFrame } from "./DoorFrame";
import styles from "./Forms.module.css";

/** The first person of a site that a service runs: nobody is known yet. What comes after it can be left and taken up again, on the home screen. */
export function Welcome() {
  const { t } = useTranslation();
  const { signedIn } = useSession();
  const [name, setName] = useState("");
  const [passphrase, setPassphrase] = useState(NOTHING);
  const signIn = useAction("log_in", () => signedIn(name));
  const setUp = useAction("set_up", () => signIn.mutate({ name, passphrase: passphrase.first }));
  return (
    <DoorFrame>
      <Form
        className={styles.form ?? ""}
        onSubmit={(event) => {
          event.preventDefault();
          if (agrees(passphrase)) setUp.mutate({ name, passphrase: passphrase.first });
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
        <NewPassphrase value={passphrase} onChange={setPassphrase} />
        <FaultNotice fault={setUp.error ?? signIn.error} />
        <Button type="submit" kind="primary" isPending={setUp.isPending || signIn.isPending}>
          {t("signIn.begin")}
        </Button>
      </Form>
    </DoorFrame>
  );
}
