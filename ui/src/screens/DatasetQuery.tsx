import { useTranslation } from "react-i18next";
import { useLocation } from "wouter";
import { useAction } from "../ipc/hooks";
import type { DatasetView, QueryView } from "../ipc/types";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Facts } from "../parts/Facts";
import { useMe } from "../shell/session";
import { UnderReading, Unread } from "./UnderReading";

interface Props {
  dataset: DatasetView;
  query: QueryView;
}

/** The query that gave a dataset's rows; a server can be asked again for the next version. */
export function DatasetQuery({ dataset, query }: Props) {
  const { t } = useTranslation();
  const [, go] = useLocation();
  const { may } = useMe();
  const again = useAction("read_again", ({ id }) => go(`/datasets/${id}`));
  const canAsk = query.on_server && may("data_steward");
  return (
    <Card
      title={t("database.fromQuery")}
      {...(canAsk && { lead: t("database.againHelp") })}
      beside={
        canAsk && (
          <Button isPending={again.isPending} onPress={() => again.mutate({ dataset: dataset.id })}>
            {t("database.again")}
          </Button>
        )
      }
    >
      <Facts
        isOurs
        facts={[
          { label: t("database.from"), value: query.database },
          { label: t("database.query"), value: query.text },
        ]}
      />
      <UnderReading words={t("register.freezing")} isOn={again.isPending} />
      <Unread fault={again.error} />
    </Card>
  );
}
