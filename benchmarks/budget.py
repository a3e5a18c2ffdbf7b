"""How near the budget's split is to cvxpy's, and how long either takes.

    python benchmarks/budget.py --instances 1000

Each instance is drawn at random: 2 to 40 lines, some with the same figures, some that bring nothing, some without a
margin, some with equal bounds; a total from 0 to above all bounds; a target from none to all that can be met. The
conic solver (Clarabel) is given the same problem. Reported is by how much our profit is below its, as a share of it,
and the worst breach of a constraint; then the time for many lines.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from hitfinder.budget.allotment import Lines, allot, value_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from budget_oracle import by_cvxpy, draw_instance, upper_bound


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--instances", type=int, default=1000)
    options.add_argument("--lines", type=int, default=2000)
    asked = options.parse_args()

    below, breach, ours_took, theirs_took, bound = [], [], 0.0, 0.0, {"total": 0, "target": 0, "both": 0, "none": 0}
    not_met = unsolved = gave_up = 0
    proven: list[float] = []
    for seed in range(asked.instances):
        lines, total, target = draw_instance(seed)
        begin = time.perf_counter()
        split = allot(lines, total, target)
        ours_took += time.perf_counter() - begin
        begin = time.perf_counter()
        theirs = by_cvxpy(lines, total, target)
        theirs_took += time.perf_counter() - begin
        if split.met and np.isfinite(split.price_of_money + split.price_of_target):
            bound_above = upper_bound(lines, total, target, split.price_of_money, split.price_of_target)
            proven.append((bound_above - split.profit) / max(abs(bound_above), 1.0))
        if theirs is not None and np.isnan(theirs):
            gave_up += 1
            continue
        if theirs is None or not split.met:
            not_met += theirs is None and not split.met
            unsolved += (theirs is None) is split.met
            continue
        below.append((theirs - split.profit) / max(abs(theirs), 1.0))
        spent = split.spend.sum()
        breach.append(max(spent - total, target * spent - value_of(lines, split.spend).sum()) / max(total, 1.0))
        prices = (split.price_of_money > 0, split.price_of_target > 0)
        bound[{(True, True): "both", (True, False): "total", (False, True): "target"}.get(prices, "none")] += 1
    print(f"{asked.instances} instances: {len(below)} solved by both, {not_met} found impossible by both, "
          f"{unsolved} where they differ in that, {gave_up} given up by cvxpy")  # fmt: skip
    print(f"our profit below cvxpy's, as a share of it: worst {max(below):.2e}, best {min(below):.2e}, "
          f"beyond 0.1 %: {sum(gap > 1e-3 for gap in below)}")  # fmt: skip
    print(f"our profit below what duality proves to be the most, {len(proven)} instances: worst {max(proven):.2e}")
    print(f"worst breach of a constraint, as a share of the total: {max(breach):.1e}; what bound: {bound}")
    print(f"time: ours {ours_took:.2f} s, cvxpy {theirs_took:.1f} s")

    rng = np.random.default_rng(0)
    n = asked.lines
    slope, half = rng.gamma(2, 2, n), rng.uniform(10, 500, n)
    lines = Lines(slope, half, rng.uniform(0.1, 0.7, n), np.full(n, 5.0), rng.uniform(50, 1000, n))
    for target in (0.0, 5.0, 6.0, 6.5, 20.0):
        begin = time.perf_counter()
        split = allot(lines, 25.0 * n, target)
        took = time.perf_counter() - begin
        begin = time.perf_counter()
        theirs = by_cvxpy(lines, 25.0 * n, target)
        their_time = time.perf_counter() - begin
        print(f"{n} lines, target {target:g}: met {split.met}, ours {took:.3f} s, cvxpy {their_time:.1f} s")
        print(f"  profit {split.profit:,.2f} and {theirs or np.nan:,.2f}")


if __name__ == "__main__":
    main()
