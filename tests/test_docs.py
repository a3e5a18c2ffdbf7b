"""The documents can't drift: their commands, their Python, their links and pictures are held against what is there."""

from __future__ import annotations

import html
import importlib.util
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from hitfinder.cli import cli
from hitfinder.simulate import simulate, write_market

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "pipelines/*.md", "notebooks/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
FENCE = re.compile(
    r"^(?P<indent>[ ]*)(?P<fence>```+|~~~+)[ ]*(?P<language>[\w-]*)[^\n]*\n(?P<body>.*?)^[ ]*(?P=fence)[ ]*$",
    re.M | re.S,
)
SMALL = '[label]\noutcome_window = "14d"\ntop_share = 0.15\n[model]\nages = 2\nseeds = 1\nfolds = 2\nthreads = 1\n'


def blocks(text, *languages):
    """Return (first line's number, body) of each fenced block in one of the languages."""
    return [
        (text[: found.start("body")].count("\n") + 1, found["body"])
        for found in FENCE.finditer(text)
        if found["language"] in languages
    ]


def commands(body):
    """Return the words of each command of a console block: without prompts, comments, pipes and redirections."""
    lines = body.replace("\\\n", " ").splitlines()
    prompted = [line.strip()[2:] for line in lines if line.strip().startswith("$ ")]
    out = []
    for line in prompted or lines:  # where there are prompts, the other lines are what was printed
        lexer = shlex.shlex(line.strip(), posix=True, punctuation_chars=True)
        lexer.wordchars += "@:%+,[]{}…"
        lexer.commenters = "#"
        try:
            words = list(lexer)
        except ValueError:  # printed text with a lone quote
            continue
        command = []
        for word in [*words, ";"]:
            if word and set(word) <= set(";|&"):
                out.append(command)
                command = []
            else:
                command.append(word)
    return [plain for command in out if (plain := _plain(command))]


def _plain(command):
    """Leave out variables set in front and everything from a redirection on."""
    while command and re.fullmatch(r"\w+=.*", command[0]):
        command = command[1:]
    ends = [place for place, word in enumerate(command) if word and set(word) <= set("<>()")]
    return command[: ends[0]] if ends else command


def wrong(command):
    """Say what is wrong with a command, or return None where it is right or none of ours."""
    program, *arguments = command
    if program.removeprefix(".venv/bin/") == "hitfinder" and arguments:
        return _wrong_verb(arguments)
    if program == "make":
        return _wrong_target(arguments)
    if Path(program).name in ("python", "python3") and arguments and arguments[0].endswith(".py"):
        return _wrong_script(arguments)
    return None


def _wrong_verb(arguments):
    try:
        if arguments[0].startswith("-"):
            cli.make_context("hitfinder", list(arguments))
            return None
        verb = cli.get_command(click.Context(cli), arguments[0])
        if verb is None:
            return f"no verb {arguments[0]}; there are {', '.join(sorted(cli.commands))}"
        verb.make_context(arguments[0], list(arguments[1:]))
    except click.exceptions.Exit:  # --help
        return None
    except click.ClickException as error:
        return error.format_message()
    return None


def _wrong_target(arguments):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in arguments:
        name, is_variable, _ = word.partition("=")
        if is_variable and f"$({name})" not in makefile:
            return f"the Makefile reads no variable {name}"
        if (
            not is_variable
            and not word.startswith("-")
            and not re.search(rf"^{re.escape(word)}[ ]*:(?!=)", makefile, re.M)
        ):
            return f"the Makefile has no target {word}"
    return None


