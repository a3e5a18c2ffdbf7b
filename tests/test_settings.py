"""Settings: what is read, and what every refusal says."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hitfinder.errors import HitfinderError, SettingsError
from hitfinder.settings import Settings, load_settings, parse_settings

KNOWN = {
    "": [
        *("seed", "signals", "label", "model", "trees", "policy", "diagnosis", "tiers", "costs", "attribution"),
        *("budget", "stock"),
    ],
    "stock": ["alert_share", "lead_time"],
    "signals": ["period"],
    "label": ["test_window", "outcome_window", "metric", "top_share", "min_value", "within"],
    "model": ["ages", "seeds", "folds", "threads"],
    "trees": [
        "rounds",
        "learning_rate",
        "num_leaves",
        "lambda_l2",
        "feature_fraction",
        "bagging_fraction",
        "min_skus_in_leaf",
    ],
    "policy": ["max_hits_lost", "confidence", "max_false_scaled", "explore_share", "max_weight"],
    "costs": [
        "platform_fee",
        "payment_fee",
        "commission",
        "coupons",
        "shipping",
        "freight_insurance",
        "return_handling",
        "resellable",
        "goods_share",
        "ad_cost",
        "category",
        "sku",
    ],
    "diagnosis": [
        "tolerance",
        "false_share",
        "worth_finding",
        "power",
        "history",
        "order_wait",
        "return_wait",
        "sure",
    ],
    "tiers": ["hot_top", "trending_growth", "potential_probability", "window", "growth_window", "margin"],
    "attribution": ["model", "window", "half_life", "visit_gap", "position_first", "position_last"],
    "budget": [
        "weeks",
        "explore_share",
        "explore_orders",
        "move_up",
        "move_down",
        "floor",
        "cap",
        "target_roi",
        "half_at",
        "draws",
    ],
}


def test_an_empty_file_holds_the_defaults_that_the_contract_names(tmp_path):
    (tmp_path / "s.toml").write_text("")
    settings = load_settings(tmp_path / "s.toml")
    assert settings == Settings() == parse_settings({})
    assert settings.to_dict() == {
        "seed": 0,
        "signals": {"period": "1d"},
        "label": {
            "test_window": "7d", "outcome_window": "28d", "metric": "revenue", "top_share": 0.05, "within": "batch_id",
        },
        "model": {"ages": 7, "seeds": 5, "folds": 5, "threads": 0},
        "trees": {
            "rounds": 80, "learning_rate": 0.05, "num_leaves": 5, "lambda_l2": 5.0, "feature_fraction": 0.5,
            "bagging_fraction": 0.7, "min_skus_in_leaf": 8,
        },
        "policy": {
            "max_hits_lost": 0.1, "confidence": 0.9, "max_false_scaled": 0.5, "explore_share": 0.05, "max_weight": 20.0,
        },
        "costs": {"category": {}, "sku": {}},
        "diagnosis": {
            "tolerance": 0.2, "false_share": 0.1, "worth_finding": 0.5, "power": 0.8, "history": "56d",
            "order_wait": "14d", "return_wait": "45d", "sure": 0.8,
        },
        "tiers": {
            "hot_top": 0.05, "trending_growth": 1.5, "potential_probability": 0.2, "window": "28d",
            "growth_window": "7d", "margin": 0.25,
        },
        "attribution": {
            "model": "none", "window": "7d", "half_life": "2d", "visit_gap": "30m", "position_first": 0.4,
            "position_last": 0.4,
        },
        "budget": {
            "weeks": 12, "explore_share": 0.08, "explore_orders": 3.0, "move_up": 0.5, "move_down": 0.5, "floor": 0.0,
            "half_at": 1.0, "draws": 2000,
        },
        "stock": {"alert_share": 0.2, "lead_time": "7d"},
    }  # fmt: skip


def test_costs_of_a_category_or_a_sku_are_checked_like_everybody_s():
    read = parse_settings({"costs": {"shipping": 3, "category": {"sofa (L)": {"shipping": 40}}, "sku": {"K1": {}}}})
    assert read.costs.category["sofa (L)"].shipping == 40
    with pytest.raises(SettingsError, match=r"unknown key costs\.category\.sofa\.ships; known here: platform_fee, "):
        parse_settings({"costs": {"category": {"sofa": {"ships": 1}}}})
    with pytest.raises(SettingsError, match=r"costs\.sku\.K1\.commission: expected a share such as 0.15, got 15"):
        parse_settings({"costs": {"sku": {"K1": {"commission": 15}}}})


@pytest.mark.parametrize(
    ("text", "length"),
    [("90m", "90min"), ("10h", "10h"), ("7d", "7D"), ("4w", "28D"), (" 7 d ", "7D"), ("99999d", "99999D")],
)
def test_durations_are_read(text, length):
    assert parse_settings({"signals": {"period": text}}).signals.period == pd.Timedelta(length)


@pytest.mark.parametrize(
    "given", ["7", "d", "0d", "000h", "-7d", "1.5d", "7 days", "7D", "", 7, 7.0, None, True, ["7d"]]
)
def test_what_is_no_duration_is_refused(given):
    with pytest.raises(SettingsError) as caught:
        parse_settings({"label": {"test_window": given}})
    assert str(caught.value) == (
        f"settings: label.test_window: expected a duration such as 10h, 7d or 4w, got {given!r}"
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"seed": -1}, "seed: Input should be greater than or equal to 0, got -1"),
        ({"seed": 2**31}, "seed: Input should be less than 2147483648, got 2147483648"),
        ({"seed": "0"}, "seed: Input should be a valid integer, got '0'"),
        ({"seed": True}, "seed: Input should be a valid integer, got True"),
        ({"seed": 0.5}, "seed: Input should be a valid integer, got 0.5"),
        ({"label": {"top_share": 0.0}}, "label.top_share: Input should be greater than 0, got 0.0"),
        ({"label": {"top_share": 1.0}}, "label.top_share: Input should be less than 1, got 1.0"),
        ({"label": {"top_share": "5%"}}, "label.top_share: Input should be a valid number, got '5%'"),
        ({"label": {"metric": 3}}, "label.metric: Input should be a valid string, got 3"),
        ({"label": {"within": ["batch_id"]}}, "label.within: Input should be a valid string, got ['batch_id']"),
        ({"model": {"ages": 0}}, "model.ages: Input should be greater than or equal to 1, got 0"),
        ({"model": {"ages": 51}}, "model.ages: Input should be less than or equal to 50, got 51"),
        ({"model": {"seeds": 0}}, "model.seeds: Input should be greater than or equal to 1, got 0"),
        ({"model": {"folds": 1}}, "model.folds: Input should be greater than or equal to 2, got 1"),
        ({"model": {"threads": -1}}, "model.threads: Input should be greater than or equal to 0, got -1"),
        ({"costs": {"commission": 30}}, "costs.commission: expected a share such as 0.3, got 30"),
        ({"label": {"top_share": 5}}, "label.top_share: expected a share such as 0.05, got 5"),
        ({"policy": {"confidence": 1}}, "policy.confidence: Input should be less than 1, got 1"),
        ({"policy": {"max_false_scaled": 0}}, "policy.max_false_scaled: Input should be greater than 0, got 0"),
        ({"policy": {"max_hits_lost": 1}}, "policy.max_hits_lost: Input should be less than 1, got 1"),
        (
            {"label": {"top_share": 0.1, "min_value": 5.0}},
            "label: expected either top_share or min_value, got both; leave one out",
        ),
    ],
)
def test_a_value_outside_its_range_is_refused_with_its_name_and_itself(values, expected):
    with pytest.raises(SettingsError) as caught:
        parse_settings(values)
    assert str(caught.value) == f"settings: {expected}"


@pytest.mark.parametrize("section", ["signals", "label", "model", "trees", "policy"])
def test_a_section_that_is_no_table_is_refused_in_one_line(section):
    with pytest.raises(SettingsError) as caught:
        parse_settings({section: 3})
    assert str(caught.value).startswith(f"settings: {section}: ")
    assert "got 3" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("section", KNOWN)
def test_an_unknown_key_is_refused_with_the_list_of_the_known_ones(section):
    values = {section: {"colour": 1}} if section else {"colour": 1}
    name = f"{section}.colour" if section else "colour"
    with pytest.raises(SettingsError) as caught:
        parse_settings(values, "my.toml")
    assert str(caught.value) == f"my.toml: unknown key {name}; known here: {', '.join(KNOWN[section])}"


def test_every_mistake_is_named_at_once_in_one_line():
    with pytest.raises(SettingsError) as caught:
        parse_settings({"seed": -1, "model": {"ages": 0}, "extra": 1})
    message = str(caught.value)
    assert message.count("; ") >= 2
    assert "\n" not in message
    for part in ("seed: ", "model.ages: ", "unknown key extra"):
        assert part in message


def test_a_limit_instead_of_a_share_is_kept_as_it_is():
    told = parse_settings({"label": {"min_value": 5000.0}}).label
    assert (told.top_share, told.min_value) == (None, 5000.0)
    assert parse_settings({"label": {"min_value": 5000}}).label.min_value == 5000
    assert "top_share" not in parse_settings({"label": {"min_value": 5000}}).to_dict()["label"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_is_read_with_or_without_a_byte_order_mark(tmp_path, encoding, end):
    lines = ["# 设置", "seed = 3", "[label]", 'within = "季节"', 'test_window = "10h"']
    (tmp_path / "s.toml").write_bytes((end.join(lines) + end).encode(encoding))
    settings = load_settings(str(tmp_path / "s.toml"))
    assert (settings.seed, settings.label.within) == (3, "季节")
    assert settings.label.test_window == pd.Timedelta(hours=10)


def test_a_file_that_is_not_there_or_is_a_folder_is_refused(tmp_path):
    with pytest.raises(
        SettingsError, match=r"nowhere\.toml: can't be read \(No such file or directory\); give the path"
    ):
        load_settings(tmp_path / "nowhere.toml")
    with pytest.raises(SettingsError, match="can't be read"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed = = 3", "no valid TOML: "),
        (b"seed = 1\nseed = 2", "no valid TOML: "),
        ("# 设置".encode("gb18030"), "expected UTF-8 text; save the file as UTF-8"),
        (b"seed = 1\x00", "no valid TOML: "),
        (b"sede = 1", "unknown key sede; known here: seed, signals, label, model, trees, policy"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused_with_its_name(tmp_path, content, message):
    path = tmp_path / "my.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert isinstance(caught.value, HitfinderError)


durations = st.builds("{}{}".format, st.integers(1, 99_999), st.sampled_from("mhd"))
settings_values = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**31 - 1),
        "signals": st.fixed_dictionaries({}, optional={"period": durations}),
        "label": st.fixed_dictionaries(
            {"metric": st.text(max_size=10), "within": st.text(max_size=10)},
            optional={"test_window": durations, "outcome_window": durations},
        ).flatmap(
            lambda d: st.sampled_from([{}, {"top_share": 0.2}, {"min_value": -1.5}, {"min_value": 3.0}]).map(
                lambda r: d | r
            )
        ),
        "model": st.fixed_dictionaries({}, optional={"ages": st.integers(1, 50), "threads": st.integers(0, 256)}),
        "policy": st.fixed_dictionaries(
            {}, optional={"max_hits_lost": st.floats(0.01, 0.99), "confidence": st.floats(0.5, 0.99)}
        ),
    },
)


@given(values=settings_values)
def test_settings_survive_the_way_to_plain_values_and_back(values):
    settings = parse_settings(values)
    again = parse_settings(settings.to_dict())
    assert again == settings
    assert again.to_dict() == settings.to_dict()
    assert again.digest() == settings.digest()


@given(one=settings_values, other=settings_values)
def test_two_digests_are_equal_exactly_where_the_settings_are(one, other):
    a, b = parse_settings(one), parse_settings(other)
    assert (a.digest() == b.digest()) == (a.to_dict() == b.to_dict())


def test_the_digest_is_the_same_in_every_process_and_for_every_way_to_write_a_duration():
    code = "from hitfinder.settings import Settings; print(Settings(seed=7).digest())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Settings(seed=7).digest()
    weeks, days = (parse_settings({"label": {"outcome_window": text}}).digest() for text in ("2w", "14d"))
    assert weeks == days


def test_settings_are_frozen_and_leave_the_values_they_came_from_as_they_were():
    values = {"label": {"top_share": 0.2}}
    settings = parse_settings(values)
    assert values == {"label": {"top_share": 0.2}}
    with pytest.raises(ValidationError, match="frozen"):
        settings.seed = 1
    assert settings.model_copy(update={"seed": 1}).seed == 1
    assert settings.seed == 0
