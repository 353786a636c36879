// What the engine is asked with and what it answers. The Rust side is `hospes_party::view` and what it is made of; names
// are the same there.

export type Timestamp = number;
/** 64 hexadecimal digits. */
export type Digest = string;
export type PublicKey = string;

/** What changed, so that a screen asks again. */
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

export type FaultCode =
  | "command"
  | "no_session"
  | "log_in"
  | "denied"
  | "not_found"
  | "input"
  | "state"
  | "refused"
  | "fingerprint"
  | "data"
  | "link"
  | "keys"
  | "disk_full"
  | "store"
  | "not_running"
  | "ledger";

/** Why a command did not do what was asked: a code for the program, words for the person, a reference for the log. */
export interface Fault {
  code: FaultCode;
  words: string;
  reference?: string;
}

// The site ---------------------------------------------------------------------------------------------------------

export type Phase = "empty" | "set_up" | "operating";

export interface Status {
  phase: Phase;
  software: string;
  at: Timestamp;
  stopped: string | null;
  policy: string;
  public_data: boolean;
  memberships: MembershipView[];
  waiting: number;
  working: number;
  outbox: number;
  ledger: LedgerState;
  alarms: AlarmView[];
}

export interface LedgerState {
  entries: number;
  root: Digest;
  witnessed: WitnessState[];
}

export interface WitnessState {
  federation: string;
  origin: string;
  size: number;
  witnesses: number;
  at: Timestamp | null;
  settled: boolean;
  words: string;
}

export interface AlarmView {
  id: number;
  at: Timestamp;
  federation: string | null;
  words: string;
}

// People -----------------------------------------------------------------------------------------------------------

export type Role = "administrator" | "data_steward" | "data_access_approver" | "privacy_officer" | "auditor";

export type PersonState = "invited" | "active" | "disabled" | "key_unconfirmed";

export interface PersonView {
  id: string;
  name: string;
  roles: Role[];
  organisation: string | null;
  state: PersonState;
  key: PublicKey | null;
}

export interface NewPerson {
  name: string;
  roles: Role[];
  organisation: string | null;
}

export type PersonChange = { roles: Role[] } | "disable" | "enable" | "new_key";

export type Outcome = { done: { code: string | null } } | { proposed: ProposalView };

export interface ProposalView {
  id: Digest;
  at: Timestamp;
  by: string;
  words: string;
  needs_words: boolean;
}

// Data -------------------------------------------------------------------------------------------------------------

/** `number`, `category`, `date`, `text` or `image 3x224x224`. */
export type ColumnKind = string;

export interface ColumnView {
  name: string;
  kind: ColumnKind;
  masked: boolean;
  findings: string[];
}

export interface DatasetView {
  id: string;
  name: string;
  snapshot: Digest;
  at: Timestamp;
  rows: number;
  subjects: number;
  subjects_left: number;
  columns: ColumnView[];
  public: boolean;
  duo: string[];
  version: number;
  former: string | null;
}

export interface ProfileView {
  dataset: DatasetView;
  profile: Profile;
}

export interface Profile {
  rows: number;
  subjects: number;
  columns: ColumnProfile[];
  suppressed: boolean;
}

export interface ColumnProfile {
  name: string;
  kind: ColumnKind;
  present: number;
  missing: number;
  number: NumberProfile | null;
  levels: Level[];
}

export interface NumberProfile {
  min: number | null;
  max: number | null;
  mean: number;
  sd: number;
  edges: number[];
  counts: (number | null)[];
}

export interface Level {
  code: string;
  rows: number | null;
}

// Federations ------------------------------------------------------------------------------------------------------

export interface InvitationView {
  url: string;
  site: string;
  expires: Timestamp;
}

export interface Enrolment {
  invitation: string;
  words: string;
  organisation: string;
  proxy: string | null;
  extra_ca: null;
  again: string | null;
}

export interface MembershipView {
  federation: string;
  name: string;
  url: string;
  site: string;
  site_name: string;
  words: string;
  identity: PublicKey | null;
  paused: string | null;
  epoch_offered: number | null;
  link: LinkView;
  roster: number;
  members: number;
}

