// Which entries of the audit log a person asks for, as they said it and as the engine is asked.
import type { AuditQuery } from "../ipc/types";

/** What happened, by what it is about; names of the ledger's closed list. */
export const TOPICS = {
  approvals: [
    "request_received",
    "request_refused",
    "study_withdrawn",
    "opinion_given",
    "approval_signed",
    "approval_countersigned",
    "approval_suspended",
    "approval_resumed",
    "approval_revoked",
    "approval_expired",
    "approval_superseded",
    "dry_run",
  ],
  egress: [
    "update_prepared",
    "update_leaving",
    "update_sent",
    "update_receipt",
    "update_withdrawn",
    "sum_agreed",
  ],
  runs: [
    "permit_minted",
    "permit_refused",
    "job_started",
    "job_ended",
    "job_cancelled",
    "round_opened",
    "round_closed",
    "training_started",
    "training_finished",
    "training_failed",
    "training_paused",
    "training_resumed",
    "training_cancelled",
    "model_received",
    "model_evaluated",
    "model_used",
    "model_exported",
    "results_released",
  ],
  data: [
    "dataset_registered",
    "dataset_changed",
    "dataset_removed",
    "opt_outs_changed",
    "database_tried",
    "database_queried",
  ],
  access: ["login_succeeded", "login_failed", "logout", "role_refused"],
  people: ["person_added", "person_changed", "roles_changed", "key_made", "key_replaced", "setup_ended"],
  rules: [
    "policy_changed",
    "settings_changed",
    "token_made",
    "token_revoked",
    "break_glass",
    "break_glass_ended",
  ],
  federation: [
    "enrolled",
    "federation_left",
    "certificate_issued",
    "certificate_renewed",
    "certificate_revoked",
    "site_suspended",
    "site_resumed",
    "site_revoked",
    "roster_changed",
    "peer_verified",
    "peer_revoked",
    "peer_vouched",
    "peer_refused",
    "control_summary",
  ],
  log: ["audit_viewed", "audit_exported", "audit_erased", "witness_first", "witness_failed", "witness_late"],
  machine: [
    "engine_started",
    "engine_stopped",
    "update_installed",
    "clock_anomaly",
    "backup_made",
    "backup_restored",
  ],
} as const satisfies Record<string, readonly string[]>;

export type Topic = keyof typeof TOPICS;

const PARTS = [
  "what",
  "outcome",
  "actor",
  "study",
  "job",
  "approval",
  "dataset",
  "since",
  "until",
  "entry",
] as const;

/** What was chosen and typed, in words; what is left out filters nothing. `what` is an action or `topic.` and a topic. */
export type AuditFilter = { [part in (typeof PARTS)[number]]?: string };

const DAY = /^(\d{4})-(\d{2})-(\d{2})(?:[ T](\d{2}):(\d{2}))?$/;

/** A day, or a day and a time, of this machine's clock; `null` if it is none. A day alone ends with its last moment. */
export function momentOf(text: string, isEnd: boolean): number | null {
  const [, ...found] = DAY.exec(text.trim()) ?? [];
  if (found.length === 0) return null;
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0] = found.map((part) => Number(part ?? 0));
  const at = new Date(year, month - 1, day, hour, minute);
  // 31 June is no day, and a Date would take it for 1 July.
  const isReal = at.getMonth() === month - 1 && at.getDate() === day && hour < 24 && minute < 60;
  if (!isReal) return null;
  return isEnd && found[3] === undefined ? new Date(year, month - 1, day + 1).getTime() : at.getTime();
}

/** The number of an entry; `null` if it is none. */
export function entryOf(text: string): number | null {
  return /^\d{1,15}$/.test(text.trim()) ? Number(text) : null;
}

/** What the engine is asked for a filter. */
export function queryOf(filter: AuditFilter): AuditQuery {
  const query: AuditQuery = {};
  if (filter.what) {
    const topic = TOPICS[filter.what.replace(/^topic\./, "") as Topic];
    query.actions = topic === undefined ? [filter.what] : [...topic];
  }
  if (filter.outcome) query.outcome = filter.outcome;
  if (filter.actor) query.actor = filter.actor;
  if (filter.study) query.study = filter.study;
  if (filter.job) query.job = filter.job;
  if (filter.approval) query.approval = filter.approval;
  if (filter.dataset) query.dataset = filter.dataset;
  const since = momentOf(filter.since ?? "", false);
  if (since !== null) query.from = since;
  const until = momentOf(filter.until ?? "", true);
  if (until !== null) query.until = until;
  const entry = entryOf(filter.entry ?? "");
  if (entry !== null) query.before = entry + 1;
  return query;
}

/** A filter without what is empty. */
export function tidied(filter: AuditFilter): AuditFilter {
  return Object.fromEntries(
    PARTS.flatMap((part) => {
      const text = filter[part]?.trim();
      return text ? [[part, text]] : [];
    }),
  );
}

/** A filter that was kept with the place in the history, whatever else is there. */
export function kept(state: unknown): AuditFilter {
  if (typeof state !== "object" || state === null) return {};
  const texts = Object.entries(state).filter(([, text]) => typeof text === "string");
  return tidied(Object.fromEntries(texts));
}
