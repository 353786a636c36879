import { useTranslation } from "react-i18next";
import { named } from "../i18n/engine";
import type {
  JobState,
  LinkView,
  LogLevel,
  PolicyEffect,
  RequestState,
  RoundState,
  TaskState,
  Trust,
} from "../ipc/types";
import { Badge, type Tone } from "./Badge";

const REQUEST: Record<RequestState, Tone> = {
  received: "waits",
  under_review: "waits",
  partly_approved: "waits",
  active: "live",
  suspended: "held",
  revoked: "ended",
  expired: "ended",
  refused: "ended",
  withdrawn: "ended",
};

/** State of a request or of its approval. */
export function RequestBadge({ state }: { state: RequestState }) {
  useTranslation();
  return <Badge tone={REQUEST[state] ?? "calm"}>{named("words.request", state)}</Badge>;
}

/** State of an approval by its name in the engine, which knows one more than requests have. */
export function ApprovalBadge({ state }: { state: string }) {
  useTranslation();
  const tones: Record<string, Tone> = { ...REQUEST, superseded: "ended" };
  return <Badge tone={tones[state] ?? "calm"}>{named("words.request", state)}</Badge>;
}

const JOB: Record<JobState, Tone> = {
  ready: "calm",
  waiting: "calm",
  running: "live",
  success: "done",
  failed: "bad",
  timeout: "bad",
  cancelled: "ended",
};

/** State of a run; of one that this site's people paused, that. */
export function JobBadge({ state, isPaused = false }: { state: JobState; isPaused?: boolean }) {
  const { t } = useTranslation();
  if (isPaused) return <Badge tone="held">{t("jobs.paused")}</Badge>;
  return <Badge tone={JOB[state] ?? "calm"}>{named("words.job", state)}</Badge>;
}

const ROUND: Record<RoundState, Tone> = {
  offered: "calm",
  working: "live",
  committed: "live",
  acknowledged: "live",
  published: "done",
  abandoned: "ended",
  refused: "ended",
  failed: "bad",
  withdrawn: "ended",
};

/** State of a round. */
export function RoundBadge({ state }: { state: RoundState }) {
  useTranslation();
  return <Badge tone={ROUND[state] ?? "calm"}>{named("words.round", state)}</Badge>;
}

export const TASK: Record<TaskState, Tone> = {
  waiting: "calm",
  working: "live",
  done: "done",
  failed: "bad",
  skipped: "ended",
};

/** State of a task of a run's plan. */
export function TaskBadge({ state }: { state: TaskState }) {
  useTranslation();
  return <Badge tone={TASK[state] ?? "calm"}>{named("words.task", state)}</Badge>;
}

const LEVEL: Record<LogLevel, Tone> = { info: "calm", warning: "waits", error: "bad" };

/** How much a line of a log matters. */
export function LevelBadge({ level }: { level: LogLevel }) {
  useTranslation();
  return <Badge tone={LEVEL[level] ?? "calm"}>{named("words.level", level)}</Badge>;
}

const EFFECT: Record<PolicyEffect, Tone> = { loosens: "waits", tightens: "done", neither: "calm" };

/** What one change of a policy does. */
export function EffectBadge({ effect }: { effect: PolicyEffect }) {
  useTranslation();
  return <Badge tone={EFFECT[effect] ?? "calm"}>{named("words.effect", effect)}</Badge>;
}

const TRUST: Record<Trust, Tone> = { verified_here: "done", vouched_for: "calm", asserted_only: "waits" };

/** How far this site trusts another site's key. */
export function TrustBadge({ trust }: { trust: Trust }) {
  useTranslation();
  return <Badge tone={TRUST[trust] ?? "waits"}>{named("words.trust", trust)}</Badge>;
}

/** State of the link to a coordinator. */
export function LinkBadge({ link, isPaused }: { link: LinkView; isPaused: boolean }) {
  const { t } = useTranslation();
  if (isPaused) return <Badge tone="held">{t("words.link.paused")}</Badge>;
  if (link === "idle") return <Badge tone="calm">{t("words.link.idle")}</Badge>;
  if ("connected" in link) return <Badge tone="live">{t("words.link.connected")}</Badge>;
  return <Badge tone="waits">{t("words.link.disconnected")}</Badge>;
}

/** State of something that leaves; the engine writes ", may have arrived" behind it where nobody can know. */
export function LeavingBadge({ state }: { state: string }) {
  useTranslation();
  const key = state.replace(", may have arrived", "_perhaps");
  const tones: Record<string, Tone> = {
    waiting: "waits",
    sent: "done",
    withdrawn: "ended",
    refused: "ended",
  };
  return <Badge tone={tones[key] ?? "held"}>{named("words.leaving", key)}</Badge>;
}
