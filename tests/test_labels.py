"""What is real and what is fake is said by exact words, or the user is asked; each printed remedy
is run as it stands.
"""

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fmsd.cli.build import build_selection
from fmsd.cli.main import main
from fmsd.data import name_overrides
from fmsd.data.entries import from_entries
from fmsd.data.frame import Entry, Frame, Problem, Video
from fmsd.data.manifest import Manifest, read_manifest
from fmsd.data.selected_frames import list_frames, load_test_datasets, load_training_splits
from fmsd.data.selection import Selection
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
    folder,
    labels,
    table,
)
from fmsd.errors import InputError
from tests import test_celebdf, test_dfdcp, test_fakeavceleb
from tests.conftest import grow_tree, write_image

SPLITS = {"train": "train", "val": "val", "test": "test"}


def domains(manifest: Manifest) -> dict[str, int]:
    return dict(manifest.table.select("domain", "label").unique().rows())


def run(*words: str, out: Path) -> Manifest:
    """The manifest that `fmsd index` writes for the words of a command line."""
    assert main(["index", *words, f"out={out}"]) == 0
    return read_manifest(out, Path("/"))


def refusal(capsys: pytest.CaptureFixture[str], *words: str, out: Path) -> str:
    """The sentence with which `fmsd index` refuses the words of a command line."""
    assert main(["index", *words, f"out={out}"]) == 2
    assert not out.exists()
    return capsys.readouterr().err.strip().splitlines()[-1]


def remedies(sentence: str) -> list[str]:
    """The words for the command line that a sentence proposes, as a shell reads them."""
    return [
        shlex.split(word)[0]
        for word in re.findall(r"'\+?data\.source\.[^']*(?:'\"'\"'[^']*)*'", sentence)
    ]


# ---- names on the command line


ODD = [
    "real",
    "real ",
    "0",
    "01",
    "-1",
    "1_000",
    "1e5",
    "1.0",
    "true",
    "null",
    "nan",
    "0_real",
    "it's",
    'say "x"',
    "back\\",
    'q\\"',
    "ä",
    "a b",
]
ODD += [
    "${x}",
    "$x",
    "a,b",
    "[x]",
    "{x}",
    "(x)",
    "x#",
    "v1.0",
    "a:b",
    "a=b",
    "Celeb-real",
    "日本",
    "%s",
    "a+b",
    "@x",
    "a|b",
]


@pytest.mark.parametrize("odd", ODD)
def test_a_remedy_writes_a_name_as_the_command_line_reads_it(odd: str) -> None:
    def parsed(word: str) -> Any:
        (one,) = shlex.split(word)
        return OmegaConf.create({"key": OverridesParser.create().parse_override(one).value()}).key

    assert name_overrides.as_names(
        list(parsed(name_overrides.list_override("key", [odd, "other"]))), "key"
    ) == [
        odd,
        "other",
    ]
    if word := name_overrides.mapping_override("key", {odd: 1}):
        assert {
            name_overrides.as_name(key, "key"): value for key, value in parsed(word).items()
        } == {odd: 1}
    else:
        assert not re.fullmatch(r"[A-Za-z]+", odd) or odd in ("true", "null", "nan")


@pytest.mark.parametrize("lost", [1.0, True, None, ["x"]])
def test_what_has_lost_its_spelling_is_no_name(lost: object) -> None:
    with pytest.raises(
        InputError,
        match=r"data\.test gives .* where a name is wanted; "
        r"put the name in double quotes.*'data\.test=\[\"NAME\"\]'",
    ):
        name_overrides.as_names(["a", lost], "data.test")
    with pytest.raises(InputError, match=r"where a name is wanted"):
        name_overrides.as_name(lost, "data.left_out")


def test_one_name_is_a_list_of_one_and_never_its_letters() -> None:
    assert name_overrides.as_names("real", "k") == ["real"]
    assert name_overrides.as_names(0, "k") == ["0"]


# ---- labels of DeepfakeBench's JSON files


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


# ---- the lists of other datasets


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


# ---- the label of a table


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
        InputError, match=r"m\.parquet has values of the wrong kind \(labels are Float64\)"
    ):
        read_manifest(tmp_path / "m.parquet", tmp_path)


# ---- folders