export type LinkView =
  | { connected: { since: Timestamp } }
  | { disconnected: { reason: string; retry_at: Timestamp } }
  | "idle";

export type Trust = "asserted_only" | "vouched_for" | "verified_here";

export interface PeerView {
  site: string;
  name: string;
  organisation: string;
  identity: PublicKey;
  trust: Trust;
  vouched_by: string[];
  vouched_here: boolean;
}

export type StepOutcome = "good" | "notice" | "failed" | "skipped";

/** `hospes_party::link::Step`. */
export interface Step {
  test: string;
  outcome: StepOutcome;
  finding: string;
  request: string | null;
}

// Requests ---------------------------------------------------------------------------------------------------------

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

export interface RequestView {
  study: string;
  federation: string;
  federation_name: string;
  title: string;
  requester: string;
  received: Timestamp;
  state: RequestState;
  expires: Timestamp | null;
  runs: [number, number] | null;
  reason: string | null;
}

export type ReleaseRule = "reviewed" | "automatic";

export interface Range {
  min: number;
  max: number;
}

export interface Approving {
  study: string;
  dataset: string | null;
  max_runs: number;
  ranges: Record<string, Range>;
  release: ReleaseRule;
  checklist: Record<string, string>;
}

export interface Signed {
  approval: string;
  digest: Digest;
  state: RequestState;
  not_before: Timestamp;
  expires: Timestamp;
}

export type Verdict =
  | { refuse: { reason: string } }
  | { suspend: { reason: string } }
  | "resume"
  | { revoke: { reason: string } };

export type OpinionView = "agree" | "conditions" | "object";

export interface Review {
  study: string;
  federation: string;
  study_digest: Digest;
  plan_digest: Digest;
  banners: string[];
  title: string;
  summary: string;
  state: RequestState;
  project: Fact[];
  people: PeopleTab;
  settings: Fact[];
  data: DataTab;
  outputs: OutputsTab;
  computation: string[];
  findings: Finding[];
  changes: Change[] | null;
  opinion: OpinionGiven | null;
  signatures: SignatureGiven[];
  approval_digest: Digest | null;
  approvable: boolean;
}

export interface Fact {
  label: string;
  value: string | null;
}

export interface PeopleTab {
  facts: Fact[];
  peers: PeerLine[];
}

export interface PeerLine {
  site: string;
  name: string;
  organisation: string;
  trust: Trust;
}

export interface DataTab {
  facts: Fact[];
  columns_read: string[];
  columns_missing: string[];
  candidates: string[];
}

export interface OutputsTab {
  items: Egress[];
  runs: number;
  bytes_per_run: number;
  bytes_in_all: number;
  sentences: string[];
}

export type EgressKind = "update" | "loss" | "metrics" | "n";

export interface Egress {
  task: string;
  kind: EgressKind;
  name: string;
  shape: number[];
  bytes: number;
  times: number;
  to: string;
}

export interface Finding {
  rule: string;
  refuses: boolean;
  words: string;
}

export interface Change {
  place: string;
  before: string | null;
  after: string | null;
}

export interface OpinionGiven {
  by: string;
  at: Timestamp;
  view: OpinionView;
  text: string;
}

export interface SignatureGiven {
  by: string;
  role: Role;
  at: Timestamp;
}

// Work and what leaves ---------------------------------------------------------------------------------------------

export interface Page {
  skip: number;
}

export type JobState =
  | "ready"
  | "waiting"
  | "running"
  | "paused"
  | "success"
  | "failed"
  | "timeout"
  | "cancelled";

export interface JobView {
  job: string;
  study: string;
  title: string;
  federation: string;
  state: JobState;
  reason: string | null;
  since: Timestamp;
  rounds: RoundView[];
  rounds_in_all: number;
  /** The plan's tasks and what they take from each other; an engine that does not tell leaves them out. */
  tasks?: TaskView[];
  comparisons: Comparison[];
  model: Digest | null;
  released: Timestamp | null;
  held: boolean;
}

export interface TaskView {
  name: string;
  /** `nn_train`, `evaluation`, … */
  component: string;
  /** Tasks whose outputs it takes. */
  from: string[];
}