def _wrong_script(arguments):
    path = ROOT / arguments[0]
    if not path.is_file():
        return f"no script {arguments[0]}"
    spec = importlib.util.spec_from_file_location(f"documented_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        module.parser().parse_args(arguments[1:])
    except SystemExit as left:
        return None if left.code == 0 else f"{arguments[0]} does not take {' '.join(arguments[1:])}"
    return None


def without_code(text):
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def links(text):
    """Return every target of a link or picture, in Markdown and in HTML."""
    text = re.sub(r"<!--.*?-->", "", without_code(text), flags=re.S)
    inline = re.findall(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)", text)
    defined = re.findall(r"^[ ]{0,3}\[[^\]^][^\]]*\]:\s*<?([^\s>]+)", text, flags=re.M)
    tags = re.findall(r"<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)\s*=\s*[\"']([^\"']+)[\"']", text, flags=re.I)
    return [html.unescape(target) for target in (*inline, *defined, *tags)]


def anchors(text):
    """Return the anchors that a Markdown page has: one per heading, and those set by hand."""
    seen = {}
    for heading in re.findall(r"^#{1,6}[ ]+(.+?)[ ]*#*$", FENCE.sub("", text), flags=re.M):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        seen[slug] = seen.get(slug, -1) + 1
    repeated = {f"{slug}-{place}" for slug, last in seen.items() for place in range(1, last + 1)}
    return {*seen, *repeated, *re.findall(r"<a\s+(?:id|name)=[\"']([^\"']+)[\"']", text)}


def broken(text, page):
    """Return the relative links of a page that lead nowhere."""
    out = []
    for target in links(text):
        if re.match(r"[a-zA-Z][\w+.-]*:|//", target):
            continue
        place, _, anchor = unquote(target).partition("#")
        path = page if not place else page.parent / place
        if not path.exists():
            out.append(f"{target}: no such file")
        elif anchor and path.suffix == ".md":
            there = text if path == page else path.read_text(encoding="utf-8")
            if anchor not in anchors(there):
                out.append(f"{target}: no such heading")
    return out


@pytest.mark.parametrize("name", NAMES)
def test_every_command_in_a_document_exists_and_takes_what_it_is_given(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    complaints = [
        f"{name}:{line}: {' '.join(command)}: {problem}"
        for line, body in blocks(text, "console", "bash", "sh", "shell")
        for command in commands(body)
        if (problem := wrong(command))
    ]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("name", NAMES)
def test_every_relative_link_and_picture_of_a_document_is_there(name):
    assert broken((ROOT / name).read_text(encoding="utf-8"), ROOT / name) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_block_of_python_in_a_document_compiles(name):
    for line, body in blocks((ROOT / name).read_text(encoding="utf-8"), "python"):
        compile(body, f"{name}:{line}", "exec")


def test_the_readme_s_python_runs_from_top_to_bottom_beside_a_small_market(tmp_path, monkeypatch):
    """A block that begins with `# not run` is left out; the others share their names, as a reader's session would."""
    python = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    run([block for block in python if runnable(block)], tmp_path, monkeypatch)


def runnable(block):
    return not block[1].lstrip().startswith("# not run")


def run(python, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if python:
        write_market(simulate(weeks=8, skus_per_week=40, seed=2), folder)
        (folder / "hitfinder.toml").write_text(SMALL, encoding="utf-8")
    names = {"__name__": "__main__"}
    for line, body in python:
        # Blank lines in front, so that a traceback names the document's own line.
        exec(compile("\n" * (line - 1) + body, f"README.md:{line}", "exec"), names)  # our own document
    return names


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("hitfinder rnak --data x --out y.csv", "no verb rnak"),
        ("hitfinder rank --data x --outt y.csv", "--outt"),
        ("hitfinder rank --data x", "--out"),
        ("hitfinder demo --language fr", "fr"),
        ("hitfinder --versoin", "--versoin"),
        ("$ MLFLOW_TRACKING_URI=x hitfinder train --bad 2>&1 | tee log", "--bad"),
        ("$ hitfinder demo && hitfinder trian", "no verb trian"),
        ("hitfinder rank --data x \\\n  --outt y.csv", "--outt"),
        ("make tset", "no target tset"),
        ("make PYTHN=python3.12 test", "no variable PYTHN"),
        ("python pipelines/trian.py", "no script"),
        ("python pipelines/retrain.py --signals a --skus b --setings c", "does not take"),
    ],
)
def test_a_wrong_command_is_found(command, problem, capsys):
    [(_, body)] = blocks(f"Text\n\n```console\n{command}\n```\n", "console")
    found = [said for said in map(wrong, commands(body)) if said]
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    "command",
    [
        "hitfinder --help",
        "hitfinder rank --help",
        "hitfinder demo   # a comment with --options",
        "hitfinder simulate --weeks 8 --out 'my shop' > log",
        "hitfinder rank --data shop --model models:/hitfinder@champion --out list.html --out list.xlsx | tee log",
        "make PYTHON=python3.12 test",
        "make -j2 check",
        "$ hitfinder demo\nhitfinder is not a command here, it's printed",
        "git clone somewhere",
    ],
)
def test_a_right_command_passes(command, capsys):
    assert [said for said in map(wrong, commands(command)) if said] == []


def test_links_that_lead_nowhere_are_found(tmp_path):
    page = tmp_path / "README.md"
    page.touch()
    (tmp_path / "there.md").write_text("# A heading, `code` and all\n")
    text = (
        "# Top\n[a](there.md) [b](there.md#a-heading-code-and-all) [c](#top) [d](https://example.org/x) `[e](no.md)`\n"
        '[f](gone.md) ![g](gone.png "Title") [h](#nowhere) [i](there.md#no)\n'
        '<img width="3" src="lost.svg">\n[j]: x.md\n'
    )
    assert {said.split(":")[0] for said in broken(text, page)} == {
        "gone.md", "gone.png", "#nowhere", "there.md#no", "lost.svg", "x.md",
    }  # fmt: skip


def test_blocks_of_python_share_their_names_and_find_the_market(tmp_path, monkeypatch):
    text = (
        "```python\nimport pandas as pd\nskus = pd.read_parquet('skus.parquet')\n```\nthen\n"
        "```python\n# not run\nraise RuntimeError\n```\n```python\nn = len(skus)\n```\n"
    )
    assert run([b for b in blocks(text, "python") if runnable(b)], tmp_path, monkeypatch)["n"] > 100
    with pytest.raises(NameError):
        run([(3, "missing\n")], tmp_path, monkeypatch)
