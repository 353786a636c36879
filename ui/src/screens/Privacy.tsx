import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { lines } from "../charts/options";
import { brief, count, day, decimal, list, moment } from "../i18n/format";
import { useAnswer } from "../ipc/hooks";
import type { PoolPoint, PoolStudy, PoolView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { BudgetBar } from "../parts/BudgetBar";
import { Card } from "../parts/Card";
import { Empty } from "../parts/Empty";
import { Figure } from "../parts/Figure";
import { Notice } from "../parts/Notice";
import { Page } from "../parts/Page";
import { type Column, Table } from "../parts/Table";
import styles from "./Privacy.module.css";

/** The least that the axis of time shows, in milliseconds: a single point has no length. */
const SHORTEST_MS = 3_600_000;

/** What people call a pool: its datasets, or that all of them were removed. */
export function poolName({ datasets }: PoolView, removed: string): string {
  return datasets.length === 0 ? removed : list(datasets);
}

/** The site's own privacy ledger: what was released of its patients, over all studies and federations. */
export function Privacy() {
  const { t } = useTranslation();
  const pools = useAnswer("privacy", {});
  return (
    <Page title={t("privacy.title")} lead={t("privacy.lead")}>
      <Answered of={pools}>
        {(all) =>
          all.length === 0 ? (
            <Card>
              <Empty icon="privacy" title={t("privacy.empty")}>
                {t("privacy.emptyHelp")}
              </Empty>
            </Card>
          ) : (
            all.map((pool) => <Pool key={pool.id} pool={pool} />)
          )
        }
      </Answered>
    </Page>
  );
}

function Pool({ pool }: { pool: PoolView }) {
  const { t } = useTranslation();
  const { account } = pool;
  return (
    <Card title={poolName(pool, t("privacy.removed"))} lead={t("review.patients", { count: pool.patients })}>
      <BudgetBar account={account} />
      {account.unprotected > 0 && (
        <Notice weight="attention">{t("privacy.unprotected", { count: account.unprotected })}</Notice>
      )}
      {account.lost !== null && (
        <Notice weight="attention">{t("privacy.lost", { at: moment(account.lost) })}</Notice>
      )}
      {pool.studies.length === 0 ? (
        <p>{t("privacy.nothing")}</p>
      ) : (
        <>
          <div className={styles.figures}>
            <OverTime pool={pool} />
          </div>
          <h3>{t("privacy.byStudy")}</h3>
          <Studies studies={pool.studies} />
        </>
      )}
    </Card>
  );
}

/** How the account went: what was spent, and what nothing bounds, each where there is any. */
function OverTime({ pool }: { pool: PoolView }) {
  const { t } = useTranslation();
  const last = pool.points.at(-1);
  const [first] = pool.points;
  if (first === undefined || last === undefined) return null;
  const span = { from: day(first.at), to: day(last.at) };
  const most = pool.account.epsilon;
  return (
    <>
      {last.spent > 0 && (
        <Course
          title={t("privacy.overTime")}
          caption={t("privacy.overTimeCaption", {
            ...span,
            spent: decimal(last.spent, 2),
            most: brief(most),
          })}
          axis={t("privacy.soFar")}
          points={pool.points}
          value={(point) => point.spent}
          shown={(value) => decimal(value, 2)}
          most={most}
        />
      )}
      {last.unprotected > 0 && (
        <Course
          title={t("privacy.bareOverTime")}
          caption={t("privacy.bareOverTimeCaption", {
            ...span,
            releases: count(last.unprotected),
            study: last.title,
          })}
          axis={t("privacy.bare")}
          points={pool.points}
          value={(point) => point.unprotected}
          shown={count}
        />
      )}
    </>
  );
}

interface CourseProps {
  title: string;
  caption: string;
  axis: string;
  points: PoolPoint[];
  value: (point: PoolPoint) => number;
  shown: (value: number) => string;
  /** A line that should not be crossed. */
  most?: number;
}

function Course({ title, caption, axis, points, value, shown, most }: CourseProps) {
  const { t, i18n } = useTranslation();
  const { language } = i18n;
  const option = useMemo(() => {
    const from = points[0]?.at ?? 0;
    const to = Math.max(points.at(-1)?.at ?? 0, from + SHORTEST_MS);
    const ends = most === undefined ? [] : [from, to].map((x) => ({ x, y: most }));
    return lines(
      [
        ...(most === undefined ? [] : [{ name: t("privacy.most"), points: ends, isBaseline: true }]),
        { name: "", points: points.map((p) => ({ x: p.at, y: value(p) })), hasDots: points.length < 30 },
      ],
      { name: t("privacy.time"), min: from, max: to, format: day },
      { name: axis, min: 0, format: shown },
    );
    // `value` and `shown` are the same for the same axis.
  }, [points, axis, most, language]);
  const columns: Column<PoolPoint>[] = [
    { key: "at", name: t("privacy.time"), isWhole: true, cell: (point) => moment(point.at) },
    { key: "study", name: t("datasets.useStudy"), cell: (point) => point.title },
    { key: "task", name: t("privacy.task"), cell: (point) => point.task },
    { key: "value", name: axis, isNumber: true, cell: (point) => shown(value(point)) },
  ];
  return (
    <Figure
      title={title}
      caption={caption}
      option={option}
      columns={columns}
      items={points}
      id={(point) => `${point.at} ${point.title} ${point.task} ${point.spent} ${point.unprotected}`}
    />
  );
}

function Studies({ studies }: { studies: PoolStudy[] }) {
  const { t } = useTranslation();
  const epsilon = (value: number | null) => (value === null ? "–" : decimal(value, 3));
  return (
    <>
      <Table
        label={t("privacy.byStudy")}
        items={studies}
        id={(study) => study.study}
        columns={[
          {
            key: "study",
            name: t("datasets.useStudy"),
            cell: (study) => <Link href={`/requests/${study.study}`}>{study.title}</Link>,
          },
          { key: "federation", name: t("datasets.useFederation"), cell: (study) => study.federation_name },
          { key: "from", name: t("datasets.useFrom"), isWhole: true, cell: (study) => day(study.first) },
          { key: "until", name: t("datasets.useUntil"), isWhole: true, cell: (study) => day(study.last) },
          {
            key: "bounded",
            name: t("privacy.bounded"),
            isNumber: true,
            cell: (study) => count(study.bounded),
          },
          { key: "epsilon", name: t("privacy.epsilon"), isNumber: true, cell: (s) => epsilon(s.epsilon) },
          { key: "renyi", name: t("privacy.renyi"), isNumber: true, cell: (study) => epsilon(study.renyi) },
          {
            key: "bare",
            name: t("privacy.bare"),
            isNumber: true,
            cell: (study) => count(study.unprotected),
          },
        ]}
      />
      <p>{t("privacy.howCounted")}</p>
    </>
  );
}
