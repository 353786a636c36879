import { useTranslation } from "react-i18next";
import { day, list } from "../i18n/format";
import { useAnswer } from "../ipc/hooks";
import type { WayView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Card } from "../parts/Card";
import { Empty } from "../parts/Empty";
import { Facts } from "../parts/Facts";
import { Notice } from "../parts/Notice";
import { useMe } from "../shell/session";
import { WayForm } from "./WayForm";

/** How this machine reaches each coordinator: proxy and the network's own certificates, and the way to change them. */
export function Network() {
  const { t } = useTranslation();
  const ways = useAnswer("ways", {});
  return (
    <Answered of={ways}>
      {(all) =>
        all.length === 0 ? (
          <Card>
            <Empty icon="link" title={t("federations.empty")}>
              {t("network.emptyHelp")}
            </Empty>
          </Card>
        ) : (
          all.map((way) => <Way key={way.federation} way={way} />)
        )
      }
    </Answered>
  );
}

function Way({ way }: { way: WayView }) {
  const { t } = useTranslation();
  const { may } = useMe();
  const { proxy, has_credentials, authorities } = way;
  const named = proxy !== null && has_credentials ? t("network.withPassword", { proxy }) : proxy;
  const until = authorities.map(({ name, until }) => t("network.until", { name, until: day(until) }));
  return (
    <Card title={way.name} lead={t("network.lead", { url: way.url })}>
      <Facts
        isOurs
        facts={[
          { label: t("network.proxy"), value: named ?? t("network.asSet") },
          { label: t("network.certificates"), value: list(until) || t("network.none") },
        ]}
      />
      {may("administrator") ? <WayForm way={way} /> : <Notice>{t("machine.needs")}</Notice>}
    </Card>
  );
}
