import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { bytes, count, dayStamp, moment } from "../i18n/format";
import { useAction, useAnswer } from "../ipc/hooks";
import type { BackupMade, Chosen, Outcome, RestoredView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Confirm } from "../parts/Confirm";
import { DigestChip } from "../parts/DigestChip";
import { FaultNotice } from "../parts/FaultNotice";
import { agrees, NewPassphrase, NOTHING } from "../parts/NewPassphrase";
import { Notice } from "../parts/Notice";
import { useMe } from "../shell/session";
import forms from "./Forms.module.css";
import { OutcomeNotice } from "./OutcomeNotice";

/** The way to a backup of this site; and after one was restored, what the site still waits for. */
export function Backups() {
  const { t } = useTranslation();
  const { may } = useMe();
  const restored = useAnswer("restored", {});
  return (
    <>
      <Answered of={restored}>{(left) => left && <Restored left={left} />}</Answered>
      <Card title={t("backup.title")} lead={t("backup.lead")}>
        {may("administrator") ? <Maker /> : <Notice>{t("backup.needs")}</Notice>}
      </Card>
    </>
  );
}

/** The day keeps backups apart. */
const suggested = () => `hospes-${dayStamp(Date.now())}.hospes-backup`;

function Maker() {
  const { t } = useTranslation();
  const [passphrase, setPassphrase] = useState(NOTHING);
  const [made, setMade] = useState<(BackupMade & { name: string }) | null>(null);
  const write = useAction("back_up");
  const choose = useAction("choose_place", (chosen) => chosen && to(chosen));
  function to({ file, name }: Chosen) {
    write.mutate(
      { path: file, passphrase: passphrase.first },
      {
        onSuccess: (backup) => {
          setMade({ ...backup, name });
          setPassphrase(NOTHING);
        },
      },
    );
  }
  const isPending = choose.isPending || write.isPending;
  return (
    <Form
      className={forms.form ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        if (!agrees(passphrase)) return;
        setMade(null);
        write.reset();
        choose.mutate({ purpose: "backup", suggested: suggested() });
      }}
    >
      <NewPassphrase
        name="backup"
        label={t("backup.passphrase")}
        help={t("backup.passphraseHelp")}
        value={passphrase}
        onChange={setPassphrase}
      />
      <FaultNotice fault={choose.error ?? write.error} />
      <div role="status">
        {write.isPending && <Notice>{t("backup.making")}</Notice>}
        {made && (
          <Notice weight="good" title={t("backup.made", { name: made.name, bytes: bytes(made.bytes) })}>
            <p>{t("backup.madeHelp", { entries: count(made.entries), datasets: count(made.datasets) })}</p>
            <DigestChip digest={made.digest} of={t("backup.digest")} />
          </Notice>
        )}
      </div>
      <div className={forms.actions}>
        <Button type="submit" kind="primary" isPending={isPending}>
          {t("backup.make")}
        </Button>
      </div>
    </Form>
  );
}

function Restored({ left }: { left: RestoredView }) {
  const { t } = useTranslation();
  const { may } = useMe();
  const [isAsking, setAsking] = useState(false);
  const [outcome, setOutcome] = useState<Outcome | null>(null);
  const confirm = useAction("confirm_restore", (done) => {
    setAsking(false);
    setOutcome(done);
  });
  return (
    <Card title={t("backup.restored")} lead={t("backup.restoredLead", { made: moment(left.made) })}>
      {!left.confirmed && (
        <Notice
          weight="attention"
          title={t("backup.unconfirmed")}
          beside={
            may("administrator") && <Button onPress={() => setAsking(true)}>{t("backup.confirm")}</Button>
          }
        >
          {t("backup.unconfirmedHelp")}
        </Notice>
      )}
      {left.federations.map((of) =>
        of.lost === null ? (
          <Notice key={of.federation} title={t("backup.asked", { name: of.name })}>
            {t("backup.askedHelp")}
          </Notice>
        ) : (
          <Notice key={of.federation} weight="attention" title={t("backup.lost", { name: of.name })}>
            {t("backup.lostHelp", { seen: count(of.lost.seen), restored: count(of.lost.restored) })}
          </Notice>
        ),
      )}
      {outcome && <OutcomeNotice outcome={outcome} />}
      <Confirm
        title={t("backup.confirm")}
        yes={t("backup.confirm")}
        isSigned
        isOpen={isAsking}
        action={confirm}
        onClose={() => setAsking(false)}
        onYes={({ passphrase }) => confirm.mutate({ passphrase })}
      >
        <p>{t("backup.confirmHelp")}</p>
      </Confirm>
    </Card>
  );
}
