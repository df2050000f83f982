"""Names as lists write them and as disks hold them."""

import logging
import os
import re
import unicodedata
from pathlib import Path

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Entry, Frame, Problem, Video
from fmsd.data.sources import table
from fmsd.data.spelling import ListedPaths, match_names, missing_problems, path_finder, to_nfc
from fmsd.errors import InputError
from tests.conftest import grow_tree, write_image
from tests.test_text import READERS, texts

NFC, NFD = "é", "e\u0301"
FORMS = {"NFC": NFC, "NFD": NFD}

# a name that lists and disk share, and the same name with a letter of several forms
TOKENS = {
    "celebdf": "id1_0000",
    "deeperforensics": "071_M101",
    "deepfakebench": "071",
    "df40": "id0_0000",
    "df40 lists": "953_974",
    "dfdc": "aaqaifqrwn",
    "dfdc labels": "a.mp4",
    "dfdcp": "643049_A_001",
    "fakeavceleb": "00109_0_wavtolip",
    "ffpp": "071",
    "ffpp by DeepfakeBench's split": "071",
    "table": "test1",
    "deepspeak": "diff2lip-4903-4131-playht",
    "idforge": "id00_scene_0_roop",
    "polyglotfake": "es_1",
    "lavdf": "000004",
    "avdeepfake1m_pp": "fake_video",
}


def respelled(root: Path, token: str, listed: str, held: str) -> None:
    """Puts a letter before a name, in the lists in one form and on disk in another."""
    for path in texts(root):
        path.write_text(path.read_text().replace(token, listed + token), encoding="utf-8")
    for path in sorted(root.rglob("*"), reverse=True):
        if token in path.name:
            path.rename(path.with_name(path.name.replace(token, held + token)))


def videos(entries: list[Entry]) -> list[str]:
    return sorted(to_nfc(entry.video) for entry in entries if isinstance(entry, Frame | Video))


def there(entry: Entry) -> bool:
    if isinstance(entry, Frame):
        return entry.path.is_file()
    return isinstance(entry, Problem) or all(
        place is None or place.exists() for place in (entry.file, entry.images)
    )


@pytest.mark.parametrize("name", TOKENS)
@pytest.mark.parametrize("listed", FORMS)
def test_every_source_finds_a_listed_name_in_another_normal_form(
    name: str, listed: str, tmp_path: Path
) -> None:
    grow, scan = READERS[name]
    grow(tmp_path)
    (other,) = FORMS.keys() - {listed}
    respelled(tmp_path, TOKENS[name], FORMS[listed], FORMS[listed])
    same = list(scan(tmp_path))
    assert "normal forms" not in {entry.kind for entry in same if isinstance(entry, Problem)}
    assert any(
        FORMS[listed] in video
        for video in (entry.video for entry in same if isinstance(entry, Frame | Video))
    )
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        path.rename(path.with_name(unicodedata.normalize(other, path.name)))
    found = list(scan(tmp_path))
    assert videos(found) == videos(same)
    assert all(map(there, found))
    kinds = [entry.kind for entry in found if isinstance(entry, Problem)]
    assert kinds.count("normal forms") >= 1
    assert sorted(kind for kind in kinds if kind != "normal forms") == sorted(
        entry.kind for entry in same if isinstance(entry, Problem)
    )


def test_a_folder_is_listed_once_and_only_for_names_of_several_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    for number in range(9):
        (tmp_path / "a" / f"{NFD}{number}.png").touch()
    listed: list[str] = []
    inner = os.listdir
    monkeypatch.setattr(os, "listdir", lambda place: listed.append(str(place)) or inner(place))
    paths = ListedPaths(tmp_path / "list.txt")
    assert [paths.locate(tmp_path, f"a/{number}.png").name for number in range(9)] == [
        f"{number}.png" for number in range(9)
    ]
    assert listed == []
    assert all(paths.locate(tmp_path, f"a/{NFC}{number}.png").is_file() for number in range(9))
    assert not paths.locate(tmp_path, f"a/{NFC}10.png").exists()
    assert not paths.locate(tmp_path, f"b/{NFC}1.png").exists()
    assert len(listed) == len(set(listed))
    (problem,) = paths.problems()
    assert "writes 9 of its names in another Unicode normal form" in problem.what


