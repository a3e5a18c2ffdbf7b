"""`hitfinder decide` and `hitfinder hindsight` with a real model: what they write and say, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest
from small_market import fitted

from hitfinder.deciding import DRAWN, PERSON, lists_of
from hitfinder.errors import UnreadableModelError
from hitfinder.ranking import rank

EXPLORING = '[label]\noutcome_window = "14d"\ntop_share = 0.15\n[policy]\nexplore_share = 0.5\n[model]\nthreads = 1\n'


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with signals, SKUs, settings that explore half, and a saved model; the batches with their launches."""
    folder = tmp_path_factory.mktemp("a shop 小店")
    market, model = fitted()
    market.signals.to_parquet(folder / "signals.parquet")
    market.skus.to_parquet(folder / "skus.parquet")
    (folder / "hitfinder.toml").write_text(EXPLORING, encoding="utf-8")
    model.save(folder / "model")
    return folder, market.skus.groupby("batch_id")["launched_at"].max()


@pytest.fixture
def decide(run, shop, tmp_path):
    """Return `decide(batch, *more)`: the verb on the day that the batch's test is over."""
    folder, launches = shop

    def call(batch, *more, **changes):
        end = launches.get(batch, launches.iloc[-1]) + pd.Timedelta(days=7)
        values = {"data": folder, "model": folder / "model", "as-of": end, "decided-at": end, "batch": batch,
                  "decisions": tmp_path / "decisions.csv", **changes}  # fmt: skip
        return run("decide", *(part for name, value in values.items() for part in (f"--{name}", value)), *more)

    return call


def held(tmp_path):
    return lists_of(pd.read_csv(tmp_path / "decisions.csv", dtype={"sku_id": str}))


def test_a_list_is_decided_written_and_shown_with_what_was_decided(decide, shop, tmp_path):
    folder, launches = shop
    batch = launches.index[-1]
    out = [part for suffix in ("csv", "html", "parquet") for part in ("--out", tmp_path / f"list.{suffix}")]
    status, said, err = decide(batch, *out)
    assert (status, err) == (0, "")
    rows = held(tmp_path)
    drawn = rows[rows["because"] == DRAWN]
    assert len(drawn) > 2
    assert set(drawn["propensity"]) == {0.5}
    listed = pd.read_parquet(tmp_path / "list.parquet").set_index("sku_id")
    assert listed["action"].to_dict() == rows.set_index("sku_id")["action"].to_dict()
    assert listed.loc[drawn["sku_id"], "reason_1"].str.startswith("Kept on trial to learn").all()
    assert "Kept on trial to learn" in (tmp_path / "list.html").read_text(encoding="utf-8")
    _, model = fitted()
    market_says = rank(model, str(folder / "signals.parquet"), str(folder / "skus.parquet"),
                       as_of=launches[batch] + pd.Timedelta(days=7)).set_index("sku_id")  # fmt: skip
    assert rows.set_index("sku_id")["model_action"].to_dict() == market_says.loc[rows["sku_id"], "action"].to_dict()
    assert f"{batch} as of" in said
    assert f"({len(drawn)} of them by a random draw" in said
    assert said.splitlines()[1:] == [f"wrote {tmp_path / name}" for name in
                                     ("decisions.csv", "list.csv", "list.html", "list.parquet")]  # fmt: skip


def test_a_second_call_decides_nothing_and_writes_the_same_list(decide, shop, tmp_path):
    batch = shop[1].index[-1]
    assert decide(batch, "--out", tmp_path / "list.html")[0] == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    status, said, _ = decide(batch, "--out", tmp_path / "list.html")
    assert status == 0
    assert "nothing was decided anew" in said
    assert f"wrote {tmp_path / 'decisions.csv'}" not in said
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_settings_by_name_then_those_of_the_model(decide, shop, tmp_path):
    folder, launches = shop
    tables = ["--signals", folder / "signals.parquet", "--skus", folder / "skus.parquet"]
    (tmp_path / "none.toml").write_text("[policy]\nexplore_share = 0.0\n")
    assert decide(launches.index[-1], "--settings", tmp_path / "none.toml")[0] == 0
    assert not held(tmp_path)["because"].eq(DRAWN).any()
    assert decide(launches.index[-2], *tables, data=folder / "model")[0] == 0  # no settings beside: the model's 5 %
    rows = held(tmp_path)
    shares = rows.loc[(rows["list"] == launches.index[-2]) & (rows["because"] == DRAWN), "propensity"]
    assert set(shares) <= {0.05}
    assert rows.loc[rows["list"] == launches.index[-2], "propensity"].isin([0.05, 0.95, 1.0]).all()


