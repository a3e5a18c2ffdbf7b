"""The registry against real stores: a SQLite file and an MLflow server."""

from __future__ import annotations

import json
import os
import pickletools
import socket
import subprocess
import sys
import urllib.request
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow_server import serving
from mlflow_store import shared_folder
from small_market import as_rows, fitted, newest_batch

import hitfinder as hf
from hitfinder.comparison import LEARNED
from hitfinder.errors import DataError, ModelError, NotEnoughHistoryError, NotRegisteredError, UnreadableModelError
from hitfinder.registry import load_model, rank_rows, register, split_rows, tracking_uri
from hitfinder.registry import recording as recording_module
from hitfinder.registry.checks import check_version
from hitfinder.registry.facts import admit_data, code_facts, data_facts, metric_values, requirements, slug
from hitfinder.registry.pictures import draw
from hitfinder.registry.tracking import open_client, shown_uri, speaking_to
from hitfinder.warehouse import open_warehouse


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a registry in which the small market's model is version 1; its name is an awkward one."""
    place = tmp_path_factory.mktemp("a shop 小店")
    market, model = fitted()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(place)
        registered = register(model, market.signals, market.skus, data_description={"source": "simulated"})
    return place, *registered


@pytest.fixture
def at_home(home, monkeypatch):
    """Stand in that folder."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(home[0])
    return home[2]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def artifact_of(registered):
    client = open_client(registered.tracking_uri)
    location = client.get_model_version_download_uri(registered.name, registered.version)
    return Path(urllib.request.url2pathname(location.removeprefix("file://")))


def test_importing_hitfinder_imports_neither_mlflow_nor_matplotlib():
    code = "import sys, hitfinder, hitfinder.registry; print([m for m in ('mlflow', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_holds_settings_data_code_and_the_figures_of_model_and_rules(at_home):
    market, model = fitted()
    run = open_client(at_home.tracking_uri).get_run(at_home.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["label.outcome_window"] == "14d"
    assert run.data.params["data.source"] == "simulated"
    tags = run.data.tags
    assert tags["settings_digest"] == model.settings.digest()
    assert tags["ranked_by"] == model.winner
    assert tags["seed"] == "0"
    assert tags["code_version"] == hf.registry.facts._installed("hitfinder")
    assert pd.Timestamp(tags["data_first_period"]) == market.signals["period_start"].min()
    assert pd.Timestamp(tags["data_newest_known_at"]) == market.signals["known_at"].max()
    assert int(tags["data_signals_rows"]) == len(market.signals)
    assert len(tags["data_digest"]) == 64
    for name, figures in model.report["metrics"].items():
        kind = "model" if name in LEARNED else "rule"
        for figure in ("average_precision", "hits_at_k", "ndcg_at_k", "value_at_k"):
            assert run.data.metrics[f"{kind}.{slug(name)}.{figure}"] == figures[figure]
    best = model.report["metrics"][model.report["best_kind"]]
    assert run.data.metrics["model.calibration_error"] == best["calibration_error"]


def test_the_whole_report_and_the_pictures_are_beside_the_run(at_home, tmp_path):
    client = open_client(at_home.tracking_uri)
    report = client.download_artifacts(at_home.run_id, "report.json", str(tmp_path))
    _, model = fitted()
    assert json.loads(Path(report).read_text("utf-8")) == json.loads(json.dumps(model.report, default=str))
    files = [file.path for file in client.list_artifacts(at_home.run_id, "pictures")]
    assert files == [f"pictures/{name}.png" for name in sorted(draw(model.report))]


def test_the_logged_model_has_the_figures_and_knows_its_version(at_home):
    client = open_client(at_home.tracking_uri)
    version = client.get_model_version("hitfinder", "1")
    logged = client.get_logged_model(version.tags["model_id"])
    assert {metric.key for metric in logged.metrics} >= {"model.average_precision", "best_rule.average_precision"}
    assert str(logged.status) == "READY"
    assert version.run_id == at_home.run_id


def test_the_first_version_is_champion_and_challenger(home):
    _, model, registered = home
    assert registered.aliases == ("challenger", "champion")
    assert (model.version, registered.version, registered.model_uri) == ("hitfinder/1", "1", "models:/hitfinder/1")


def test_nothing_but_the_store_is_left_behind(home):
    assert [path.name for path in home[0].iterdir()] == ["mlruns"]
    assert sorted(path.name for path in (home[0] / "mlruns").iterdir()) == ["artifacts", "mlflow.db"]


def test_the_artifact_holds_no_pickle(at_home):
    files = [path for path in artifact_of(at_home).rglob("*") if path.is_file()]
    assert any(path.name == "pairs.sql" for path in files)  # the feature SQL travels along
    for path in files:
        assert path.suffix not in (".pkl", ".pickle", ".joblib", ".npy", ".npz", ".pyc"), path
        assert not zipfile.is_zipfile(path), path
        if path.read_bytes()[:1] == b".":  # a pickle that ends at once, holding nothing: a style sheet may begin so
            continue
        with pytest.raises(Exception, match=r".*"):  # pickletools raises what it likes
            list(pickletools.genops(path.read_bytes()))


def test_the_artifact_does_not_tell_where_it_was_made(at_home):
    home_of_source = str(Path(hf.__file__).parent).encode()
    for path in artifact_of(at_home).rglob("*"):
        assert path.is_dir() or home_of_source not in path.read_bytes(), path


def test_the_signature_takes_every_column_and_asks_for_two(at_home):
    market, _ = fitted()
    from mlflow.models import Model

    schema = Model.load(str(artifact_of(at_home))).signature.inputs
    assert schema.required_input_names() == ["sku_id", "period_start"]
    assert {*market.signals.columns, *market.skus.columns} <= set(schema.input_names())


def test_the_requirements_are_pinned_and_what_inference_needs(at_home):
    lines = (artifact_of(at_home) / "requirements.txt").read_text().splitlines()
    assert sorted(lines) == requirements()
    assert all(line.count("==") == 1 for line in lines)
    assert {"duckdb", "lightgbm", "mlflow", "pandas", "scikit-learn"} <= {line.split("==")[0] for line in lines}


def test_the_input_example_is_small_and_is_answered(at_home):
    from mlflow.models import Model

    folder = artifact_of(at_home)
    example = Model.load(str(folder)).load_input_example(str(folder))
    assert 1 < example["sku_id"].nunique() <= 5
    assert len(example) <= 30
    ranked = rank_rows(load_model("models:/hitfinder/1"), example)
    assert set(ranked["sku_id"]) == set(example["sku_id"])


@pytest.mark.parametrize("form", ["alias", "version", "latest", "logged", "run", "named run", "folder", "saved"])
def test_a_model_is_loaded_by_every_name_and_ranks_the_same(at_home, form, tmp_path):
    _, model = fitted()
    model_id = open_client(at_home.tracking_uri).get_model_version("hitfinder", "1").tags["model_id"]
    source = {
        "alias": "models:/hitfinder@champion",
        "version": "models:/hitfinder/1",
        "latest": "models:/hitfinder/latest",
        "logged": f"models:/{model_id}",
        "run": f"runs:/{at_home.run_id}",
        "named run": f"runs:/{at_home.run_id}/hitfinder",
        "folder": artifact_of(at_home),
        "saved": model.save(tmp_path / "saved"),
    }[form]
    loaded = load_model(source)
    assert loaded.version == (model.version if form in ("folder", "saved") else "hitfinder/1")
    signals, skus, as_of = newest_batch()
    same = hf.rank(replace(model, version=loaded.version), signals, skus, as_of)
    pd.testing.assert_frame_equal(hf.rank(loaded, signals, skus, as_of), same, check_exact=True)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("models:/hitfinder@nobody", "@champion"),
        ("models:/hitfinder/99", "versions up to 1"),
        ("models:/other@champion", "not in the registry"),
        ("models:/other/latest", "not in the registry"),
        ("models:/m-00000000000000000000000000000000", "not in the registry"),
        ("runs:/00000000000000000000000000000000/hitfinder", "not in the registry"),
        ("models:/a/b/c", "expected models:/hitfinder@champion"),
        ("nowhere", "no whole model"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(at_home, source, said):
    with pytest.raises(ModelError, match=said) as caught:
        load_model(source)
    assert "\n" not in str(caught.value)
    assert source in str(caught.value)


@pytest.fixture
def awkward(at_home):
    """Return (client, name): a name with quotes, whose version is the first one's."""
    client, name = open_client(at_home.tracking_uri), "o'brien's \"own\""
    first = client.get_model_version("hitfinder", "1")
    client.create_registered_model(name)
    client.create_model_version(name, source=first.source, run_id=first.run_id, tags=dict(first.tags))
    yield client, name
    client.delete_registered_model(name)


