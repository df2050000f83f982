"""Runs on the Hugging Face Hub, against a server on this machine: what is pushed loads again with
equal numbers, holds nothing of this machine, and every refusal is one sentence.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from huggingface_hub import constants

import fmsd
from fmsd.cli.main import main
from fmsd.errors import InputError
from fmsd.hub_addresses import (
    Address,
    address_of,
    output_folder,
    outputs_of,
    parse_address,
    place_name,
    title_name,
)
from fmsd.inference.run_facts import run_facts
from fmsd.metrics.decision import score_meanings
from fmsd.metrics.score_meaning import format_rate, selection_sentence
from fmsd.metrics.table import compute_results
from fmsd.runs.folder import Run
from fmsd.runs.published import Private, without_names
from tests.conftest import grow_tree
from tests.hub_server import TOKEN, Repository, Store, serving
from tests.runs import frames
from tests.test_sweeps import TINY

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://me/mine", Address("me/mine")),
        ("hf://me/mine@v1.0", Address("me/mine", "v1.0")),
        (f"hf://my-lab/a_b.c@{COMMIT}", Address("my-lab/a_b.c", COMMIT)),
        ("hf://me/mine@refs/pr/1", Address("me/mine", "refs/pr/1")),
    ],
)
def test_an_address_is_read_and_written(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text
    assert outputs_of(text) == f"runs/hf/{address.repo}"


@pytest.mark.parametrize(
    "text",
    [
        "hf://", "hf://mine", "hf://me/", "hf://me/mine@", "hf://me/mine/x", "hf://../mine",
        "hf://me/..", "hf://me/mi..ne", "hf://me/mi--ne", "hf://me/mine@../x", "hf://me/-a",
        "hf://me/mine@a b", "hf:///me/mine", "hf://me/mine\n", "hf://me/m\u00efne",
    ],
)  # fmt: skip
def test_no_other_text_is_an_address(text: str) -> None:
    with pytest.raises(InputError, match="no address of a run on the Hub; give hf://USER/NAME"):
        parse_address(text)


def test_a_folder_of_the_cache_has_its_address() -> None:
    folder = Path(f"/x/models--my-lab--a_b.c/snapshots/{COMMIT}")
    assert address_of(folder) == place_name(folder) == f"hf://my-lab/a_b.c@{COMMIT}"
    assert output_folder(folder) == Path("runs/hf/my-lab/a_b.c/01234567")
    assert title_name(folder) == "my-lab/a_b.c@01234567"
    assert output_folder(Path("runs/mine")) == Path("runs/mine")
    assert title_name(Path("runs/mine")) == "mine"
    for other in ("/x/runs/mine", f"/x/models--mine/snapshots/{COMMIT}", "/", "runs"):
        assert address_of(Path(other)) is None
        assert place_name(Path(other)) == other


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("data.root=/home/ann/my faces/ff++", "data.root=ff++"),
        ("data.root='/q/r'", "data.root='r'"),
        ("experts=[/a/b/c,/d/e/f]", "experts=[c,f]"),
        ("see /home/ann/my faces/ff++, then", "see ff++, then"),
        ("~/data/x", "x"),
        ("~bob/data/x", "x"),
        ("C:\\Users\\ann\\x", "x"),
        ("uri=file:///home/ann/runs", "uri=file://runs"),
        ("/", ""),
        ("https://a.b/c/d", "https://a.b/c/d"),
        ("hf://me/x@abc", "hf://me/x@abc"),
        ("{split}/{domain}/{video}", "{split}/{domain}/{video}"),
        ("a/b and 1/2/3", "a/b and 1/2/3"),
    ],
)
def test_a_path_of_this_machine_becomes_its_last_part(text: str, public: str) -> None:
    found = Private(("/home/ann/my faces/ff++",)).plain({"key": [text, 7, None]})
    assert found["key"][1:] == [7, None]
    assert found["key"][0].replace("'", "") == public.replace("'", "")


def test_predictions_without_names_give_the_same_results() -> None:
    before = pl.concat([frames("ff", ["puppet"], 0), frames("celeb", [], 1)])
    named = pl.when(pl.col("label") == 1).then(pl.col("video") + "_x").otherwise(pl.col("video"))
    before = before.with_columns(named, content=pl.int_range(pl.len(), dtype=pl.UInt64))
    after = without_names(before)
    assert after.columns == [name for name in before.columns if name != "content"]
    assert not {*before["path"], *before["video"]} & {*after["path"], *after["video"]}
    for naming in ("id", "folder"):
        one, other = (
            compute_results(table, "iid", naming=naming).drop("value") for table in (before, after)
        )
        assert one.equals(other)
        values = (
            compute_results(table, "iid", naming=naming)["value"] for table in (before, after)
        )
        assert np.allclose(*values, atol=1e-12)
    one, other = (score_meanings(table) for table in (before, after))
    for level, meaning in one.items():
        assert meaning.calibration is not None
        assert meaning.to_json() == other[level].to_json()


# ---- refusals


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path / "cache") as store:
        empty = Repository()
        empty.commit("main", {"README.md": b"# A page", "model.bin": b"x"})
        store.repositories |= {
            "me/other": empty,
            "me/closed": Repository(private=True),
            "me/gated": Repository(gated=True),
        }
        yield store


REFUSALS = {
    "hf://me/none": "There is no repository me/none on http.*, or it is private; correct the name",
    "hf://me/gated": "is open to those alone whom its owner has let in; ask for access on http",
    "hf://me/other@v2": "me/other on http.* has no revision v2; correct what follows the @",
    "hf://me/other": r"hf://me/other holds no run of fmsd \(it has no run.json\)",
    "hf://other": "hf://other is no address of a run on the Hub; give hf://USER/NAME",
}


@pytest.mark.parametrize("address", REFUSALS)
def test_a_run_that_cannot_be_fetched_is_refused_in_one_sentence(
    address: str, hub: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cite", f"run={address}"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(REFUSALS[address], said)
    assert said.startswith("fmsd: ")
    assert said.count(TOKEN) == 0


def test_without_a_connection_the_remedy_is_named(
    hub: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fmsd.runs.hub import fetch_run

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE forbids to connect; unset HF_HUB_OFFLINE"):
        fetch_run("hf://me/other")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"http://127.0.0.1:9 cannot be reached.*check the conn"):
        fetch_run("hf://me/other")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "run=hf://me/mi..ne"], "hf://me/mi..ne is no address of a run on the Hub"),
        (["train", "resume=hf://me/mine"], "resume=hf://me/mine is on the Hub, where train cannot"),
        (["evaluate", "run=hf://me/none"], "There is no repository me/none"),
        (["merge", "experts=[hf://me/none,hf://me/gated]"], "There is no repository me/none"),
        (["report", "runs=hf://me/none"], "There is no repository me/none"),
        (["verify", "hf://me/none"], "There is no repository me/none"),
    ],
)
def test_every_verb_knows_an_address(
    words: list[str], said: str, hub: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


# ---- the commit of a push


A_RUN: dict[str, bytes] = dict.fromkeys(
    ("adapter.json", "adapter.safetensors", "config.yaml", "mask.json", "run.json"), b"a run"
)


def push_files(revision: str | None, private: bool = False, **more: bytes) -> Address:
    from fmsd.runs.hub import upload

    files = {name: b"another run" for name in A_RUN if name != "mask.json"}
    return upload(Address("me/mine", revision), files | more, private, "A run")


def test_a_push_replaces_what_lies_on_its_own_branch(hub: Store) -> None:
    mine = hub.repositories["me/mine"] = Repository()
    mine.commit("main", {**A_RUN, "notes.md": b"x"})
    mine.commit("v2", {**A_RUN, "results.csv": b"x"})
    pushed = push_files("v2")
    assert mine.branches["v2"] == pushed.revision
    assert {*mine.files("v2")} == {*A_RUN} - {"mask.json"}
    assert mine.files() == {**A_RUN, "notes.md": b"x"}
    push_files("v3")  # begins with the default branch
    assert {*mine.files("v3")} == {*A_RUN, "notes.md"} - {"mask.json"}


@pytest.mark.parametrize("branch", ["other", "new"])
def test_a_branch_with_something_else_is_left_as_it_is(branch: str, hub: Store) -> None:
    mine = hub.repositories["me/mine"] = Repository()
    mine.commit("main", {"weights.bin": b"x"} if branch == "new" else A_RUN)
    mine.commit("other", {"results.csv": b"of something else", "weights.bin": b"x"})
    before = dict(mine.branches)
    with pytest.raises(InputError, match=r"@\w+ holds something else than a run \(.*give another"):
        push_files(branch)
    assert mine.branches == before
    assert not any("/branch/" in request or "/commit/" in request for request in hub.requests)


def test_a_refused_push_makes_no_repository(hub: Store) -> None:
    hub.repositories["me/mine"] = Repository()
    hub.repositories["me/mine"].commit("main", {})
    with pytest.raises(InputError, match="me/mine is there already, and public"):
        push_files("v2", private=True)
    assert not any(request.startswith("POST") for request in hub.requests)


@pytest.mark.parametrize("branch", [None, "v2"])
def test_two_pushes_do_not_mix(branch: str | None, hub: Store) -> None:
    mine = hub.repositories["me/mine"] = Repository()
    mine.commit("main", A_RUN)
    theirs = {**A_RUN, "merge.json": b"theirs"}
    hub.before_commit = lambda: mine.commit(branch or "main", theirs)
    with pytest.raises(InputError, match=r"changed by somebody else meanwhile.*run the command ag"):
        push_files(branch)
    assert mine.files(branch or "main") == theirs
    push_files(branch)
    assert "merge.json" not in mine.files(branch or "main")


# ---- stories


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and two trained runs, `runs/mine` and `runs/norm`."""
    place = tmp_path_factory.mktemp("hub")
    grow_tree(place / "ann" / "data", domains=("real", "swap", "blend"), videos=6)
    words = [word for word in TINY if word not in ("-m", "data.workers=1", "data.root=data")]
    words += ["data.workers=0", f"data.root={place / 'ann' / 'data'}", "trainer.precision=32-true"]
    for method, name in (("probe", "mine"), ("norm", "norm")):
        assert main([*words, f"method={method}", f"hydra.run.dir={place / 'runs' / name}"]) == 0
    return place


