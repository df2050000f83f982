"""IDForge: labels of the images by task, splits by the lists."""

from pathlib import Path

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem
from fmsd.data.sources import idforge
from fmsd.errors import InputError
from tests.conftest import write_image

LISTS = {
    "train": ["pristine/id00/id00_01/id00_scene_0010-0", "face_tts/id00/id00_01/id00_scene_0_roop"],
    "val": ["pristine/id01/id01_01/id01_scene_0010-0"],
    "test": [
        "pristine/id02/id02_01/id02_scene_0010-0",
        "rvc_textmismatch/id02/id02_01/id02_scene_0010-0.mp3",
        "lip_audiomismatch_textmismatch/id02/id02_01/id02_scene_0010-0",
        "face_rvc_textmismatch/id02/id02_01/id02_scene_0010-0_infoswap",
        "face_rvc_textmismatch/id02/id02_01/id02_scene_0010-0",
    ],
}


def tree(root: Path, lists: dict[str, list[str]] = LISTS) -> Path:
    for split, names in lists.items():
        for name in names:
            write_image(root / name / "0.png", 0, 8)
        (root / f"{split}.csv").write_text("".join(f"{name}.mp4\n" for name in names))
    return root


def test_one_name_in_several_tasks_is_several_videos_with_labels_of_the_images(
    tmp_path: Path,
) -> None:
    root = tree(tmp_path)
    manifest = from_entries(idforge.scan(root), root).validate()
    tested = manifest.table.filter(split="test").select("domain", "label", "audio").rows()
    assert sorted(tested) == [
        ("face", 1, "fake"), ("infoswap", 1, "fake"), ("lip", 1, "real"), ("real", 0, "real"),
    ]  # fmt: skip
    assert manifest.table.filter(split="train")["domain"].sort().to_list() == ["real", "roop"]
    assert not [entry for entry in idforge.scan(root) if isinstance(entry, Problem)]


def test_real_images_under_fake_speech_are_real_where_asked_for(tmp_path: Path) -> None:
    root = tree(tmp_path)
    manifest = from_entries(idforge.scan(root, real_with_fake_audio=True), root).validate()
    taken = manifest.table.filter(audio="fake", label=0)
    assert taken["video"].to_list() == [
        "idforge/real/rvc_textmismatch/id02/id02_01/id02_scene_0010-0.mp3"
    ]


def test_a_video_in_two_lists_is_a_test_video_and_told(tmp_path: Path) -> None:
    root = tree(tmp_path, LISTS | {"train": [*LISTS["train"], LISTS["test"][0]]})
    (problem,) = (entry for entry in idforge.scan(root) if isinstance(entry, Problem))
    assert problem.kind == "repeated"
    assert from_entries(idforge.scan(root), root).table.filter(split="train").height == 2


@pytest.mark.parametrize(
    "line", ["path", "Pristine/id00/id00_01/a.mp4", "id00_01/a.mp4", "real/id00/id00_01/a.mp4"]
)
def test_a_line_with_an_unknown_task_is_refused(line: str, tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "val.csv").write_text(f"{line}\n")
    with pytest.raises(InputError, match=r"Line 1 of .*val\.csv is .*, not TASK/PERSON/SESSION"):
        list(idforge.scan(root))