def faces(root: Path, *names_: str, split: str = "") -> Path:
    for number, name in enumerate(names_):
        write_image(root / split / name / "v" / "0.png", number, 8)
    return root


LAYOUT = ['data.source.layout="{domain}/{video}"', "data.source.split=test"]

SUGGESTIVE = [
    "Real",
    "REAL",
    "real ",
    " real",
    "real_youtube",
    "Celeb-real",
    "YouTube-real",
    "originals",
    "Original",
    "pristine",
    "AUTHENTIC_x",
]
SUGGESTIVE += [
    "bona-fide",
    "bona fide",
    "genuine",
    "re_al",
    "\uff32\uff45\uff41\uff4c",
    "Real3DPortrait",
    "0_REAL",
    "it's real",
    "youtube",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", SUGGESTIVE)
def test_a_folder_whose_name_suggests_real_images_has_to_be_settled(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = faces(tmp_path / "root", "real", "swap", name)
    words = ["data=folder", f"data.root={root}", *LAYOUT]
    sentence = refusal(capsys, *words, out=tmp_path / "o.parquet")
    assert f"The names of the folders {[name]} of {root} suggest real images" in sentence
    real, fake = remedies(sentence)
    assert domains(run(*words, real, out=tmp_path / "r.parquet")) == {"real": 0, "swap": 1}
    assert domains(run(*words, fake, out=tmp_path / "f.parquet")) == {"real": 0, "swap": 1, name: 1}


@pytest.mark.parametrize("own", ["Nature", "NATURE", "nature "])
def test_a_folder_that_differs_from_the_real_one_only_in_case_or_blanks_has_to_be_settled(
    tmp_path: Path, own: str
) -> None:
    root = faces(tmp_path, "nature", "ai", own)
    with pytest.raises(InputError, match=r"suggest real images"):
        list(folder.scan(root, "x", "{domain}/{video}", {}, ["nature"], "test"))
    assert domains(
        from_entries(
            folder.scan(root, "x", "{domain}/{video}", {}, ["nature"], "test", [own]), root
        )
    ) == {"real": 0, "ai": 1, own: 1}


@pytest.mark.parametrize("real", ["real", "original", "0_real"])
def test_exact_known_words_are_real_unless_others_are_named(tmp_path: Path, real: str) -> None:
    root = faces(tmp_path, real, "swap", "nature")
    assert domains(
        from_entries(folder.scan(root, "x", "{domain}/{video}", {}, None, "test"), root)
    ) == {
        "real": 0,
        "swap": 1,
        "nature": 1,
    }
    with pytest.raises(InputError, match=rf"\['{real}'\] of .* suggest real images"):
        list(folder.scan(root, "x", "{domain}/{video}", {}, ["nature"], "test"))


def test_equal_names_in_two_real_folders_stay_two_videos(tmp_path: Path) -> None:
    root = faces(tmp_path, "Celeb-real", "YouTube-real", "swap")
    found = from_entries(
        folder.scan(root, "x", "{domain}/{video}", {}, ["Celeb-real", "YouTube-real"], "test"), root
    ).validate()
    assert found.table["video"].to_list() == ["x/real/v", "x/real/YouTube-real/v", "x/swap/v"]


def test_a_dataset_in_which_nothing_is_real_is_refused_with_what_may_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = faces(
        faces(tmp_path / "root", "real", "swap", split="one"), "Celeb-real", "swap", split="two"
    )
    words = [
        "data=folder",
        f"data.root={root}",
        'data.source.layout="{dataset}/{domain}/{video}"',
        "data.source.split=test",
    ]
    sentence = refusal(capsys, *words, out=tmp_path / "o.parquet")
    assert (
        "None of the folders ['Celeb-real', 'swap'] of the dataset two holds real images"
        in sentence
    )
    (real,) = remedies(sentence)
    found = run(*words, real, out=tmp_path / "o.parquet")
    assert set(found.table.select("dataset", "label").unique().rows()) == {
        (name, label) for name in ("one", "two") for label in (0, 1)
    }
    with pytest.raises(
        InputError,
        match=r"None of the folders \['a', 'b'\] holds real images; "
        r"name them in data\.source\.real=\[NAME\]",
    ):
        list(
            folder.scan(
                faces(tmp_path / "plain", "a", "b"), "x", "{domain}/{video}", {}, None, "test"
            )
        )


def test_a_dataset_in_which_nothing_is_fake_is_read(tmp_path: Path) -> None:
    root = faces(tmp_path, "real")
    assert domains(
        from_entries(folder.scan(root, "x", "{domain}/{video}", {}, None, "test"), root).validate()
    ) == {"real": 0}


def test_names_that_name_nothing_or_twice_are_told_or_refused(tmp_path: Path) -> None:
    root = faces(tmp_path, "real", "swap")
    told = [
        entry.what
        for entry in folder.scan(
            root, "x", "{domain}/{video}", {}, ["real", "photso"], "test", ["Rael"]
        )
        if isinstance(entry, Problem)
    ]
    assert [what.partition(",")[0] for what in told] == [
        "data.source.real names 'photso'",
        "data.source.fake names 'Rael'",
    ]
    with pytest.raises(
        InputError, match=r"data\.source\.real and data\.source\.fake both name real"
    ):
        list(folder.scan(root, "x", "{domain}/{video}", {}, None, "test", ["real"]))
    with pytest.raises(
        InputError, match=r"data\.source\.fake names real, the domain of real images"
    ):
        list(folder.scan(root, "x", "{domain}/{video}", {}, ["swap"], "test", ["real"]))


@pytest.mark.parametrize("layout", ["{split}/{domain}/{video}", "{split}/{domain}_{video}"])
def test_real_is_a_whole_name_never_a_part_of_one(tmp_path: Path, layout: str) -> None:
    for name in ("re", "real"):
        write_image(
            tmp_path / "test" / layout.split("/", 1)[1].format(domain=name, video="v") / "0.png",
            0,
            8,
        )
    assert domains(from_entries(folder.scan(tmp_path, "x", layout, SPLITS, "real"), tmp_path)) == {
        "real": 0,
        "re": 1,
    }  # pyright: ignore[reportArgumentType]


# ---- numbers on the command line


def test_numbers_on_the_command_line_name_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = grow_tree(tmp_path / "root", splits=("2018", "2019", "7"), domains=("0", "1", "2"))
    words = [
        "data=folder",
        f"data.root={root}",
        "+data.source.splits={2018: train, 2019: val, 7: test}",
    ]
    sentence = refusal(capsys, *words, out=tmp_path / "o.parquet")
    assert "None of the folders ['0', '1', '2'] holds real images" in sentence
    for real in ("data.source.real=[0]", "data.source.real=0", 'data.source.real=["0"]'):
        assert domains(run(*words, real, out=tmp_path / "o.parquet")) == {"real": 0, "1": 1, "2": 1}


def test_numbers_name_datasets_forgeries_and_compressions(tmp_path: Path) -> None:
    root = grow_tree(tmp_path / "5", domains=("real", "1", "2"), videos=4).parent

    def selection(**changes: Any) -> Selection:
        source = {
            "_target_": "fmsd.data.sources.folder.scan",
            "_partial_": True,
            "dataset": "x",
            "layout": "{dataset}/{split}/{domain}/{video}",
            "splits": SPLITS,
            "real": ["real"],
        }
        names = {"name": 5, "train": [5], "test": 5} | changes
        target = {"_target_": "fmsd.data.selection.Selection", "root": str(root), "source": source}
        return build_selection(OmegaConf.create(target | names))

    data = selection(forgeries=[1, 2], train_forgeries=[2, 1], left_out=1)
    listed = list_frames(data)
    splits, tests = load_training_splits(data, listed), load_test_datasets(data, listed)
    assert set(splits.train.table["domain"]) == {"real", "2"}
    assert set(splits.validation.table["domain"]) == {"real", "1"}
    assert list(tests) == ["5"]
    assert set(tests["5"].table["domain"]) == {"real", "1", "2"}
    with pytest.raises(InputError, match=r"data\.forgeries names 3, but data=5 holds 1, 2"):
        list_frames(selection(forgeries=[3]))
    with pytest.raises(InputError, match=r"data\.train names ff, but"):
        load_training_splits(selection(train="ff"), listed)


# ---- folders of splits


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


def test_a_part_of_a_word_decides_nothing() -> None:
    for word in ("surreal", "realfake", "unfake", "fakes", "real1"):
        assert labels.label_from_last_word(word) is None
        assert labels.parse_label(word, labels.LABEL_WORDS) is None
