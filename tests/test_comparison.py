"""Which score ranks: learned models beside simple rules, with many batches to tell by, and with few."""

import numpy as np
import pandas as pd
import pytest

from hitfinder.comparison import compare

MONDAY = pd.Timestamp("2025-01-06")
WEEK = pd.Timedelta(days=7)


def judge(batches, *, weeks=1, model_noise=1.0, rule_noise=1.0, seed=0, n=60):
    """Draw lists of `batches` x `weeks` on which model and rule see the worth, each through its own noise."""
    rng = np.random.default_rng(seed)
    rows = []
    for batch in range(batches):
        for week in range(weeks):
            worth = rng.normal(size=n)
            rows.append(
                pd.DataFrame(
                    {
                        "as_of": MONDAY + (batch * weeks + week) * WEEK,
                        "batch_id": f"b{batch}",
                        "list": batch * weeks + week,
                        "hit": (worth >= np.sort(worth)[-5]).astype(float),
                        "value": np.exp(worth),
                        "weight": 1.0,
                        "score:prior": worth + model_noise * rng.normal(size=n),
                        "score:boosted": rng.normal(size=n),
                        "score:ranker": rng.normal(size=n),
                        "score:orders a day": worth + rule_noise * rng.normal(size=n),
                    }
                )
            )
    judged = pd.concat(rows, ignore_index=True)
    names = [name for name in judged if name.startswith("score:")]
    return judged.assign(**{f"{name}.probability": 0.1 for name in names})


@pytest.mark.parametrize(
    ("model_noise", "rule_noise", "ranks"), [(0.2, 2.0, "prior"), (2.0, 0.2, "orders a day"), (0.3, 0.3, "prior")]
)
def test_with_many_batches_the_better_ranks_and_of_equals_the_model(model_noise, rule_noise, ranks):
    report = compare(judge(12, model_noise=model_noise, rule_noise=rule_noise), WEEK, seed=0)
    assert report["ranked_by"] == ranks
    lead = report["lead_over_best_rule"]
    assert lead["low"] < lead["mean"] < lead["high"]
    assert (lead["high"] < 0) == (ranks == "orders a day")


def test_two_stretches_that_agree_by_chance_set_up_no_rule_that_is_little_better():
    little = taken_over = 0
    for seed in range(60):
        report = compare(judge(1, weeks=2, model_noise=0.3, rule_noise=0.3, seed=seed), WEEK, seed=0)
        lead = report["lead_over_best_rule"]
        assert report["ranked_by"] == "prior" or lead["mean"] < -0.1 or lead["high"] < 0
        little += -0.1 < lead["mean"] < 0 <= lead["high"]
        taken_over += report["ranked_by"] != "prior"
    assert little >= 5  # with plain draws, those where both stretches agreed went to the rule
    assert taken_over >= 3


def test_one_stretch_tells_only_of_what_is_far_better():
    report = compare(judge(1, model_noise=0.5, rule_noise=0.5, seed=8), WEEK, seed=0)
    lead = report["lead_over_best_rule"]
    assert -0.1 < lead["mean"] < 0
    assert (lead["low"], lead["high"]) == (-1, 1)
    assert report["ranked_by"] == "prior"
    assert "(-1.000 to +1.000), within the error; it ranks" in report["note"]
    report = compare(judge(1, model_noise=2.0, rule_noise=0.1), WEEK, seed=0)
    assert report["ranked_by"] == "orders a day"
    assert report["note"].endswith("that rule ranks")


def test_a_rule_that_is_far_better_on_two_stretches_ranks_though_the_error_is_wide():
    report = compare(judge(1, weeks=2, model_noise=3.0, rule_noise=0.05, seed=3), WEEK, seed=0)
    assert report["lead_over_best_rule"]["mean"] < -0.3
    assert report["ranked_by"] == "orders a day"
