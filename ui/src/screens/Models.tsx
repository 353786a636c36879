import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { moment } from "../i18n/format";
import { useJobs } from "../ipc/hooks";
import type { JobView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Badge } from "../parts/Badge";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { DigestChip } from "../parts/DigestChip";
import { Empty } from "../parts/Empty";
import { Page } from "../parts/Page";
import { Table } from "../parts/Table";
import { useMe } from "../shell/session";

/** Whether a run has something to show here. */
const hasResult = (job: JobView) => job.model !== null || job.held || job.released !== null;

/** Models that runs ended with, and whether this site released them. */
export function Models() {
  const { t } = useTranslation();
  const jobs = useJobs();
  return (
    <Page title={t("models.title")} lead={t("models.lead")}>
      <Card isFlush>
        <Answered of={jobs}>
          {({ pages }) => {
            const found = pages.flat().filter(hasResult);
            return found.length === 0 ? (
              <Empty icon="models" title={t("models.empty")}>
                {t("models.emptyHelp")}
              </Empty>
            ) : (
              <ModelTable jobs={found} />
            );
          }}
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

function ModelTable({ jobs }: { jobs: JobView[] }) {
  const { t } = useTranslation();
  return (
    <Table
      label={t("models.title")}
      items={jobs}
      id={(job) => job.job}
      columns={[
        {
          key: "title",
          name: t("jobs.study"),
          cell: (job) => <Link href={`/models/${job.job}`}>{job.title}</Link>,
        },
        { key: "release", name: t("models.release"), cell: (job) => <ReleaseBadge job={job} /> },
        { key: "since", name: t("jobs.since"), isWhole: true, cell: (job) => moment(job.since) },
        {
          key: "model",
          name: t("models.digest"),
          cell: (job) => job.model && <DigestChip digest={job.model} of={t("models.digest")} isShort />,
        },
      ]}
    />
  );
}

/** Whether results may be used outside; who is asked to release them is a person of this organisation. */
export function ReleaseBadge({ job }: { job: JobView }) {
  const { t } = useTranslation();
  const { inside } = useMe();
  if (job.held) return inside() ? <Badge tone="held">{t("models.held")}</Badge> : null;
  if (job.released !== null) return <Badge tone="done">{t("models.released")}</Badge>;
  return <Badge tone="calm">{t("models.nothingHeld")}</Badge>;
}
