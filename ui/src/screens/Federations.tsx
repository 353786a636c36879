import { useTranslation } from "react-i18next";
import { Link, useLocation } from "wouter";
import { useAnswer } from "../ipc/hooks";
import type { MembershipView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Empty } from "../parts/Empty";
import { MembershipBadge, MembershipFacts } from "../parts/Membership";
import { Marked } from "../parts/Name";
import { Page } from "../parts/Page";
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
  return (
    <Card title={of.name} lead={of.url} beside={<MembershipBadge of={of} />}>
      <Marked of="federation">{of.name}</Marked>
      <MembershipFacts of={of} />
      <div className={styles.foot}>
        <Link href={`/federations/${of.federation}`}>{t("federations.open", { name: of.name })}</Link>
      </div>
    </Card>
  );
}
