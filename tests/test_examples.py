"""The notebooks of examples/ run, and can be read without running them."""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tests.notebooks import METADATA, NOTEBOOKS, ROOT, execute
from tests.test_docs import LINK, broken

README = ROOT / "examples" / "README.md"
MACHINE_PATH = re.compile(r"(?<![\w.:/<>~+-])(?:/[\w.+-]+){2,}|\b[A-Z]:\\")
"""An absolute path of two parts or more; addresses and HTML are none."""

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def texts(notebook: NotebookNode) -> Iterator[str]:
    """Everything that the outputs show as text."""
    for output in outputs(notebook):
        yield output.get("text", "")
        yield from (
            value for kind, value in output.get("data", {}).items() if kind.startswith("text/")
        )


def machine_paths(notebook: NotebookNode) -> list[str]:
    return [found[0] for text in texts(notebook) for found in MACHINE_PATH.finditer(text)]


def pictures(notebook: NotebookNode) -> list[str]:
    return [
        value
        for output in outputs(notebook)
        for kind, value in output.get("data", {}).items()
        if kind.startswith("image/")
    ]


@every_notebook
def test_a_notebook_is_stored_as_it_ran(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert outputs(notebook)
    assert not [output for output in outputs(notebook) if output.output_type == "error"]


@every_notebook
def test_a_stored_notebook_is_small_and_shows_nothing_of_its_machine(path: Path) -> None:
    notebook = read(path)
    assert notebook.metadata == METADATA
    assert not [cell.metadata for cell in notebook.cells if cell.metadata]
    assert machine_paths(notebook) == []
    assert 1 <= len(pictures(notebook)) <= 2
    assert max(map(len, pictures(notebook))) < 60_000 * 4 / 3  # base64


@every_notebook
def test_a_notebook_begins_with_a_title_and_its_links_lead_somewhere(path: Path) -> None:
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert not list(broken(path))


def test_the_readme_lists_every_notebook() -> None:
    linked = {first for first, _ in LINK.findall(README.read_text()) if first.endswith(".ipynb")}
    assert linked == {path.name for path in NOTEBOOKS}
    assert not list(broken(README))


@pytest.mark.parametrize(
    "text", ["in /home/ada/runs", "'/tmp/x/y'", "(/data/ff++/a.png)", r"C:\Users"]
)
def test_a_path_of_a_machine_is_noticed(text: str) -> None:
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize("text", ["runs/probe/run.json", "https://a.org/b/c", "</td></tr>", "1/2"])
def test_other_text_is_no_path_of_a_machine(text: str) -> None:
    assert not MACHINE_PATH.search(text)


@pytest.mark.slow
@every_notebook
def test_a_notebook_runs_and_writes_only_temporary_files(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    working = tmp_path / "working"
    working.mkdir()
    before = snapshot()
    ran = execute(path, working)
    assert snapshot() == before
    assert not list(working.iterdir())
    assert machine_paths(ran) == []
    assert [kinds(cell) for cell in code_cells(ran)] == [
        kinds(cell) for cell in code_cells(read(path))
    ]


def snapshot() -> dict[str, int]:
    """What lies in the checkout and in examples/, with the times of the notebooks."""
    shown = [path for path in ROOT.iterdir() if not path.name.startswith((".", "_"))]
    return dict.fromkeys(map(str, shown), 0) | {
        str(path): path.stat().st_mtime_ns for path in README.parent.iterdir() if path.is_file()
    }


def kinds(cell: NotebookNode) -> set[str]:
    """The kinds of output that a reader of the stored notebook sees, but for log lines."""
    return {kind for output in cell.outputs for kind in output.get("data", {})}
