import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { useAction, useAnswer } from "../ipc/hooks";
import type { PersonView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { agrees, NewPassphrase, NOTHING } from "../parts/NewPassphrase";
import { Notice } from "../parts/Notice";
import { StepTitle } from "../parts/Steps";
import { Words12 } from "../parts/Words12";
import { useSession } from "../shell/session";
import { DoorFrame } from "./DoorFrame";
import styles from "./Forms.module.css";

/** One person signs in; the session lives in the app's process and ends by itself when nobody works. `isNew`: somebody set
 * the site up while this window stood before its first run. */
export function SignIn({ isNew = false }: { isNew?: boolean }) {
  const [hasCode, setHasCode] = useState(false);
  return (
    <DoorFrame>
      {hasCode ? (
        <Activate onDone={() => setHasCode(false)} />
      ) : (
        <Known isNew={isNew} onCode={() => setHasCode(true)} />
      )}
    </DoorFrame>
  );
}

function Known({ isNew, onCode }: { isNew: boolean; onCode: () => void }) {
  const { t } = useTranslation();
  const { hasEnded, signedIn } = useSession();
  const [name, setName] = useState("");
  const [passphrase, setPassphrase] = useState("");
  const signIn = useAction("log_in", signedIn);
  return (
    <Form
      className={styles.form ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        signIn.mutate({ name: name.trim(), passphrase });
        setPassphrase("");
      }}
    >
      <h1 className={styles.title}>{t("signIn.title")}</h1>
      {hasEnded ? (
        <Notice>{t("signIn.ended")}</Notice>
      ) : (
        isNew && <Notice>{t("setup.service.meanwhile")}</Notice>
      )}
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
  const signIn = useAction("log_in", signedIn);
  const enter = () => signIn.mutate({ name: name.trim(), passphrase: passphrase.first });
  const activate = useAction("activate", (person) => person.state === "active" && enter());
  const person = activate.data;
  if (person && person.state !== "active") return <Unconfirmed person={person} onDone={onDone} />;
  return (
    <Form
      className={styles.form ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        if (!agrees(passphrase)) return;
        // The code is good once: where only the sign-in failed, only that is tried again.
        if (person) enter();
        else activate.mutate({ name: name.trim(), code: code.trim(), passphrase: passphrase.first });
      }}
    >
      <h1 className={styles.title}>{t("signIn.codeTitle")}</h1>
      <p className={styles.lead}>{t("signIn.codeLead")}</p>
      <Field label={t("signIn.name")} name="name" value={name} onChange={setName} autoFocus />
      <Field label={t("signIn.code")} name="code" value={code} onChange={setCode} isMono />
      <NewPassphrase value={passphrase} onChange={setPassphrase} />
      <FaultNotice fault={activate.error ?? signIn.error} />
      <Button type="submit" kind="primary" isPending={activate.isPending || signIn.isPending}>
        {t("signIn.choose")}
      </Button>
      <Button kind="quiet" onPress={onDone}>
        {t("signIn.back")}
      </Button>
    </Form>
  );
}

/** A key that takes another's place counts when a colleague has confirmed it by its words, which its owner reads out. */
function Unconfirmed({ person, onDone }: { person: PersonView; onDone: () => void }) {
  const { t } = useTranslation();
  const words = useAnswer("key_words", { key: person.key ?? "" }, person.key !== null);
  return (
    <div className={styles.form}>
      <StepTitle isFirst>{t("signIn.confirmTitle")}</StepTitle>
      <p className={styles.lead}>{t("signIn.confirmLead")}</p>
      <Answered of={words}>{(text) => <Words12 words={text} of={t("signIn.confirmWords")} />}</Answered>
      <Button kind="primary" onPress={onDone}>
        {t("signIn.back")}
      </Button>
    </div>
  );
}
