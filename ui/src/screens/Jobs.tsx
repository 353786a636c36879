import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { count, moment } from "../i18n/format";
import { useAnswer, useJobs } from "../ipc/hooks";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Empty } from "../parts/Empty";
import { Page } from "../parts/Page";
import { JobBadge } from "../parts/states";
import { Table } from "../parts/Table";
import { PauseNotice } from "./PauseNotice";

/** Runs of studies at this site, newest first. */
export function Jobs() {
  const { t } = useTranslation();
  const jobs = useJobs();
  const memberships = useAnswer("memberships", {});
  const status = useAnswer("status", {});
  const federation = (id: string) => memberships.data?.find((m) => m.federation === id)?.name ?? "";
  return (
    <Page title={t("jobs.title")} lead={t("jobs.lead")}>
      {status.data && <PauseNotice status={status.data} />}
      <Card isFlush>
        <Answered of={jobs}>
          {({ pages }) =>
            pages.flat().length === 0 ? (
              <Empty icon="jobs" title={t("jobs.empty")}>
                {t("jobs.emptyHelp")}
              </Empty>
            ) : (
              <Table
                label={t("jobs.title")}
                items={pages.flat()}
                id={(job) => job.job}
                columns={[
                  {
                    key: "title",
                    name: t("jobs.study"),
                    cell: (job) => <Link href={`/jobs/${job.job}`}>{job.title}</Link>,
                  },
                  {
                    key: "state",
                    name: t("jobs.state"),
                    cell: (job) => <JobBadge state={job.state} isPaused={job.paused != null} />,
                  },
                  {
                    key: "federation",
                    name: t("jobs.federation"),
                    cell: (job) => federation(job.federation),
                  },
                  {
                    key: "rounds",
                    name: t("jobs.rounds"),
                    isNumber: true,
                    cell: (job) => count(job.rounds_in_all),
                  },
                  { key: "since", name: t("jobs.since"), isWhole: true, cell: (job) => moment(job.since) },
                ]}
              />
            )
          }
        </Answered>
      </Card>
      {jobs.hasNextPage && (
        <div>
          <Button isPending={jobs.isFetchingNextPage} onPress={() => void jobs.fetchNextPage()}>
            {t("parts.more")}
          </Button>
        </div>
      )}
    </Page>
  );
}