def test_a_name_may_hold_quotes(awkward):
    _, name = awkward
    assert load_model(f"models:/{name}/latest").version == f"{name}/1"
    with pytest.raises(NotRegisteredError, match="versions up to 1") as refused:
        load_model("models:/nobody@champion")
    assert f"models:/{name} (versions up to 1)" in str(refused.value)


def test_a_store_without_its_package_says_what_to_install(awkward, monkeypatch):
    client, name = awkward
    source = "s3://bucket/models/m/artifacts"
    client.create_model_version(name, source=source, run_id=client.get_model_version(name, "1").run_id)
    for module in ("boto3", "botocore"):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(sys.modules, f"{module}.exceptions", None)
    for ask in (lambda: load_model(f"models:/{name}/2"), lambda: check_version(name, "2")):
        with pytest.raises(ModelError, match="pip install boto3") as refused:
            ask()
        assert not isinstance(refused.value, UnreadableModelError)
        assert "\n" not in str(refused.value)


def test_files_that_can_not_be_fetched_now_are_not_files_that_are_gone(at_home, monkeypatch):
    class ClientError(Exception):
        """As clients of stores raise: none of Python's or MLflow's own."""

    def unanswered(*_args, **_kwargs):
        raise ClientError("503\nslow down")

    import mlflow.artifacts

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", unanswered)
    for ask in (lambda: load_model("models:/hitfinder/1"), lambda: check_version("hitfinder", "1")):
        with pytest.raises(
            ModelError, match=r"models:/hitfinder/1: can't be fetched from .* \(503 slow down\)"
        ) as refused:
            ask()
        assert not isinstance(refused.value, UnreadableModelError)
    monkeypatch.setattr(mlflow.artifacts, "list_artifacts", lambda **_: [])
    with pytest.raises(UnreadableModelError, match="found none that can be read"):
        load_model("models:/hitfinder/1")


