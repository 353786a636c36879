// The part of the engine's command table that a page may call; the Rust side is `hospes_ipc::table`.
import type * as V from "./types";

type Nothing = Record<string, never>;

/** What each command is asked with and answers. */
export interface Commands {
  status: { args: Nothing; answer: V.Status };
  set_up: { args: { name: string; passphrase: string }; answer: string };
  log_in: { args: { name: string; passphrase: string }; answer: { name: string } };
  active: { args: Nothing; answer: null };
  log_out: { args: Nothing; answer: null };
  activate: { args: { name: string; code: string; passphrase: string }; answer: V.PersonView };
  change_passphrase: { args: { old: string; new: string }; answer: null };
  people: { args: Nothing; answer: V.PersonView[] };
  add_person: { args: { person: V.NewPerson; passphrase: string }; answer: V.Outcome };
  change_person: { args: { id: string; change: V.PersonChange; passphrase: string }; answer: V.Outcome };
  proposals: { args: Nothing; answer: V.ProposalView[] };
  answer_proposal: {
    args: { proposal: string; agree: boolean; words: string | null; passphrase: string };
    answer: V.Outcome;
  };
  policy: { args: Nothing; answer: string };
  set_policy: { args: { toml: string; passphrase: string }; answer: V.Outcome };
  stop: { args: { reason: string | null }; answer: null };
  datasets: { args: Nothing; answer: V.DatasetView[] };
  profile: { args: { dataset: string }; answer: V.ProfileView };
  tag_dataset: { args: { dataset: string; duo: string[] }; answer: V.DatasetView };
  read_invitation: { args: { invitation: string }; answer: V.InvitationView };
  enrol: { args: { enrolment: V.Enrolment }; answer: V.MembershipView };
  memberships: { args: Nothing; answer: V.MembershipView[] };
  peers: { args: { federation: string }; answer: V.PeerView[] };
  verify_peer: { args: { federation: string; site: string; words: string }; answer: V.PeerView };
  vouch: { args: { federation: string; site: string }; answer: V.PeerView };
  pause: { args: { federation: string; reason: string | null }; answer: null };
  accept_epoch: { args: { federation: string }; answer: null };
  diagnose: { args: { federation: string }; answer: V.Step[] };
  requests: { args: Nothing; answer: V.RequestView[] };
  review: { args: { study: string; dataset: string | null }; answer: V.Review };
  give_opinion: { args: { study: string; view: V.OpinionView; text: string }; answer: null };
  approve: { args: { approving: V.Approving; passphrase: string }; answer: V.Signed };
  countersign: { args: { study: string; digest: string; passphrase: string }; answer: V.Signed };
  decide: { args: { study: string; verdict: V.Verdict }; answer: V.RequestView };
  jobs: { args: { page: V.Page }; answer: V.JobView[] };
  job: { args: { job: string; page: V.Page }; answer: V.JobView };
  cancel_job: { args: { job: string; reason: string }; answer: null };
  release: { args: { job: string }; answer: null };
  egress: { args: { page: V.Page }; answer: V.EgressView[] };
  audit: { args: { query: V.AuditQuery }; answer: V.AuditPage };
  verify_audit: { args: Nothing; answer: string[] };
  checkpoint_note: { args: { federation: string; origin: string }; answer: string };
  alarms: { args: Nothing; answer: V.AlarmView[] };
  acknowledge: { args: { alarm: number }; answer: null };
}

export type Command = keyof Commands;
export type Args<C extends Command> = Commands[C]["args"];
export type Answer<C extends Command> = Commands[C]["answer"];

/** A screen that shows a command's answer asks again when one of these changes. */
export const READS: Partial<Record<Command, readonly V.Notice[]>> = {
  status: ["people", "federations", "requests", "jobs", "egress", "audit", "settings", "alarm"],
  people: ["people"],
  proposals: ["people", "settings"],
  policy: ["settings"],
  datasets: ["datasets"],
  profile: ["datasets"],
  memberships: ["federations"],
  peers: ["federations"],
  requests: ["requests"],
  review: ["requests", "datasets", "federations", "settings"],
  jobs: ["jobs"],
  job: ["jobs"],
  egress: ["egress"],
  audit: ["audit"],
  verify_audit: ["audit"],
  checkpoint_note: ["audit"],
  alarms: ["alarm"],
};
