import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import { Button } from "../parts/Button";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { agrees, NewPassphrase, NOTHING } from "../parts/NewPassphrase";
import { Notice } from "../parts/Notice";
import { useSession } from "../shell/session";
import { DoorFrame } from "./DoorFrame";
import styles from "./Forms.module.css";

/** One person signs in; the session lives in the app's process and ends by itself when nobody works. */
export function SignIn() {
  const [hasCode, setHasCode] = useState(false);
  return (
    <DoorFrame>
      {hasCode ? <Activate onDone={() => setHasCode(false)} /> : <Known onCode={() => setHasCode(true)} />}
    </DoorFrame>
  );
}

function Known({ onCode }: { onCode: () => void }) {
  const { t } = useTranslation();
  const { hasEnded, signedIn } = useSession();
  const [name, setName] = useState("");
  const [passphrase, setPassphrase] = useState("");
  const signIn = useAction("log_in", () => signedIn(name));
  return (
    <Form
      className={styles.form ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        signIn.mutate({ name, passphrase });
        setPassphrase("");
      }}
    >
      <h1 className={styles.title}>{t("signIn.title")}</h1>
      {hasEnded && <Notice>{t("signIn.ended")}</Notice>}
      <Field label={t("signIn.name")} name="name" value={name} onChange={setName} autoFocus />
      <Field
        label={t("signIn.passphrase")}
        name="passphrase"
        value={passphrase}
        onChange={setPassphrase}
        isSecret
      />
      <FaultNotice fault={signIn.error} />
      <Button type="submit" kind="primary" isPending={signIn.isPending}>
        {t("signIn.submit")}
      </Button>
      <Button kind="quiet" onPress={onCode}>
        {t("signIn.haveCode")}
      </Button>
    </Form>
  );
}

/** Somebody who was added chooses their own passphrase with the code that they were handed. */
function Activate({ onDone }: { onDone: () => void }) {
  const { t } = useTranslation();
  const [name, setName] = useState("");
  const [code, setCode] = useState("");
  const [passphrase, setPassphrase] = useState(NOTHING);
  const { signedIn } = useSession();
  const signIn = useAction("log_in", () => signedIn(name));
  const activate = useAction("activate", (person) => {
    // A replaced key has to be confirmed by another person first.
    if (person.state === "active") signIn.mutate({ name, passphrase: passphrase.first });
    else onDone();
  });
  return (
    <Form
      className={styles.form ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        if (!agrees(passphrase)) return;
        activate.mutate({ name, code: code.trim(), passphrase: passphrase.first });
      }}
    >
      <h1 className={styles.title}>{t("signIn.codeTitle")}</h1>
      <p className={styles.lead}>{t("signIn.codeLead")}</p>
      <Field label={t("signIn.name")} name="name" value={name} onChange={setName} autoFocus />
      <Field label={t("signIn.code")} name="code" value={code} onChange={setCode} isMono />
      <NewPassphrase value={passphrase} onChange={setPassphrase} />
      <FaultNotice fault={activate.error ?? signIn.error} />
      <Button type="submit" kind="primary" isPending={activate.isPending}>
        {t("signIn.choose")}
      </Button>
      <Button kind="quiet" onPress={onDone}>
        {t("signIn.back")}
      </Button>
    </Form>
  );
}