def test_an_address_is_shown_without_user_and_password(elsewhere, monkeypatch, run):
    assert shown_uri("postgresql://me:se@cret@host/mlflow") == "postgresql://***@host/mlflow"
    assert shown_uri("https://token@host:5000/") == "https://***@host:5000/"
    assert shown_uri("sqlite:////a/b@c/mlflow.db") == "sqlite:////a/b@c/mlflow.db"
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        uri = f"http://me:secret@127.0.0.1:{server.getsockname()[1]}"
        from mlflow.exceptions import MlflowException

        with pytest.raises(ModelError, match="MLflow refused") as refused, speaking_to(uri):
            raise MlflowException(f"API request to {uri}/api/2.0 failed")
    assert "secret" not in str(refused.value)

    model = fitted()[1]
    registered = recording_module.Registered("hitfinder", "1", "run", ("champion",), uri, "models:/hitfinder/1")
    monkeypatch.setattr("hitfinder.training.fit", lambda *_, **__: model)
    monkeypatch.setattr("hitfinder.registry.register", lambda *_, **__: (model, registered))
    for words in (["train", "--signals", "s.csv", "--skus", "k.csv"], ["demo", "--out", "demo", "--weeks", "3"]):
        status, out, _ = run(*words)
        assert status == 0
        assert "***@127.0.0.1" in out
        assert "secret" not in out


def test_without_a_registry_loading_says_so_and_makes_none(elsewhere):
    with pytest.raises(ModelError, match="hitfinder train"):
        load_model("models:/hitfinder@champion")
    assert list(elsewhere.iterdir()) == []


def test_a_server_that_does_not_answer_is_said_at_once(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: nobody answers
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ModelError, match="no MLflow server answers") as caught:
            load_model("models:/hitfinder@champion")
    assert "secret" not in str(caught.value)


def test_a_model_of_another_kind_is_refused(at_home):
    client = open_client(at_home.tracking_uri)
    client.create_registered_model("stranger")
    try:
        client.create_model_version("stranger", source=Path("mlruns").resolve().as_uri(), run_id=at_home.run_id)
        with pytest.raises(ModelError, match="expected a model of hitfinder") as caught:
            load_model("models:/stranger/1")
        assert "\n" not in str(caught.value)
    finally:
        client.delete_registered_model("stranger")


def test_a_store_that_is_no_database_is_refused_in_one_line(elsewhere, monkeypatch):
    (elsewhere / "broken.db").write_text("this is no database, and long enough to be taken for one " * 20)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere}/broken.db")
    with pytest.raises(ModelError, match="MLflow refused") as caught:
        load_model("models:/hitfinder@champion")
    assert "\n" not in str(caught.value)


