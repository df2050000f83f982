"""DeepSpeak 1.1 and 2.0: fakes by their annotations, split by the actor on screen."""

from pathlib import Path

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem
from fmsd.data.sources import deepspeak
from fmsd.errors import InputError
from tests.conftest import write_image

FIRST = (
    ",video-file,kind,engine,identity-source,identity-target,recording-source,recording-target,"
    "recording-target-ai-generated,gesture-type,script-type\n"
    "0,facefusion--10-11--4100-4897--0.mp4,face-swap,facefusion,10,11,4100,4897,False,wave,-\n"
    "1,wav2lip--11-11--4903-4131--1.mp4,lip-sync,wav2lip,11,11,4903,4131,True,wave,-\n"
)
SECOND = (
    "video-file,kind,engine,identity-source,identity-target,recording-source,recording-target,"
    "audio-config,gen-config,gesture-type,script-type\n"
    "facefusion-4100-4897.mp4,face-swap,facefusion,10,11,4100,4897,real,simswap,wave,-\n"
    "diff2lip-4903-4131-playht.mp4,lip-sync,diff2lip,11,11,4903,4131,playht,,wave,-\n"
)
REALS = ["11-4897", "11-4131", "10-4100"]


def tree(root: Path, fakes: str = SECOND, suffix: str = ".mp4") -> Path:
    root.mkdir(exist_ok=True)
    rows = "".join(f"{name}.mp4,{name.partition('-')[0]},scripted\n" for name in REALS)
    (root / deepspeak.REAL_LIST).write_text("video-file,identity,script-type\n" + rows)
    (root / deepspeak.FAKE_LIST).write_text(fakes)
    (root / deepspeak.SPLIT_LIST).write_text("identity,split\n10,train\n11,test\n")
    names = [cell for line in fakes.splitlines() for cell in line.split(",") if ".mp4" in cell]
    for place, name in enumerate([*REALS, *(name[:-4] for name in names)]):
        folder = root / "dataset" / str(place % 2)
        write_image(folder / "frames" / name / "0.png", 0, 8)
        (folder / f"{name}{suffix}").touch()
    return root


@pytest.mark.parametrize(
    ("fakes", "expected"),
    [
        (FIRST, ["facefusion--10-11--4100-4897--0", "wav2lip--11-11--4903-4131--1"]),
        (SECOND, ["facefusion-4100-4897", "diff2lip-4903-4131-playht"]),
    ],
)
def test_both_releases(fakes: str, expected: list[str], tmp_path: Path) -> None:
    root = tree(tmp_path, fakes, ".MP4")
    manifest = from_entries(deepspeak.scan(root, "d"), root).validate()
    swap, lips = expected
    engine = lips.partition("-")[0]
    kept = manifest.table.select("video", "domain", "split", "pair", "audio").rows()
    assert set(kept) == {
        ("d/real/11_11-4897", "real", "test", "", "real"),
        ("d/real/11_11-4131", "real", "test", "", "real"),
        ("d/real/10_10-4100", "real", "train", "", "real"),
        (f"d/facefusion/11_10_{swap}", "facefusion", "test", "d/real/11_11-4897", "real"),
        (f"d/{engine}/11_{lips}", engine, "test", "d/real/11_11-4131", "fake"),
    }


def test_actors_without_a_split_are_left_out_and_told(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / deepspeak.SPLIT_LIST).write_text("identity,split\n11,test\n")
    entries = list(deepspeak.scan(root, "d"))
    (problem,) = (entry for entry in entries if isinstance(entry, Problem))
    assert "has no split for 1 actors, the first 10" in problem.what
    assert len(entries) == 5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("11,test", "11,dev", "Line 3 / split in .* is 'dev', none of train, test"),
        ("11,test", "11,test\n11,train", "has the actor 11 in another split again"),
        ("playht,,", "Fake,,", "Line 3 / audio-config in .* is 'Fake', none of real, elevenlabs"),
        ("face-swap,facefusion", "face-swap,Real", "gives a fake the forgery 'Real'"),
        ("engine,", "tool,", "lacks the columns engine"),
        ("11-4131.mp4,11", "11-4897.mp4,11", "lists 11-4897.mp4 again"),
    ],
)
def test_unknown_words_are_refused_by_name(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    root = tree(tmp_path)
    for path in root.glob("*.csv"):
        path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        list(deepspeak.scan(root, "d"))
