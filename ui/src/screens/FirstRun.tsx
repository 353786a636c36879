import { type ReactNode, useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { LANGUAGES, type Language, language } from "../i18n";
import { useAction } from "../ipc/hooks";
import { Button } from "../parts/Button";
import { Choice } from "../parts/Choice";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { agrees, NewPassphrase, NOTHING } from "../parts/NewPassphrase";
import { Notice } from "../parts/Notice";
import { Steps, StepTitle } from "../parts/Steps";
import { preferLanguage } from "../shell/preferences";
import { useSession } from "../shell/session";
import { DoorFrame } from "./DoorFrame";
import styles from "./Forms.module.css";
import { IN_KEYCHAIN, KeysChoice, keysOf } from "./KeysChoice";
import { OtherWays } from "./OtherWays";
import { RestoreRun } from "./RestoreRun";
import { ServiceKeys } from "./ServiceSite";

const STEPS = ["language", "person", "keys"] as const;

interface Props {
  /** Where the site's data will lie. */
  folder: string;
  /** Where a site of this account would lie, if it is the service's that is set up here. */
  ownFolder?: string;
  /** Tells whether the site is being laid down; the engine starts meanwhile, and this stays until its person is in. */
  onBusy: (isBusy: boolean) => void;
}

/** The first start on this machine: language, first administrator, keys. What is left to do then stands on the home screen.
 * A service keeps its keys itself. */
export function FirstRun({ folder, ownFolder, onBusy }: Props) {
  const { t } = useTranslation();
  const { signedIn } = useSession();
  const [restores, setRestores] = useState(false);
  const [at, setAt] = useState(0);
  const [typed, setName] = useState("");
  const [passphrase, setPassphrase] = useState(NOTHING);
  const [keeping, setKeeping] = useState(IN_KEYCHAIN);
  const name = typed.trim();
  const isService = ownFolder !== undefined;
  const signIn = useAction("log_in", signedIn);
  const enter = () => signIn.mutate({ name, passphrase: passphrase.first });
  const initialise = useAction("initialise", enter);
  const setUp = useAction("set_up", enter);
  const isPending = initialise.isPending || setUp.isPending || signIn.isPending;

  function layDown() {
    const keys = keysOf(keeping);
    if ((keys === null && !isService) || !agrees(passphrase)) return;
    // A site is laid down once: where only the sign-in failed, only that is tried again.
    if (initialise.isSuccess || setUp.isSuccess) return enter();
    const failed = { onError: () => onBusy(false) };
    onBusy(true);
    if (isService) setUp.mutate({ name, passphrase: passphrase.first }, failed);
    else if (keys !== null)
      initialise.mutate({ administrator: name, passphrase: passphrase.first, keys }, failed);
  }

  if (restores) return <RestoreRun folder={folder} isService={isService} onBack={() => setRestores(false)} />;
  return (
    <DoorFrame asksLanguage={STEPS[at] === "language"}>
      <div className={styles.form}>
        <Steps label={t("setup.title")} steps={STEPS.map((step) => t(`setup.step.${step}`))} at={at} />
        {STEPS[at] === "language" && (
          <Step
            title={t("setup.title")}
            lead={t(isService ? "setup.service.lead" : "setup.lead")}
            next={t("setup.next")}
            onNext={() => setAt(1)}
          >
            <Choice
              label={t("settings.language")}
              value={language()}
              onChange={preferLanguage}
              options={(Object.entries(LANGUAGES) as [Language, string][]).map(([value, label]) => ({
                value,
                label,
              }))}
            />
          </Step>
        )}
        {/* Beside the form: what is asked there has a form of its own. */}
        {STEPS[at] === "language" && <OtherWays ownFolder={ownFolder} onRestore={() => setRestores(true)} />}
        {STEPS[at] === "person" && (
          <Step
            title={t("setup.person")}
            lead={t("setup.personLead")}
            next={t("setup.next")}
            onNext={() => name !== "" && agrees(passphrase) && setAt(2)}
            onBack={() => setAt(0)}
          >
            <Field
              label={t("signIn.yourName")}
              help={t("signIn.nameHelp")}
              name="name"
              value={typed}
              onChange={setName}
            />
            <NewPassphrase value={passphrase} onChange={setPassphrase} />
          </Step>
        )}
        {STEPS[at] === "keys" && (
          <Step
            title={t("setup.keys")}
            lead={t(isService ? "setup.service.keysLead" : "setup.keysLead")}
            next={t("signIn.welcome")}
            onNext={layDown}
            onBack={() => setAt(1)}
            isPending={isPending}
          >
            {isService ? (
              <ServiceKeys folder={folder} />
            ) : (
              <KeysChoice value={keeping} onChange={setKeeping} folder={folder} />
            )}
            <FaultNotice fault={initialise.error ?? setUp.error ?? signIn.error} />
            <div role="status">{isPending && <Notice>{t("setup.working")}</Notice>}</div>
          </Step>
        )}
      </div>
    </DoorFrame>
  );
}

interface StepProps {
  title: string;
  /** What it is for, and what happens next. */
  lead: string;
  next: string;
  onNext: () => void;
  onBack?: () => void;
  isPending?: boolean;
  children: ReactNode;
}

function Step({ title, lead, next, onNext, onBack, isPending = false, children }: StepProps) {
  const { t } = useTranslation();
  return (
    <Form
      className={styles.form ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        onNext();
      }}
    >
      <StepTitle isFirst>{title}</StepTitle>
      <p className={styles.lead}>{lead}</p>
      {children}
      <div className={styles.actions}>
        {onBack && (
          <Button onPress={onBack} isDisabled={isPending}>
            {t("setup.back")}
          </Button>
        )}
        <Button type="submit" kind="primary" isPending={isPending}>
          {next}
        </Button>
      </div>
    </Form>
  );
}