def pointed(client):
    """Return the version of each alias; a database gives numbers, a server texts."""
    return {alias: str(number) for alias, number in client.get_registered_model("hitfinder").aliases.items()}


def test_the_challenger_moves_and_the_champion_stays_whatever_was_interrupted(elsewhere, monkeypatch, capfd):
    market, model = fitted()
    aliased = recording_module._set_aliases

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(recording_module, "_set_aliases", killed)
    with pytest.raises(KeyboardInterrupt):
        register(model, market.signals, market.skus)
    client = open_client(tracking_uri())
    assert pointed(client) == {}
    monkeypatch.setattr(recording_module, "_set_aliases", aliased)
    capfd.readouterr()
    second = register(model, market.signals, market.skus)[1]
    assert capfd.readouterr() == ("", "")  # quiet for users
    third = register(model, market.signals, market.skus)[1]
    assert (second.version, second.aliases) == ("2", ("challenger", "champion"))
    assert (third.version, third.aliases) == ("3", ("challenger",))
    assert pointed(client) == {"champion": "2", "challenger": "3"}
    assert load_model("models:/hitfinder@challenger").version == "hitfinder/3"

    monkeypatch.setattr(recording_module, "write_artifact", killed)
    with pytest.raises(KeyboardInterrupt):
        register(model, market.signals, market.skus)
    runs = client.search_runs([client.get_experiment_by_name("hitfinder").experiment_id])
    assert sorted(run.info.status for run in runs) == ["FINISHED", "FINISHED", "FINISHED", "KILLED"]
    assert pointed(client) == {"champion": "2", "challenger": "3"}


def test_the_callers_own_mlflow_stays_as_it_was(at_home):
    import mlflow

    market, model = fitted()
    before = (mlflow.is_tracking_uri_set(), os.environ.get("MLFLOW_TRACKING_URI"), mlflow.active_run())
    register(model, market.signals, market.skus, name="again", experiment="again")
    assert (mlflow.is_tracking_uri_set(), os.environ.get("MLFLOW_TRACKING_URI"), mlflow.active_run()) == before


def test_a_deleted_experiment_is_named(at_home):
    market, model = fitted()
    client = open_client(at_home.tracking_uri)
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(ModelError, match="gone: the experiment was deleted"):
        register(model, market.signals, market.skus, experiment="gone")


def digest(signals, skus):
    con = open_warehouse(threads=1)
    try:
        admit_data(con, fitted()[1], signals, skus)
        return data_facts(con)["data_digest"]
    finally:
        con.close()


def test_the_data_digest_knows_no_order_but_every_value():
    signals, skus, _ = newest_batch()
    shuffled = signals.sample(frac=1, random_state=1)[signals.columns[::-1]]
    whole = digest(signals, skus)
    assert digest(shuffled, skus.sample(frac=1, random_state=2)) == whole
    changed = signals.assign(clicks=signals["clicks"] + (signals.index == 7))
    assert digest(changed, skus) != whole
    assert digest(signals, skus.assign(colour=skus["colour"].mask(skus.index == 0))) != whole
    # Two values that change places are another table.
    swapped = skus.assign(colour=skus["colour"].iloc[::-1].to_numpy())
    assert digest(signals, swapped) != whole


def test_code_facts_name_a_commit_only_where_git_follows_the_source(monkeypatch, tmp_path):
    monkeypatch.setattr(hf.registry.facts, "PACKAGE", tmp_path)
    assert set(code_facts()) == {"code_version"}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "__init__.py").write_text("")
    assert set(code_facts()) == {"code_version"}  # there, but not followed
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    assert code_facts()["git_dirty"] == "false"
    (tmp_path / "__init__.py").write_text("changed = 1")
    assert code_facts()["git_dirty"] == "true"
    assert len(code_facts()["git_commit"]) == 40


def test_metric_values_leave_out_what_was_not_measured():
    report = {
        "metrics": {"prior": {"calibration_error": float("nan"), "lists": 3.0}},
        "best_kind": "prior",
        "n_hits": 4,
    }
    assert metric_values(report) == {"model.prior.lists": 3.0, "model.lists": 3.0, "n_hits": 4.0}