export type RoundState =
  | "offered"
  | "working"
  | "committed"
  | "acknowledged"
  | "published"
  | "abandoned"
  | "refused"
  | "failed"
  | "withdrawn";

export interface RoundView {
  round: RoundKey;
  state: RoundState;
  reason: string | null;
  progress: [number, number] | null;
  view: LocalView | null;
  at: Timestamp;
}

export interface RoundKey {
  job: string;
  task: string;
  epoch: number;
  round: number;
  attempt: number;
}

export interface Comparison {
  alone: string;
  federated: string;
  figures: Compared[];
}

export interface Compared {
  figure: string;
  alone: number;
  alone_interval: Interval | null;
  federated: number;
  federated_interval: Interval | null;
  difference: number;
  difference_interval: Interval | null;
}

/** 95 %. */
export interface Interval {
  low: number;
  high: number;
}

/** `hospes_cohort::worker::LocalView`, or in full why a task failed. */
export type LocalView = { training: TrainingView } | { report: ReportView } | { failure: string };

export interface TrainingView {
  rows: number;
  subjects: number;
  loss_before: number;
  loss_after: number;
  one_class: boolean;
  largest_change: number;
  clipped: number;
  validation: Metrics | null;
}

export type ReportView =
  | { metrics: Metrics }
  | { classes: ClassMetrics }
  | { number: NumberMetrics }
  | { survival: SurvivalMetrics }
  | { regression: { rows: number; log_likelihood: number } }
  | { grouped: { all: ReportView; column: string; groups: GroupView[]; ungrouped: number } }
  | { statistics: { rows: number; features: FeatureStatistics[] } };

/** A subgroup as the site's own people see it. */
export interface GroupView {
  code: string;
  rows: number;
  /** Whether its figures leave. */
  leaves: boolean;
  view: ReportView | null;
}

export interface Metrics {
  rows: number;
  positives: number;
  correct: number;
  loss_sum: number;
  brier_sum: number;
  /** True positives, false positives, true negatives, false negatives. */
  confusion: [number, number, number, number];
  auc: number | null;
  scores_positive: number[];
  scores_negative: number[];
  calibration: CalibrationBin[];
  detail?: Detail;
}

export interface CalibrationBin {
  rows: number;
  score_sum: number;
  positives: number;
}

export interface Detail {
  ks: number | null;
  ks_score: number | null;
  average_precision: number | null;
  precision_recall: [number, number][];
  gains: [number, number, number][];
  calibration: { slope: number; intercept: number } | null;
  intervals: Record<string, Interval>;
}

export interface ClassMetrics {
  rows: number;
  classes: number;
  correct: number;
  loss_sum: number;
  confusion: number[];
  macro_f1: number | null;
  auc: (number | null)[];
  intervals: Record<string, Interval>;
}

export interface NumberMetrics {
  rows: number;
  rmse: number | null;
  mae: number | null;
  r_squared: number | null;
  intervals: Record<string, Interval>;
}

export interface SurvivalMetrics {
  rows: number;
  events: number;
  comparable: number;
  concordant: number;
  tied: number;
  c_index: number | null;
  intervals: Record<string, Interval>;
}

export interface FeatureStatistics {
  name: string;
  present: number;
  sum: number;
  sum_of_squares: number;
}

export interface EgressView {
  federation: string;
  study: string;
  round: RoundKey;
  kind: string;
  digest: Digest;
  bytes: number;
  /** waiting, sent, withdrawn, refused; the last two with ", may have arrived" where it was let go without a receipt. */
  state: string;
  left: Timestamp | null;
  at: Timestamp;
  ended: Timestamp | null;
  public_data: boolean;
}

// Audit ------------------------------------------------------------------------------------------------------------

export interface AuditQuery {
  before: number | null;
  limit: number;
}

export interface AuditPage {
  entries: AuditLine[];
  total: number;
}

export interface AuditLine {
  sequence: number;
  at: Timestamp;
  actor: string;
  action: string;
  outcome: string;
  detail: string;
  bytes: number | null;
}
