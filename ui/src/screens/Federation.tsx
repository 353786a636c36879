import { useState } from "react";
import { useTranslation } from "react-i18next";
import { count } from "../i18n/format";
import { useAction, useAnswer } from "../ipc/hooks";
import type { MembershipView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Confirm } from "../parts/Confirm";
import { DigestChip } from "../parts/DigestChip";
import { FaultNotice } from "../parts/FaultNotice";
import { Notice } from "../parts/Notice";
import { Page } from "../parts/Page";
import { LinkBadge } from "../parts/states";
import { Words12 } from "../parts/Words12";
import { useMe } from "../shell/session";
import styles from "./Approvals.module.css";
import { Diagnosis } from "./Diagnosis";
import { LinkFact } from "./Federations";
import forms from "./Forms.module.css";
import { Peers } from "./Peers";

/** One federation: link, members and how their keys are known, the words of this site's own key. */
export function Federation({ id }: { id: string }) {
  const { t } = useTranslation();
  const memberships = useAnswer("memberships", {});
  const of = memberships.data?.find((m) => m.federation === id);
  return (
    <Page
      title={of?.name ?? t("federations.one")}
      lead={of?.url}
      back={{ to: "/federations", words: t("federations.all") }}
      beside={of && <LinkBadge link={of.link} isPaused={of.paused !== null} />}
    >
      <Answered of={memberships}>
        {() =>
          of === undefined ? (
            <Notice weight="attention">{t("shell.notHereHelp")}</Notice>
          ) : (
            <>
              <Epoch of={of} />
              <State of={of} />
              <Peers federation={of} />
              <Card
                title={t("federations.ownWords", { site: of.site_name })}
                lead={t("federations.ownWordsHelp")}
              >
                <Words12 words={of.words} of={t("federations.ownWords", { site: of.site_name })} />
                {of.identity !== null && <DigestChip digest={of.identity} of={t("federations.identity")} />}
              </Card>
              <Diagnosis federation={of.federation} />
            </>
          )
        }
      </Answered>
    </Page>
  );
}

/** A coordinator that was restored from a backup does nothing here before a person accepted it. */
function Epoch({ of }: { of: MembershipView }) {
  const { t } = useTranslation();
  const { may } = useMe();
  const accept = useAction("accept_epoch");
  if (of.epoch_offered === null) return null;
  return (
    <>
      <Notice
        weight="attention"
        title={t("federations.restored")}
        beside={
          may("administrator", "data_steward") && (
            <Button isPending={accept.isPending} onPress={() => accept.mutate({ federation: of.federation })}>
              {t("federations.accept")}
            </Button>
          )
        }
      >
        {t("federations.restoredHelp", { epoch: count(of.epoch_offered) })}
      </Notice>
      <FaultNotice fault={accept.error} />
    </>
  );
}

function State({ of }: { of: MembershipView }) {
  const { t } = useTranslation();
  const { may } = useMe();
  const [isAsking, setAsking] = useState(false);
  const pause = useAction("pause", () => setAsking(false));
  const isPaused = of.paused !== null;
  const words = t(isPaused ? "federations.goOn" : "federations.pause");
  return (
    <Card
      title={t("federations.state")}
      beside={
        may("administrator", "privacy_officer") && (
          <Button icon={isPaused ? "link" : "pause"} onPress={() => setAsking(true)}>
            {words}
          </Button>
        )
      }
    >
      <dl className={styles.facts}>
        <div>
          <dt>{t("federations.siteName")}</dt>
          <dd>{of.site_name}</dd>
        </div>
        <div>
          <dt>{t("federations.members")}</dt>
          <dd>{count(of.members)}</dd>
        </div>
        <LinkFact of={of} />
      </dl>
      <Confirm
        title={words}
        yes={words}
        {...(isPaused ? {} : { reason: t("approvals.reason") })}
        isOpen={isAsking}
        action={pause}
        onClose={() => setAsking(false)}
        onYes={({ reason }) => pause.mutate({ federation: of.federation, reason: isPaused ? null : reason })}
      >
        <p className={forms.prose}>{t(isPaused ? "federations.goOnHelp" : "federations.pauseHelp")}</p>
      </Confirm>
    </Card>
  );
}