def test_overrides_are_taken_and_bad_ones_refused_in_one_line(decide, shop, tmp_path):
    batch = shop[1].index[-1]
    assert decide(batch)[0] == 0
    some = held(tmp_path)["sku_id"].iloc[0]
    before = (tmp_path / "decisions.csv").read_bytes()
    for action, sku_id, said in (("sell", some, "'sell'"), ("stop", "ghost", "'ghost'")):
        told = pd.DataFrame({"sku_id": [sku_id], "action": [action], "decided_by": ["Ana"]})
        told.to_csv(tmp_path / "people.csv", index=False)
        status, out, err = decide(batch, "--overrides", tmp_path / "people.csv")
        assert (status, out) == (1, "")
        assert err.startswith("error: overrides: ")
        assert err.count("\n") == 1
        assert said in err
        assert (tmp_path / "decisions.csv").read_bytes() == before
    pd.DataFrame({"sku_id": [some], "action": ["Stop"], "decided_by": ["Ana"]}).to_excel(
        tmp_path / "people.xlsx", index=False
    )
    status, said, _ = decide(batch, "--overrides", tmp_path / "people.xlsx")
    assert status == 0
    assert "1 decided by people" in said
    last = held(tmp_path).drop_duplicates("sku_id", keep="last").set_index("sku_id").loc[some]
    assert last[["action", "decided_by", "because"]].tolist() == ["stop", "Ana", PERSON]


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        (["--out", "list.pdf"], 1, ".html"),
        (["--out", "decisions.csv"], 1, "overwritten"),
        (["--decided-at", "soon"], 2, "expected a moment"),
        (["--batch", "1999-W01"], 1, "1999-W01"),
        (["--overrides", "none.csv"], 1, "none.csv"),
        (["--decisions", "record.txt"], 1, ".parquet or .csv"),
        (["--decided-at", "2001-01-01"], 1, "decided_at"),
        (["--decided-at", "2190-01-01"], 1, "decided_at: expected a moment that has come"),
    ],
)
def test_what_can_not_be_is_refused_and_nothing_written(decide, shop, tmp_path, monkeypatch, more, status, said):
    monkeypatch.chdir(tmp_path)
    got, out, err = decide(shop[1].index[-1], *more)
    assert (got, out) == (status, "")
    assert said in err
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]


