"""Runs the notebooks of examples/ and stores them.

`python -m tests.notebooks` runs all of them and stores them with their outputs;
`python -m tests.notebooks merge_two_runs` runs one.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.surroundings import python_path

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""Metadata of a stored notebook: nothing of the machine that ran it."""


def execute(path: Path, working: Path) -> NotebookNode:
    """Returns a notebook with the outputs of a fresh kernel.

    Args:
        path: the notebook; the file stays as it is.
        working: the kernel's working folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(working)}},
    )
    with tempfile.TemporaryDirectory() as temporary:
        variables = {
            "PYTHONPATH": python_path(),
            "TMPDIR": temporary,
            "IPYTHONDIR": temporary,
            "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm asks for ipywidgets
        }
        client.execute(env=os.environ | variables)
    shorten_paths(notebook, temporary)
    return notebook


def shorten_paths(notebook: NotebookNode, temporary: str) -> None:
    """Makes paths in the outputs relative to the notebook's folder below `temporary`."""
    prefix = re.compile(re.escape(temporary) + r"/[^/\s]+/")
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if "text" in output:
            output.text = prefix.sub("", output.text)
        for kind, value in output.get("data", {}).items():
            if kind.startswith("text/"):
                output.data[kind] = prefix.sub("", value)


def store(path: Path) -> None:
    """Runs a notebook and writes it back with its outputs."""
    with tempfile.TemporaryDirectory() as working:
        notebook = execute(path, Path(working))
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for notebook_path in NOTEBOOKS:
        if notebook_path.stem in (sys.argv[1:] or [notebook_path.stem]):
            print(notebook_path.name, flush=True)
            store(notebook_path)
