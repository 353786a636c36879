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
import { useEffect } from "react";
import { type Answer, type Args, CHANGES, type Command, READS } from "./commands";
import { call } from "./engine";
import type { AuditPage, AuditQuery, EgressView, Fault, JobView, Managed, Notice } from "./types";

declare module "@tanstack/react-query" {
  interface Register {
    defaultError: Fault;
  }
}

/** How long notices are gathered before screens ask again, in milliseconds: work in progress tells several a second. */
export const GATHERED_MS = 250;

/** Makes stale what some notices touch: the answers of commands that read them. `null` touches all. */
export function becomesStale(client: QueryClient, notices: ReadonlySet<Notice | null>): Promise<void> {
  return client.invalidateQueries({
    predicate: ({ queryKey }) => {
      // What reads nothing is not kept up to date.
      const reads = READS[queryKey[0] as Command];
      return reads !== undefined && (notices.has(null) || reads.some((notice) => notices.has(notice)));
    },
  });
}

/** What hears notices one by one and makes stale what those of a moment touch together. */
export function gatherer(client: QueryClient): (notice: Notice | null) => void {
  let gathered = new Set<Notice | null>();
  return (notice) => {
    if (gathered.size === 0) {
      setTimeout(() => {
        const all = gathered;
        gathered = new Set();
        void becomesStale(client, all);
      }, GATHERED_MS);
    }
    gathered.add(notice);
  };
}

/** The answer of a command, kept up to date by the engine's notices. */
export function useAnswer<C extends Command>(
  command: C,
  args: Args<C>,
  enabled = true,
): UseQueryResult<Answer<C>> {
  return useQuery({ queryKey: [command, args], queryFn: () => call(command, args), enabled });
}

/** Between two questions while the engine starts, and the longest wait for one answer, in milliseconds. */
export const STARTING_MS = 2_000;
const LATE = Symbol("no answer");

/** The answer of the window's own process, which is asked again where an answer is lost. */
async function askedAgain(): Promise<Answer<"about">> {
  for (;;) {
    const late = new Promise<typeof LATE>((done) => setTimeout(() => done(LATE), STARTING_MS));
    const answer = await Promise.race([call("about", {}), late]);
    if (answer !== LATE) return answer;
  }
}

/** Where the engine is. While it starts nothing else is shown, so this one answer is asked for on a timer, too: a notice
 * that is lost must not leave somebody before a start that was over long ago. */
export function useEngine(): UseQueryResult<Answer<"about">> {
  return useQuery({
    queryKey: ["about", {}],
    queryFn: askedAgain,
    refetchInterval: ({ state }) => (state.data?.engine === "starting" ? STARTING_MS : false),
    refetchIntervalInBackground: true,
  });
}

/** Between two questions how far a reading is, in milliseconds: it tells nobody by itself. */
const READING_MS = 500;

/** How far the file or query is read that this person waits for. It is asked for again and again as long as something is read,
 * or is expected to be. */
export function useReading(isExpected = true): UseQueryResult<Answer<"reading">> {
  return useQuery({
    queryKey: ["reading", {}],
    queryFn: () => call("reading", {}),
    refetchInterval: ({ state }) => (isExpected || state.data ? READING_MS : false),
    gcTime: 0,
  });
}

/** What the hospital's IT set; nothing until it is known, since the engine holds to it by itself. */
export function useManaged(): Partial<Managed> {
  return useAnswer("managed", {}).data ?? {};
}

/** An answer that shows what it was asked before until the next answer is there: for a question that is changed in place. */
export function useFollowing<C extends Command>(command: C, args: Args<C>): UseQueryResult<Answer<C>> {
  return useQuery({
    queryKey: [command, args],
    queryFn: () => call(command, args),
    placeholderData: keepPreviousData,
  });
}

/** A command that changes something; afterwards what it makes stale is asked again, which it does not wait for. */
export function useAction<C extends Command>(
  command: C,
  done?: (answer: Answer<C>) => void,
): UseMutationResult<Answer<C>, Fault, Args<C>> {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (args: Args<C>) => call(command, args),
    onSuccess: (answer) => {
      done?.(answer);
      void becomesStale(client, new Set<Notice | null>(CHANGES[command] ?? []));
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
export function useJobs(enabled = true) {
  return useInfiniteQuery({
    queryKey: ["jobs", "pages"],
    queryFn: ({ pageParam }) => call("jobs", { page: { skip: pageParam } }),
    initialPageParam: 0,
    getNextPageParam: (last: JobView[], pages: JobView[][]) => following(last, pages),
    enabled,
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

/** Rounds of a run that are asked for by themselves, for its curve; a run has some tens, seldom some hundreds. */
const MOST_ROUNDS = 1_000;

/** A run with all its rounds. */
export function useJob(job: string, enabled = true) {
  const query = useInfiniteQuery({
    queryKey: ["job", "pages", job],
    queryFn: ({ pageParam }) => call("job", { job, page: { skip: pageParam } }),
    initialPageParam: 0,
    getNextPageParam: (last: JobView, pages: JobView[]) => {
      const here = pages.reduce((sum, page) => sum + page.rounds.length, 0);
      return last.rounds.length > 0 && here < Math.min(last.rounds_in_all, MOST_ROUNDS) ? here : undefined;
    },
    select: ({ pages }) => {
      const [first] = pages;
      const rounds = pages.flatMap((page) => page.rounds).sort((a, b) => b.at - a.at);
      const comparisons = pages.flatMap((page) => page.comparisons);
      return first && { ...first, rounds, comparisons };
    },
    enabled,
  });
  const { hasNextPage, isFetching, fetchNextPage } = query;
  useEffect(() => {
    if (hasNextPage && !isFetching) void fetchNextPage();
  }, [hasNextPage, isFetching, fetchNextPage]);
  return query;
}

/** What a query asks of the audit log, page by page. It is not asked again by itself: entries never change, and a list
 * that is being read should not move. */
export function useAudit(query: AuditQuery) {
  return useInfiniteQuery({
    queryKey: ["entries", query],
    queryFn: ({ pageParam }) => call("audit", { query: { ...query, before: pageParam, limit: AUDIT_ITEMS } }),
    initialPageParam: query.before ?? null,
    getNextPageParam: (last: AuditPage) => last.next,
  });
}
