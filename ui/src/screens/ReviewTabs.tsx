import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import { bytes, count } from "../i18n/format";
import type { Review } from "../ipc/types";
import { Button } from "../parts/Button";
import { EgressList } from "../parts/EgressList";
import { Facts } from "../parts/Facts";
import { Known } from "../parts/Known";
import { LongText } from "../parts/LongText";
import { Name } from "../parts/Name";
import { Notice } from "../parts/Notice";
import { TrustBadge } from "../parts/states";
import { Table } from "../parts/Table";
import styles from "./Review.module.css";
import { StudyBudget } from "./StudyBudget";

interface Props {
  review: Review;
}

/** Safe project: who asks for what, and on which basis. */
export function Project({ review }: Props) {
  return <Facts facts={review.project} />;
}

/** Safe people: who asks, who takes part, and how their keys are known here. */
export function People({ review }: Props) {
  const { t } = useTranslation();
  return (
    <>
      <Facts facts={review.people.facts} />
      <h3>{t("review.peers")}</h3>
      <Known sites={review.people.peers} />
      {review.people.peers.length === 0 ? (
        <p>{t("review.noPeers")}</p>
      ) : (
        <Table
          label={t("review.peers")}
          items={review.people.peers}
          id={(peer) => peer.site}
          columns={[
            {
              key: "site",
              name: t("review.site"),
              cell: (peer) => (
                <Name of="site" marks={review.marks}>
                  {peer.name}
                </Name>
              ),
            },
            {
              key: "organisation",
              name: t("review.organisation"),
              cell: (peer) => (
                <Name of="organisation" marks={review.marks}>
                  {peer.organisation}
                </Name>
              ),
            },
            { key: "trust", name: t("review.key"), cell: (peer) => <TrustBadge trust={peer.trust} /> },
          ]}
        />
      )}
    </>
  );
}

/** Safe setting: where and how it runs, for how long, and what revocation stops. */
export function Setting({ review }: Props) {
  const { t } = useTranslation();
  return (
    <>
      <h3>{t("review.computation")}</h3>
      <ol className={styles.sentences}>
        {review.computation.map((sentence) => (
          <li key={sentence}>
            <LongText>{sentence}</LongText>
          </li>
        ))}
      </ol>
      <h3>{t("review.limits")}</h3>
      <Facts facts={review.settings} />
    </>
  );
}

/** Safe data: which dataset, which columns, how many patients. */
export function Data({ review }: Props) {
  const { t } = useTranslation();
  return (
    <>
      {review.data.columns_missing.length > 0 && (
        <Notice weight="danger" title={t("review.missing")}>
          <LongText>{review.data.columns_missing.join(", ")}</LongText>
        </Notice>
      )}
      <Facts facts={review.data.facts} />
      <h3>{t("review.columns", { count: review.data.columns_read.length })}</h3>
      <Columns review={review} />
    </>
  );
}

/** Columns that are shown before anybody asks for all of them. */
const FOLDED_COLUMNS = 200;

function Columns({ review }: Props) {
  const { t } = useTranslation();
  const [isOpen, setOpen] = useState(false);
  const all = review.data.columns_read;
  return (
    <>
      <ul className={styles.columns}>
        {(isOpen ? all : all.slice(0, FOLDED_COLUMNS)).map((column) => (
          <li key={column}>
            <Name of="column" marks={review.marks}>
              {column}
            </Name>
          </li>
        ))}
      </ul>
      {all.length > FOLDED_COLUMNS && (
        <div>
          <Button kind="quiet" aria-expanded={isOpen} onPress={() => setOpen(!isOpen)}>
            {isOpen ? t("parts.showLess") : t("review.allColumns", { all: count(all.length) })}
          </Button>
        </div>
      )}
    </>
  );
}

/** Safe output: every item that leaves, its size, how often, to whom, and what protects it. */
export function Output({ review }: Props) {
  const { t } = useTranslation();
  const { outputs } = review;
  return (
    <>
      <p className={styles.summary}>
        {t("review.leaves", {
          count: outputs.items.length,
          perRun: bytes(outputs.bytes_per_run),
          inAll: bytes(outputs.bytes_in_all),
        })}
      </p>
      <div className={styles.sentences}>
        {outputs.sentences.map((sentence) => (
          <Notice key={sentence} weight="attention">
            <Engine>{sentence}</Engine>
          </Notice>
        ))}
      </div>
      {review.privacy !== null && <StudyBudget budget={review.privacy} />}
      <EgressList outputs={outputs} />
    </>
  );
}
