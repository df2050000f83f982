"""Labels that follow from the names of folders."""

from pathlib import Path

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem
from fmsd.data.sources import (
    folder,
    labels,
)
from fmsd.errors import InputError
from tests.conftest import write_image
from tests.indexing import LAYOUT, SPLITS, domains, faces, refusal, remedies, run

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
    assert f"The names of the folders {name!r} of {root} suggest real images" in sentence
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
    with pytest.raises(InputError, match=rf"'{real}' of .* suggest real images"):
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
        "None of the folders 'Celeb-real', 'swap' of the dataset two holds real images" in sentence
    )
    (real,) = remedies(sentence)
    found = run(*words, real, out=tmp_path / "o.parquet")
    assert set(found.table.select("dataset", "label").unique().rows()) == {
        (name, label) for name in ("one", "two") for label in (0, 1)
    }
    with pytest.raises(
        InputError,
        match=r"None of the folders 'a', 'b' holds real images; "
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


def test_a_part_of_a_word_decides_nothing() -> None:
    for word in ("surreal", "realfake", "unfake", "fakes", "real1"):
        assert labels.label_from_last_word(word) is None
        assert labels.parse_label(word, labels.LABEL_WORDS) is None