def test_hindsight_after_a_month_of_lists(decide, run, shop, tmp_path):
    folder, launches = shop
    for batch in launches.index[:3]:
        assert decide(batch)[0] == 0
    look = ["hindsight", "--data", folder, "--decisions", tmp_path / "decisions.csv"]
    # The first two have closed, the third has not.
    as_of = launches.iloc[1] + pd.Timedelta(days=22)
    out = [part for suffix in ("html", "json", "csv", "txt") for part in ("--out", tmp_path / f"h.{suffix}")]
    status, said, err = run(*look, "--as-of", as_of, *out)
    assert (status, err) == (0, "")
    told = json.loads((tmp_path / "h.json").read_text(encoding="utf-8"))
    assert [row["list"] for row in told["lists"]] == launches.index[:2].tolist()
    assert told["open_lists"] == 1
    rows = held(tmp_path)
    assert told["all"]["skus"] == rows["list"].isin(launches.index[:2]).sum()
    assert told["all"]["drawn"] > 3
    assert "Still open and not counted: 1 lists" in said
    whose = folder / "hitfinder.toml"
    first = f"Test window 7d, outcome window 14d; hits: the top 15 % by revenue; settings: {whose}"
    assert said.splitlines()[0] == first
    assert said.splitlines()[-4:] == [f"wrote {tmp_path / name}" for name in ("h.html", "h.json", "h.csv", "h.txt")]
    assert (tmp_path / "h.txt").read_text(encoding="utf-8").strip() in said
    status, said, _ = run(*look, "--as-of", as_of, "--language", "zh")
    assert status == 0
    judged, head = said.splitlines()[:2]
    assert judged == f"测款期 7d，结果观察期 14d；爆款：revenue 前 15%；设置来源：{whose}"
    assert head.startswith("往期榜单复盘：")
    status, said, _ = run(*look, "--as-of", launches.iloc[0])
    assert status == 0
    assert "No list closed" in said


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--out", "h.pdf"], ".html"), (["--decisions", "none.csv"], "none.csv")],
)
def test_hindsight_refuses_in_one_line(decide, run, shop, tmp_path, monkeypatch, more, said):
    monkeypatch.chdir(tmp_path)
    assert decide(shop[1].index[0])[0] == 0
    status, out, err = run("hindsight", "--data", shop[0], "--decisions", tmp_path / "decisions.csv", *more)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_hindsight_judges_by_the_champion_where_no_settings_are_given(decide, run, shop, tmp_path, monkeypatch):
    """The defaults would look for other windows than those that the lists were made for."""
    folder, launches = shop
    assert decide(launches.index[0])[0] == 0
    look = ["hindsight", "--signals", folder / "signals.parquet", "--skus", folder / "skus.parquet",
            "--decisions", tmp_path / "decisions.csv", "--as-of", launches.iloc[0] + pd.Timedelta(days=22)]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    status, said, err = run(*look)
    assert status == 0
    assert said.startswith("Test window 7d, outcome window 28d; hits: the top 5 % by revenue; settings: the defaults\n")
    assert err.startswith("note: no settings given and no champion to take them from (")
    assert "No list closed" in said
    champion = replace(fitted()[1], version="hitfinder/3")
    monkeypatch.setattr("hitfinder.registry.load_model", {"models:/hitfinder@champion": champion}.__getitem__)
    status, said, err = run(*look)
    assert (status, err) == (0, "")
    assert said.startswith("Test window 7d, outcome window 14d; hits: the top 15 % by revenue; settings: hitfinder/3\n")
    assert "1 lists with" in said
    (tmp_path / "mine.toml").write_text('[label]\nmin_value = 1234567.5\ntest_window = "3d"\n', encoding="utf-8")
    status, said, _ = run(*look, "--settings", "mine.toml")
    assert said.splitlines()[0].startswith("Test window 3d, outcome window 28d; hits: revenue of 1234567.5 or more; ")


def test_hindsight_is_not_judged_by_defaults_where_the_champion_can_not_be_read(run, shop, tmp_path, monkeypatch):
    def unreadable(_name):
        raise UnreadableModelError("version 3: of another format")

    pd.DataFrame({"sku_id": []}).to_csv(tmp_path / "d.csv")
    monkeypatch.setattr("hitfinder.registry.load_model", unreadable)
    tables = ["--signals", shop[0] / "signals.parquet", "--skus", shop[0] / "skus.parquet"]
    assert run("hindsight", *tables, "--decisions", tmp_path / "d.csv") == (
        1,
        "",
        "error: version 3: of another format\n",
    )


@pytest.mark.parametrize("since", ["month", "abc", "4", ""])
def test_a_stretch_that_is_none_is_wrong_usage(run, shop, tmp_path, since):
    (tmp_path / "d.csv").write_text("sku_id,decided_at,action\n")
    status, out, err = run("hindsight", "--data", shop[0], "--decisions", tmp_path / "d.csv", "--since", since)
    assert (status, out) == (2, "")
    assert "--since" in err
    assert "duration" in err


