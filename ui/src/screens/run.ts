import { useJob, useJobs } from "../ipc/hooks";
import { useMe } from "../shell/session";

/** A run as far as this person may see it: with what it found on this site's rows, or as the list of runs has it. */
export function useRun(id: string) {
  const { person, maySee } = useMe();
  const seen = useJob(id, maySee);
  const { data, error, isPending } = useJobs();
  if (maySee) return { data: seen.data, error: seen.error, isPending: seen.isPending, maySee };
  const listed = data?.pages.flat().find((job) => job.job === id);
  return { data: listed, error, isPending: isPending || person === undefined, maySee };
}
