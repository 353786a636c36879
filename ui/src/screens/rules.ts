// Where a rule of a review comes from. Its own name is that of a policy file, which says nothing to whoever reads a request.

/** By the rule's name, or by what stands before its first point. */
const FROM: Record<string, string> = {
  disclosure: "policy",
  training: "policy",
  bilateral: "policy",
  privacy: "policy",
  egress: "policy",
  public_data: "policy",
  "approval.four_eyes": "policy",
  "terms of use (DUO)": "terms",
  data: "data",
  series: "data",
  study: "study",
  roster: "study",
  requester: "study",
  approval: "signature",
  "first signature": "signature",
  "privacy officer": "signature",
};

/** The name, in `words.ruleFrom`, of what a rule comes from; nothing for one that is newer than this page. */
export function comesFrom(rule: string): string | null {
  return FROM[rule] ?? FROM[rule.split(".")[0] ?? ""] ?? null;
}
