"""LAV-DF: labels of the images, official split, pairs."""

import json
from pathlib import Path
from typing import Any

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.sources import lavdf
from fmsd.errors import InputError
from tests.conftest import write_image


def row(
    file: str, images: bool = False, speech: bool = False, original: str | None = None
) -> dict[str, Any]:
    return {
        "file": f"{file}.mp4", "split": file.partition("/")[0], "modify_video": images,
        "modify_audio": speech, "n_fakes": int(images or speech), "original": original,
    }  # fmt: skip


ROWS = [
    row("train/000001"),
    row("train/000002", True, False, "train/000001.mp4"),
    row("dev/000003", True, True, "dev/000004.mp4"),
    row("dev/000004"),
    row("test/000005"),
    row("test/000006", False, True, "test/000005.mp4"),
]


def tree(root: Path, rows: list[dict[str, Any]] = ROWS, name: str = "metadata.min.json") -> Path:
    for about in rows:
        write_image(root / about["file"].removesuffix(".mp4") / "0.png", 0, 8)
    (root / name).write_text(json.dumps(rows))
    return root


@pytest.mark.parametrize("name", lavdf.LISTS)
def test_the_label_is_that_of_the_images(name: str, tmp_path: Path) -> None:
    root = tree(tmp_path, name=name)
    manifest = from_entries(lavdf.scan(root), root).validate()
    assert set(manifest.table.select("video", "split", "pair", "audio").rows()) == {
        ("lavdf/real/000001", "train", "", "real"),
        ("lavdf/Wav2Lip/000002", "train", "lavdf/real/000001", "real"),
        ("lavdf/Wav2Lip/000003", "val", "lavdf/real/000004", "fake"),
        ("lavdf/real/000004", "val", "", "real"),
        ("lavdf/real/000005", "test", "", "real"),
    }
    every = from_entries(lavdf.scan(root, real_with_fake_audio=True), root).validate().table
    assert every.filter(audio="fake", label=0)["video"].to_list() == ["lavdf/real/000006"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modify_video": "True"}, "modify_video in .* is text, not true or false"),
        ({"modify_video": 1}, "modify_video in .* is a number, not true or false"),
        ({"split": "val"}, "split in .* is 'val', none of train, dev, test"),
        ({"n_fakes": 2}, "has 2 fake periods, but neither its images nor its speech"),
        ({"file": "test/000006.mp4"}, "lists test/000006.mp4 twice"),
    ],
)
def test_words_that_it_does_not_have_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    root = tree(tmp_path, [*ROWS[:4], ROWS[5], ROWS[4] | changes])
    with pytest.raises(InputError, match=message):
        list(lavdf.scan(root))
