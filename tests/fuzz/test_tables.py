"""Tables, manifests and lists of datasets, and the records beside crops and packs."""

import shutil
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.fuzz.conftest import DATA, Place
from tests.fuzz.files import mutations
from tests.fuzz.running import check_writes, judge, run, snapshot
from tests.fuzz.search import search
from tests.test_doctor_sources import COPIES

TABLE = ("data=table", "data.root=.")
INDEX = ("index", "out=new.parquet")
DOCTOR = ("doctor", "out=new.json", "workers=0", "frames=null")
FILES: dict[str, tuple[tuple[str, ...], ...]] = {
    **{
        file: (
            (*INDEX, *TABLE, f"data.source.file={file}"),
            (*DOCTOR, *TABLE, f"data.source.file={file}", "data.train=[folder]"),
            ("pack", "out=new", *TABLE, f"data.source.file={file}"),
            ("extract", "out=new", "workers=1", *TABLE, f"data.source.file={file}"),
        )
        for file in ("table.csv", "table.tsv", "table.parquet")
    },
    **{
        file: (
            ("import", f"scores={file}", *DATA, "out=new"),
            ("import", f"scores={file}", *DATA, "out=new", "scale=score", "coverage=exclude",
             "columns={key: path, score: score, label: null}"),
        )
        for file in ("scores.csv", "scores.json", "scores.jsonl", "scores.parquet")
    },
    "manifest.parquet": (
        (*DOCTOR, *DATA, "data.manifest=manifest.parquet"),
        ("evaluate", "run", *DATA, "data.manifest=manifest.parquet"),
    ),
    **{
        f"packed/{file}": (
            (*DOCTOR, "data=folder", "data.root=packed"),
            ("evaluate", "run", "data=folder", "data.root=packed"),
        )
        for file in ("pack.json", "pack.parquet", "manifest.parquet", "00000.tar")
    },
    **{
        f"crops/{file}": (
            (*INDEX, "data=extracted", "data.root=crops"),
            (*DOCTOR, "data=extracted", "data.root=crops", "data.train=[folder]"),
            ("extract", "data=folder", "data.root=films", "frames=2", "size=32", "workers=1",
             "out=crops"),
        )
        for file in ("manifest.parquet", "RECORD", "SETTINGS")
    },
}  # fmt: skip
"""By file, the commands that read it."""


def of_crops(place: Place, file: str) -> str:
    """The file of a name, that of the record or the settings of crops by their kind."""
    crops = place.work / "crops"
    found = {
        "crops/RECORD": next(crops.rglob("video.json")),
        "crops/SETTINGS": next(path for path in crops.glob("*.json")),
    }
    return str(found[file].relative_to(place.work)) if file in found else file


def check(place: Place, file: str, content: bytes, words: tuple[str, ...]) -> None:
    """Runs a command on a mutated file and judges what it did."""
    place.reset()
    (place.work / file).write_bytes(content)
    before = snapshot(place.root)
    judge(words, run(words, place.work))
    places = [place.work / name for name in ("new", "new.json", "new.parquet", "run/evaluations")]
    if "out=crops" in words:
        places.append(place.work / "crops")

    def allowed(path: Path) -> bool:
        return any(path.is_relative_to(each) for each in places)

    check_writes(before, snapshot(place.root), allowed, allowed)


def test_tables(place: Place) -> None:
    cases = st.sampled_from(sorted(FILES)).flatmap(
        lambda name: st.tuples(
            st.just(of_crops(place, name)),
            mutations(place.template / "a" / "b" / "work" / of_crops(place, name)),
            st.sampled_from(FILES[name]),
        )
    )
    search(cases, lambda case: check(place, *case), cases=120)


@pytest.fixture(scope="module")
def copies(place: Place) -> dict[str, list[str]]:
    """By dataset, the lists in a copy of it; the copies lie beside the folder of the cases."""
    found = {}
    for name, grow in COPIES.items():
        root = place.root.with_name("copies") / name
        grow(root)
        lists = [path for path in root.rglob("*") if path.suffix in (".txt", ".csv", ".json")]
        found[name] = [str(path.relative_to(root)) for path in lists]
    return {name: lists for name, lists in found.items() if lists}


def check_list(place: Place, name: str, file: str, content: bytes, verb: tuple[str, ...]) -> None:
    """Runs a command on a copy of a dataset with a mutated list."""
    place.reset()
    shutil.copytree(place.root.with_name("copies") / name, place.work / "copy")
    (place.work / "copy" / file).write_bytes(content)
    before = snapshot(place.root)
    words = (*verb, f"data={name}", "data.root=copy")
    judge(words, run(words, place.work))
    places = [place.work / "new.json", place.work / "new.parquet"]
    check_writes(before, snapshot(place.root), places.__contains__, places.__contains__)


def test_lists_of_datasets(place: Place, copies: dict[str, list[str]]) -> None:
    root = place.root.with_name("copies")
    cases = (
        st.sampled_from(sorted(copies))
        .flatmap(lambda name: st.tuples(st.just(name), st.sampled_from(copies[name])))
        .flatmap(
            lambda one: st.tuples(
                *map(st.just, one),
                mutations(root / one[0] / one[1]),
                st.sampled_from([INDEX, DOCTOR]),
            )
        )
    )
    search(cases, lambda case: check_list(place, *case), cases=80)
