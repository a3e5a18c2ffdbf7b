"""The command line: help, wrong usage, refusals in one line."""

from __future__ import annotations

import click
import pandas as pd
import pytest
from small_market import fitted, newest_batch

from hitfinder.cli import cli


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with signals.csv, skus.csv and a saved model."""
    folder = tmp_path_factory.mktemp("shop")
    signals, skus, as_of = newest_batch()
    signals.to_csv(folder / "signals.csv", index=False)
    skus.to_csv(folder / "skus.csv", index=False)
    fitted()[1].save(folder / "model")
    return folder, as_of


@pytest.fixture
def rank(run, shop, tmp_path):
    folder, as_of = shop

    def call(*more, **changes):
        values = {"model": folder / "model", "signals": folder / "signals.csv", "skus": folder / "skus.csv"}
        values |= {"as-of": as_of, "out": tmp_path / "list.csv", **changes}
        return run("rank", *(part for name, value in values.items() for part in (f"--{name}", value)), *more)

    return call


@pytest.mark.parametrize("verb", ["", *cli.commands])
def test_every_verb_explains_itself(run, verb):
    status, out, err = run(*verb.split(), "--help")
    assert (status, err) == (0, "")
    assert out.startswith("Usage: hitfinder")
    if verb:
        for parameter in cli.commands[verb].params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[0] in out
                assert parameter.help or parameter.default is not None or parameter.opts[0] in ("--help",), parameter


def test_the_version_is_told(run):
    assert run("--version")[:2] == (0, "hitfinder, version 0.1.0\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["rank", "--bogus"],
        ["rank"],
        ["rank", "--out", "x.csv"],
        ["train", "--signals", "only.csv"],
        ["train", "--data", "x", "--as-of", "soon"],
        ["rank", "--data", "x", "--out", "x.csv", "--language", "fr"],
        ["simulate", "--weeks", "many"],
        ["what-if", "--data", "x", "--traffic", "0.1", "--stretch", "4weeks"],
        ["ledger", "--data", "x", "--by", "period_start", "--every", "4weeks"],
        ["ingest"],
    ],
)
def test_wrong_usage_leaves_with_2_and_says_how_it_goes(run, arguments):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "Usage: hitfinder" in err
    assert err.count("Error:") == 1


@pytest.mark.parametrize("option", ["--stretch", "--every"])
def test_a_duration_that_is_none_is_refused_with_the_option_s_name(run, option):
    verb = ["what-if", "--traffic", "0.1"] if option == "--stretch" else ["ledger"]
    _, _, err = run(*verb, "--data", "x", option, "4weeks")
    assert f"Invalid value for {option}: expected a duration such as 10h, 7d or 4w, got '4weeks'" in " ".join(
        err.split()
    )


def test_tables_with_headers_of_an_ad_platform_are_refused_with_what_reads_them(run, tmp_path):
    (tmp_path / "report.csv").write_text("商品ID,日期,曝光\nK1,2025-01-06,100\n", encoding="utf-8")
    done = run("ledger", "--signals", tmp_path / "report.csv", "--skus", tmp_path / "report.csv")
    assert_refused(done, "or run `hitfinder ingest FILE --into FOLDER` first")


def assert_refused(done, said):
    status, out, err = done
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_what_was_written_is_said_and_is_there(rank, tmp_path):
    names = [tmp_path / f"list.{suffix}" for suffix in ("html", "xlsx", "csv", "parquet")]
    status, out, err = rank(*(part for name in names[1:] for part in ("--out", name)), out=names[0])
    assert (status, err) == (0, "")  # quiet in a pipe
    assert out.splitlines() == [f"wrote {name}" for name in names]
    assert all(name.stat().st_size > 500 for name in names)


def test_a_batch_of_which_nothing_is_known_yet_has_a_page_and_a_note_that_nothing_could_be_diagnosed(
    rank, shop, tmp_path
):
    older = pd.read_csv(shop[0] / "signals.csv").assign(sku_id=lambda rows: "older-" + rows["sku_id"])
    older.to_csv(tmp_path / "older.csv", index=False)
    status, out, err = rank(signals=tmp_path / "older.csv", out=tmp_path / "list.html")
    assert (status, out) == (0, f"wrote {tmp_path / 'list.html'}\n")
    assert "no tier and diagnosis beside the list" in " ".join(err.split())
    page = (tmp_path / "list.html").read_text(encoding="utf-8")
    assert all(sku in page for sku in pd.read_csv(shop[0] / "skus.csv")["sku_id"])
    assert 'class="mend"' not in page


def test_a_model_that_is_not_there_is_refused(rank, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert_refused(rank(model=tmp_path / "nowhere"), "no whole model there")
    assert_refused(rank(model="models:/hitfinder@champion"), "run `hitfinder train` first")
    stray = tmp_path / "stray.csv"
    stray.write_text("x")
    assert_refused(rank(model=stray), "no whole model there")


def test_what_can_not_be_written_is_refused(rank, tmp_path):
    assert_refused(rank(out=tmp_path / "list.txt"), "expected a name that ends in")
    (tmp_path / "file").write_text("x")
    assert_refused(rank(out=tmp_path / "file" / "list.csv"), "can't be written")
    (tmp_path / "folder.csv").mkdir()
    assert_refused(rank(out=tmp_path / "folder.csv"), "can't be written")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.csv"]


def test_a_batch_or_a_moment_that_is_none_is_refused(rank):
    assert_refused(rank("--batch", "2031-W01"), "batch: expected one of 2025-W09, got '2031-W01'")
    assert_refused(rank(**{"as-of": ""}), "as_of: expected a moment")


def test_one_batch_is_ranked_from_1_as_it_is_among_others(rank, tmp_path):
    assert rank()[0] == 0
    whole = (tmp_path / "list.csv").read_bytes()
    assert rank("--batch", "newest")[0] == 0
    assert (tmp_path / "list.csv").read_bytes() == whole


def test_reasons_come_in_chinese_where_asked(rank, tmp_path):
    assert rank(language="zh")[0] == 0
    assert "类目" in (tmp_path / "list.csv").read_text("utf-8-sig")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[label\n", "no valid TOML"),
        ("[label]\nmetrics = 'revenue'\n", "unknown key label.metrics"),
        ("[label]\nmetric = 'profits'\n", "label.metric: expected one of"),
        ("seed = -1\n", "seed"),
    ],
)
def test_settings_that_are_wrong_are_refused(run, shop, tmp_path, text, said):
    folder, _ = shop
    path = tmp_path / "hitfinder.toml"
    path.write_text(text)
    arguments = ["--signals", folder / "signals.csv", "--skus", folder / "skus.csv", "--settings", path]
    assert_refused(run("train", *arguments), said)


@pytest.mark.parametrize(
    ("option", "value"), [("--weeks", 0), ("--skus-per-week", 0), ("--seed", -1), ("--hits-per-week", 0)]
)
def test_a_market_that_can_not_be_is_refused(run, tmp_path, option, value):
    assert_refused(run("simulate", "--out", tmp_path / "m", option, value), "expected")
    assert not (tmp_path / "m").exists()


def test_too_little_history_is_refused_with_the_counts(run, shop):
    folder, _ = shop
    done = run("train", "--signals", folder / "signals.csv", "--skus", folder / "skus.csv")
    assert_refused(done, "SKUs with a closed outcome window")


@pytest.mark.parametrize("way", ["as it is", "from elsewhere", "by a glob", "by a glob that will name it"])
@pytest.mark.parametrize("verb", ["rank", "diagnose", "ledger", "what-if", "stock", "budget", "hindsight"])
def test_no_verb_overwrites_a_table_that_it_reads(run, tmp_path, monkeypatch, verb, way):
    held = {"signals.csv": "sku_id,period_start,orders\n1,2025-01-01,1\n", "skus.csv": "sku_id\n1\n"}
    for name, text in held.items():
        (tmp_path / name).write_text(text)
    signals = tmp_path / ("sig*.csv" if "glob" in way else "signals.csv")
    name = "signs.csv" if "will" in way else "signals.csv"
    monkeypatch.chdir(tmp_path)
    out = name if way == "from elsewhere" else tmp_path / name
    more = {"budget": ["--total", 10], "hindsight": ["--decisions", tmp_path / "decisions.csv"]}.get(verb, [])
    status, said, err = run(verb, "--signals", signals, "--skus", tmp_path / "skus.csv", "--out", out, *more)
    assert (status, said) == (1, "")
    assert err == f"error: {out}: expected another file than those that are read; it would be overwritten\n"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == held


@pytest.mark.parametrize("option", ["--decisions", "--outcomes"])
def test_what_is_looked_back_on_is_not_overwritten(run, tmp_path, option):
    record = tmp_path / "record.csv"
    record.write_text("sku_id,value\n")
    others = {"--signals": "s.csv", "--skus": "k.csv", "--decisions": tmp_path / "other.csv", option: record}
    status, _, err = run("hindsight", *(part for pair in others.items() for part in pair), "--out", record)
    assert (status, record.read_text()) == (1, "sku_id,value\n")
    assert "it would be overwritten" in err


def test_a_name_that_can_not_be_a_file_is_no_traceback(run, tmp_path):
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    for name in ("loop.csv", "n" * 300 + ".csv"):
        status, _, err = run("rank", "--signals", tmp_path / name, "--skus", "k.csv", "--out", tmp_path / "list.csv")
        assert status == 1
        assert err.startswith("error: ")
