"""The pipelines run on real files and a real registry; a second run changes nothing, and a refusal is one line."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

import hitfinder as hf
from hitfinder.deciding import lists_of
from hitfinder.registry.tracking import tracking_uri
from hitfinder.report.hindsight import hindsight_block
from hitfinder.simulate import simulate, write_market

SCRIPTS = Path(__file__).parent.parent / "pipelines"
SMALL = '[label]\noutcome_window = "14d"\ntop_share = 0.15\n[model]\nages = 2\nseeds = 1\nfolds = 2\nthreads = 1\n'
LISTS = ["diagnosis.parquet", "list.csv", "list.html", "list.parquet", "list.xlsx"]


def load(name):
    spec = importlib.util.spec_from_file_location(f"pipelines_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tables(folder):
    return ["--signals", str(folder / "signals.parquet"), "--skus", str(folder / "skus.parquet")]


def run(name, capsys, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.showwarning", None)  # the script sets its own; put back what was there
        status = load(name).main([str(a) for a in arguments])
    return status, *capsys.readouterr()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder that holds a market, its settings, and a registry in which retrain.py registered version 1."""
    home = tmp_path_factory.mktemp("a shop 小店")
    write_market(simulate(weeks=8, skus_per_week=30, seed=2), home)
    (home / "hitfinder.toml").write_text(SMALL, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(home)
        patch.setattr("warnings.showwarning", None)
        assert load("retrain").main([*tables(home), "--settings", str(home / "hitfinder.toml")]) == 0
    return home


@pytest.fixture
def at_shop(shop, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(shop)
    return shop


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_retraining_says_what_changed_and_the_second_time_does_nothing(at_shop, capsys):
    settings = at_shop / "hitfinder.toml"
    status, said, _ = run("retrain", capsys, *tables(at_shop), "--settings", settings)
    assert status == 0
    assert said.startswith("unchanged: ")
    assert hf.load_model("models:/hitfinder/latest").version == "hitfinder/1"

    as_of = pd.read_parquet(at_shop / "signals.parquet")["known_at"].max() - pd.Timedelta(days=7)
    arguments = ["--settings", settings, "--as-of", as_of, "--name", "another", "--decisions", at_shop / "none.parquet"]
    status, said, notes = run("retrain", capsys, *tables(at_shop), *arguments)
    assert status == 0
    assert said.startswith("first: another/1 is the first version")
    assert f"learned from SKUs: none -> {hf.load_model('models:/another@champion').report['n_skus']}" in said
    assert "not there yet" in notes


def test_weekly_writes_the_newest_batch_in_four_forms_and_a_second_run_changes_no_byte(at_shop, tmp_path, capsys):
    arguments = [*tables(at_shop), "--out", tmp_path / "lists"]
    status, said, _ = run("weekly", capsys, *arguments)
    assert status == 0
    as_of = pd.read_parquet(at_shop / "signals.parquet")["known_at"].max()
    folder = tmp_path / "lists" / f"{as_of:%Y-%m-%d}"
    assert sorted(path.name for path in folder.iterdir()) == LISTS
    assert [line for line in said.splitlines() if line.startswith("wrote ")][-1] == f"wrote {folder / 'list.parquet'}"

    skus = pd.read_parquet(at_shop / "skus.parquet")
    batch = skus[skus["batch_id"] == skus["batch_id"].max()]
    listed = pd.read_parquet(folder / "list.parquet")
    assert sorted(listed["sku_id"]) == sorted(batch["sku_id"])
    assert listed["rank"].tolist() == list(range(1, len(batch) + 1))
    assert set(listed["model_version"]) == {"hitfinder/1"}

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "list.csv").write_bytes(b"torn")
    (folder / "list.html").unlink()
    assert run("weekly", capsys, *arguments)[0] == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def runs_of(kind):
    """Return the finished runs of a kind, oldest first, each with the names of its steps."""
    client = MlflowClient(tracking_uri())
    experiment = client.get_experiment_by_name("hitfinder").experiment_id
    every = client.search_runs([experiment], max_results=500, order_by=["attributes.start_time asc"])
    steps = {}
    for run in every:
        steps.setdefault(run.data.tags.get("mlflow.parentRunId"), []).append(run.info.run_name)
    return [(run, steps.get(run.info.run_id, [])) for run in every if run.data.tags.get("kind") == kind]


def test_weekly_decides_once_and_records_a_run_with_its_steps(at_shop, tmp_path, capsys):
    before = len(runs_of("weekly"))
    arguments = [*tables(at_shop), "--out", tmp_path / "lists"]
    status, said, _ = run("weekly", capsys, *arguments)
    assert status == 0
    record = tmp_path / "lists" / "decisions.parquet"
    content = record.read_bytes()
    decisions = lists_of(pd.read_parquet(record))
    listed = pd.read_parquet(next((tmp_path / "lists").glob("*/list.parquet")))
    assert sorted(decisions["sku_id"]) == sorted(listed["sku_id"])
    assert decisions.set_index("sku_id")["action"].to_dict() == listed.set_index("sku_id")["action"].to_dict()
    assert "decided before" not in said

    status, said, _ = run("weekly", capsys, *arguments)
    assert status == 0
    assert record.read_bytes() == content
    assert "nothing was decided anew" in said
    runs = runs_of("weekly")[before:]
    assert len(runs) == 2
    for ran, steps in runs:
        assert sorted(steps) == ["decide", "diagnose", "hindsight", "list", "rank"]
        assert ran.info.status == "FINISHED"
        assert ran.data.tags["batch"] == decisions["list"].iloc[0]


def test_weekly_takes_what_people_decided_and_shows_it(at_shop, tmp_path, capsys):
    skus = pd.read_parquet(at_shop / "skus.parquet")
    one = skus.loc[skus["batch_id"] == skus["batch_id"].max(), "sku_id"].iloc[0]
    people = pd.DataFrame({"sku_id": [one], "action": ["放量"], "decided_by": ["李"], "reason": ["好看"]})
    people.to_csv(tmp_path / "people.csv", index=False)
    arguments = [*tables(at_shop), "--out", tmp_path / "lists", "--language", "zh"]
    assert run("weekly", capsys, *arguments)[0] == 0
    # The list goes to people, who say what they think of it, and it is written again.
    status, said, _ = run("weekly", capsys, *arguments, "--overrides", tmp_path / "people.csv")
    assert status == 0
    assert "人工决定 1 个" in said
    listed = pd.read_parquet(next((tmp_path / "lists").glob("*/list.parquet"))).set_index("sku_id")
    assert listed.loc[one, "action"] == "scale"
    assert listed.loc[one, "reason_1"].startswith("李 决定：放量")

    people.assign(sku_id="nobody").to_csv(tmp_path / "people.csv", index=False)
    before = (tmp_path / "lists" / "decisions.parquet").read_bytes()
    status, _, complaint = run("weekly", capsys, *arguments, "--overrides", tmp_path / "people.csv")
    assert status == 1
    assert "'nobody'" in complaint
    assert (tmp_path / "lists" / "decisions.parquet").read_bytes() == before
    assert runs_of("weekly")[-1][0].info.status == "FAILED"


def test_weekly_tells_on_its_page_what_became_of_lists_that_have_closed(at_shop, tmp_path, capsys):
    skus, signals = (pd.read_parquet(at_shop / f"{name}.parquet") for name in ("skus", "signals"))
    out = ["--out", tmp_path / "lists", "--settings", at_shop / "hitfinder.toml"]
    first = skus["launched_at"].min().normalize() + pd.Timedelta(days=7)
    # As of the end of the first batch's test, as it was then; then as of today.
    early = skus[skus["launched_at"] < first]
    early.to_parquet(tmp_path / "early.parquet")
    arguments = ["--signals", at_shop / "signals.parquet", "--skus", tmp_path / "early.parquet", *out]
    assert run("weekly", capsys, *arguments, "--as-of", first)[0] == 0
    assert not list((tmp_path / "lists").glob("*/hindsight.json"))
    as_of = first + pd.Timedelta(days=15)
    assert as_of < signals["known_at"].max()
    now = skus[skus["launched_at"] < as_of]
    now.to_parquet(tmp_path / "now.parquet")
    arguments = ["--signals", at_shop / "signals.parquet", "--skus", tmp_path / "now.parquet", *out, "--as-of", as_of]
    assert run("weekly", capsys, *arguments)[0] == 0
    folder = tmp_path / "lists" / f"{as_of:%Y-%m-%d}"
    told = json.loads((folder / "hindsight.json").read_text(encoding="utf-8"))
    assert [row["list"] for row in told["lists"]] == [early["batch_id"].iloc[0]]
    assert told["all"]["skus"] == len(early)
    assert str(hindsight_block(told)) in (folder / "list.html").read_text(encoding="utf-8")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run("weekly", capsys, *arguments)[0] == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_weekly_says_tier_and_diagnosis_to_people_only_and_goes_on_from_the_last_lists_tiers(at_shop, tmp_path, capsys):
    as_of = pd.read_parquet(at_shop / "signals.parquet")["known_at"].max()
    model = hf.load_model("models:/hitfinder@champion")
    tables_read = str(at_shop / "signals.parquet"), str(at_shop / "skus.parquet")
    # A list of the week before, on which every SKU was hot.
    hot = hf.diagnose(model, *tables_read, as_of=as_of).assign(tier="hot")
    (tmp_path / "2000-01-01").mkdir()
    hot.to_parquet(tmp_path / "2000-01-01" / "diagnosis.parquet")
    assert run("weekly", capsys, *tables(at_shop), "--out", tmp_path)[0] == 0
    folder = tmp_path / f"{as_of:%Y-%m-%d}"
    found = pd.read_parquet(folder / "diagnosis.parquet")
    expected = hf.diagnose(model, *tables_read, as_of=as_of, previous=hot)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert "diagnosis" not in pd.read_parquet(folder / "list.parquet")
    assert (folder / "list.html").read_text(encoding="utf-8").count('<td class="mend">') > 10

    assert run("weekly", capsys, *tables(at_shop), "--no-diagnose", "--out", tmp_path / "plain")[0] == 0
    (plain,) = (tmp_path / "plain").glob("*/list.html")
    assert '<td class="mend">' not in plain.read_text(encoding="utf-8")
    assert (plain.parent / "list.csv").read_bytes() == (folder / "list.csv").read_bytes()


def test_weekly_ranks_as_rank_does(at_shop, tmp_path, capsys):
    assert run("weekly", capsys, *tables(at_shop), "--out", tmp_path)[0] == 0
    listed = pd.read_parquet(next(tmp_path.glob("*/list.parquet")))
    model = hf.load_model("models:/hitfinder@champion")
    ranked = hf.rank(model, str(at_shop / "signals.parquet"), str(at_shop / "skus.parquet"))
    expected = ranked[ranked["sku_id"].isin(listed["sku_id"])]
    assert listed["sku_id"].tolist() == expected["sku_id"].tolist()
    assert listed["hit_probability"].tolist() == expected["hit_probability"].tolist()


@pytest.mark.parametrize("script", ["retrain", "weekly"])
def test_a_table_that_is_not_there_is_one_line_and_status_1(script, at_shop, tmp_path, capsys):
    arguments = ["--signals", tmp_path / "none.parquet", "--skus", at_shop / "skus.parquet"]
    arguments += ["--settings", at_shop / "hitfinder.toml"] if script == "retrain" else ["--out", tmp_path]
    status, said, complaint = run(script, capsys, *arguments)
    assert (status, said) == (1, "")
    assert complaint.startswith("error: ")
    assert "none.parquet" in complaint
    assert complaint.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_settings_with_an_unknown_key_are_refused_before_anything_is_registered(shop, elsewhere, capsys):
    (elsewhere / "bad.toml").write_text("sed = 1\n")
    status, said, complaint = run("retrain", capsys, *tables(shop), "--settings", "bad.toml")
    assert (status, said) == (1, "")
    assert "unknown key sed" in complaint
    assert [path.name for path in elsewhere.iterdir()] == ["bad.toml"]


def test_weekly_without_a_champion_says_to_train_first(shop, elsewhere, capsys):
    status, said, complaint = run("weekly", capsys, *tables(shop))
    assert (status, said) == (1, "")
    assert "hitfinder train" in complaint
    assert complaint.count("\n") == 1
    assert not list(elsewhere.iterdir())


def test_no_skus_to_rank_is_refused_in_one_line(at_shop, tmp_path, capsys):
    pd.read_parquet(at_shop / "skus.parquet").head(0).to_parquet(tmp_path / "skus.parquet")
    arguments = ["--signals", at_shop / "signals.parquet", "--skus", tmp_path / "skus.parquet"]
    status, _, complaint = run("weekly", capsys, *arguments, "--out", tmp_path / "lists")
    assert status == 1
    assert complaint.count("\n") == 1
    assert not (tmp_path / "lists").exists()


def test_a_row_set_aside_is_a_note_and_the_rest_goes_on(at_shop, tmp_path, capsys):
    signals = pd.read_parquet(at_shop / "signals.parquet")
    signals.loc[0, "clicks"] = -1
    signals.to_parquet(tmp_path / "signals.parquet")
    arguments = ["--signals", tmp_path / "signals.parquet", "--skus", at_shop / "skus.parquet"]
    status, _, notes = run("weekly", capsys, *arguments, "--out", tmp_path / "lists")
    assert status == 0
    assert notes.startswith("note: ")
    assert "clicks" in notes


@pytest.mark.parametrize("script", ["retrain", "weekly"])
def test_now_is_now_in_utc_wherever_it_runs(script, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Shanghai")
        time.tzset()
        given = load(script).parser().parse_args([*tables(Path()), "--settings", "s.toml", "--as-of", "now"])
    time.tzset()
    apart = pd.Timestamp.now(tz="UTC").tz_localize(None) - given.as_of
    assert abs(apart) < pd.Timedelta(hours=1)


def test_retraining_takes_a_record_in_parts_and_refuses_one_that_is_not_there(at_shop, tmp_path, capsys, monkeypatch):
    script, taken = load("retrain"), []
    monkeypatch.setattr("warnings.showwarning", None)
    monkeypatch.setattr(script, "retrain", lambda *_, **more: taken.append(more["decisions"]) or "done")
    arguments = [*tables(at_shop), "--settings", str(at_shop / "hitfinder.toml"), "--decisions"]
    for name in ("part-1.parquet", "part-2.parquet"):
        (tmp_path / name).write_bytes(b"")
    given = [str(tmp_path / name) for name in ("part-*.parquet", "part-1.parquet")]
    for decisions in given:
        assert script.main([*arguments, decisions]) == 0
    assert taken == given
    capsys.readouterr()
    for decisions in ("part-3.parquet", "prat-*.parquet"):
        assert script.main([*arguments, str(tmp_path / decisions)]) == 1
        said, complaint = capsys.readouterr()
        assert (said, complaint.count("\n")) == ("", 1)
        assert complaint.startswith(f"error: decisions: expected a record, {tmp_path / decisions} is not there")
    # Where nothing was registered nothing can have been decided.
    assert script.main([*arguments, "none.parquet", "--name", "nobody"]) == 0
    assert taken == [*given, None]
    assert "none.parquet: not there yet" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["retrain", "weekly"])
def test_wrong_usage_is_status_2(script, elsewhere, capsys):
    with pytest.raises(SystemExit) as left:
        load(script).main(["--signals", "a.csv", "--skus", "b.csv", "--as-of", "someday"])
    assert left.value.code == 2
    assert "--as-of" in capsys.readouterr().err


def test_as_a_program_it_leaves_with_its_status(elsewhere):
    command = [sys.executable, SCRIPTS / "weekly.py", "--signals", "a.csv", "--skus", "b.csv", "--model", "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: none: ")
    assert done.stderr.count("\n") == 1
