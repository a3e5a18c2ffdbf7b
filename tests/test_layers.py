"""Imports go down the layers, never up; nothing heavy is imported before it is needed; docstring examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hitfinder

ROOT = Path(hitfinder.__file__).parent

# A folder stands for all modules in it.
LAYERS = (
    ("errors",),
    ("settings", "tables", "locks"),
    ("warehouse", "admission"),
    (
        "ingest",
        "features",
        "pooling",
        "refunds",
        "labels",
        "costs",
        "sold",
        "elasticity",
        "selection",
        "cohorts",
        "metrics",
        "offpolicy",
        "curves",
        "comparison",
        "allocation",
        "trial",
        "policies",
        "promise",
        "crossed",
        "creatives",
        "funnel",
        "tiers",
    ),
    ("models",),
    (
        "budget",
        "diagnosis",
        "ledger",
        "stock",
        "whatif",
        "training",
        "tuning",
        "ranking",
        "reasons",
        "registry",
        "trial_table",
        "testplan",
        "history",
        "thresholds",
    ),
    (
        "report",
        "simulate",
        "livetest",
        "overrides",
        "deciding",
        "decided",
        "hindsight",
        "blocks",
        "replays",
        "gate",
        "monitor",
    ),
    ("routines",),
    ("cli", "__main__", "__init__"),
)
LAYER_OF = {name: layer for layer, names in enumerate(LAYERS) for name in names}

# Who may import what: engines and trackers stay in their places.
ONLY_IN = {
    "duckdb": {"warehouse", "ingest"},
    "mlflow": {"registry"},
    "lightgbm": {"models"},
    "optuna": {"tuning"},
    "matplotlib": {"report", "models", "registry"},
    "xlsxwriter": {"report"},
    "jinja2": {"report"},
    "click": {"cli"},
    "rich": {"cli"},
}


def modules():
    """Every module under its dotted name, without the package's own."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


MODULES = modules()


def imports(path):
    """Return every absolute module name that a file imports, wherever in the file the import stands."""
    return imports_of(path.read_text(encoding="utf-8"), ("hitfinder", *path.relative_to(ROOT).parent.parts))


def imports_of(text, package):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            name = ".".join(part for part in (start, node.module) if part)
            # `from hitfinder import report` imports a module, `from hitfinder import fit` the package.
            for alias in node.names:
                deeper = f"{name}.{alias.name}"
                yield deeper if deeper.removeprefix("hitfinder.") in MODULES else name


def own(name):
    """Return the module's name within hitfinder, or None for one of another package."""
    if name == "hitfinder":
        return "__init__"
    return name.removeprefix("hitfinder.") if name.startswith("hitfinder.") else None


def top(module):
    return module.partition(".")[0]


def test_every_module_has_a_layer():
    homeless = sorted({top(module) for module in MODULES} - set(LAYER_OF))
    assert not homeless, f"give {', '.join(homeless)} a layer in LAYERS of this test (and in DESIGN.md)"


@pytest.mark.parametrize("module", MODULES)
def test_no_import_points_up(module):
    here = LAYER_OF.get(top(module), len(LAYERS))
    up = [name for name in imports(MODULES[module]) if own(name) and LAYER_OF.get(top(own(name)), 99) > here]
    assert not up, f"{module} (layer {here}) imports {', '.join(up)} from a layer above"


def test_no_modules_import_each_other_in_a_circle():
    graph = {
        module: {own(name) for name in imports(path) if own(name) in MODULES} - {module}
        for module, path in MODULES.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_only_where_it_belongs(package):
    importers = {top(m) for m, path in MODULES.items() if package in {top(name) for name in imports(path)}}
    assert importers <= ONLY_IN[package]


def test_the_scan_sees_imports_wherever_they_stand():
    lines = ["import a.b", "from hitfinder import report, fit", "from . import errors"]
    lines += ["def f():", "    from hitfinder.cli import x"]
    expected = ["a.b", "hitfinder.report", "hitfinder", "hitfinder.errors", "hitfinder.cli"]
    assert sorted(imports_of("\n".join(lines), ("hitfinder",))) == sorted(expected)


def test_importing_hitfinder_imports_neither_a_tracker_nor_a_plotter():
    code = "import sys, hitfinder; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert "duckdb" in loaded
    assert not loaded & {"mlflow", "matplotlib", "optuna", "xlsxwriter", "jinja2", "sqlglot", "pyspark"}


def test_importing_hitfinder_writes_nothing(tmp_path):
    subprocess.run([sys.executable, "-c", "import hitfinder"], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", [m for m in MODULES if m not in ("__main__", "__init__")])
def test_the_examples_in_docstrings_run(module):
    loaded = importlib.import_module(f"hitfinder.{module}")
    result = doctest.testmod(loaded, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0


def test_every_module_was_looked_at():
    walked = {m.name.removeprefix("hitfinder.") for m in pkgutil.walk_packages([str(ROOT)], "hitfinder.")}
    assert walked <= set(MODULES)
    assert {"warehouse", "labels", "models.estimator"} <= walked
    assert len(MODULES) > 30
