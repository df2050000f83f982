"""Records of runs that are damaged: each is named with its key, and before anything is scored."""

import contextlib
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from typing_extensions import TypedDict

from fmsd.cli.main import main
from fmsd.cli.sweep_jobs import JobNote, report_sweep
from fmsd.errors import InputError
from fmsd.json_records import Count, Number, PlainValue, Seed, read_record
from fmsd.merge.record import read_merge_record
from fmsd.runs.folder import Run
from fmsd.runs.predictions import PREDICTION_SCHEMA, read_predictions
from fmsd.tables import read_table
from fmsd.tracking.ledger import read_published
from tests.foreign_runs import RECORD, folder, foreign_config
from tests.runs import frames


class Part(TypedDict):
    size: Number


class Record(TypedDict, total=False):
    seed: Seed
    count: Count
    name: str | None
    parts: dict[str, Part]
    value: PlainValue


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "a fraction": ({"seed": 1.0}, "'seed' should be a valid integer"),
    "true": ({"count": True}, "'count' should be a valid integer"),
    "below 0": ({"seed": -1}, "'seed' should be greater than or equal to 0"),
    "beyond 64 bits": ({"count": 10**30}, "'count' should be less than"),
    "no text": ({"name": 3}, "'name' should be a valid string"),
    "another kind": ({"parts": []}, "'parts' should be a valid dictionary"),
    "inside": ({"parts": {"a": {"size": "1"}}}, "'parts.a.size' should be a valid number"),
    "missing inside": ({"parts": {"a": {}}}, "it lacks 'parts.a.size'"),
    "not finite": ({"parts": {"a": {"size": float("nan")}}}, "'parts.a.size' should be a finite"),
    "code": ({"value": {"_target_": "os.getcwd"}}, "'value' should be a text, a number, true"),
    "a long key": ({"parts": {"x" * 10_000: 3}}, r"'parts\.x{80,100}\.\.\. should be"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_first_key_that_is_wrong_is_named(name: str, tmp_path: Path) -> None:
    content, said = FAULTS[name]
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"seed": 0, "unknown": object.__name__} | content))
    with pytest.raises(InputError, match=rf"record\.json is damaged: {said}.*; put it back\.$"):
        read_record(path, Record, "put it back")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "record.json cannot be read: it is empty (0 bytes)"),
        (b'{"seed": 0', "record.json is no JSON"),
        (b"\0" * 100, "record.json is no JSON"),
        (b"[" * 100_000, "record.json is no JSON"),
        (b'{"name": "\xe9"}', "record.json is no JSON"),
        (b'{"name": "\\ud800"}', "record.json is no JSON"),
        (b"1" * 10_000, "record.json is no JSON"),
        (b"[]", "record.json is damaged: it should be a valid dictionary"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
    ],
)
def test_what_is_no_record_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(InputError) as refusal:
        read_record(tmp_path / "record.json", Record, "put it back")
    assert said in str(refusal.value)


