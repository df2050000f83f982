"""Official split lists: what comes with the package, and copies that are or are not these lists."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import hydra
import polars as pl
import pytest

from fmsd.cli import resolvers  # noqa: F401  which the data files call
from fmsd.cli.main import main
from fmsd.data import split_lists
from fmsd.data.audit.split_lists import Comparison, compare_with_lists, list_findings
from fmsd.data.frame import REAL, SCHEMA, SPLITS, video_id
from fmsd.data.manifest import Manifest
from fmsd.data.sources import celebdf, ffpp
from fmsd.data.split_lists import LISTS, NameSet, SplitList, names_digest
from fmsd.errors import InputError
from fmsd.package_files import CONF
from tests.conftest import write_image

FORGERIES = ("Deepfakes", "FaceSwap")


@pytest.fixture
def official() -> split_lists.Names:
    return split_lists.read_names(split_lists.FFPP)


def manifest(videos: list[tuple[str, str, str, str, str]], root: Path) -> Manifest:
    """One frame per video, of (dataset, split, domain, compression, name)."""
    rows = [
        (
            f"{number}.png", int(domain != REAL), dataset, domain,
            video_id(dataset, domain, compression, name), 0, split, compression, "", "",
        )
        for number, (dataset, split, domain, compression, name) in enumerate(videos)
    ]  # fmt: skip
    return Manifest(pl.DataFrame(rows, schema=SCHEMA, orient="row"), root)


def whole_copy(
    official: split_lists.Names, dataset: str = "ff++"
) -> list[tuple[str, str, str, str, str]]:
    return [
        (dataset, split, domain, "c23", name)
        for split in SPLITS
        for domain in (REAL, *FORGERIES)
        for name in official[split]["real" if domain == REAL else "fake"]
    ]


def by_split(found: list[Comparison]) -> dict[str, Comparison]:
    return {each.split: each for each in found}


def test_the_list_of_ffpp_is_360_70_70_pairs_of_a_thousand_videos(
    official: split_lists.Names,
) -> None:
    sources = [name for split in SPLITS for name in official[split]["real"]]
    assert sorted(sources) == [f"{number:03d}" for number in range(1000)]
    for split, count in (("train", 720), ("val", 140), ("test", 140)):
        partner = dict(name.split("_") for name in official[split]["fake"])
        assert partner.keys() == official[split]["real"]
        assert len(partner) == count
        assert all(partner[other] == one for one, other in partner.items())


def test_the_file_is_the_official_json_byte_for_byte() -> None:
    """The digests in its header are those of the files of the dataset's repository."""
    text = (split_lists.FOLDER / "ffpp.txt").read_text(encoding="utf-8")
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    for split in SPLITS:
        pairs = [pair for own, *pair in lines if own == split]
        published = json.dumps(pairs, indent=2)
        digest = names_digest([published])  # SHA-256 of one text
        assert f"{split}.json" in text
        assert digest in text
    assert "Permission is hereby granted, free of charge" in text


def test_a_damaged_list_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (split_lists.FOLDER / "ffpp.txt").read_text(encoding="utf-8")
    monkeypatch.setattr(split_lists, "FOLDER", tmp_path)
    for damaged in (text.replace("071 054", "071 055"), text[:-20], "no list", None):
        if damaged is None:
            (tmp_path / "ffpp.txt").unlink()
        else:
            (tmp_path / "ffpp.txt").write_text(damaged, encoding="utf-8")
        with pytest.raises(InputError, match=r"is not the official split .*; install fmsd again"):
            split_lists.read_names.__wrapped__(split_lists.FFPP)


@pytest.mark.parametrize("dataset", LISTS)
def test_the_lists_have_the_numbers_that_a_whole_copy_is_expected_to_have(dataset: str) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        expected = hydra.compose("train", [f"data={dataset}", "data.root=null"]).data.expected
    for split, kinds in LISTS[dataset].parts.items():
        for domain, count in expected[split].items():
            assert count == kinds["real" if domain == REAL else "fake"].count


