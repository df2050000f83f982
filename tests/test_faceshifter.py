"""FaceShifter, as conf/data/faceshifter.yaml reads it from the tree of FaceForensics++."""

import json
from pathlib import Path
from typing import Any

import hydra
import pytest

from fmsd.cli.build import build_selection
from fmsd.data.entries import from_entries
from fmsd.errors import InputError
from fmsd.package_files import CONF
from tests.conftest import write_image

PAIRS = {"train": [["071", "054"]], "val": [["720", "672"]], "test": [["953", "974"]]}


def data(root: Path, *overrides: str) -> Any:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return build_selection(
            hydra.compose("train", ["data=faceshifter", f"data.root={root}", *overrides]).data
        )


def tree(root: Path, compression: str = "c23") -> Path:
    for one, other in (pair for pairs in PAIRS.values() for pair in pairs):
        for place, names in (
            ("original_sequences/youtube", (one, other)),
            ("manipulated_sequences/FaceShifter", (f"{one}_{other}", f"{other}_{one}")),
        ):
            for name in names:
                write_image(root / place / compression / "frames" / name / "000.png", 0, 8)
    for split, pairs in PAIRS.items():
        (root / f"{split}.json").write_text(json.dumps(pairs))
    return root


@pytest.mark.parametrize("compression", ["c23", "c40"])
def test_it_has_the_official_split_in_every_compression(tmp_path: Path, compression: str) -> None:
    root = tree(tmp_path, compression)
    manifest = from_entries(
        data(root, f"data.source.compression={compression}").source(root), root
    ).validate()
    counts = {
        split: manifest.where(split=split).table["domain"].value_counts().rows() for split in PAIRS
    }
    assert {split: dict(rows) for split, rows in counts.items()} == {
        split: {"real": 2, "FaceShifter": 2} for split in PAIRS
    }
    assert (
        f"faceshifter/FaceShifter/{compression}/953_974"
        in manifest.where(split="test").table["video"].to_list()
    )


def test_a_root_with_neither_the_tree_nor_the_benchmark_file_says_both(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"lacks .*FaceShifter/c23.*does not hold DeepfakeBench's FaceShifter\.json, either",
    ):
        list(data(tmp_path).source(tmp_path))
