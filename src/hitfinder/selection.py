"""Selection: a stopped SKU's outcome is cut off. Those that were kept on by chance stand in for it.

Only what is kept on shows what it is worth, and who is kept on is the model's own choice: learned from as it comes, a
stopped SKU's outcome of nearly nothing would prove the model right for ever. So outcomes that were cut off are left
out, and each that was seen counts as often as one over the chance with which its SKU was kept on (D. G. Horvitz, D. J.
Thompson, A Generalization of Sampling Without Replacement from a Finite Universe, JASA 47, 1952).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.labels import MIN_GROUP
from hitfinder.settings import Settings
from hitfinder.warehouse import frame, load_sql

__all__ = ["Selection", "weigh_seen", "weighted_standing"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Selection:
    """How the outcomes that were seen were chosen.

    `seen`, `cut_off`: SKUs with a closed outcome window that were kept on, and that were stopped, or called back after
    a coin had passed them over. `by_chance`: those of the first that would have been stopped but for exploration.
    `clipped`: those whose weight was cut to `max_weight`. `effective`: Kish's effective sample size of the seen, (sum
    of weights)^2 / sum of squares. `left_out`: groups in which too few were seen.
    """

    seen: int
    cut_off: int
    by_chance: int
    clipped: int
    effective: float
    left_out: int

    def __str__(self) -> str:
        if not self.cut_off:
            return f"all {self.seen} outcomes were seen: nobody had been stopped before"
        head = f"{self.cut_off} of {self.seen + self.cut_off} outcomes were cut off by a stop and are left out"
        if not self.by_chance:
            return (
                f"{head}; nobody was kept on by chance, so what stopped SKUs would have done can't be learned: set "
                "policy.explore_share and decide with `hitfinder decide`"
            )
        clipped = f", {self.clipped} of them clipped" if self.clipped else ""
        return (
            f"{head}; {self.by_chance} that were kept on by chance stand in for them{clipped} (effective sample "
            f"size {self.effective:.0f} of {self.seen})"
        )

    def to_dict(self) -> dict[str, float]:
        """Return plain values for a report."""
        return {"seen": self.seen, "cut_off": self.cut_off, "by_chance": self.by_chance, "clipped": self.clipped,
                "effective": self.effective, "left_out": self.left_out}  # fmt: skip


def weigh_seen(con: Any, labels: pd.DataFrame, settings: Settings) -> tuple[pd.DataFrame, Selection]:
    """Leave out labels that a stop cut off, weigh the others, and judge anew who was a hit among all.

    Parameters
    ----------
    con
        After `features.set_scope`, with the admitted table `decisions`.
    labels
        Usable rows of `labels.label`. A SKU without any decision was kept on.
    settings
        `label` for the rule, `policy.max_weight` for the most that one SKU counts for.

    Returns
    -------
    (labels, Selection)
        The seen rows with `weight`, of mean 1, and with `standing` and `hit` as they are estimated to be among all SKUs
        of the group, the stopped included. A propensity that is missing means that the action was chosen, not drawn: 1.

    Notes
    -----
    A SKU counts as stopped where the last decision before half of its outcome window was over says so. The chance with
    which it was kept on is the product of the propensities of the decisions that kept it. A SKU that chance had stopped
    (a `stop` with a propensity below 1) and that was called back is left out as well: those drawn in its stead stand
    for it already, and it would be counted twice.
    """
    paths = frame(con, f"select * from ({load_sql('paths')}) order by sku_id, decided_at")
    is_stop = paths["action"] == "stop"
    passed_over = paths["propensity"].astype(float) < 1
    gone = set(paths.loc[is_stop & ((paths["place"] == 1) | passed_over), "sku_id"])
    kept = paths[~is_stop]
    chance = kept["propensity"].astype(float).fillna(1.0).groupby(kept["sku_id"]).prod()
    seen = labels[~labels["sku_id"].isin(gone)].reset_index(drop=True)
    raw = 1.0 / chance.reindex(seen["sku_id"]).fillna(1.0).to_numpy()
    weight = np.minimum(raw, settings.policy.max_weight)
    seen = seen.assign(weight=weight)
    size = seen.groupby("within_group")["sku_id"].transform("size")
    spread = seen.groupby("within_group")["value"].transform("nunique")
    enough = (size >= MIN_GROUP) & ((spread > 1) | (settings.label.min_value is not None))
    left_out = int(seen.loc[~enough, "within_group"].nunique()) + int(
        labels["within_group"].nunique() - seen["within_group"].nunique()
    )
    seen, raw = seen[enough].reset_index(drop=True), raw[enough.to_numpy()]
    total, squares = float(seen["weight"].sum()), float((seen["weight"] ** 2).sum())
    facts = Selection(
        seen=len(seen),
        cut_off=int(labels["sku_id"].isin(gone).sum()),
        by_chance=int((raw > 1).sum()),
        clipped=int((raw > settings.policy.max_weight).sum()),
        effective=total**2 / squares if squares else 0.0,
        left_out=left_out,
    )
    return _judged_anew(seen, settings), facts


def weighted_standing(group: npt.ArrayLike, value: npt.ArrayLike, weight: npt.ArrayLike) -> tuple[Array, Array]:
    """Return the weighted share of each row's group worth less (ties in the middle), and the weight worth more.

    Examples
    --------
    >>> standing, above = weighted_standing(["a"] * 3, [5.0, 1.0, 1.0], [1, 1, 2])
    >>> standing.tolist(), above.tolist()
    ([0.875, 0.375, 0.375], [0.0, 1.0, 1.0])
    """
    rows = pd.DataFrame({"group": np.asarray(group), "value": np.asarray(value, dtype=float),
                         "weight": np.asarray(weight, dtype=float)})  # fmt: skip
    per_value = rows.groupby(["group", "value"])["weight"].sum().rename("at").reset_index()
    per_value["up_to"] = per_value.groupby("group")["at"].cumsum()
    per_value["total"] = per_value.groupby("group")["at"].transform("sum")
    found = rows[["group", "value"]].merge(per_value, how="left", on=["group", "value"])
    standing = (found["up_to"] - found["at"] / 2) / found["total"]
    return standing.to_numpy(), np.maximum((found["total"] - found["up_to"]).to_numpy(), 0.0)


def _judged_anew(seen: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    if seen.empty:
        return seen
    standing, above = weighted_standing(seen["within_group"], seen["value"], seen["weight"])
    rule = settings.label
    if rule.min_value is not None:
        hit = (seen["value"] >= rule.min_value).to_numpy()
    else:
        groups = seen.groupby("within_group")
        total = groups["weight"].transform("sum")
        lowest = groups["value"].transform("min")
        share = 0.0 if rule.top_share is None else rule.top_share
        hit = (above < share * total.to_numpy() - 1e-9) & (seen["value"] > lowest).to_numpy()
    return seen.assign(standing=standing, hit=hit, weight=seen["weight"] / seen["weight"].mean())
