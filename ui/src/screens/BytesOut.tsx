import { useQuery } from "@tanstack/react-query";
import { bytes } from "../i18n/format";
import { call } from "../ipc/engine";
import type { EgressView, JobView } from "../ipc/types";

/** Pages of what left that are looked through for one run; a run is found near the top of them. */
const MOST_PAGES = 20;

/** Looks through what left, newest first, until before the run began. */
async function sent(job: JobView): Promise<number> {
  let [sum, skip] = [0, 0];
  for (let page = 0; page < MOST_PAGES; page++) {
    const items: EgressView[] = await call("egress", { page: { skip } });
    for (const item of items) if (item.round.job === job.job && item.left !== null) sum += item.bytes;
    skip += items.length;
    const last = items.at(-1);
    if (last === undefined || last.at < job.since) break;
  }
  return sum;
}

/** Bytes of a run that were let go so far. */
export function BytesOut({ job }: { job: JobView }) {
  const sum = useQuery({ queryKey: ["egress", "of", job.job], queryFn: () => sent(job) });
  return <>{sum.data === undefined ? "…" : bytes(sum.data)}</>;
}