def test_pictures_are_drawn_from_what_the_report_holds():
    grid = np.linspace(0, 1, 11).tolist()
    curve = {"recall": grid, "precision": grid[::-1]}
    taken = {"share": grid, "value": np.sqrt(grid).tolist()}
    curves = {
        "precision_recall": {"model": curve, "orders a day": curve},
        "calibration": {"predicted": [0.01, 0.1, 0.4], "observed": [0.0, 0.12, 0.5], "weight": [90, 9, 1]},
        "value_by_length": {"model": taken, "orders a day": taken},
    }
    drawn = draw({"curves": curves, "importance": {f"颜色_{i}": i / 10 for i in range(30)}})
    assert sorted(drawn) == ["calibration", "importance", "precision_recall", "value_by_length"]
    for png in drawn.values():
        assert png.startswith(b"\x89PNG")
        assert len(png) > 5000
    assert draw({"importance": {}, "curves": {"calibration": {"predicted": []}}}) == {}


def test_rows_of_a_sku_that_disagree_are_refused():
    rows = pd.DataFrame({"sku_id": ["a", "a", "b"], "orders": [1, 2, 3], "price": [9.5, 10.5, 1.0]})
    with pytest.raises(DataError, match=r"rows.price: expected one value for each SKU, got 9.5, 10.5 for SKU 'a'"):
        split_rows(rows)


def test_rows_need_a_sku_id():
    with pytest.raises(DataError, match="expected one column sku_id, got orders"):
        split_rows(pd.DataFrame({"orders": [1]}))


def test_rows_without_a_sku_id_reach_admission_and_are_no_sku():
    signals, skus = split_rows(pd.DataFrame({"sku_id": ["a", None], "orders": [1, 2], "price": [1.0, 2.0]}))
    assert len(signals) == 2
    assert skus["sku_id"].tolist() == ["a"]


def test_an_attribute_named_like_a_signal_goes_by_a_prefix(tmp_path):
    rows = pd.DataFrame({"sku_id": ["a", "a"], "units": [1, 2], "sku.units": ["box", "box"], "Clicks": [3, 4]})
    signals, skus = split_rows(rows)
    assert signals.columns.tolist() == ["sku_id", "units", "clicks"]
    assert skus.to_dict("list") == {"sku_id": ["a"], "units": ["box"]}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_splitting_undoes_joining_in_any_order(seed):
    signals, skus, _ = newest_batch()
    signals, skus = signals.head(200), skus.head(12)
    rows = as_rows(signals, skus).sample(frac=1, random_state=np.random.default_rng(seed).integers(2**31))
    back, back_skus = split_rows(rows)
    keys = ["sku_id", "period_start", "channel", "creative_id", "known_at"]
    here = signals[signals["sku_id"].isin(skus["sku_id"])].sort_values(keys).reset_index(drop=True)
    there = back[signals.columns].sort_values(keys).reset_index(drop=True)
    pd.testing.assert_frame_equal(there, here, check_dtype=False)
    in_order = back_skus[skus.columns].sort_values("sku_id").reset_index(drop=True)
    pd.testing.assert_frame_equal(in_order, skus.sort_values("sku_id").reset_index(drop=True), check_dtype=False)


def test_skus_alone_are_ranked_when_the_moment_is_given():
    _, model = fitted()
    _, skus, as_of = newest_batch()
    ranked = rank_rows(model, skus, as_of)
    assert sorted(ranked["sku_id"]) == sorted(skus["sku_id"])
    with pytest.raises(NotEnoughHistoryError, match="as_of"):
        rank_rows(model, skus)


def test_a_moment_that_is_none_is_refused():
    _, model = fitted()
    signals, skus, _ = newest_batch()
    with pytest.raises(DataError, match="as_of: expected a moment"):
        rank_rows(model, as_rows(signals, skus), "next week")


def test_a_server_with_a_database_and_proxied_artifacts_does_what_the_file_does(
    tmp_path, monkeypatch, capfd, tmp_path_factory
):
    with serving(tmp_path / "server", shared_folder(tmp_path_factory)) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.chdir(tmp_path)
        market, model = fitted()
        named, registered = register(model, market.signals, market.skus)
        assert capfd.readouterr() == ("", "")
        assert registered.tracking_uri == uri
        loaded = load_model("models:/hitfinder@champion")
        assert loaded.version == named.version == load_model(f"runs:/{registered.run_id}").version == "hitfinder/1"
        signals, skus, as_of = newest_batch()
        pd.testing.assert_frame_equal(
            hf.rank(loaded, signals, skus, as_of), hf.rank(named, signals, skus, as_of), check_exact=True
        )
        with pytest.raises(ModelError, match="not in the registry"):
            load_model("models:/hitfinder@nobody")
        assert not (tmp_path / "mlruns").exists()
