"""Splits in the names of folders, and layouts that lack or repeat them."""

from pathlib import Path
from typing import Any

import pytest

from fmsd.data.sources import (
    folder,
)
from fmsd.errors import InputError
from tests.conftest import grow_tree
from tests.indexing import SPLITS, faces, refusal, remedies, run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("unknown", "split"),
    [
        *((word, "train") for word in ("Train", "training")),
        *((word, "val") for word in ("Val", "VALID", "Validation", "dev")),
        *((word, "test") for word in ("Test", "TEST", "testing", "test ")),
        *((word, None) for word in ("Test set", "contest", "2019", "te.st")),
    ],
)
def test_the_remedy_for_an_unknown_split_is_the_split_it_means_or_a_choice(
    tmp_path: Path, unknown: str, split: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    root = faces(tmp_path / "root", "real", "swap", split=unknown)
    words = ["data=folder", f"data.root={root}"]
    sentence = refusal(capsys, *words, out=tmp_path / "o.parquet")
    assert f"{root / unknown} is in no known split" in sentence
    (remedy,) = remedies(sentence)
    if split is None:
        assert "train|val|test" in remedy
        assert "is no split; choose one of train, val, test" in refusal(
            capsys, *words, remedy, out=tmp_path / "o.parquet"
        )
        remedy = remedy.replace("train|val|test", "test")
    assert set(run(*words, remedy, out=tmp_path / "o.parquet").table["split"]) == {split or "test"}


def test_the_remedy_names_all_unknown_splits_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = grow_tree(tmp_path / "root", splits=("Train", "Val", "Test"))
    words = ["data=folder", f"data.root={root}"]
    proposed = remedies(refusal(capsys, *words, out=tmp_path / "o.parquet"))
    assert set(run(*words, *proposed, out=tmp_path / "o.parquet").table["split"]) == {
        "train",
        "val",
        "test",
    }


@pytest.mark.parametrize(
    ("layout", "split", "message"),
    [
        (
            "{split}/{video}",
            None,
            r"lacks the domain; write {domain} in data\.source\.layout",
        ),
        (
            "{domain}/{video}",
            None,
            r"lacks the split; add {split} to it, or give all files one: "
            r"data\.source\.split=train, val or test",
        ),
        (
            "{split}/{domain}/{video}",
            "test",
            r"has the split, and so has data\.source\.split=test; leave data\.source\.split out",
        ),
        (
            "{domain}/{video}",
            "Test",
            r"data\.source\.split=Test is no split; choose one of train, val, test",
        ),
    ],
)
def test_a_layout_says_what_it_lacks(tmp_path: Path, layout: str, split: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(folder.scan(tmp_path, "x", layout, SPLITS, None, split))  # pyright: ignore[reportArgumentType]
