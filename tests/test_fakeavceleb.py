"""FakeAVCeleb: the pictures alone, as its table describes them."""

from pathlib import Path

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem, Video
from fmsd.data.sources import fakeavceleb
from fmsd.errors import InputError
from tests.conftest import write_image

HEADER = "source,target1,target2,method,category,type,race,gender,path,"
ROWS = [
    ("id00076", "real", "A", "RealVideo-RealAudio", "African", "00109"),
    ("id00056", "real", "A", "RealVideo-RealAudio", "Asian (East)", "00109"),
    ("id00076", "rtvc", "B", "RealVideo-FakeAudio", "African", "00109_fake"),
    ("id00076", "faceswap", "C", "FakeVideo-RealAudio", "African", "00109_id00166_faceswap"),
    (
        "id00076",
        "fsgan-wav2lip",
        "D",
        "FakeVideo-FakeAudio",
        "African",
        "00109_2_id00701_fsgan-wav2lip",
    ),
    ("id00056", "wav2lip", "D", "FakeVideo-FakeAudio", "Asian (East)", "00109_0_wavtolip"),
]


def folder(row: tuple[str, ...]) -> str:
    return f"{row[3]}/{row[4]}/men/{row[0]}"


def tree(root: Path, rows: list[tuple[str, ...]] = ROWS, frames: bool = True) -> Path:
    lines = [
        f"{row[0]},-,-,{row[1]},{row[2]},{row[3]},{row[4]},men,{row[5]}.mp4,FakeAVCeleb/{folder(row)}"
        for row in rows
    ]
    root.mkdir(exist_ok=True)
    (root / "meta_data.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    for row in rows:
        place = root / folder(row)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{row[5]}.mp4").touch()
        if frames:
            write_image(place / "frames" / row[5] / "000.png", 0, 8)
    return root


def test_the_label_is_that_of_the_pictures_and_the_domain_the_method(tmp_path: Path) -> None:
    manifest = from_entries(fakeavceleb.scan(tree(tmp_path)), tmp_path).validate()
    assert set(manifest.table.select("video", "label", "domain", "split").rows()) == {
        ("fakeavceleb/real/RealVideo-RealAudio/African/men/id00076_00109", 0, "real", "test"),
        ("fakeavceleb/real/RealVideo-RealAudio/Asian (East)/men/id00056_00109", 0, "real", "test"),
        (
            "fakeavceleb/faceswap/FakeVideo-RealAudio/African/men/id00076_00109_id00166_faceswap",
            1,
            "faceswap",
            "test",
        ),
        (
            "fakeavceleb/fsgan-wav2lip/FakeVideo-FakeAudio/African/men/id00076_00109_2_id00701_fsgan-wav2lip",
            1,
            "fsgan-wav2lip",
            "test",
        ),
        (
            "fakeavceleb/wav2lip/FakeVideo-FakeAudio/Asian (East)/men/id00056_00109_0_wavtolip",
            1,
            "wav2lip",
            "test",
        ),
    }


def test_real_pictures_with_fake_sound_are_real_where_asked_for(tmp_path: Path) -> None:
    tree(tmp_path, frames=False)
    (video,) = [
        entry
        for entry in fakeavceleb.scan(tmp_path, types=["RealVideo-FakeAudio"])
        if isinstance(entry, Video)
    ]
    assert (video.label, video.domain, video.file) == (
        0,
        "real",
        tmp_path / "RealVideo-FakeAudio/African/men/id00076/00109_fake.mp4",
    )


def test_videos_that_show_one_person_are_held_out_together_whoever_lends_the_face(
    tmp_path: Path,
) -> None:
    rows = [("id00056", *ROWS[0][1:]), ("id00076", *ROWS[0][1:])]
    rows += [
        (one, *ROWS[3][1:5], f"00109_{other}_faceswap")
        for one, other in (("id00056", "id00076"), ("id00076", "id00056"))
    ]
    split = from_entries(fakeavceleb.scan(tree(tmp_path, rows), split="train"), tmp_path).hold_out(
        0.5
    )
    held, kept = (
        split.where(split=name).table["video"].str.extract(r"/(id\d+)_[^/]*$").to_list()
        for name in ("val", "train")
    )
    assert len(set(held)) == len(set(kept)) == 1
    assert set(held) != set(kept)
    assert set(split.where(split="val").table["label"]) == {0, 1}


def test_absent_unlisted_and_repeated_videos_are_told(tmp_path: Path) -> None:
    again = (
        "id00056",
        "faceswap-wav2lip",
        "D",
        "FakeVideo-FakeAudio",
        "Asian (East)",
        "00109_0_wavtolip",
    )
    tree(tmp_path, [*ROWS, again], frames=False)
    (tmp_path / folder(ROWS[3]) / f"{ROWS[3][5]}.mp4").unlink()
    (tmp_path / folder(ROWS[0]) / "00110.mp4").touch()
    entries = list(fakeavceleb.scan(tmp_path))
    found = {entry.kind: str(entry) for entry in entries if isinstance(entry, Problem)}
    assert set(found) == {"repeated", "missing", "unlisted", "folders without frames"}
    assert "Line 8 " in found["repeated"]
    assert "it stays wav2lip" in found["repeated"]
    assert "lists 00109_id00166_faceswap, which" in found["missing"]
    assert "id00076/00110.mp4 is not in" in found["unlisted"]
    assert len([entry for entry in entries if isinstance(entry, Video)]) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"There is no .*meta_data\.csv"),
        (
            "source,type,path\n",
            r"lacks the columns target1, target2, method, .*; it needs source, target1",
        ),
        (
            f"{HEADER}\nid1,-,-,real,A,RealVideo-RealAudio,African,men,1.mp4\n",
            r"Line 2 of .* has no valid type and folder",
        ),
        (
            f"{HEADER}\nid1,-,-,real,A,Unknown,African,men,1.mp4,FakeAVCeleb/Unknown/id1\n",
            r"Line 2 of .* has no valid type and folder",
        ),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "meta_data.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        list(fakeavceleb.scan(tmp_path))


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no type FakeVideo; choose from RealVideo-RealAudio"):
        list(fakeavceleb.scan(tree(tmp_path), types=["FakeVideo"]))
