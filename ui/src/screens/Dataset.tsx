import type { TFunction } from "i18next";
import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { count, list, moment } from "../i18n/format";
import { useAnswer } from "../ipc/hooks";
import type { DatasetView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Card } from "../parts/Card";
import { DigestChip } from "../parts/DigestChip";
import { Notice } from "../parts/Notice";
import { Page } from "../parts/Page";
import { Sections } from "../parts/Sections";
import { useMe } from "../shell/session";
import { Columns } from "./Columns";
import { DatasetQuery } from "./DatasetQuery";
import { DatasetUses } from "./DatasetUses";
import { RemoveDataset } from "./RemoveDataset";
import styles from "./ReportCard.module.css";
import { TermsOfUse } from "./TermsOfUse";

/** A dataset: what it holds, for what it may be used, which studies used it, and its versions. */
export function Dataset({ id }: { id: string }) {
  const { t } = useTranslation();
  const datasets = useAnswer("datasets", {});
  const dataset = datasets.data?.find((d) => d.id === id);
  return (
    <Page
      title={dataset?.name ?? t("datasets.one")}
      lead={dataset && t("datasets.frozenAt", { at: moment(dataset.at) })}
      back={{ to: "/datasets", words: t("datasets.all") }}
      beside={dataset && <RemoveDataset dataset={dataset} />}
    >
      <Answered of={datasets}>
        {(all) =>
          dataset === undefined ? (
            <Notice weight="attention">{t("shell.notHereHelp")}</Notice>
          ) : (
            <>
              <Numbers dataset={dataset} />
              <Parts dataset={dataset} all={all} />
            </>
          )
        }
      </Answered>
    </Page>
  );
}

function Numbers({ dataset }: { dataset: DatasetView }) {
  const { t } = useTranslation();
  const numbers: [string, number][] = [
    [t("datasets.patients"), dataset.subjects_left],
    [t("datasets.optedOut"), dataset.subjects - dataset.subjects_left],
    [t("datasets.rows"), dataset.rows],
    [t("datasets.columns"), dataset.columns.length],
    [t("datasets.version"), dataset.version],
  ];
  return (
    <Card>
      <dl className={styles.numbers}>
        {numbers.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd className={styles.value}>{count(value)}</dd>
          </div>
        ))}
        <div>
          <dt>{t("datasets.snapshot")}</dt>
          <dd>
            <DigestChip digest={dataset.snapshot} of={t("datasets.snapshot")} isShort />
          </dd>
        </div>
      </dl>
      <p>{t("datasets.markers", { markers: list([t("register.emptyCell"), ...dataset.missing]) })}</p>
      {dataset.public && <Notice weight="attention">{t("datasets.publicHelp")}</Notice>}
    </Card>
  );
}

/** Which version it is, and what became of the one before. */
function versionWords(t: TFunction, { version }: DatasetView, hasFormer: boolean): string {
  if (version === 1) return t("datasets.isFirst");
  return hasFormer
    ? t("datasets.isVersion", { count: version })
    : t("datasets.isVersionAlone", { number: count(version) });
}

function Parts({ dataset, all }: { dataset: DatasetView; all: DatasetView[] }) {
  const { t } = useTranslation();
  const { maySee } = useMe();
  const former = all.find((d) => d.id === dataset.former);
  return (
    <Sections
      label={t("datasets.parts")}
      sections={[
        {
          id: "columns",
          name: t("datasets.profile"),
          content: <Columns dataset={dataset} mayLook={maySee} />,
        },
        {
          id: "terms",
          name: t("datasets.terms"),
          content: <TermsOfUse dataset={dataset} />,
        },
        {
          id: "uses",
          name: t("datasets.uses"),
          content: <DatasetUses dataset={dataset.id} />,
        },
        {
          id: "versions",
          name: t("datasets.versions"),
          content: (
            <>
              <Card>
                <p>{versionWords(t, dataset, former !== undefined)}</p>
                {former && <Link href={`/datasets/${former.id}`}>{former.name}</Link>}
              </Card>
              {dataset.query && <DatasetQuery dataset={dataset} query={dataset.query} />}
            </>
          ),
        },
      ]}
    />
  );
}