def test_a_name_that_may_mean_two_files_is_not_guessed(tmp_path: Path) -> None:
    one, two, three = "\u1e09", "c\u0327\u0301", "\u00e7\u0301"  # one letter in three forms
    for name in (one, two):
        (tmp_path / name).touch()
    assert sorted(path_finder(to_nfc)(str(tmp_path / three))) == sorted(
        str(tmp_path / name) for name in (one, two)
    )
    assert ListedPaths(tmp_path / "l").locate(tmp_path, three) == tmp_path / three
    assert ListedPaths(tmp_path / "l").locate(tmp_path, two) == tmp_path / two
    found, problems = match_names({three: 1}, [one, two], "the list", tmp_path)
    assert found == {three: 1}
    assert [problem.kind for problem in problems] == ["missing"]


def test_a_name_of_the_disk_is_taken_once(tmp_path: Path) -> None:
    found, problems = match_names({NFC: 1, NFD: 2, "a": 3}, [NFD, "a"], "the list", tmp_path)
    assert found == {NFC: 1, NFD: 2, "a": 3}
    assert problems == list(missing_problems([NFC], [], "the list", tmp_path))


def test_a_backslash_is_a_slash_unless_the_disk_has_it(tmp_path: Path) -> None:
    for name in ("a/0.png", "b\\0.png"):
        write_image(tmp_path / name, 0, 8)
    paths = ListedPaths(tmp_path / "list.csv")
    assert paths.locate(tmp_path, "a\\0.png") == tmp_path / "a/0.png"
    assert paths.locate(tmp_path, "b\\0.png") == tmp_path / "b\\0.png"
    assert [str(problem) for problem in paths.problems()] == [
        f"{tmp_path}/list.csv writes 1 of its paths with backslashes; they are read as slashes."
    ]


@pytest.mark.parametrize("name", ["celebdf", "dfdcp", "fakeavceleb", "table"])
def test_every_list_of_paths_may_be_written_with_backslashes(name: str, tmp_path: Path) -> None:
    grow, scan = READERS[name]
    grow(tmp_path)
    before = list(scan(tmp_path))
    for path in texts(tmp_path):
        escaped = "\\\\" if path.suffix == ".json" else "\\"
        path.write_text(path.read_text().replace("/", escaped))
    if name == "table":  # ids are no paths
        text = (tmp_path / "frames.csv").read_text()
        (tmp_path / "frames.csv").write_text(re.sub(r"mine\\(\w+)\\", r"mine/\1/", text))
    found = list(scan(tmp_path))
    (problem,) = [entry for entry in found if isinstance(entry, Problem) and entry not in before]
    assert problem.kind == "slashes"
    assert [entry for entry in found if entry != problem] == before


def test_a_listed_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    odd = Frame(tmp_path / "a\udcff.png", 0, "d", "real", "v", 0, "test")
    with pytest.raises(
        InputError, match=r"a\\xff\.png has a name or description that is not UTF-8; rename it"
    ):
        from_entries([odd], tmp_path)


def test_a_table_finds_what_a_mac_renamed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = grow_tree(tmp_path / "t", splits=("test",))
    for domain in ("real", "swap"):
        (root / "test" / domain / "test0").rename(root / "test" / domain / f"M{NFD}ller")
    lines = ["path,label,dataset,domain,video,index,split"]
    lines += [
        f"test/{domain}/M{NFC}ller/0.png,{label},d,{domain},d/{domain}/v,0,test"
        for label, domain in enumerate(("real", "swap"))
    ]
    (root / "frames.csv").write_text("\n".join(lines), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        manifest = from_entries(table.scan(root, "frames.csv"), root).validate()
    assert [Path(path).is_file() for path in manifest.files()] == [True, True]
    assert (
        caplog.text.count(
            "frames.csv writes 2 of its names in another Unicode normal form than the disk"
        )
        == 1
    )
