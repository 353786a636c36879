import { QueryClient } from "@tanstack/react-query";
import { describe, expect, it, vi } from "vitest";
import { type Command, READS } from "../src/ipc/commands";
import { call, faultOf, onSessionEnded, reachBy } from "../src/ipc/engine";
import { becomesStale, GATHERED_MS, gatherer } from "../src/ipc/hooks";

function clientWith(...commands: Command[]) {
  const client = new QueryClient();
  for (const command of commands) client.setQueryData([command, {}], "old");
  const stale = () => commands.filter((c) => client.getQueryState([c, {}])?.isInvalidated);
  return { client, stale };
}

describe("a notice", () => {
  it("makes stale what reads it, and nothing else", async () => {
    const { client, stale } = clientWith("status", "jobs", "policy", "people");
    await becomesStale(client, new Set(["jobs"] as const));
    expect(stale()).toEqual(["status", "jobs"]);
  });

  it("of a run touches the runs that an approval has left, and any entry of the log the log's state", async () => {
    const { client, stale } = clientWith("status", "requests", "datasets", "people");
    await becomesStale(client, new Set(["jobs"] as const));
    expect(stale()).toEqual(["status", "requests"]);
    await becomesStale(client, new Set(["datasets"] as const));
    expect(stale()).toEqual(["status", "requests", "datasets"]);
  });

  it("that everything may have changed makes everything stale", async () => {
    const { client, stale } = clientWith("status", "jobs", "policy", "people");
    await becomesStale(client, new Set([null]));
    expect(stale()).toEqual(["status", "jobs", "policy", "people"]);
  });

  it("waits a moment for others, and touches everything that they touch together", () => {
    vi.useFakeTimers();
    const { client, stale } = clientWith("status", "jobs", "policy", "people");
    const hear = gatherer(client);
    for (const notice of ["jobs", "jobs", "settings"] as const) hear(notice);
    vi.advanceTimersByTime(GATHERED_MS - 1);
    expect(stale()).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(stale()).toEqual(["status", "jobs", "policy"]);
    hear("people");
    vi.advanceTimersByTime(GATHERED_MS);
    expect(stale()).toEqual(["status", "jobs", "policy", "people"]);
    vi.useRealTimers();
  });

  it("leaves alone what a person reads at their own pace", async () => {
    const client = new QueryClient();
    client.setQueryData(["entries", null], "old");
    await becomesStale(client, new Set([null]));
    expect(client.getQueryState(["entries", null])?.isInvalidated).toBe(false);
  });

  it("is read by every command that a screen keeps", () => {
    expect(Object.values(READS).every((notices) => notices.length > 0)).toBe(true);
  });
});

describe("a command", () => {
  it("that finds no session says so to who listens, and fails with its fault", async () => {
    const fault = { code: "no_session", words: "the session has ended; log in again" };
    reachBy({ call: () => Promise.reject(fault), subscribe: () => {} });
    const heard = vi.fn();
    const stop = onSessionEnded(heard);
    await expect(call("people", {})).rejects.toEqual(fault);
    expect(heard).toHaveBeenCalledOnce();
    stop();
    await expect(call("people", {})).rejects.toEqual(fault);
    expect(heard).toHaveBeenCalledOnce();
  });

  it("that breaks in another way is a fault all the same", () => {
    expect(faultOf(new Error("broken"))).toEqual({ code: "command", words: "broken" });
  });
});
