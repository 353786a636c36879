import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import { count, moment } from "../i18n/format";
import { call } from "../ipc/engine";
import { useAction, useAnswer } from "../ipc/hooks";
import type { LedgerFinding, MembershipView, WitnessState } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Badge } from "../parts/Badge";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { copied } from "../parts/clipboard";
import { DigestChip } from "../parts/DigestChip";
import { FaultNotice } from "../parts/FaultNotice";
import { Notice } from "../parts/Notice";
import styles from "./Audit.module.css";

/** How the engine begins when a log is whole; any other first sentence says that it is not. */
const INTACT = "The log is intact: every entry is where it was, none is missing.";

/** State of the chain: its root, a button that verifies all of it, and who else saw it. */
export function Chain() {
  const { t } = useTranslation();
  const status = useAnswer("status", {});
  const verify = useAction("verify_audit");
  const finding = status.data?.ledger.finding ?? null;
  // Said before something was found, it holds no more.
  const isStale = finding !== null && verify.data?.[0] === INTACT;
  return (
    <Card
      title={t("audit.chain")}
      lead={t("audit.chainLead")}
      beside={
        <Button kind="primary" isPending={verify.isPending} onPress={() => verify.mutate({})}>
          {t("audit.verify")}
        </Button>
      }
    >
      {finding && <Altered finding={finding} />}
      <div role="status" className={styles.sentences}>
        {verify.isPending && <p>{t("audit.verifying")}</p>}
        {!isStale &&
          verify.data?.map((sentence, at) => (
            <Notice key={sentence} weight={at > 0 ? "note" : sentence === INTACT ? "good" : "danger"}>
              <Engine>{sentence}</Engine>
            </Notice>
          ))}
      </div>
      <FaultNotice fault={verify.error} />
      <Answered of={status}>
        {({ ledger, memberships }) => (
          <>
            {/* Of a log that was altered it binds nothing. */}
            {finding === null && (
              <div>
                {t("audit.root", { count: ledger.entries })}{" "}
                <DigestChip digest={ledger.root} of={t("audit.rootOf")} isShort />
              </div>
            )}
            <Witnesses of={ledger.witnessed} memberships={memberships} />
          </>
        )}
      </Answered>
    </Card>
  );
}

/** What is known to be wrong with the log, and what to do. */
function Altered({ finding }: { finding: LedgerFinding }) {
  const { t } = useTranslation();
  const { at, entry } = finding;
  const title =
    entry === null
      ? t("audit.altered", { at: moment(at) })
      : t("audit.alteredAt", { at: moment(at), entry: count(entry) });
  return (
    <Notice weight="danger" title={title}>
      <Engine isMachine>{finding.words}</Engine>
      <p>{t("audit.alteredHelp")}</p>
      {finding.alarm !== null && <p>{t("audit.alteredHeld")}</p>}
    </Notice>
  );
}

interface WitnessesProps {
  of: WitnessState[];
  memberships: MembershipView[];
}

/** Who cosigned which log, and since when; a checkpoint can be copied for an independent check. */
function Witnesses({ of, memberships }: WitnessesProps) {
  const { t } = useTranslation();
  if (of.length === 0) return <p>{t("audit.noWitness")}</p>;
  const member = (state: WitnessState) => memberships.find((m) => m.federation === state.federation);
  const whose = (state: WitnessState) => {
    if (member(state)?.site === state.origin) return t("audit.ownLog");
    return state.origin === state.federation ? t("audit.coordinatorLog") : t("audit.memberLog");
  };
  return (
    <ul className={styles.witnesses} aria-label={t("audit.witnesses")}>
      {of.map((state) => (
        <li key={`${state.federation} ${state.origin}`} className={styles.witness}>
          <div>
            <div className={styles.head}>
              {whose(state)} ({member(state)?.name ?? state.federation})
              <Badge tone={state.settled ? "done" : "waits"}>
                {t(state.settled ? "audit.settled" : "audit.unsettled")}
              </Badge>
            </div>
            <Engine>{state.words}</Engine>
            {state.at !== null && (
              <div className={styles.when}>
                {t("audit.seen", { count: state.witnesses, size: count(state.size), at: moment(state.at) })}
              </div>
            )}
          </div>
          <Checkpoint of={state} whose={`${whose(state)} (${member(state)?.name ?? state.federation})`} />
        </li>
      ))}
    </ul>
  );
}

/** Copies the newest checkpoint that was seen here, as a signed note. */
function Checkpoint({ of, whose }: { of: WitnessState; whose: string }) {
  const { t } = useTranslation();
  const [said, setSaid] = useState("");
  async function copy() {
    try {
      const note = await call("checkpoint_note", { federation: of.federation, origin: of.origin });
      setSaid(t((await copied(note)) ? "parts.copied" : "parts.notCopied"));
    } catch {
      setSaid(t("audit.noCheckpoint"));
    }
  }
  return (
    <div className={styles.copy}>
      <span role="status">{said}</span>
      <Button icon="copy" about={whose} onPress={() => void copy()}>
        {t("audit.copy")}
      </Button>
    </div>
  );
}
