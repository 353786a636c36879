import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useAction, useAnswer } from "../ipc/hooks";
import type { Chosen, MembershipView } from "../ipc/types";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { copied } from "../parts/clipboard";
import { FaultNotice } from "../parts/FaultNotice";
import { Notice } from "../parts/Notice";
import { Picker } from "../parts/Picker";
import { useMe } from "../shell/session";
import styles from "./Audit.module.css";

interface Exported {
  entries: number;
  name: string;
  /** Identity that signed it. */
  identity: string | null;
}

/** The name that the dialog begins with: the day keeps exports apart. */
const suggested = () => `hospes-audit-${new Date().toISOString().slice(0, 10)}.jsonl`;

/** Writes the log to a file of the person's choice, and says how somebody else checks it. */
export function AuditExport() {
  const { t } = useTranslation();
  const { may } = useMe();
  const memberships = useAnswer("memberships", {});
  const [wanted, setWanted] = useState<string | null>(null);
  const [exported, setExported] = useState<Exported | null>(null);
  const all = memberships.data ?? [];
  const signer: MembershipView | undefined = all.find((of) => of.federation === wanted) ?? all[0];
  const write = useAction("export_audit");
  const choose = useAction("choose_place", (chosen) => chosen && to(chosen));
  function to({ file, name }: Chosen) {
    const identity = signer?.identity ?? null;
    write.mutate(
      { federation: signer?.federation ?? null, path: file },
      { onSuccess: (entries) => setExported({ entries, name, identity }) },
    );
  }
  return (
    <Card title={t("audit.export")} lead={t("audit.exportLead")}>
      {may("auditor", "privacy_officer", "administrator") ? (
        <div className={styles.export}>
          {all.length > 1 && signer && (
            <Picker
              label={t("audit.exportAs")}
              options={all.map((of) => ({
                value: of.federation,
                label: t("audit.exportAsOne", { site: of.site_name, federation: of.name }),
              }))}
              value={signer.federation}
              onChange={setWanted}
            />
          )}
          <Button
            isPending={choose.isPending || write.isPending}
            onPress={() => {
              setExported(null);
              write.reset();
              choose.mutate({ purpose: "audit", suggested: suggested() });
            }}
          >
            {t("audit.exportNow")}
          </Button>
        </div>
      ) : (
        <Notice>{t("audit.exportNeeds")}</Notice>
      )}
      <FaultNotice fault={choose.error ?? write.error} />
      <div role="status">{exported && <Written of={exported} />}</div>
    </Card>
  );
}

/** What was written, and the command that checks it. */
function Written({ of }: { of: Exported }) {
  const { t } = useTranslation();
  const [said, setSaid] = useState("");
  const origin = of.identity === null ? "" : ` --origin ${of.identity}`;
  const command = `hospesctl audit verify "${of.name}"${origin}`;
  return (
    <Notice
      weight="good"
      title={t("audit.exported", { count: of.entries, name: of.name })}
      beside={
        <Button
          icon="copy"
          onPress={() =>
            void copied(command).then((done) => setSaid(t(done ? "parts.copied" : "parts.notCopied")))
          }
        >
          {t("audit.copyCommand")}
        </Button>
      }
    >
      <p>{t("audit.verifyHelp")}</p>
      <pre className={styles.command} translate="no">
        <code>{command}</code>
      </pre>
      <p>{t(of.identity === null ? "audit.originUnknown" : "audit.originHelp")}</p>
      <span>{said}</span>
    </Notice>
  );
}
