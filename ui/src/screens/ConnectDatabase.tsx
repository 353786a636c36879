import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import type { Chosen, DatabaseView, Step } from "../ipc/types";
import { Button } from "../parts/Button";
import { Check } from "../parts/Check";
import { Field } from "../parts/Field";
import { ChooseFile } from "./ChooseFile";
import { Tested } from "./Diagnosis";
import forms from "./Forms.module.css";

const EMPTY = { name: "", host: "", port: "5432", database: "", user: "", timeout: "600" };

interface Props {
  onConnected: (known: DatabaseView, steps: Step[]) => void;
}

/** Connects a database: it is tested step by step, and kept if no step fails. The page keeps no password beyond that. */
export function ConnectDatabase({ onConnected }: Props) {
  const { t } = useTranslation();
  const [place, setPlace] = useState(EMPTY);
  const [password, setPassword] = useState("");
  const [unverified, setUnverified] = useState(false);
  const [certificates, setCertificates] = useState<Chosen | null>(null);
  const add = useAction("add_database", ({ known, steps }) => {
    if (known) onConnected(known, steps);
  });
  const set = (part: Partial<typeof EMPTY>) => setPlace({ ...place, ...part });
  const isWhole = [place.name, place.host, place.database, place.user].every((text) => text.trim() !== "");
  function connect() {
    const database = {
      name: place.name.trim(),
      host: place.host.trim(),
      port: Number(place.port),
      database: place.database.trim(),
      user: place.user.trim(),
      unverified,
      extra_ca: certificates?.file ?? null,
      timeout_s: Number(place.timeout),
    };
    add.mutate({ database, password });
    setPassword("");
  }
  return (
    <>
      <p className={`${forms.small} ${forms.prose}`}>{t("database.connectHelp")}</p>
      <Field
        label={t("database.name")}
        help={t("database.nameHelp")}
        name="database-name"
        isOptional
        value={place.name}
        onChange={(name) => set({ name })}
      />
      <Field
        label={t("database.host")}
        help={t("database.hostHelp")}
        name="host"
        isOptional
        isMono
        value={place.host}
        onChange={(host) => set({ host })}
      />
      <Field
        label={t("database.port")}
        name="port"
        type="number"
        min={1}
        max={65_535}
        value={place.port}
        onChange={(port) => set({ port })}
      />
      <Field
        label={t("database.database")}
        name="database"
        isOptional
        isMono
        value={place.database}
        onChange={(database) => set({ database })}
      />
      <Field
        label={t("database.user")}
        help={t("database.userHelp")}
        name="user"
        isOptional
        isMono
        value={place.user}
        onChange={(user) => set({ user })}
      />
      <Field
        label={t("database.password")}
        help={t("database.passwordHelp")}
        name="password"
        isSecret
        isOptional
        value={password}
        onChange={setPassword}
      />
      <Field
        label={t("database.timeout")}
        help={t("database.timeoutHelp")}
        name="timeout"
        type="number"
        min={1}
        max={86_400}
        value={place.timeout}
        onChange={(timeout) => set({ timeout })}
      />
      <ChooseFile
        purpose="certificates"
        words={t("database.certificates")}
        chosen={certificates}
        onChosen={setCertificates}
      />
      <p className={forms.small}>{t("database.certificatesHelp")}</p>
      <Check
        label={t("database.unverified")}
        help={t("database.unverifiedHelp")}
        value={unverified}
        onChange={setUnverified}
      />
      <div className={forms.actions}>
        <Button isPending={add.isPending} isDisabled={!isWhole} onPress={connect}>
          {t("database.connect")}
        </Button>
      </div>
      <Tested isPending={add.isPending} data={add.data?.steps} error={add.error} />
    </>
  );
}
