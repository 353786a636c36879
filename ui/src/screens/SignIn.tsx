import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { Button, Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { call, words } from "../ipc/tauri";
import { Fault } from "../parts/Fault";
import { Field } from "../parts/Field";

/** One person signs in; the session lives in the app's process and ends by itself when nobody works. */
export function SignIn({ onSignedIn }: { onSignedIn: (name: string) => void }) {
  const { t } = useTranslation();
  const [name, setName] = useState("");
  const [passphrase, setPassphrase] = useState("");
  const signIn = useMutation({
    mutationFn: () => call("log_in", { name, passphrase }),
    onSuccess: () => onSignedIn(name),
    onSettled: () => setPassphrase(""),
  });
  return (
    <Form
      onSubmit={(event) => {
        event.preventDefault();
        signIn.mutate();
      }}
    >
      <h1>{t("signIn.title")}</h1>
      <Field label={t("signIn.name")} name="name" value={name} onChange={setName} />
      <Field
        label={t("signIn.passphrase")}
        name="passphrase"
        value={passphrase}
        onChange={setPassphrase}
        secret
      />
      {signIn.error && <Fault>{words(signIn.error)}</Fault>}
      <Button type="submit" className="primary" isDisabled={signIn.isPending}>
        {t("signIn.submit")}
      </Button>
    </Form>
  );
}
