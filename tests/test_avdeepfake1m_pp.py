"""AV-Deepfake1M++: labels of the images, models, persons, originals."""

import json
from pathlib import Path
from typing import Any

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.sources import avdeepfake1m_pp
from fmsd.data.sources.listing import group_name
from fmsd.errors import InputError
from tests.conftest import write_image

FOLDER = "vox_celeb_2/id01358/1nATum8x78/00030"
CLIP = "0Fi83BHQsMA"


def row(
    file: str, kind: str = "real", model: str | None = None, original: str | None = None
) -> dict[str, Any]:
    return {
        "file": f"{file}.mp4", "modify_type": kind, "video_model": model, "split": "val",
        "original": original, "fake_segments": [] if kind == "real" else [[0.1, 0.4]],
    }  # fmt: skip


ROWS = [
    row(f"{FOLDER}/real", original="VoxCeleb2/dev/mp4/id01358/1nATum8x78/00030.mp4"),
    row(f"{FOLDER}/fake_audio", "audio_modified", None, f"{FOLDER}/real.mp4"),
    row(f"{FOLDER}/fake_video", "visual_modified", "Talklip", f"{FOLDER}/real.mp4"),
    row(f"{FOLDER}/fake_both", "both_modified", "Talklip", f"{FOLDER}/real.mp4"),
    row(f"lrs3/{CLIP}/00002/real"),
    row("silent_videos/subject_3_ab_vid_1_2/fake", "visual_modified", "diff2lip", "upstream"),
]


def tree(root: Path, rows: list[dict[str, Any]] = ROWS, below: str = "val") -> Path:
    for about in rows:
        write_image(root / below / about["file"].removesuffix(".mp4") / "0.png", 0, 8)
    (root / "val_metadata.json").write_text(json.dumps(rows))
    return root


@pytest.mark.parametrize("below", ["val", ""])
def test_the_label_is_that_of_the_images(below: str, tmp_path: Path) -> None:
    root = tree(tmp_path, below=below)
    manifest = from_entries(avdeepfake1m_pp.scan(root, "d"), root).validate()
    real = f"d/real/{FOLDER}/id01358_real"
    assert set(manifest.table.select("video", "pair", "audio").rows()) == {
        (real, "", "real"),
        (f"d/Talklip/{FOLDER}/id01358_fake_video", real, "real"),
        (f"d/Talklip/{FOLDER}/id01358_fake_both", real, "fake"),
        (f"d/real/lrs3/{CLIP}/00002/{group_name(CLIP)}_real", "", "real"),
        ("d/diff2lip/silent_videos/subject_3_ab_vid_1_2/subject3_fake", "", "real"),
    }
    every = from_entries(avdeepfake1m_pp.scan(root, "d", real_with_fake_audio=True), root)
    assert every.validate().table.filter(audio="fake", label=0).height == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modify_type": "both-modified"}, "modify_type in .* is 'both-modified', none of real,"),
        ({"modify_type": "real"}, "is real, but has fake segments"),
        ({"video_model": "sora"}, "video_model in .* is 'sora', none of Talklip, diff2lip"),
        ({"video_model": None}, "video_model in .* is None, none of Talklip, diff2lip"),
        ({"file": "dfdc/x/y/z.mp4"}, "lies in none of the folders vox_celeb_2, lrs3, silent_"),
    ],
)
def test_words_that_it_does_not_have_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    root = tree(tmp_path, [ROWS[0], ROWS[3] | changes])
    with pytest.raises(InputError, match=message):
        list(avdeepfake1m_pp.scan(root))
