"""Labels of lists and tables are read exactly; doubtful ones are refused with a remedy."""

import csv
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Entry, Frame, Problem, Video
from fmsd.data.manifest import read_manifest
from fmsd.data.sources import (
    celebdf,
    deeperforensics,
    deepfakebench,
    deepfakebench_labels,
    df40,
    df40_methods,
    dfdc,
    dfdcp,
    fakeavceleb,
    ffpp,
    table,
)
from fmsd.errors import InputError
from tests import test_celebdf, test_dfdcp, test_fakeavceleb
from tests.conftest import write_image
from tests.indexing import SPLITS, domains, refusal, remedies, run


def bench(root: Path, groups: dict[str, Any], name: str = "X") -> Path:
    """A JSON file with a test video of a frame for each label, unless its videos are given."""
    content: dict[str, Any] = {}
    for number, (label, videos) in enumerate(groups.items()):
        listed = videos or {f"v{number}": {"label": label, "frames": [f"X/{number}/0.png"]}}
        for video in listed.values():
            write_image(root / "rgb" / video["frames"][0], number, 8)
        content[label] = {"test": listed}
    (root / f"{name}.json").write_text(json.dumps({name: content}))
    return root


@pytest.mark.parametrize(
    "method", [method for methods in df40_methods.FAMILIES.values() for method in methods]
)
def test_every_method_of_df40_has_real_and_fake_labels(tmp_path: Path, method: str) -> None:
    bench(tmp_path, {f"{method}_Real": None, f"{method}_Fake": None}, method)
    found = from_entries(deepfakebench.scan(tmp_path, f"{method}.json"), tmp_path).validate()
    assert domains(found) == {"real": 0, f"{method}_Fake": 1}
    listed = from_entries(df40.scan(tmp_path, methods=[method], lists=True), tmp_path).validate()
    assert domains(listed) == {"real": 0, method: 1}
    assert set(listed.table.filter(label=1)["path"]) == {"rgb/X/1/0.png"}


@pytest.mark.parametrize(
    "fake",
    [
        *deepfakebench_labels.LABEL_DOMAINS,
        "DeepFakeDetection_fake",
        "x-FAKE",
        "Fake",
        "ff-df",
        "Fake ",
    ],
)
def test_a_fake_is_known_by_its_last_word_or_the_table(tmp_path: Path, fake: str) -> None:
    found = from_entries(
        deepfakebench.scan(bench(tmp_path, {"FF-real": None, fake: None}), "X.json"), tmp_path
    ).validate()
    assert found.table.sort("path")["label"].to_list() == [0, 1]


DOUBTFUL = [
    "surreal_fake",
    "fake_real",
    "real_fake",
    "reality",
    "whichisreal",
    "Realistic",
    "fakes",
    "FF-XY",
    "unknown",
    "real_fake_1",
]


@pytest.mark.parametrize("label", DOUBTFUL)
def test_a_label_that_says_both_or_neither_is_refused(tmp_path: Path, label: str) -> None:
    bench(tmp_path, {"X_real": None, label: None})
    with pytest.raises(InputError, match=r"leaves it open whether it is real or fake"):
        list(deepfakebench.scan(tmp_path, "X.json"))
    for value in (0, 1):
        entries = [
            entry
            for entry in deepfakebench.scan(tmp_path, "X.json", labels={label: value})
            if isinstance(entry, Frame)
        ]
        assert [entry.label for entry in entries] == [0, value]


