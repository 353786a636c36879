import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import { count, moment } from "../i18n/format";
import { visible } from "../i18n/visible";
import type { MembershipView } from "../ipc/types";
import { Badge } from "./Badge";
import styles from "./ShortFacts.module.css";
import { LinkBadge } from "./states";

/** The federations that this site is in: one that it left stays in the list, for what was done there. */
export const joined = (memberships: MembershipView[]) => memberships.filter((m) => m.left === null);

/** How this site stands in a federation: its link, or that it is paused, or that it has left. */
export function MembershipBadge({ of }: { of: MembershipView }) {
  const { t } = useTranslation();
  if (of.left !== null) return <Badge tone="ended">{t("words.link.left")}</Badge>;
  return <LinkBadge link={of.link} isPaused={of.paused !== null} />;
}

/** A federation in a few facts: this site's name there, how many it has, and since when it is connected, or why not. */
export function MembershipFacts({ of }: { of: MembershipView }) {
  const { t } = useTranslation();
  return (
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
  );
}

/** Since when, or why not. */
function LinkFact({ of }: { of: MembershipView }) {
  const { t } = useTranslation();
  if (of.left !== null) {
    return (
      <>
        <div>
          <dt>{t("federations.leftOn")}</dt>
          <dd>{moment(of.left)}</dd>
        </div>
        {of.paused !== null && (
          <div>
            <dt>{t("federations.leftFor")}</dt>
            <dd>{visible(of.paused.replace(LEFT, ""))}</dd>
          </div>
        )}
      </>
    );
  }
  if (of.paused !== null) {
    return (
      <div>
        <dt>{t("federations.pausedFor")}</dt>
        <dd>{visible(of.paused)}</dd>
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

/** How the engine begins the reason of a site that left; the person's own words follow. */
const LEFT = /^this site left the federation: /;
