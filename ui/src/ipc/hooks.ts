import {
  keepPreviousData,
  type QueryClient,
  type UseMutationResult,
  type UseQueryResult,
  useInfiniteQuery,
  useMutation,
  useQuery,
  useQueryClient,
} from "@tanstack/react-query";
import { type Answer, type Args, type Command, READS } from "./commands";
import { call } from "./engine";
import type { AuditPage, EgressView, Fault, JobView, Notice } from "./types";

declare module "@tanstack/react-query" {
  interface Register {
    defaultError: Fault;
  }
}

/** Makes stale what a notice touches: the queries of commands that read it. */
export function becomesStale(client: QueryClient, notice: Notice | null): Promise<void> {
  return client.invalidateQueries({
    predicate: ({ queryKey }) =>
      notice === null || (READS[queryKey[0] as Command]?.includes(notice) ?? false),
  });
}

/** The answer of a command, kept up to date by the engine's notices. */
export function useAnswer<C extends Command>(
  command: C,
  args: Args<C>,
  enabled = true,
): UseQueryResult<Answer<C>> {
  return useQuery({ queryKey: [command, args], queryFn: () => call(command, args), enabled });
}

/** The same, which shows what it was asked before until the next answer is there: for a question that is changed in place. */
export function useFollowing<C extends Command>(command: C, args: Args<C>): UseQueryResult<Answer<C>> {
  return useQuery({
    queryKey: [command, args],
    queryFn: () => call(command, args),
    placeholderData: keepPreviousData,
  });
}

/** A command that changes something; afterwards everything is asked again. */
export function useAction<C extends Command>(
  command: C,
  done?: (answer: Answer<C>) => void,
): UseMutationResult<Answer<C>, Fault, Args<C>> {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (args: Args<C>) => call(command, args),
    onSuccess: (answer) => {
      done?.(answer);
      return client.invalidateQueries();
    },
  });
}

/** Items of a page of jobs or of what left; `PAGE_ITEMS` of the engine. */
const PAGE_ITEMS = 50;
/** Entries of the audit log that are asked for at once. */
const AUDIT_ITEMS = 200;

const following = (last: unknown[], pages: unknown[][]) =>
  last.length < PAGE_ITEMS ? undefined : pages.reduce((sum, page) => sum + page.length, 0);

/** All runs, page by page. */
export function useJobs() {
  return useInfiniteQuery({
    queryKey: ["jobs", "pages"],
    queryFn: ({ pageParam }) => call("jobs", { page: { skip: pageParam } }),
    initialPageParam: 0,
    getNextPageParam: (last: JobView[], pages: JobView[][]) => following(last, pages),
  });
}

/** Everything that ever left, page by page. */
export function useEgress() {
  return useInfiniteQuery({
    queryKey: ["egress", "pages"],
    queryFn: ({ pageParam }) => call("egress", { page: { skip: pageParam } }),
    initialPageParam: 0,
    getNextPageParam: (last: EgressView[], pages: EgressView[][]) => following(last, pages),
  });
}

/** The audit log from an entry downwards, page by page. */
export function useAudit(from: number | null) {
  return useInfiniteQuery({
    queryKey: ["audit", "pages", from],
    queryFn: ({ pageParam }) => call("audit", { query: { before: pageParam, limit: AUDIT_ITEMS } }),
    initialPageParam: from === null ? null : from + 1,
    getNextPageParam: (last: AuditPage): number | undefined => {
      const lowest = last.entries.at(-1)?.sequence;
      return lowest === undefined || lowest === 0 ? undefined : lowest;
    },
  });
}