@pytest.mark.slow
@pytest.mark.parametrize("data", ["deepfakebench", "df40", "celebdf_v2", "ff++"])
def test_the_remedy_for_a_label_settles_it_whatever_reads_the_file(
    tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = {
        "deepfakebench": "X",
        "df40": "simswap_ff",
        "celebdf_v2": "Celeb-DF-v2",
        "ff++": "FaceForensics++",
    }[data]
    bench(tmp_path, {"X_real": None, "surreal fake": None}, name)
    words = [f"data={data}", f"data.root={tmp_path}"]
    words += {
        "deepfakebench": ["data.source.file=X.json", "data.test=[X]"],
        "df40": ["data.source.lists=true"],
    }.get(data, [])
    words += ["data.source.manipulations=['surreal fake']"] if data == "ff++" else []
    sentence = refusal(capsys, *words, out=tmp_path / "o.parquet")
    assert "The label 'surreal fake' in" in sentence
    real, fake = remedies(sentence)
    assert real.endswith("surreal\\ fake: 0}")
    assert set(run(*words, fake, out=tmp_path / "o.parquet").table["label"]) == {0, 1}
    if data != "ff++":
        assert set(run(*words, real, out=tmp_path / "o.parquet").table["label"]) == {0}


@pytest.mark.parametrize("value", [2, -1, 0.5, None, "true", "", "unknown"])
def test_labels_given_by_the_user_are_0_or_1(tmp_path: Path, value: object) -> None:
    with pytest.raises(
        InputError,
        match=r"data\.source\.labels gives x the label .*; labels are 0 \(real\) or 1 \(fake\)",
    ):
        list(deepfakebench.scan(bench(tmp_path, {"x": None}), "X.json", labels={"x": value}))


def test_labels_given_for_nothing_are_refused(tmp_path: Path) -> None:
    bench(tmp_path, {"X_real": None, "X_fake": None})
    with pytest.raises(
        InputError, match=r"gives 'X_Fake', but the labels of X\.json are X_real, X_fake"
    ):
        list(deepfakebench.scan(tmp_path, "X.json", labels={"X_Fake": 0}))
    with pytest.raises(InputError, match=r"labels is for DeepfakeBench's none\.json"):
        list(
            deepfakebench.scan_json_or_tree(
                tmp_path, "none.json", lambda root: [], "x", labels={"X": 1}
            )
        )
    with pytest.raises(InputError, match=r"data\.source\.lists=true"):
        list(df40.scan(tmp_path, labels={"X": 1}))


@pytest.mark.parametrize("own", ["X_real", "FAKE?", None, "unknown", 1, True])
def test_a_video_whose_own_label_is_not_its_group_s_is_refused(tmp_path: Path, own: object) -> None:
    bench(tmp_path, {"X_fake": {"v": {"label": own, "frames": ["X/v/0.png"]}}})
    with pytest.raises(InputError, match=r"lists v under X_fake, but with the label .* of its own"):
        list(deepfakebench.scan(tmp_path, "X.json"))


@pytest.mark.parametrize("about", [{"label": "X_Fake"}, {"label": "fake"}, {"label": "FF-DF"}, {}])
def test_a_video_whose_own_label_agrees_or_is_absent_is_read(
    tmp_path: Path, about: dict[str, str]
) -> None:
    bench(tmp_path, {"X_fake": {"v": about | {"frames": ["X/v/0.png"]}}})
    assert [
        entry.label for entry in deepfakebench.scan(tmp_path, "X.json") if isinstance(entry, Frame)
    ] == [1]


@pytest.mark.parametrize("other", ["V", "v "])
def test_videos_that_differ_only_in_case_or_blanks_stay_two_and_are_told(
    tmp_path: Path, other: str
) -> None:
    videos = {
        name: {"label": "X_fake", "frames": [f"X/{number}/0.png"]}
        for number, name in enumerate(("v", other))
    }
    entries = list(deepfakebench.scan(bench(tmp_path, {"X_fake": videos}), "X.json"))
    assert [entry.kind for entry in entries if isinstance(entry, Problem)] == ["alike"]
    assert len({entry.video for entry in entries if isinstance(entry, Frame)}) == 2


def dfdc_labels(root: Path, file: str, content: str) -> list[int]:
    (root / "test").mkdir(exist_ok=True)
    (root / "test" / "a.mp4").touch()
    (root / "test" / file).write_text(content)
    return [entry.label for entry in dfdc.scan(root, "dfdc") if isinstance(entry, Video)]


@pytest.mark.parametrize(
    ("about", "label"),
    [({"label": word}, 0) for word in ("REAL", "Real", "real", " REAL ", "0", 0)]
    + [({"label": word}, 1) for word in ("FAKE", "Fake", "fake", "Fake ", "1", 1)]
    + [({"is_fake": 0}, 0), ({"is_fake": 1}, 1), ({"is_fake": 1, "label": "FAKE"}, 1)],
)
def test_dfdc_s_words_are_read_in_any_case(
    tmp_path: Path, about: dict[str, object], label: int
) -> None:
    assert dfdc_labels(tmp_path, "metadata.json", json.dumps({"a.mp4": about})) == [label]


@pytest.mark.parametrize(
    "about",
    [
        {"label": value}
        for value in (
            None,
            "unknown",
            "",
            "FAKE?",
            "unreal",
            True,
            False,
            1.0,
            -1,
            2,
            "true",
            ["FAKE"],
        )
    ]
    + [
        {"is_fake": "FAKE"},
        {"is_fake": True},
        {"is_fake": None},
        {"is_fake": 1, "label": "REAL"},
        {"split": "train"},
    ],
)
def test_dfdc_s_other_labels_are_refused_with_the_video(
    tmp_path: Path, about: dict[str, object]
) -> None:
    with pytest.raises(
        InputError, match=r"metadata\.json does not give each video a label: a\.mp4 has "
    ):
        dfdc_labels(tmp_path, "metadata.json", json.dumps({"a.mp4": about}))


def test_a_video_that_dfdc_lists_with_two_labels_is_refused(tmp_path: Path) -> None:
    for listed in ("a.mp4,1\na.mp4,0\n", "a.mp4,1\na.avi,0\n", "a.mp4,1\na.mp4 ,0\n"):
        with pytest.raises(InputError, match=r"labels\.csv lists a\.\w+ ? ?twice, with two labels"):
            dfdc_labels(tmp_path, "labels.csv", "filename,label\n" + listed)
    assert dfdc_labels(tmp_path, "labels.csv", "filename,label\na.mp4,1\na.mp4,1\n") == [1]


@pytest.mark.parametrize("value", ["Fake ", "FAKE", "fake"])
def test_dfdcp_s_words_are_read_in_any_case(tmp_path: Path, value: str) -> None:
    root = test_dfdcp.copy(tmp_path, {"method_A/1/1_A/a.mp4": {"label": value, "set": "test"}})
    assert [
        (entry.label, entry.domain) for entry in dfdcp.scan(root, "d") if isinstance(entry, Video)
    ] == [(1, "method_A")]


@pytest.mark.parametrize("value", [None, "unknown", "", 0, 1, True, "surreal", "not fake"])
def test_dfdcp_s_other_labels_are_refused_with_the_video(tmp_path: Path, value: object) -> None:
    root = test_dfdcp.copy(tmp_path, {"method_A/1/1_A/a.mp4": {"label": value, "set": "test"}})
    with pytest.raises(InputError, match=r"a label and a set: that of method_A/1/1_A/a\.mp4 is "):
        list(dfdcp.scan(root, "d"))


@pytest.mark.parametrize("top", ["real", "youtube_videos", "Original_videos", "method_C"])
def test_other_folders_than_dfdcp_s_own_are_refused(tmp_path: Path, top: str) -> None:
    root = test_dfdcp.copy(tmp_path, {f"{top}/1/a.mp4": {"label": "real", "set": "test"}})
    with pytest.raises(
        InputError, match=r"which is in none of the folders original_videos, method_A and method_B"
    ):
        list(dfdcp.scan(root, "d"))


@pytest.mark.parametrize("flag", ["0.0", "2", "-1", "real", "REAL", "Fake", "true"])
def test_celebdf_s_list_knows_0_and_1_alone(tmp_path: Path, flag: str) -> None:
    (tmp_path / celebdf.TEST_LIST).write_text(f"1 Celeb-real/a.mp4\n{flag} Celeb-synthesis/b.mp4\n")
    with pytest.raises(InputError, match=r"Line 2 of .* is not like"):
        celebdf.read_test_list(tmp_path)


@pytest.mark.parametrize("method", ["real", "Real", " ", "REAL "])
def test_a_forgery_that_is_called_real_is_refused(tmp_path: Path, method: str) -> None:
    rows = [
        test_fakeavceleb.ROWS[0],
        ("id00076", method, "C", "FakeVideo-RealAudio", "African", "00109_x"),
    ]
    with pytest.raises(
        InputError, match=r"gives a fake the forgery .*, which is not the name of one"
    ):
        list(fakeavceleb.scan(test_fakeavceleb.tree(tmp_path / "f", rows)))
    root = test_celebdf.copy(tmp_path / "c", test_celebdf.PP, test_celebdf.PP_TESTED)
    (root / "Celeb-synthesis" / "FaceSwap" / method).mkdir()
    with pytest.raises(InputError, match=r"gives a fake the forgery"):
        list(celebdf.scan_pp(root, "c"))
    for scan, key in ((ffpp.scan, "manipulations"), (deeperforensics.scan, "variants")):
        (tmp_path / "lists" / "splits").mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            (tmp_path / "lists" / "splits" / f"{split}.txt").touch()
        with pytest.raises(InputError, match=rf"data\.source\.{key} gives a fake the forgery"):
            list(scan(tmp_path, **{key: [method]}))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("place", ["fake/real", "real/Fake", "ff/real", "cdf/fake"])
def test_images_of_df40_below_two_words_are_left_out_and_told(tmp_path: Path, place: str) -> None:
    write_image(tmp_path / "DF40" / "heygen" / "fake" / "v" / "0.png", 0, 8)
    for images in ("", "v"):
        write_image(tmp_path / "DF40" / "heygen" / place / images / "1.png", 1, 8)
    entries: list[Entry] = list(df40.scan(tmp_path, methods=["heygen"]))
    assert [(entry.label, entry.video) for entry in entries if isinstance(entry, Video)] == [
        (1, "df40/heygen/test/v")
    ]
    assert [entry.kind for entry in entries if isinstance(entry, Problem)][:2] == [
        "misplaced",
        "misplaced",
    ]


def tabled(root: Path, value: object, domain: str = "swap", parquet: bool = False) -> list[int]:
    row = {
        "path": "a.png",
        "label": value,
        "dataset": "d",
        "domain": domain,
        "video": "v",
        "index": 0,
        "split": "test",
    }
    if parquet:
        pl.DataFrame([row]).write_parquet(root / "t.parquet")
    else:
        with (root / "t.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([row.keys(), row.values()])
    return [
        entry.label
        for entry in table.scan(root, "t.parquet" if parquet else "t.csv")
        if isinstance(entry, Frame)
    ]


@pytest.mark.parametrize("parquet", [False, True])
@pytest.mark.parametrize(("value", "label"), [(1, 1), (1.0, 1), ("1", 1), (0, 0), (0.0, 0)])
def test_a_table_s_label_is_the_number_0_or_1(
    tmp_path: Path, value: object, label: int, parquet: bool
) -> None:
    assert tabled(tmp_path, value, "swap" if label else "real", parquet) == [label]


@pytest.mark.parametrize("parquet", [False, True])
@pytest.mark.parametrize(
    "value",
    [-1, 2, 0.7, 1.5, "real", "fake", "REAL", "true", True, False, "1.x", "nan", float("nan")],
)
def test_other_labels_of_a_table_are_refused(tmp_path: Path, value: object, parquet: bool) -> None:
    with pytest.raises(
        InputError,
        match=r"values of the wrong kind \(the label of a\.png is .*labels are 0 or 1, as numbers",
    ):
        tabled(tmp_path, value, parquet=parquet)


@pytest.mark.parametrize("domain", ["Real", "REAL", "real ", "real"])
def test_a_table_s_forgery_that_is_called_real_is_refused(tmp_path: Path, domain: str) -> None:
    with pytest.raises(InputError, match=r"gives a fake the forgery"):
        tabled(tmp_path, 1, domain)


@pytest.mark.parametrize("label", [0.7, True, "1", None])
def test_no_label_is_cast(tmp_path: Path, label: Any) -> None:
    good = Frame(tmp_path / "a.png", 0, "d", "real", "d/real/a", 0, "test")
    manifest = from_entries([good], tmp_path)
    odd = Frame(tmp_path / "b.png", 0, "d", "real", "d/real/b", 0, "test")
    object.__setattr__(odd, "label", label)  # as a source without type checks may give it
    with pytest.raises(InputError, match=r"values of the wrong kind"):
        from_entries([good, odd], tmp_path)
    manifest.table.with_columns(label=pl.lit(0.7)).write_parquet(tmp_path / "m.parquet")
    with pytest.raises(
        InputError, match=r"m\.parquet is damaged: its column 'label' holds Float64 instead of Int8"
    ):
        read_manifest(tmp_path / "m.parquet", tmp_path)
