import type { TFunction } from "i18next";
import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { useAnswer } from "../ipc/hooks";
import type { MembershipView, Status, WitnessState } from "../ipc/types";
import { Button } from "../parts/Button";
import { Icon, type IconName } from "../parts/Icon";
import { joined } from "../parts/Membership";
import styles from "./Header.module.css";
import { useMe, useSession } from "./session";

export const isConnected = (m: MembershipView) => typeof m.link === "object" && "connected" in m.link;

/** How the site is connected, over all federations that it is in. */
function linkWords(t: TFunction, memberships: MembershipView[]): { words: string; isGood: boolean } {
  const [up, all] = [memberships.filter(isConnected).length, memberships.length];
  if (all === 0) return { words: t("shell.noFederation"), isGood: true };
  if (up === all) return { words: t("shell.connected"), isGood: true };
  if (memberships.every((m) => m.paused !== null)) return { words: t("shell.paused"), isGood: false };
  return { words: up === 0 ? t("shell.notConnected") : t("shell.partly", { up, all }), isGood: false };
}

/** How this site's own log is witnessed, federation by federation; what was seen before it left one stays seen. */
export function ownLog({ ledger, memberships }: Status): WitnessState[] {
  const own = new Set(memberships.map((m) => `${m.federation} ${m.site}`));
  return ledger.witnessed.filter((w) => own.has(`${w.federation} ${w.origin}`));
}

/** Whether something is wrong with it; else how far it is witnessed: settled in one federation is enough to tell a fork. */
function ledgerWords(t: TFunction, status: Status): { words: string; isGood: boolean } {
  if (status.ledger.finding) return { words: t("shell.ledgerAltered"), isGood: false };
  const own = ownLog(status);
  if (own.some((w) => w.settled)) return { words: t("shell.ledgerSettled"), isGood: true };
  const isSeen = own.some((w) => w.witnesses > 0);
  return { words: t(isSeen ? "shell.ledgerUnsettled" : "shell.ledger"), isGood: true };
}

interface ChipProps {
  icon: IconName;
  /** Where it leads; `null` where nobody may follow. */
  to: string | null;
  of: { words: string; isGood: boolean };
}

function Chip({ icon, to, of }: ChipProps) {
  const look = `${styles.chip} ${of.isGood ? "" : styles.attention}`;
  const inner = (
    <>
      <Icon name={icon} size={16} />
      {of.words}
    </>
  );
  return to === null ? (
    <span className={look}>{inner}</span>
  ) : (
    <Link href={to} className={look}>
      {inner}
    </Link>
  );
}

/** Where we are and who is here: site, link, ledger, person. */
export function Header() {
  const { t } = useTranslation();
  const { name, signOut } = useSession();
  const { inside } = useMe();
  const status = useAnswer("status", {});
  const memberships = joined(status.data?.memberships ?? []);
  const site = memberships[0]?.site_name ?? t("shell.thisSite");
  return (
    <header className={styles.header}>
      <strong className={styles.site}>{site}</strong>
      {status.data && (
        <>
          <Chip icon="link" to="/federations" of={linkWords(t, memberships)} />
          <Chip icon="audit" to={inside() ? "/audit" : null} of={ledgerWords(t, status.data)} />
        </>
      )}
      <span className={styles.person}>
        <Icon name="person" size={18} />
        <span className={styles.name} title={name ?? undefined}>
          {name}
        </span>
        <Button onPress={signOut}>{t("signIn.out")}</Button>
      </span>
    </header>
  );
}
