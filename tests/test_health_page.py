"""The health page loads nothing, says what was found in both languages, and the JSON is strict."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace

import pandas as pd
import pytest
from changing_market import WEEKS, seen

from hitfinder.errors import HitfinderError, SettingsError
from hitfinder.report.health import health_values, render_health, write_health


def strict(text):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def renamed(health, old, new):
    """Return the health of a shop in which a channel has another name."""
    tables = {
        name: getattr(health, name).replace({"subject": {old: new}, "channel": {old: new}})
        for name in ("checks", "drift", "shifts", "delays")
    }
    return replace(health, **tables)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_holds_every_alarm_and_all_pictures_and_loads_nothing(language):
    health = seen(WEEKS)
    page = render_health(health, language)
    assert page.count("<svg") >= 5
    for said in health.told(language)["what_happened"]:
        assert said in page
    assert not re.findall(r"(?:src|href)=", page)
    assert not re.findall(r"<script|style=", page)
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src &#39;sha256-{digest}&#39;" in page
    assert ("模型" in page) == (language == "zh")


def test_every_picture_stays_within_its_frame_and_has_no_unknown_figure():
    page = render_health(seen(WEEKS))
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", page.lower())
    for width, height, inside in re.findall(r'<svg viewBox="0 0 (\d+) (\d+)"(.*?)</svg>', page, re.DOTALL):
        for x, wide in re.findall(r'<rect x="(-?[\d.]+)" y="-?[\d.]+" width="([\d.]+)"', inside):
            assert 0 <= float(x) <= float(x) + float(wide) <= float(width)
        for y, tall in re.findall(r'<rect x="-?[\d.]+" y="(-?[\d.]+)" width="[\d.]+" height="([\d.]+)"', inside):
            assert 0 <= float(y) <= float(y) + float(tall) <= float(height) + 0.2


def test_names_from_the_data_are_escaped_on_the_page_and_in_its_pictures():
    page = render_health(renamed(seen(WEEKS), "feed", "<b>feed & co</b>"))
    assert "<b>feed" not in page
    assert "&lt;b&gt;feed &amp; co" in page


def test_the_json_is_strict_and_holds_every_check():
    health = seen(WEEKS)
    values = strict(json.dumps(health_values(health), allow_nan=False))
    assert values["ok"] is False
    assert len(values["checks"]) == len(health.checks)
    assert {row["check"] for row in values["alarms"]} == set(health.alarms["check"])
    assert any(row["psi"] is not None for row in values["drift"])
    assert values["as_of"] == health.as_of.isoformat()


def test_a_quiet_look_without_outcomes_makes_a_page_too():
    health = seen(WEEKS - 1)
    empty = replace(health, outcomes=replace(health.outcomes, batches=health.outcomes.batches.head(0), curve={}),
                    bets=health.bets.head(0), delays=health.delays.head(0), shifts=health.shifts.head(0),
                    weeks=health.weeks.head(0), model_as_of=None)  # fmt: skip
    page = render_health(empty)
    assert "No alarm." in page
    assert "<svg" not in page
    assert "No batch has closed since the fit" in page
    strict(json.dumps(health_values(empty), allow_nan=False))


def test_files_are_written_whole_and_again_over_the_old_ones(tmp_path):
    out = tmp_path / "a health 健康"
    first = write_health(seen(WEEKS), out)
    assert [path.name for path in first] == ["health.html", "health.json"]
    before = [path.read_bytes() for path in first]
    assert [path.read_bytes() for path in write_health(seen(WEEKS), out)] == before
    assert sorted(path.name for path in out.iterdir()) == ["health.html", "health.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(HitfinderError, match="can't be written"):
        write_health(seen(WEEKS), tmp_path / "file" / "below")


def test_another_language_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(SettingsError, match="expected en or zh"):
        write_health(seen(WEEKS), tmp_path / "out", language="de")
    assert not (tmp_path / "out").exists()


def test_the_drift_table_is_ordered_by_how_far_a_figure_is_out():
    page = render_health(seen(WEEKS))
    table = page[page.index("Drift by feature") :]
    shifts = [abs(float(x)) for x in re.findall(r'<td class="number">([+-][\d.]+)</td>', table)]
    assert shifts[:12] == sorted(shifts[:12], reverse=True)
    assert pd.Series(shifts).max() == shifts[0]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_names_what_it_looked_at_in_words_and_the_json_by_its_field(language):
    health = seen(WEEKS)
    features = set(health.drift.loc[health.drift["kind"] == "feature", "subject"])
    page = render_health(health, language)
    built_in = {name for name in features if "_per_" in name or name in ("log_price", "active_share", "content")}
    assert len(built_in) > 10
    assert not [name for name in built_in if f">{name}<" in page or f">{name}:" in page]
    assert ("clicks per impression" if language == "en" else "每次展示的点击") in page
    assert built_in <= {row["subject"] for row in health_values(health)["drift"]}
