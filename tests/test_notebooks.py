"""The notebooks run from top to bottom in an empty folder, do what they say, and are committed without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def test_there_is_a_notebook():
    assert "first_steps.ipynb" in NOTEBOOKS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_committed_without_outputs_or_counts(name):
    cells = nbformat.read(FOLDER / name, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert code
    for cell in code:
        assert cell.outputs == []
        assert cell.execution_count is None


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_in_an_empty_folder(name, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel draws into the notebook
    work = tmp_path / "work"
    work.mkdir()
    notebook = nbformat.read(FOLDER / name, as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(work)}})
    client.execute()

    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= kinds  # a picture and a table
    said = [output.text for output in outputs if output.output_type == "stream" and output.name == "stdout"]
    assert not [line for text in said for line in text.splitlines() if line.endswith("False")]
    complaints = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert not complaints
    if name == "first_steps.ipynb":
        assert sorted(path.name for path in work.iterdir()) == ["list.html", "list.parquet", "list.xlsx", "model"]
        listed = pd.read_parquet(work / "list.parquet")
        assert listed["rank"].tolist() == list(range(1, len(listed) + 1))
        assert listed["hit_probability"].is_monotonic_decreasing