@pytest.mark.parametrize("dataset", ["ff++", "faceshifter"])
def test_a_whole_copy_is_equal(official: split_lists.Names, dataset: str, tmp_path: Path) -> None:
    found = compare_with_lists(manifest(whole_copy(official, dataset), tmp_path), tmp_path)
    assert [(each.split, each.equal, each.videos, each.listed) for each in found] == [
        ("train", True, 2160, 2160), ("val", True, 420, 420), ("test", True, 420, 420),
    ]  # fmt: skip
    assert [each.result for each in found] == ["equal"] * 3
    assert list_findings(found) == []
    again = compare_with_lists(
        manifest(whole_copy(official, dataset)[::-1], tmp_path / "b"), tmp_path
    )
    assert [each.digest for each in again] == [each.digest for each in found]


def test_missing_extra_and_moved_videos_are_named(
    official: split_lists.Names, tmp_path: Path
) -> None:
    videos = whole_copy(official)
    videos.remove(("ff++", "test", "FaceSwap", "c23", "953_974"))
    videos.remove(("ff++", "val", REAL, "c23", "720"))
    videos += [("ff++", "train", REAL, "c23", "720"), ("ff++", "train", REAL, "c23", "1000")]
    found = by_split(compare_with_lists(manifest(videos, tmp_path), tmp_path))
    assert found["test"].missing == ("ff++/FaceSwap/c23/953_974",)  # which Deepfakes has
    assert found["test"].extra == ()
    assert found["test"].result == "lacks 1 video (ff++/FaceSwap/c23/953_974)"
    assert found["val"].missing == ("ff++/real/c23/720",)
    assert found["train"].extra == ("ff++/real/c23/1000", "ff++/real/c23/720")
    assert found["train"].missing == ()
    checks = {finding.check: finding for finding in list_findings(found.values())}
    assert checks["not the official split"].severity == "warning"
    assert checks["not the official split"].examples[0].startswith("ff++ train: adds 2 videos")
    assert len(checks["a part of the official split"].examples) == 2


def test_ids_are_compared_whole_never_by_a_part(
    official: split_lists.Names, tmp_path: Path
) -> None:
    changed = {"953": "x953", "974": "974_"}
    videos = [
        (dataset, split, domain, level, changed.get(name, name))
        for dataset, split, domain, level, name in whole_copy(official)
    ]
    found = by_split(compare_with_lists(manifest(videos, tmp_path), tmp_path))
    assert found["test"].missing == ("ff++/real/c23/953", "ff++/real/c23/974")
    assert found["test"].extra == ("ff++/real/c23/974_", "ff++/real/c23/x953")


def test_a_class_that_is_not_there_is_missing(official: split_lists.Names, tmp_path: Path) -> None:
    for kept, lacking in ((REAL, "fake/c23/000_003"), ("Deepfakes", "real/c23/000")):
        videos = [video for video in whole_copy(official) if video[2] == kept]
        found = by_split(compare_with_lists(manifest(videos, tmp_path), tmp_path))
        assert not found["test"].equal
        assert f"ff++/{lacking}" in (found["test"].missing or ())


def test_other_datasets_and_names_that_merely_begin_alike_have_no_list(
    official: split_lists.Names, tmp_path: Path
) -> None:
    videos = [("ff++_mine", *rest) for _, *rest in whole_copy(official)]
    assert compare_with_lists(manifest(videos, tmp_path), tmp_path) == []


def celeb_copy(root: Path) -> Path:
    """Celeb-DF v2 of two real and two fake test videos, and one more of each."""
    reals, fakes = (
        ("id0_0000", "id1_0000", "id2_0000"),
        ("id0_id1_0000", "id1_id0_0000", "id2_id0_0000"),
    )
    for folder, names in (("Celeb-real", reals), ("Celeb-synthesis", fakes)):
        for name in names:
            write_image(root / folder / name / "000.png", 0, 8)
    (root / "YouTube-real").mkdir()
    lines = [f"1 Celeb-real/{name}.mp4" for name in reals[:2]]
    lines += [f"0 Celeb-synthesis/{name}.mp4" for name in fakes[:2]]
    (root / celebdf.TEST_LIST).write_text("\n".join(lines))
    return root


