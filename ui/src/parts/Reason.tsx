import { Engine } from "../i18n/engine";
import { visible } from "../i18n/visible";

/** How the engine's own reasons begin where otherwise a person gives one. */
export const OF_ENGINE = [
  "the request was withdrawn",
  "the end of this site's log was lost when a backup was restored",
  "this site left the federation: ",
];

/** What people do for a reason that they write themselves. */
const DECISIONS = new Set([
  "request_refused",
  "approval_suspended",
  "approval_revoked",
  "dataset_removed",
  "federation_left",
  "break_glass",
  "job_cancelled",
]);

interface Props {
  children: string;
}

/** Why something was decided, in the words of whoever did, as they are; or the engine's, where it did so by itself. */
export function Reason({ children }: Props) {
  const isOfEngine = OF_ENGINE.some((words) => children.startsWith(words));
  return isOfEngine ? <Engine>{children}</Engine> : visible(children);
}

/** Why an entry of the log was made. */
export function Why({ action, children }: Props & { action: string }) {
  return DECISIONS.has(action) ? <Reason>{children}</Reason> : <Engine>{children}</Engine>;
}
