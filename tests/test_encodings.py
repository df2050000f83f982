"""Every text file is read and written as UTF-8, whatever the locale says."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fmsd
from fmsd.machine_errors import machine_error
from tests.conftest import grow_tree
from tests.surroundings import python_path

ROOT = Path(fmsd.__file__).parents[1]
FOLDERS = ("fmsd", "benchmarks", "docs", "experiments")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

PLACES = {
    "read_text": 0,
    "write_text": 1,
    "open": 2,
    "TemporaryFile": 2,
    "NamedTemporaryFile": 2,
    "TextIOWrapper": 1,
}
"""Where the encoding stands among a call's arguments; of the builtin `open` it is one further."""

PROCESSES = ("run", "Popen", "check_output", "call", "check_call")


def unsaid(source: str) -> list[int]:
    """The lines of calls that open a text without saying its encoding."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and _is_unsaid(node)
    ]


def _is_unsaid(call: ast.Call) -> bool:
    function, keywords = call.func, {keyword.arg: keyword.value for keyword in call.keywords}
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if "encoding" in keywords:
        return False
    if "text" in keywords or "universal_newlines" in keywords:  # of a process
        return name in PROCESSES
    if name not in PLACES:
        return False
    owner = function.value if isinstance(function, ast.Attribute) else None
    if (
        name == "open"
        and isinstance(owner, ast.Name)
        and owner.id in ("av", "Image", "tarfile", "webbrowser", "os")
    ):
        return False
    if name in ("open", "TemporaryFile", "NamedTemporaryFile"):
        place = 0 if name != "open" or owner is not None else 1
        mode = keywords.get("mode") or (call.args[place] if len(call.args) > place else None)
        text = mode.value if isinstance(mode, ast.Constant) else ("r" if name == "open" else "w+b")
        return "b" not in str(text)
    return len(call.args) <= PLACES[name]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_text_file_is_opened_with_its_encoding(path: Path) -> None:
    assert unsaid(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("call", "fine"),
    [
        ("path.read_text()", False),
        ("path.read_text(errors='replace')", False),
        ("path.read_text('utf-8')", True),
        ("path.read_text(encoding='utf-8')", True),
        ("path.write_text(text)", False),
        ("path.write_text(text, encoding='utf-8')", True),
        ("path.open()", False),
        ("path.open('rb')", True),
        ("path.open('a+')", False),
        ("path.open(newline='')", False),
        ("open(name)", False),
        ("open(name, 'rb')", True),
        ("open(name, encoding='utf-8')", True),
        ("Image.open(name)", True),
        ("TemporaryFile()", True),
        ("TemporaryFile('w+')", False),
        ("subprocess.run(command, text=True)", False),
        ("subprocess.run(command, encoding='utf-8')", True),
        ("subprocess.run(command)", True),
    ],
)
def test_the_check_knows_one_from_the_other(call: str, fine: bool) -> None:
    assert (unsaid(call) == []) == fine


@pytest.mark.slow
def test_a_name_that_is_utf_8_is_not_called_otherwise_where_the_locale_is_ascii(
    tmp_path: Path,
) -> None:
    grow_tree(tmp_path / "données")
    grow_tree(tmp_path / "plain")
    (tmp_path / "plain/train/real").rename(tmp_path / "plain/train/réal")
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "fmsd", "index", "data=folder", "out=m.parquet"]
    for root in ("données", "plain"):
        done = subprocess.run(
            [*command, f"data.root={root}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": python_path(), **variables},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.endswith(
            " is not ASCII, the encoding of this locale; set LC_ALL=C.UTF-8 or PYTHONUTF8=1.\n"
        )


def test_a_file_whose_name_the_locale_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    error = UnicodeEncodeError("ascii", "données/0.png", 4, 5, "ordinal not in range(128)")
    assert machine_error(error) is None  # not from a file: the encoding of names is another one
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    refusal = machine_error(error)
    assert refusal is not None
    assert str(refusal) == (
        "'données/0.png' is not ASCII, the encoding of this locale; set LC_ALL=C.UTF-8 or "
        "PYTHONUTF8=1."
    )
