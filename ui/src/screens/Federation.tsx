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
import { MembershipBadge, MembershipFacts } from "../parts/Membership";
import { Marked } from "../parts/Name";
import { Notice } from "../parts/Notice";
import { Page } from "../parts/Page";
import { Words12 } from "../parts/Words12";
import { useMe } from "../shell/session";
import { Diagnosis } from "./Diagnosis";
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
      beside={of && <MembershipBadge of={of} />}
    >
      <Answered of={memberships}>
        {() =>
          of === undefined ? (
            <Notice weight="attention">{t("shell.notHereHelp")}</Notice>
          ) : (
            <>
              <Marked of="federation">{of.name}</Marked>
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
              {of.left === null && <Diagnosis federation={of.federation} />}
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

/** How this site stands there, and the ways to pause and to leave. */
function State({ of }: { of: MembershipView }) {
  const { t } = useTranslation();
  const hasLeft = of.left !== null;
  return (
    <Card title={t("federations.state")} beside={!hasLeft && <Pause of={of} />}>
      <MembershipFacts of={of} />
      {hasLeft ? (
        <Notice title={t("federations.leftTitle")}>{t("federations.leftHelp")}</Notice>
      ) : (
        <Leave of={of} />
      )}
    </Card>
  );
}

function Pause({ of }: { of: MembershipView }) {
  const { t } = useTranslation();
  const { may } = useMe();
  const [isAsking, setAsking] = useState(false);
  const pause = useAction("pause", () => setAsking(false));
  const isPaused = of.paused !== null;
  const words = t(isPaused ? "federations.goOn" : "federations.pause");
  if (!may("administrator", "privacy_officer")) return null;
  return (
    <>
      <Button icon={isPaused ? "link" : "pause"} onPress={() => setAsking(true)}>
        {words}
      </Button>
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
    </>
  );
}

/** Leaving, which says what it cannot undo before anybody does it. */
function Leave({ of }: { of: MembershipView }) {
  const { t } = useTranslation();
  const { may } = useMe();
  const [isAsking, setAsking] = useState(false);
  const leave = useAction("leave", () => setAsking(false));
  if (!may("administrator")) return null;
  return (
    <div>
      <Button kind="danger" onPress={() => setAsking(true)}>
        {t("federations.leave")}
      </Button>
      <Confirm
        title={`${t("federations.leave")}: ${of.name}`}
        yes={t("federations.leave")}
        isDangerous
        reason={t("federations.leaveReason")}
        isOpen={isAsking}
        action={leave}
        onClose={() => setAsking(false)}
        onYes={({ reason }) => leave.mutate({ federation: of.federation, reason })}
      >
        <p className={forms.prose}>{t("federations.leaveHelp")}</p>
        <p className={forms.prose}>{t("federations.leaveUndo")}</p>
        <p className={forms.prose}>{t("federations.leaveKeeps")}</p>
      </Confirm>
    </div>
  );
}
