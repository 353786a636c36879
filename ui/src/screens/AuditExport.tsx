import { useState } from "react";
import { useTranslation } from "react-i18next";
import { dayStamp } from "../i18n/format";
import { useAction, useAnswer } from "../ipc/hooks";
import type { AuditFormat, Chosen, MembershipView } from "../ipc/types";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { copied } from "../parts/clipboard";
import { FaultNotice } from "../parts/FaultNotice";
import { Notice } from "../parts/Notice";
import { Picker } from "../parts/Picker";
import { useMe } from "../shell/session";
import styles from "./Audit.module.css";

/** Forms of the log, each with the usual end of a file's name. */
const FORMS: Record<AuditFormat, string> = {
  jsonl: "jsonl",
  html: "html",
  csv: "csv",
  "data-use": "html",
  art30: "html",
  "fhir-r4b": "ndjson",
  "fhir-r5": "ndjson",
  "fhir-permission": "ndjson",
  cef: "log",
  annex: "json",
};
const FORM_NAMES = Object.keys(FORMS) as AuditFormat[];

interface Exported {
  entries: number;
  kind: AuditFormat;
  name: string;
  /** Identity that signed it. */
  identity: string | null;
}

/** The name that the dialog begins with: the day keeps exports apart. */
const suggested = (kind: AuditFormat) =>
  `hospes-${kind === "jsonl" ? "audit" : kind}-${dayStamp(Date.now())}.${FORMS[kind]}`;

/** Writes the log to a file of the person's choice, and says how somebody else checks it. */
export function AuditExport() {
  const { t } = useTranslation();
  const { may } = useMe();
  const memberships = useAnswer("memberships", {});
  const [kind, setKind] = useState<AuditFormat>("jsonl");
  const [wanted, setWanted] = useState<string | null>(null);
  const [exported, setExported] = useState<Exported | null>(null);
  const all = memberships.data ?? [];
  const signer: MembershipView | undefined = all.find((of) => of.federation === wanted) ?? all[0];
  const write = useAction("export_audit");
  const choose = useAction("choose_place", (chosen) => chosen && to(chosen));
  function to({ file, name }: Chosen) {
    const identity = signer?.identity ?? null;
    write.mutate(
      { federation: signer?.federation ?? null, kind, path: file },
      { onSuccess: ({ entries }) => setExported({ entries, kind, name, identity }) },
    );
  }
  return (
    <Card title={t("audit.export")} lead={t("audit.exportLead")}>
      {may("auditor", "privacy_officer", "administrator") ? (
        <div className={styles.export}>
          <Picker
            label={t("audit.form")}
            options={FORM_NAMES.map((value) => ({
              value,
              label: t(`audit.forms.${value}`),
              help: t(`audit.formHelp.${value}`),
            }))}
            value={kind}
            onChange={setKind}
          />
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
              choose.mutate({ purpose: "audit", suggested: suggested(kind) });
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
  const title = t("audit.exported", { count: of.entries, name: of.name });
  // Only the native form carries proofs.
  if (of.kind !== "jsonl")
    return (
      <Notice weight="good" title={title}>
        {t("audit.noProofs")}
      </Notice>
    );
  return (
    <Notice
      weight="good"
      title={title}
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
