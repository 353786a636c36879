import { useQuery } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";
import { bytes } from "../i18n/format";
import { call } from "../ipc/engine";
import type { EgressView, JobView } from "../ipc/types";
import { FaultNotice } from "../parts/FaultNotice";

/** Pages of what left that are looked through for one run; a run is found near the top of them. */
const MOST_PAGES = 20;

interface Sent {
  bytes: number;
  /** Whether everything was looked through that can be of the run: otherwise more may have left. */
  isAll: boolean;
}

/** Looks through what left, newest first, until before the run began. */
async function sent(job: JobView): Promise<Sent> {
  let [sum, skip] = [0, 0];
  for (let page = 0; page < MOST_PAGES; page++) {
    const items: EgressView[] = await call("egress", { page: { skip } });
    for (const item of items) if (item.round.job === job.job && item.left !== null) sum += item.bytes;
    skip += items.length;
    const last = items.at(-1);
    if (last === undefined || last.at < job.since) return { bytes: sum, isAll: true };
  }
  return { bytes: sum, isAll: false };
}

/** Bytes of a run that were let go so far. */
export function BytesOut({ job }: { job: JobView }) {
  const { t } = useTranslation();
  const sum = useQuery({ queryKey: ["egress", "of", job.job], queryFn: () => sent(job) });
  if (sum.data === undefined) return sum.error === null ? "…" : <FaultNotice fault={sum.error} />;
  const words = bytes(sum.data.bytes);
  return (
    <>
      {sum.data.isAll ? words : t("jobs.atLeast", { bytes: words })}
      {/* What was counted before stays beside what went wrong since. */}
      <FaultNotice fault={sum.error} />
    </>
  );
}
