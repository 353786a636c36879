"""Accounts for sampled Gaussian releases with dp-accounting, for comparison with the engine's accountants.

Reads cases as JSON from the standard input; writes the epsilons that its two accountants find for adding or removing one.
Nothing here is part of the product, and nothing of the product is used here.
"""

import json
import math
import sys

import dp_accounting
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant


def composed(accountant, case):
    """The accountant after all releases of a case."""
    event = dp_accounting.GaussianDpEvent(case["sigma"])
    if case["rate"] < 1:
        event = dp_accounting.PoissonSampledDpEvent(case["rate"], event)
    accountant.compose(event, case["times"])
    return accountant


def found(case):
    # A grid that is fine against the deviation of one release's loss, which is what adds up.
    deviation = case["rate"] * math.sqrt(math.expm1(1 / case["sigma"] ** 2))
    relation = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
    losses = composed(PLDAccountant(relation, min(1e-4, 0.02 * deviation)), case)
    divergences = composed(RdpAccountant(), case)
    whole = {order: composed(RdpAccountant([float(order)]), case) for order in case["orders"]}
    return {
        "losses": {str(delta): float(losses.get_epsilon(delta)) for delta in case["deltas"]},
        "divergences": {str(delta): float(divergences.get_epsilon(delta)) for delta in case["deltas"]},
        "whole": {str(order): float(of.get_epsilon(case["deltas"][0])) for order, of in whole.items()},
    }


if __name__ == "__main__":
    cases = json.load(sys.stdin)
    json.dump({case["name"]: found(case) for case in cases}, sys.stdout, indent=1)
    sys.stdout.write("\n")
