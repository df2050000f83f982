"""Deepfake-Eval-2024: the words of its tables, videos and images."""

import re
from pathlib import Path

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem, Video
from fmsd.data.sources import deepfake_eval
from fmsd.errors import InputError
from tests.conftest import write_image

VIDEOS = """Filename,Date,Video Ground Truth,Audio Ground Truth,Public Comments,Finetuning Set
-QVb.mp4,2024-11-14,Fake,Unknown,"lip sync, off",train
_3WX.mp4,2024-11-14,Real,Fake,,test
o0MU.mp4,2024-11-14,real,Real,,Test
gone.mp4,2024-11-14,Unknown,Unknown,,test
fake.mp4,2024-11-14,FAKE,Fake,,TEST
"""
IMAGES = """Filename,Ground Truth,Finetuning Set
a.webp,Fake,Train
a.jpg,Real,Test
#NAME?,Fake,Test
b.png,Unknown,
c.png,Real,
"""


def copy(root: Path, table: str = VIDEOS) -> Path:
    """A copy of the videos, with extracted frames."""
    (root / "video-metadata-publish.csv").write_text(table)
    for name in ("-QVb", "_3WX", "o0MU", "gone", "fake"):
        (root / "video-data").mkdir(exist_ok=True)
        (root / "video-data" / f"{name}.mp4").touch()
        write_image(root / "video-data" / "frames" / name / "000.png", 0, 8)
    return root


def test_label_and_split_are_those_of_the_table_and_the_sound_is_told(tmp_path: Path) -> None:
    entries = list(deepfake_eval.scan(copy(tmp_path), "eval", "video"))
    assert {
        (entry.video, entry.label, entry.split, entry.audio)
        for entry in entries
        if isinstance(entry, Video)
    } == {
        ("eval/fake/-QVb", 1, "train", ""),
        ("eval/real/_3WX", 0, "test", "fake"),
        ("eval/real/o0MU", 0, "test", "real"),
        ("eval/fake/fake", 1, "test", "fake"),
    }
    assert [str(entry) for entry in entries if isinstance(entry, Problem)] == [
        f"1 rows of {tmp_path / 'video-metadata-publish.csv'} are labelled Unknown, and are "
        "left out."
    ]
    assert from_entries(entries, tmp_path).validate().videos == 4


def test_real_pictures_under_fake_speech_are_left_out_where_asked_for(tmp_path: Path) -> None:
    entries = list(deepfake_eval.scan(copy(tmp_path), "eval", "video", real_with_fake_audio=False))
    real = [entry.video for entry in entries if isinstance(entry, Video) and entry.label == 0]
    assert real == ["eval/real/o0MU"]
    assert any("under fake speech" in str(entry) for entry in entries)


def test_images_are_videos_of_their_own_and_what_is_not_labelled_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "image-metadata-publish-with-links.csv").write_text(IMAGES)
    for number, name in enumerate(("a.webp", "a.jpg", "b.png", "c.png", "d.png")):
        write_image(tmp_path / "image-data" / name, number, 8)
    table = from_entries(deepfake_eval.scan(tmp_path, "eval", "image"), tmp_path).validate().table
    assert set(table.select("path", "label", "split").rows()) == {
        ("image-data/a.webp", 1, "train"),
        ("image-data/a.jpg", 0, "test"),
    }
    assert table["video"].n_unique() == 2
    for text in (
        "1 rows of .* spreadsheet's #NAME",
        "are labelled Unknown",
        "have no Finetuning Set",
        "d.png is not in",
    ):
        assert any(re.search(text, line) for line in caplog.messages), text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Fake,Unknown,", "Fakeish,Unknown,", r"Line 2 of .* labels -QVb.mp4 'Fakeish'"),
        ("Real,Fake,,test", "Real,Fake,,Holdout", r"Line 3 .* Finetuning Set 'Holdout'"),
        ("gone.mp4,2024-11-14,Unknown", "o0MU.mp4,2024-11-14,Fake", r"Line 5 .* lists o0MU.mp4"),
        ("Video Ground Truth", "Verdict", "lacks the columns Video Ground Truth"),
    ],
)
def test_other_words_and_contradictions_are_refused_with_their_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        list(deepfake_eval.scan(copy(tmp_path, VIDEOS.replace(old, new)), "eval", "video"))


def found(root: Path, table: str, **options: object) -> dict[str, tuple[int, str]]:
    entries = deepfake_eval.scan(copy(root, table), "eval", "video", **options)  # pyright: ignore[reportArgumentType]
    return {
        entry.video.rpartition("/")[2]: (entry.label, entry.split)
        for entry in entries
        if isinstance(entry, Video)
    }


@pytest.mark.parametrize("word", ["Real", "Unknown"])
@pytest.mark.parametrize("last", [True, False])
def test_two_files_of_one_stem_keep_their_own_rows(tmp_path: Path, word: str, last: bool) -> None:
    header, *rows = str(VIDEOS).splitlines()
    rows.insert(len(rows) if last else 0, f"fake.mov,2024-11-14,{word},,,train")
    table = "\n".join((header, *rows))
    assert found(tmp_path, table)["fake"] == (1, "test")
    (tmp_path / "video-data" / "fake.mp4").unlink()
    with pytest.raises(InputError, match=r"lists fake\.m.* and fake\.m.* what lies on disk may be"):
        list(deepfake_eval.scan(tmp_path, "eval", "video"))
    (tmp_path / "video-data" / "frames" / "fake" / "000.png").unlink()
    (tmp_path / "video-data" / "frames" / "fake").rmdir()
    assert "fake" not in {
        entry.video.rpartition("/")[2]
        for entry in deepfake_eval.scan(tmp_path, "eval", "video")
        if isinstance(entry, Video)
    }
    copy(
        tmp_path, table.replace(f"fake.mov,2024-11-14,{word},,,train", "fake.mov,x,Fake,Fake,,test")
    )
    (tmp_path / "video-data" / "fake.mp4").unlink()
    entries = deepfake_eval.scan(tmp_path, "eval", "video")
    assert "eval/fake/fake" in {entry.video for entry in entries if isinstance(entry, Video)}


def test_an_overall_label_is_read_only_where_it_is_said_to_be_of_the_pictures(
    tmp_path: Path,
) -> None:
    table = VIDEOS.replace("Video Ground Truth", "ground truth")
    with pytest.raises(InputError, match=r"no column Video Ground Truth; .*pictures and") as caught:
        found(tmp_path, table)
    assert "'data.source.label_column=\"Ground Truth\"'" in caught.value.remedy
    assert found(tmp_path, table, label_column="Ground Truth") == found(tmp_path, VIDEOS)


def test_a_folder_without_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds neither video-metadata-publish\.csv nor"):
        list(deepfake_eval.scan(tmp_path, "eval", "video"))