@pytest.fixture
def small_celeb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the official list of Celeb-DF v2 that of `celeb_copy`: its own does not travel."""
    parts = {
        "real": NameSet(2, names_digest(["id0_0000", "id1_0000"])),
        "fake": NameSet(2, names_digest(["id0_id1_0000", "id1_id0_0000"])),
    }
    small = SplitList("Celeb-DF v2", {"test": parts})  # pyright: ignore[reportArgumentType]
    monkeypatch.setitem(LISTS, "celebdf_v2", small)  # pyright: ignore[reportArgumentType]


def index(root: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, dict]:
    """The comparison of each split that `fmsd index --json` prints."""
    capsys.readouterr()
    out = root.parent / "m.parquet"
    assert main(["index", *words, f"data.root={root}", f"out={out}", "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)["tables"]
    return {row["split"]: row for row in tables.get("official_splits", [])}


@pytest.mark.usefixtures("small_celeb")
def test_a_list_that_does_not_travel_is_read_from_the_copy_and_known_by_its_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = celeb_copy(tmp_path / "celeb")
    row = index(root, "data=celebdf_v2", capsys=capsys)["test"]
    assert (row["list"], row["equal"], row["videos"], row["missing"]) == ("copy", True, 4, 0)
    (root / "Celeb-real/id1_0000/000.png").unlink()
    (root / "Celeb-real/id1_0000").rmdir()
    row = index(root, "data=celebdf_v2", capsys=capsys)["test"]
    assert (row["equal"], row["missing_first"]) == (False, ["celebdf_v2/real/id1_0000"])
    assert "is not the official test list" not in caplog.text
    (root / celebdf.TEST_LIST).write_text(
        "1 Celeb-real/id0_0000.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4"
    )
    row = index(root, "data=celebdf_v2", capsys=capsys)["test"]
    assert (row["list"], row["equal"], row["missing"]) == ("digest", False, None)
    assert "is not the official test list of Celeb-DF v2: it has 1 real and 1 fake" in caplog.text


@pytest.mark.usefixtures("small_celeb")
@pytest.mark.parametrize(
    "written",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: (text + "\n").encode("utf-16"),
        lambda text: (text + "\n" + text + "\n\n").encode(),  # every line twice
        lambda text: text.replace("/", "\\").encode(),
    ],
)
def test_an_editor_s_spelling_of_a_list_is_the_same_list(
    written: Callable[[str], bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = celeb_copy(tmp_path / "celeb")
    path = root / celebdf.TEST_LIST
    path.write_bytes(written(path.read_text()))
    assert index(root, "data=celebdf_v2", capsys=capsys)["test"]["equal"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("1 Celeb-real/../id0_0000.mp4", r"line 5 of .* holds the part '\.\.'"),
        ("1 /Celeb-real/id0_0000.mp4", r"line 5 of .* is an absolute path"),
        ("1 Celeb-real/id0\x1b[31m.mp4", r"line 5 of .* holds a control character"),
        ("0 Celeb-real/id0_0000.mp4", r"lists Celeb-real/id0_0000\.mp4 twice, as real and as fake"),
        ("1 id0_0000.mp4", r"Line 5 of .* is not like '1 Celeb-real/id1_0007\.mp4'"),
    ],
)
def test_a_hostile_line_of_celebdf_is_refused(line: str, sentence: str, tmp_path: Path) -> None:
    root = celeb_copy(tmp_path)
    path = root / celebdf.TEST_LIST
    path.write_text(f"{path.read_text()}\n{line}")
    with pytest.raises(InputError, match=sentence) as raised:
        list(celebdf.scan(root, "celebdf_v2"))
    assert str(raised.value).isprintable()


PAIRS = {"train": ["071", "054"], "val": ["720", "672"], "test": ["953", "974"]}


def ffpp_copy(root: Path) -> Path:
    """A tree of one pair per split, without any list."""
    for one, other in PAIRS.values():
        for name in (one, other):
            write_image(root / "original_sequences/youtube/c23/frames" / name / "0.png", 0, 8)
        for name in (f"{one}_{other}", f"{other}_{one}"):
            folder = root / "manipulated_sequences/Deepfakes/c23/frames" / name
            write_image(folder / "0.png", 0, 8)
    return root


def write_lists(root: Path, pairs: dict[str, list[list[str]]]) -> None:
    for split, own in pairs.items():
        (root / f"{split}.json").write_text(json.dumps(own))


def test_a_copy_without_lists_has_the_official_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = ffpp_copy(tmp_path / "ff")
    with caplog.at_level(logging.INFO):
        rows = index(root, "data=ff++", "data.source.manipulations=[Deepfakes]", capsys=capsys)
    assert "holds no split of FaceForensics++: the official one is used" in caplog.text
    assert {split: (row["videos"], row["listed"]) for split, row in rows.items()} == {
        "train": (4, 1440), "val": (4, 280), "test": (4, 280),
    }  # fmt: skip
    assert rows["test"]["missing"] == 276
    assert len(rows["test"]["missing_first"]) == 5
    assert (rows["test"]["extra"], rows["test"]["list"]) == (0, "fmsd")
    write_lists(root, {split: [pair] for split, pair in PAIRS.items()})
    assert rows == index(root, "data=ff++", "data.source.manipulations=[Deepfakes]", capsys=capsys)
    assert "is not the official split of FaceForensics++: it lacks 1,988 videos" in caplog.text


def test_lists_of_the_copy_that_differ_are_used_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = ffpp_copy(tmp_path / "ff")
    official = [
        line.split()
        for line in (split_lists.FOLDER / "ffpp.txt").read_text().splitlines()
        if line[0] != "#"
    ]
    pairs = {split: [pair for own, *pair in official if own == split] for split in SPLITS}
    write_lists(root, pairs)
    list(ffpp.scan(root, manipulations=["Deepfakes"]))
    assert "is not the official split" not in caplog.text
    pairs["train"].append(pairs["test"].pop(0))  # 953, 974
    write_lists(root, pairs)
    rows = index(root, "data=ff++", "data.source.manipulations=[Deepfakes]", capsys=capsys)
    assert "it has in another split 4 videos (953, 953_974, 974, 974_953)" in caplog.text
    assert rows["train"]["extra_first"] == [
        "ff++/Deepfakes/c23/953_974", "ff++/Deepfakes/c23/974_953", "ff++/real/c23/953",
        "ff++/real/c23/974",
    ]  # fmt: skip
    assert rows["test"]["videos"] == 0


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        ([["071", "../054"]], r"'\.\./054' in pair 1 of .*train\.json holds a slash"),
        ([["071", "a\\b"]], r"in pair 1 of .*train\.json holds a backslash"),
        ([["071", ""]], r"'' in pair 1 of .*train\.json is empty"),
        ([["071", "054"], ["054", "071"]], r"have 054 twice in train; take the official ones"),
        ([["071", "720"]], r"have 720 in train and in val"),
        ([["071", 54]], r"Pair 1 in .*train\.json is \['071', 54\], not two names"),
        ([["071\n", "054"]], r"holds a control character or a line break"),
    ],
)
def test_a_hostile_pair_of_ffpp_is_refused(
    pairs: list[list[str]], sentence: str, tmp_path: Path
) -> None:
    root = ffpp_copy(tmp_path)
    write_lists(root, {split: [pair] for split, pair in PAIRS.items()} | {"train": pairs})
    with pytest.raises(InputError, match=sentence) as raised:
        list(ffpp.scan(root, manipulations=["Deepfakes"]))
    assert str(raised.value).isprintable()


def test_the_table_names_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ffpp_copy(tmp_path / "ff")
    words = ["data=ff++", "data.source.manipulations=[Deepfakes]", f"data.root={root}"]
    assert main(["index", *words, f"out={tmp_path / 'm.parquet'}"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Official splits" in told
    assert "lacks 276 videos (ff++/Deepfakes/c23/000_003" in told