@pytest.fixture
def store(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A Hub, and copies of the runs to work on in the working directory."""
    shutil.copytree(place / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path / "cache") as store:
        yield store


DATA = ("data=folder", "data.workers=0")


def results(folder: Path) -> pl.DataFrame:
    return pl.read_csv(folder / "results.csv").select("dataset", "level", "metric", "value")


@pytest.mark.slow
def test_a_run_that_was_pushed_and_removed_is_used_from_the_hub(
    store: Store,
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = results(Path("runs/mine"))
    image = next((place / "ann" / "data").rglob("*.png"))
    score = fmsd.load("runs/mine").score(image)
    assert main(["push", "runs/mine", "repo=me/mine", "private=true", "license=cc-by-4.0"]) == 0
    said = capsys.readouterr().out
    repository = store.repositories["me/mine"]
    commit = repository.branches["main"]
    assert f"The run is hf://me/mine@{commit}; its page is http://127.0.0.1" in said
    assert repository.private
    assert len(repository.commits) == 2  # the empty one, and one with everything
    local = fmsd.load("runs/mine").facts
    shutil.rmtree("runs/mine")

    fetched = fmsd.load("hf://me/mine").facts
    assert fetched.to_json() == {**local.to_json(), "name": f"me/mine@{commit[:8]}"}
    assert main(["verify", "run=hf://me/mine"]) == 0
    root = place / "ann" / "data"
    assert main(["evaluate", "run=hf://me/mine@main", *DATA, f"data.root={root}"]) == 0
    (test,) = Path("runs/hf/me/mine/evaluations").iterdir()
    assert results(test).equals(before)
    record = Run(test).record()
    assert record["run"] == f"hf://me/mine@{commit}"
    assert yaml.safe_load((test / "config.yaml").read_text())["run"] == record["run"]
    assert record["overlap"] == {"folder": 0}  # known by the digests of the training frames
    assert np.array_equal(fmsd.load("hf://me/mine").score(image), score)
    assert main(["fold", "run=hf://me/mine", "out=mine.safetensors"]) == 0
    assert main(["report", f"runs={test}"]) == 0
    words = ["experts=[hf://me/mine,runs/norm]", "out=merged", *DATA, f"data.root={root}"]
    assert main(["merge", *words]) == 0
    experts = yaml.safe_load(Path("merged/config.yaml").read_text())["experts"]
    assert experts[0] == f"hf://me/mine@{commit}"
    assert Run(Path("merged")).record()["merged"] == ["mine", "norm"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["verify", "hf://me/mine"]) == 0
    snapshot = tmp_path / "cache" / "models--me--mine" / "snapshots" / commit
    assert {path.name for path in snapshot.iterdir()} == {*repository.files()} - {
        ".gitattributes",
        "README.md",
    }


@pytest.mark.slow
def test_what_is_pushed_holds_nothing_of_this_machine(store: Store, place: Path) -> None:
    from fmsd.runs.hub import fetch_run

    assert main(["push", "run=runs/mine", "repo=me/mine", "out=card"]) == 0
    assert main(["push", "run=runs/mine", "repo=me/mine", "out=card"]) == 2  # the same again
    assert store.requests == []
    assert main(["push", "run=runs/mine", "repo=me/mine"]) == 0
    files = store.repositories["me/mine"].files()
    written = {path.name: path.read_bytes() for path in Path("card").iterdir()}
    assert written == {name: files[name] for name in files if name != ".gitattributes"}
    names = {path.name for path in (place / "ann" / "data").rglob("*") if len(path.name) > 5}
    for name, content in files.items():
        for private in (str(place), "ann/", TOKEN, *names):
            assert private.encode() not in content, (name, private)
    for name in ("validation.parquet", "training.parquet"):
        table = pl.read_parquet(files[name])
        assert table["path"].str.contains(r"^\d{7}$").all()
    card = files["README.md"].decode()
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["library_name"] == "fmsd"
    assert "license" not in metadata
    assert "None was given: ask the owner" in card
    auc = results(Path("runs/mine")).filter(level="video", metric="auc")["value"].item()
    (measured,) = metadata["model-index"][0]["results"]
    assert measured["metrics"][0]["value"] == pytest.approx(auc)
    assert f"| {auc:.3f} [" in card
    assert "hf://me/mine" in card
    facts = run_facts(Run(fetch_run("hf://me/mine")))  # as whoever fetches it gets them
    meaning = facts.meanings["video"]
    assert all(f"| {point.threshold:.4f} |" in card for point in meaning.points.values())
    assert all(format_rate(meaning.error_rates(rate)[0]) in card for rate in meaning.points)
    assert selection_sentence(facts.selection) in card
    for row in pl.read_csv(files["verdicts.csv"]).iter_rows(named=True):
        reals = row["false_positives"] + row["true_negatives"]
        assert f"| {row['at']}: {row['threshold']:.4f} |" in card
        assert f"| {row['false_positives']} of {reals} |" in card
    assert "verdict = detector.verdict(prediction" in card
    record = json.loads(files["run.json"])
    original = json.loads(Path("runs/mine/run.json").read_text())
    assert record["published"]["files"] == original["files"]


@pytest.mark.slow
def test_predictions_are_pushed_on_demand_and_taken_away_again(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", "runs/mine", "repo=me/mine", "predictions=true"]) == 0
    repository = store.repositories["me/mine"]
    assert "predictions/folder.parquet" in repository.files()
    assert main(["verify", "hf://me/mine"]) == 0
    assert main(["report", "runs=hf://me/mine"]) == 0
    assert main(["push", "runs/mine", "repo=me/mine"]) == 0
    assert "predictions/folder.parquet" not in repository.files()
    capsys.readouterr()
    assert main(["report", "hf://me/mine"]) == 2
    assert "hf://me/mine holds no predictions" in capsys.readouterr().err
    assert main(["push", "runs/mine", "repo=me/mine", "revision=v2"]) == 0
    assert repository.branches["main"] != repository.branches["v2"]
    assert "run=hf://me/mine@v2 clip.mp4" in repository.files("v2")["README.md"].decode()
    for name, content in repository.files("v2").items():
        assert content == repository.files()[name] or name == "README.md"


@pytest.mark.slow
def test_a_run_from_the_hub_is_checked_like_any_other(
    store: Store, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", "run=runs/mine", "repo=me/mine"]) == 0
    repository = store.repositories["me/mine"]
    good = repository.files()

    def tested(files: dict[str, bytes]) -> str:
        repository.commit("main", files)
        capsys.readouterr()
        root = place / "ann" / "data"
        assert main(["evaluate", "run=hf://me/mine", *DATA, f"data.root={root}"]) == 2
        return capsys.readouterr().err

    flipped = bytearray(good["adapter.safetensors"])
    flipped[-1] ^= 1
    said = tested({**good, "adapter.safetensors": bytes(flipped)})
    assert "is not the file that the run wrote" in said
    assert "to fetch it again, or ask the owner of the repository" in said
    config: Any = yaml.safe_load(good["config.yaml"])
    config["data"]["source"]["_target_"] = "os.system"
    record = json.loads(good["run.json"]) | {"files": None}
    hostile = {"config.yaml": yaml.safe_dump(config).encode()}
    said = tested({**good, **hostile, "run.json": json.dumps(record).encode()})
    assert "would call os.system for data.source" in said
    pickled = {name: content for name, content in good.items() if name != "adapter.safetensors"}
    said = tested({**pickled, "adapter.bin": b"x"})
    assert "adapter.safetensors is missing" in said
    assert not any("adapter.bin" in request for request in store.requests)


@pytest.mark.slow
def test_what_cannot_be_pushed_is_refused_and_nothing_is_uploaded(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*words: str) -> str:
        capsys.readouterr()
        assert main(["push", "run=runs/mine", *words]) == 2
        said = capsys.readouterr().err
        assert TOKEN not in said
        return said.strip().splitlines()[-1]

    assert "repo=mine is no name of a repository; give USER/NAME" in refused("repo=mine")
    assert "such as license=cc-by-4.0 or" in refused("repo=me/mine", "license='CC BY 4.0'")
    assert "such as license=mit or" in refused("repo=me/mine", "license=MIT")
    assert "runs is there already; give a new folder" in refused("repo=me/mine", "out=runs")
    monkeypatch.setenv("HF_TOKEN", "")
    assert "There is no token for the Hub; log in with" in refused("repo=me/mine")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "b" * 34)
    assert "The Hub does not accept the token" in refused("repo=me/mine")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "Your token may not write to you/mine" in refused("repo=you/mine")
    other = Repository()
    other.commit("main", {"README.md": b"# Mine", "weights.bin": b"x"})
    store.repositories["me/other"] = other
    assert "holds something else than a run (weights.bin" in refused("repo=me/other")
    other.commit("main", {".gitattributes": b""})
    assert "me/other is there already, and public" in refused("repo=me/other", "private=true")
    store.refuses_commits = True
    assert "Your token may not write to me/mine" in refused("repo=me/mine")
    assert [*store.repositories["me/mine"].files()] == [".gitattributes"]
    path = Path("runs/mine/adapter.json")
    path.write_text(path.read_text() + " ")
    assert "adapter.json is not the file that the run wrote" in refused("repo=me/mine")
