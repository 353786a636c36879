import { useTranslation } from "react-i18next";
import { Link, useLocation } from "wouter";
import { Engine } from "../i18n/engine";
import { count, moment } from "../i18n/format";
import { useAnswer } from "../ipc/hooks";
import type { MembershipView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Empty } from "../parts/Empty";
import { Page } from "../parts/Page";
import { LinkBadge } from "../parts/states";
import { useMe } from "../shell/session";
import styles from "./Approvals.module.css";

/** Federations that this site belongs to. */
export function Federations() {
  const { t } = useTranslation();
  const { may } = useMe();
  const [, go] = useLocation();
  const memberships = useAnswer("memberships", {});
  const join = may("administrator") && (
    <Button kind="primary" icon="plus" onPress={() => go("/federations/join")}>
      {t("federations.join")}
    </Button>
  );
  return (
    <Page title={t("federations.title")} lead={t("federations.lead")} beside={join}>
      <Answered of={memberships}>
        {(all) =>
          all.length === 0 ? (
            <Card>
              <Empty icon="federations" title={t("federations.empty")}>
                {t("federations.emptyHelp")}
              </Empty>
            </Card>
          ) : (
            all.map((membership) => <Membership key={membership.federation} of={membership} />)
          )
        }
      </Answered>
    </Page>
  );
}

function Membership({ of }: { of: MembershipView }) {
  const { t } = useTranslation();
  const { link } = of;
  return (
    <Card title={of.name} lead={of.url} beside={<LinkBadge link={link} isPaused={of.paused !== null} />}>
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
      <div className={styles.foot}>
        <Link href={`/federations/${of.federation}`}>{t("federations.open", { name: of.name })}</Link>
      </div>
    </Card>
  );
}

/** Since when, or why not. */
export function LinkFact({ of }: { of: MembershipView }) {
  const { t } = useTranslation();
  if (of.paused !== null) {
    return (
      <div>
        <dt>{t("federations.pausedFor")}</dt>
        <dd>{of.paused}</dd>
      </div>
    );
  }
  if (of.link === "idle") return null;
  if ("connected" in of.link) {
    return (
      <div>
        <dt>{t("federations.connectedSince")}</dt>
        <dd>{moment(of.link.connected.since)}</dd>
      </div>
    );
  }
  const { reason, retry_at } = of.link.disconnected;
  return (
    <div className={styles.soon}>
      <dt>{t("federations.notConnected", { at: moment(retry_at) })}</dt>
      <dd>
        <Engine>{reason}</Engine>
      </dd>
    </div>
  );
}
