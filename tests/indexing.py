"""`fmsd index` as a user runs it: the manifest, the refusal, the remedies in the refusal."""

import re
import shlex
from pathlib import Path

import pytest

from fmsd.cli.main import main
from fmsd.data.manifest import Manifest, read_manifest
from tests.conftest import write_image

SPLITS = {"train": "train", "val": "val", "test": "test"}


def domains(manifest: Manifest) -> dict[str, int]:
    return dict(manifest.table.select("domain", "label").unique().rows())


def run(*words: str, out: Path) -> Manifest:
    """The manifest that `fmsd index` writes for the words of a command line."""
    assert main(["index", *words, f"out={out}"]) == 0
    return read_manifest(out, Path("/"))


def refusal(capsys: pytest.CaptureFixture[str], *words: str, out: Path) -> str:
    """The sentence with which `fmsd index` refuses the words of a command line."""
    assert main(["index", *words, f"out={out}"]) == 2
    assert not out.exists()
    return capsys.readouterr().err.strip().splitlines()[-1]


def remedies(sentence: str) -> list[str]:
    """The words for the command line that a sentence proposes, as a shell reads them."""
    return [
        shlex.split(word)[0]
        for word in re.findall(r"'\+?data\.source\.[^']*(?:'\"'\"'[^']*)*'", sentence)
    ]


def faces(root: Path, *names_: str, split: str = "") -> Path:
    for number, name in enumerate(names_):
        write_image(root / split / name / "v" / "0.png", number, 8)
    return root


LAYOUT = ['data.source.layout="{domain}/{video}"', "data.source.split=test"]