def test_the_newest_batch_is_decided_also_where_only_signals_tell_the_launch(decide, shop, tmp_path):
    folder, launches = shop
    last = launches.index[-1]
    names = dict(zip(launches.index, (f"drop-{i + 3}" for i in range(len(launches))), strict=True))
    assert max(names.values()) != names[last]  # by name another one would be the last
    skus = pd.read_parquet(folder / "skus.parquet").drop(columns="launched_at")
    skus.assign(batch_id=skus["batch_id"].map(names)).to_parquet(tmp_path / "skus.parquet")
    assert decide("newest", "--skus", tmp_path / "skus.parquet")[0] == 0
    assert set(held(tmp_path)["list"]) == {names[last]}


def test_a_plan_and_a_list_of_one_record_agree(decide, run, shop, tmp_path):
    folder, launches = shop
    batch, people = launches.index[-1], tmp_path / "people.csv"
    start = launches[batch] + pd.Timedelta(days=2)
    assert decide(batch, **{"as-of": start, "decided-at": start})[0] == 0
    best = held(tmp_path).nlargest(1, "hit_probability")["sku_id"].iloc[0]
    pd.DataFrame({"sku_id": [best], "action": ["stop"], "decided_by": ["Li"]}).to_csv(people, index=False)
    assert decide(batch, "--overrides", people, **{"as-of": start, "decided-at": start})[0] == 0
    last = held(tmp_path).drop_duplicates("sku_id", keep="last").set_index("sku_id")
    plan = ["plan", "--data", folder, "--model", folder / "model", "--decisions", tmp_path / "decisions.csv",
            "--rounds", 6, "--budget", 10**6, "--cap", 10**5, "--batch", batch]  # fmt: skip
    status, _, err = run(*plan, "--round", 1, "--as-of", start + pd.Timedelta(days=1), "--out", tmp_path / "p.csv")
    assert status == 0
    stopped = last.index[last["action"] == "stop"]
    drawn = last.index[last["because"] == DRAWN]
    assert f"note: {len(stopped)} SKUs (such as " in err
    found = pd.read_csv(tmp_path / "p.csv", index_col="sku_id")
    assert len(stopped) > 3
    assert len(drawn) > 1
    assert best in stopped
    assert set(found.loc[stopped, "action"]) == {"stop"}
    assert not found.loc[stopped, "exposures"].any()
    assert not (found.loc[drawn, "action"] == "stop").any()
    assert found["exposures"].sum() > 0


def test_a_list_never_overwrites_the_record_whatever_it_is_called(decide, shop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert decide(shop[1].index[-1], "--out", "./decisions.csv")[0] == 1


def test_overrides_are_checked_before_the_work_begins(decide, shop, tmp_path):
    (tmp_path / "people.csv").write_text("sku_id,action,decided_by\nK1,perhaps,Li\n", encoding="utf-8")
    status, _, err = decide(shop[1].index[-1], "--overrides", tmp_path / "people.csv", model=tmp_path / "no model")
    assert status == 1
    assert err.startswith("error: overrides: expected the actions scale, test, stop, got 'perhaps'")


def test_a_person_s_stop_is_kept_apart_from_the_promise_on_the_page(decide, shop, tmp_path):
    batch = shop[1].index[-1]
    skus = pd.read_parquet(shop[0] / "skus.parquet")
    sku = skus.loc[skus["batch_id"] == batch, "sku_id"].iloc[0]
    (tmp_path / "people.csv").write_text(f"sku_id,action,decided_by\n{sku},stop,Li\n", encoding="utf-8")
    status, said, _ = decide(batch, "--overrides", tmp_path / "people.csv", "--out", tmp_path / "list.html")
    assert status == 0
    assert "1 decided by people" in said
    page = (tmp_path / "list.html").read_text(encoding="utf-8")
    promised = fitted()[1].promises["stop"].threshold is not None
    assert ("not about those that people decided" in page) == promised


def test_hindsight_without_a_record_says_what_makes_one(run, shop, tmp_path):
    status, _, err = run("hindsight", "--data", shop[0], "--decisions", tmp_path / "none.csv")
    assert status == 1
    assert "none.csv is not there; run `hitfinder decide` first" in err
