"""HydraFake: subsets pooled, chosen and apart."""

from pathlib import Path

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem
from fmsd.data.manifest import Manifest
from fmsd.data.sources import hydrafake
from fmsd.errors import InputError
from tests.conftest import write_image


def tree(root: Path) -> Path:
    names = [
        f"test/{subset}/{label}" for subset in ("gpt4o", "FFIW") for label in ("0_real", "1_fake")
    ]
    for number, name in enumerate([*names, "val/real", "val/fake", "train/fake/FS/blendface"]):
        write_image(root / name / "0.png", number, 8)
    return root


def scanned(root: Path, **options: object) -> Manifest:
    return from_entries(hydrafake.scan(root, **options), root).validate()  # pyright: ignore[reportArgumentType]


def test_the_domain_is_the_subset_or_the_method(tmp_path: Path) -> None:
    table = scanned(tree(tmp_path)).table
    assert sorted(table.select("domain", "label", "split").rows()) == [
        ("FFIW", 1, "test"),
        ("blendface", 1, "train"),
        ("fake", 1, "val"),
        ("gpt4o", 1, "test"),
        ("real", 0, "test"),
        ("real", 0, "test"),
        ("real", 0, "val"),
    ]
    assert set(table["dataset"]) == {"hydrafake"}


def test_a_subset_apart_is_compared_with_its_own_real_images(tmp_path: Path) -> None:
    manifest = scanned(tree(tmp_path), apart=True, subsets="gpt4o")
    tests = manifest.where(split="test")
    assert set(tests.table["dataset"]) == {"hydrafake_gpt4o"}
    assert set(tests.table["path"]) == {"test/gpt4o/0_real/0.png", "test/gpt4o/1_fake/0.png"}


def test_unknown_subsets_and_misplaced_images_are_named(tmp_path: Path) -> None:
    root = tree(tmp_path)
    with pytest.raises(InputError, match=r"holds no subset gpt5.*choose from FFIW, gpt4o"):
        scanned(root, subsets=["gpt5"])
    write_image(root / "test" / "0_real" / "1.png", 0, 8)
    (problem,) = [entry for entry in hydrafake.scan(root) if isinstance(entry, Problem)]
    assert "of no subset" in str(problem)
    write_image(root / "test" / "gpt4o" / "2.png", 0, 8)
    with pytest.raises(InputError, match="lie in 0 of 0_real, 1_fake, real, fake"):
        scanned(root)
    with pytest.raises(InputError, match="There is no folder"):
        scanned(root / "test")