def test_a_folder_in_its_place_and_what_other_versions_write(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(InputError, match=r"folder\.json cannot be read \(Is a directory\)"):
        read_record(tmp_path / "folder.json", Record, "put it back")
    whole = {
        "seed": 0,
        "name": "\U0001f600",
        "parts": {"a": {"size": 1, "more": []}},
        "new": {"a": 1},
    }
    (tmp_path / "record.json").write_text(json.dumps(whole))
    assert read_record(tmp_path / "record.json", Record, "") == whole


@pytest.mark.parametrize("key", [key for key in RECORD if key != "manifests"])
@pytest.mark.parametrize("value", [..., [], "x", -1.5])
def test_a_run_with_a_damaged_record_is_refused_before_its_data_are_read(
    key: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if (key, value) in (("selection", "x"), ("seconds", -1.5)):
        return  # what they may be
    run = folder(tmp_path / "run", foreign_config())
    content = {name: old for name, old in RECORD.items() if name != key}
    (run / "run.json").write_text(json.dumps(content if value is ... else content | {key: value}))
    with pytest.raises(InputError, match=rf"run\.json is damaged: .*'{key}"):
        Run(run).record(complete=True)
    assert main(["evaluate", f"run={run}", f"hydra.run.dir={tmp_path / 'out'}"]) == 2
    assert f"run.json is damaged: {'it lacks ' if value is ... else ''}'{key}'" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


MERGE: dict[str, Any] = {
    "merger": {"name": "average"},
    "base": {"hash": "0"},
    "experts": [{"path": "/a", "sha256": "1"}, {"path": "/b", "sha256": "2"}],
    "search": None,
    "layers": [{"name": "head.weight", "gram": [[1.0, 0.0], [0.0, 1.0]]}],
}


def test_the_record_of_a_merge_is_read_or_named(tmp_path: Path) -> None:
    path = tmp_path / "merge.json"
    path.write_text(json.dumps(MERGE))
    assert read_merge_record(path) == MERGE
    layer = MERGE["layers"][0]
    for change, said in (
        ({"merger": None}, "'merger' should be"),
        ({"base": {}}, "it lacks 'base.hash'"),
        ({"experts": [{"path": "/a"}]}, "it lacks 'experts.0.sha256'"),
        ({"search": 3}, "'search' should be"),
        ({"layers": [layer | {"gram": 3}]}, r"'layers\.0\.gram' should be"),
        ({"layers": [layer | {"gram": [[1.0], [0.0]]}]}, "the Gram matrix of 'head.weight' is not"),
        ({"experts": MERGE["experts"][:1]}, "the Gram matrix of 'head.weight' is not that of 1"),
    ):
        path.write_text(json.dumps(MERGE | change))
        with pytest.raises(InputError, match=rf"merge\.json is damaged: {said}"):
            read_merge_record(path)


def test_predictions_are_read_or_named(tmp_path: Path) -> None:
    path, table = tmp_path / "ff.parquet", frames("ff", (), 0)
    table.with_columns(digest=pl.lit("0")).write_parquet(path)
    assert read_predictions(path).equals(table.with_columns(pl.lit("0").alias("digest")))
    tested = table.with_columns(content=pl.lit(2**64 - 1, pl.UInt64))
    tested.write_parquet(path)
    assert read_predictions(path).equals(tested)
    for change, said in (
        (table.drop("logit"), "lacks the columns logit"),
        (table.drop("path", "video"), "lacks the columns path, video"),
        (table.cast({"logit": pl.String}), "its column 'logit' holds String instead of Float32"),
        (table.cast({"label": pl.Float64}), "its column 'label' holds Float64 instead of Int8"),
        (table.with_columns(label=300), "is damaged: "),
        (table.with_columns(label=2), "its column 'label' holds not only 0 and 1"),
        (table.with_columns(logit=float("nan")), "its column 'logit' holds NaN"),
        (table.with_columns(video=pl.lit(None, pl.String)), "its column 'video' lacks values"),
        (table.with_columns(content=pl.lit("0")), "its column 'content' holds String instead"),
        (table.with_columns(content=-1), "is damaged: "),
        (table.clear(), "it has no rows"),
        (table.with_columns(content=pl.lit("7")), "its column 'content' holds String instead of"),
        (table.with_columns(content=pl.lit(7.0)), "its column 'content' holds Float64 instead of"),
        (table.with_columns(content=[7]), "its column 'content' holds List"),
        (table.with_columns(content=pl.lit(None)), "its column 'content' holds Null instead of"),
        (table.with_columns(content=-7), "is damaged: "),
        (
            table.with_columns(content=pl.when(pl.col("index") > 0).then(pl.lit(7, pl.UInt64))),
            "its column 'content' lacks values",
        ),
    ):
        change.write_parquet(path)
        with pytest.raises(InputError, match=rf"ff\.parquet .*{said}.*; put it back, or test"):
            read_predictions(path)


@pytest.mark.parametrize("place", range(4, 3000, 37))
def test_a_flipped_byte_of_a_table_raises_nothing_else(place: int, tmp_path: Path) -> None:
    path = tmp_path / "ff.parquet"
    frames("ff", (), 0).write_parquet(path)
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 0xFF
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        assert read_predictions(path).columns == [*PREDICTION_SCHEMA]


def test_a_table_that_is_no_file_is_named(tmp_path: Path) -> None:
    schema = pl.Schema({"a": pl.Int8})
    for content, said in (
        (b"", r"it is empty \(0 bytes\)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"PAR1 and nothing else PAR1", "is no parquet file"),
    ):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(InputError, match=rf"a\.parquet .*{said}"):
            read_table(tmp_path / "a.parquet", schema, "write it again")
    with pytest.raises(InputError, match=r"absent\.parquet cannot be read"):
        read_table(tmp_path / "absent.parquet", schema, "write it again")


@pytest.mark.parametrize(
    "content", [[], {"wandb": 3}, {"wandb": {"stamps": {}}}, {"wandb": {"stamps": {}, "curves": 1}}]
)
def test_a_damaged_ledger_is_named(content: object, tmp_path: Path) -> None:
    (tmp_path / "published.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"published\.json is damaged: .*; put it back, or remove"):
        read_published(Run(tmp_path))


CONFIGS: dict[str, tuple[bytes | dict[str, Any], str]] = {
    "empty": (b"", "is no configuration"),
    "garbage": (b"\xff\xfe\x00\x81", "is no configuration (it is not UTF-8)"),
    "list": (b"[1, 2]", "is no configuration"),
    "scalar": (b"3", "is no configuration"),
    "NULs": (b"\0" * 200, "is no configuration"),
    "cut in a key": (b"backbone:\n  name: a\nda", "is no configuration"),
    "experts that are no paths": ({"experts": [[]]}, "is damaged: 'experts.0' should be"),
    "a source that is no part": ({"data": {"source": "x"}}, "is damaged: 'data.source' should be"),
    "a number for a root": ({"data": {"roots": {"dfdc": 7}}}, "is damaged: 'data.roots.dfdc'"),
    "a number of others": ({"data": {"others": 10**30}}, "is damaged: 'data.others' should be"),
    "another seed": ({"seed": -1}, "is damaged: 'seed' should be"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_damaged_configuration_is_named_by_every_verb(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, said = CONFIGS[name]
    run = folder(tmp_path / "run", foreign_config())
    text = content if isinstance(content, bytes) else yaml.safe_dump(content).encode()
    (run / "config.yaml").write_bytes(text)
    out = tmp_path / "x.safetensors"
    for words in (["evaluate", f"run={run}"], ["fold", f"run={run}", f"out={out}"]):
        assert main(words) == 2
        assert f"{run / 'config.yaml'} {said}" in capsys.readouterr().err
    (run / "run.json").unlink()
    assert main(["train", f"resume={run}"]) == 2
    assert f"{run / 'config.yaml'} {said}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("0.json", "[]", "0.json is damaged: it should be a valid dictionary"),
        ("0.json", '{"number": 0}', "0.json is damaged: it lacks 'overrides'"),
        ("begun", '{"jobs": "a", "before": {}}', "begun is damaged: 'jobs' should be"),
        ("begun", "{", "begun is no JSON"),
    ],
)
def test_a_damaged_note_of_a_sweep_is_named(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    notes = tmp_path / ".jobs" / "a"
    notes.mkdir(parents=True)
    (notes / "begun").write_text('{"jobs": 1, "before": {}}')
    JobNote(0, ["a=1"], str(tmp_path / "0")).write(notes)
    (notes / name).write_text(content)
    with pytest.raises(InputError, match=said):
        report_sweep(notes)
