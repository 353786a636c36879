// What the engine answers with; the Rust side is `hospes_party::view`.

export type Notice =
  | "people"
  | "datasets"
  | "federations"
  | "requests"
  | "jobs"
  | "egress"
  | "audit"
  | "settings"
  | "alarm";

export interface Status {
  phase: "empty" | "set_up" | "operating";
  software: string;
  at: number;
  stopped: string | null;
  policy: string;
  public_data: boolean;
  memberships: Membership[];
  waiting: number;
  working: number;
  outbox: number;
  ledger: { entries: number; root: string; witnessed: Witnessed[] };
  alarms: { id: number; at: number; words: string }[];
}

export interface Membership {
  federation: string;
  name: string;
  site_name: string;
  link: { connected: { since: number } } | { disconnected: { reason: string; retry_at: number } } | "idle";
}

export interface Witnessed {
  federation: string;
  origin: string;
  size: number;
  witnesses: number;
  settled: boolean;
  words: string;
}

export type RequestState =
  | "received"
  | "under_review"
  | "partly_approved"
  | "active"
  | "suspended"
  | "revoked"
  | "expired"
  | "refused"
  | "withdrawn";

export interface RequestLine {
  study: string;
  federation_name: string;
  title: string;
  requester: string;
  received: number;
  state: RequestState;
  expires: number | null;
}

export interface Fact {
  label: string;
  value: string | null;
}

export interface EgressItem {
  task: string;
  kind: string;
  name: string;
  shape: number[];
  bytes: number;
  times: number;
  to: string;
}

export interface Review {
  study: string;
  study_digest: string;
  plan_digest: string;
  banners: string[];
  title: string;
  summary: string;
  state: RequestState;
  project: Fact[];
  people: { facts: Fact[]; peers: { site: string; name: string; organisation: string; trust: Trust }[] };
  settings: Fact[];
  data: { facts: Fact[]; columns_read: string[]; columns_missing: string[]; candidates: string[] };
  outputs: {
    items: EgressItem[];
    runs: number;
    bytes_per_run: number;
    bytes_in_all: number;
    sentences: string[];
  };
  computation: string[];
  findings: { rule: string; refuses: boolean; words: string }[];
  changes: { place: string; before: string | null; after: string | null }[] | null;
  opinion: { by: string; at: number; view: string; text: string } | null;
  signatures: { by: string; role: string; at: number }[];
  approval_digest: string | null;
  approvable: boolean;
}

export type Trust = "asserted_only" | "vouched_for" | "verified_here";

export interface AuditPage {
  entries: {
    sequence: number;
    at: number;
    actor: string;
    action: string;
    outcome: string;
    detail: string;
    bytes: number | null;
  }[];
  total: number;
}
