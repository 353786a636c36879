import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { Engine, named } from "../i18n/engine";
import { bytes, count, exactly } from "../i18n/format";
import { useAnswer } from "../ipc/hooks";
import type { AuditLine, AuditObject, ObjectKind } from "../ipc/types";
import { Button } from "../parts/Button";
import { DigestChip } from "../parts/DigestChip";
import facts from "../parts/Facts.module.css";
import { IdChip } from "../parts/IdChip";
import { Over } from "../parts/Over";
import { Why } from "../parts/Reason";
import styles from "./Audit.module.css";
import type { AuditFilter } from "./auditFilter";
import forms from "./Forms.module.css";

const COORDINATOR = /^coordinator (\w+)$/;

/** Who did it; a coordinator by its federation's name. */
export function Actor({ words }: { words: string }) {
  const { t } = useTranslation();
  const memberships = useAnswer("memberships", {});
  const id = COORDINATOR.exec(words)?.[1];
  const known = memberships.data?.find((m) => m.federation === id);
  return known ? t("audit.coordinator", { name: known.name }) : <Engine>{words}</Engine>;
}

/** What an entry is about, and why: by name where this site knows one, else by id. */
export function Gist({ of }: { of: AuditLine }) {
  const { t } = useTranslation();
  const { purpose, reason } = of.parts;
  // What its digest names is for whoever opens the entry.
  const about = of.parts.about.filter(({ id, digest }) => id !== digest);
  const isNamed = (name: string) => about.some((thing) => thing.name === name);
  const study = purpose.filter(({ kind, name }) => kind === "study" && name !== null && !isNamed(name));
  const things = [...study, ...about];
  if (things.length === 0 && reason === null) return <Engine>{of.detail}</Engine>;
  return (
    <>
      {things.map(({ kind, id, name }, at) => {
        const word = named("words.object", kind);
        return (
          <div key={at}>
            {name === null ? (
              <>
                {word} <IdChip id={id} />
              </>
            ) : (
              t("audit.thing", { kind: word, name })
            )}
          </div>
        );
      })}
      {reason !== null && <Why action={of.action}>{reason}</Why>}
    </>
  );
}

interface Props {
  of: AuditLine;
  onClose: () => void;
  /** Shows only entries that this filter lets through. */
  onOnly: (filter: AuditFilter) => void;
}

/** All that an entry says, over the log. */
export function AuditEntry({ of, onClose, onOnly }: Props) {
  const { t } = useTranslation();
  const { parts } = of;
  const isChange = parts.before !== null || parts.after !== null;
  const settings = (digest: string | null, name: string) =>
    isChange && (
      <Fact name={name}>{digest === null ? t("audit.none") : <DigestChip digest={digest} of={name} />}</Fact>
    );
  return (
    <Over title={t("audit.entry", { number: count(of.sequence) })} isOpen isWide onClose={onClose}>
      <dl className={facts.facts}>
        <Fact name={t("audit.at")}>{exactly(of.at)}</Fact>
        <Fact name={t("audit.who")}>
          <Actor words={of.actor} /> {parts.who !== null && <IdChip id={parts.who} of={t("audit.who")} />}
        </Fact>
        {parts.key !== null && (
          <Fact name={t("audit.key")}>
            <DigestChip digest={parts.key} of={t("audit.key")} />
          </Fact>
        )}
        {parts.on_behalf !== null && (
          <Fact name={t("audit.onBehalf")}>
            <Actor words={parts.on_behalf} />
          </Fact>
        )}
        <Fact name={t("audit.what")}>{named("words.action", of.action)}</Fact>
        <Fact name={t("audit.outcome")}>{named("words.entry", of.outcome)}</Fact>
        {[...parts.purpose, ...parts.about].map((thing, at) => (
          <Thing key={at} of={thing} onOnly={onOnly} />
        ))}
        {parts.reason !== null && (
          <Fact name={t("audit.why")}>
            <Why action={of.action}>{parts.reason}</Why>
          </Fact>
        )}
        {parts.sent !== null && (
          <>
            <Fact name={t("audit.to")}>
              {parts.sent.name} <IdChip id={parts.sent.to} of={t("audit.to")} />
            </Fact>
            {of.bytes !== null && (
              <Fact name={t("audit.bytes")}>
                {t("audit.sentBytes", { bytes: count(of.bytes), short: bytes(of.bytes) })}
              </Fact>
            )}
            <Fact name={t("egress.digest")}>
              <DigestChip digest={parts.sent.digest} of={t("egress.digest")} />
            </Fact>
          </>
        )}
        {settings(parts.before, t("audit.before"))}
        {settings(parts.after, t("audit.after"))}
        {parts.software !== null && <Fact name={t("audit.software")}>{parts.software}</Fact>}
        {parts.device !== null && <Fact name={t("audit.device")}>{parts.device}</Fact>}
        {parts.erased.map(({ part, rule }) => (
          <Fact key={part} name={t("audit.erased")}>
            {t("audit.erasedUnder", { part: named("words.entryPart", part), rule })}
          </Fact>
        ))}
      </dl>
      <div className={forms.actions}>
        <Button onPress={onClose}>{t("audit.close")}</Button>
      </div>
    </Over>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div className={facts.fact}>
      <dt>{name}</dt>
      <dd className={styles.fact}>{children}</dd>
    </div>
  );
}

/** Kinds of things that the log can be filtered by. */
const FILTERED: { [kind in ObjectKind]?: keyof AuditFilter } = {
  study: "study",
  job: "job",
  approval: "approval",
  dataset: "dataset",
};

function Thing({ of, onOnly }: { of: AuditObject; onOnly: Props["onOnly"] }) {
  const { t } = useTranslation();
  const name = named("words.object", of.kind);
  const filter = FILTERED[of.kind];
  return (
    <Fact name={name}>
      {of.name}
      {of.id !== of.digest && <IdChip id={of.id} of={name} />}
      {of.digest !== null && <DigestChip digest={of.digest} of={t("audit.digestOf", { kind: name })} />}
      {filter && (
        <Button kind="quiet" about={of.name ?? of.id} onPress={() => onOnly({ [filter]: of.id })}>
          {t("audit.only")}
        </Button>
      )}
    </Fact>
  );
}
