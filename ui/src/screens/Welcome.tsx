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

/** The first person of a site that a service runs: nobody is known yet. What comes after it can be left and taken up again,
 * on the home screen. `onBegun` tells that the person is there: this stays until they are in. */
export function Welcome({ onBegun }: { onBegun: () => void }) {
  const { t } = useTranslation();
  const { signedIn } = useSession();
  const [typed, setName] = useState("");
  const [passphrase, setPassphrase] = useState(NOTHING);
  const name = typed.trim();
  const signIn = useAction("log_in", signedIn);
  const enter = () => signIn.mutate({ name, passphrase: passphrase.first });
  const setUp = useAction("set_up", () => {
    onBegun();
    enter();
  });
  return (
    <DoorFrame>
      <Form
        className={styles.form ?? ""}
        onSubmit={(event) => {
          event.preventDefault();
          if (!agrees(passphrase)) return;
          // A site is set up once: where only the sign-in failed, only that is tried again.
          if (setUp.isSuccess) enter();
          else setUp.mutate({ name, passphrase: passphrase.first });
        }}
      >
        <h1 className={styles.title}>{t("signIn.welcome")}</h1>
        <p className={styles.lead}>{t("signIn.welcomeLead")}</p>
        <Field
          label={t("signIn.yourName")}
          help={t("signIn.nameHelp")}
          name="name"
          value={typed}
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
