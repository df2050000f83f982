"""`fmsd import scores=FILE`: what is read, how it is matched, what is refused, and the run."""

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from fmsd.cli.hydra_compat import parse_value
from fmsd.cli.main import main
from fmsd.data.frame import SCHEMA
from fmsd.data.manifest import Manifest
from fmsd.data.score_files import ScoreFile, read_scores
from fmsd.data.score_keys import Reading
from fmsd.data.score_matching import Matching, match_scores
from fmsd.data.score_values import OUTCOME_WORDS
from fmsd.errors import InputError
from fmsd.metrics.score_scale import as_logits
from fmsd.metrics.table import compute_results, with_scores
from fmsd.outcomes import OUTCOMES
from fmsd.report.rows import load_rows
from fmsd.runs.folder import Run
from fmsd.runs.predictions import read_predictions
from tests.conftest import write_image

VIDEOS = 12
"""Videos of each class: enough for intervals."""


def rows_of(dataset: str = "folder", root: str = "") -> pl.DataFrame:
    """Three frames in each of 12 real and 12 fake videos, whose names are all unique."""
    rows = []
    for domain in ("real", "swap"):
        for number in range(VIDEOS):
            video = f"{domain}{number}"
            for index in range(3):
                path = f"{root}test/{domain}/{video}/{video}_{index}.png"
                about = (dataset, domain, f"{dataset}/{domain}/{video}", index, "test", "", "", "")
                rows.append((path, int(domain == "swap"), *about))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def scored_rows(seed: int = 0, dataset: str = "folder") -> pl.DataFrame:
    """The same with random scores that rank fakes above reals, as often as not."""
    table, rng = rows_of(dataset), np.random.default_rng(seed)
    logit = rng.normal(0.7 * table["label"].to_numpy(), 1.0)
    return table.with_columns(score=1 / (1 + np.exp(-logit)))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "tree"
    for number, path in enumerate(rows_of()["path"]):
        write_image(root / path, number)
    return root


def written_csv(table: pl.DataFrame, path: Path, **options: Any) -> Path:
    path.write_text(table.write_csv(**options), encoding="utf-8", newline="")
    return path


def imported(tree: Path, file: Path, out: Path, *words: str) -> Run:
    """The run of an import that succeeds."""
    given = [f"scores={file}", "data=folder", f"data.root={tree}", f"out={out}", *words]
    assert main(["import", *given]) == 0
    return Run(out)


def refusal(capsys: pytest.CaptureFixture[str], tree: Path, file: Path, *words: str) -> str:
    """The sentence that ends an import; nothing is left of it."""
    out = file.parent / "made" / "run"
    given = [f"scores={file}", "data=folder", f"data.root={tree}", f"out={out}", *words]
    capsys.readouterr()
    assert main(["import", *given]) == 2
    assert not out.exists()
    (sentence,) = re.findall("^fmsd: .*", capsys.readouterr().err, re.MULTILINE)
    assert sentence.isprintable()
    return sentence


def wanted_results(table: pl.DataFrame, metrics: Sequence[str] | None = None) -> pl.DataFrame:
    logit = as_logits(table["score"].to_numpy(), "probability", "fake")
    return compute_results(table.with_columns(logit=pl.Series(logit)), "", metrics=metrics)


def assert_results(found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    keys = ["dataset", "level", "metric"]
    joined = found.join(wanted, on=keys, suffix="_wanted")
    assert len(joined) == len(found) == len(wanted)
    np.testing.assert_allclose(joined["value"], joined["value_wanted"], rtol=0, atol=1e-12)


def plain_rows(table: pl.DataFrame) -> list[dict[str, Any]]:
    return table.select("path", "score").to_dicts()


WRITERS: Mapping[str, Callable[[pl.DataFrame], str | bytes]] = {
    "plain.csv": lambda table: table.write_csv(),
    "windows.csv": lambda table: table.write_csv(line_terminator="\r\n", include_bom=True),
    "sixteen.csv": lambda table: table.write_csv().encode("utf-16"),
    "quoted.csv": lambda table: table.write_csv(quote_style="always"),
    "blanks.csv": lambda table: table.write_csv().replace(",", " , ").replace("\n", "\n\n"),
    "tabs.tsv": lambda table: table.write_csv(separator="\t"),
    "sheet.csv": lambda table: table.write_csv(separator=";").replace(";0.", ";0,"),
    "list.json": lambda table: json.dumps(plain_rows(table)),
    "object.json": lambda table: json.dumps(dict(table.select("path", "score").rows())),
    "columns.json": lambda table: json.dumps(table.to_dict(as_series=False)),
    "marked.json": lambda table: b"\xef\xbb\xbf" + json.dumps(plain_rows(table)).encode(),
    "texts.json": lambda table: json.dumps(plain_rows(table.cast(pl.String))),
    "lines.jsonl": lambda table: "\n\n".join(map(json.dumps, plain_rows(table))),
    "other.ndjson": lambda table: "\r\n".join(map(json.dumps, plain_rows(table))),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_scores(name: str, tmp_path: Path) -> None:
    table = scored_rows().select("path", "score")
    content = WRITERS[name](table)
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    file = read_scores(path, {})
    assert file.table["key"].equals(table["path"])
    assert file.table["score"].equals(table["score"])
    assert set(file.table["outcome"]) == {"scored"}


def test_parquet_of_both_precisions(tmp_path: Path) -> None:
    table = scored_rows().select("path", "score")
    for kind in (pl.Float64, pl.Float32):
        own = table.with_columns(pl.col("score").cast(kind))
        own.write_parquet(tmp_path / "a.parquet")
        assert (
            read_scores(tmp_path / "a.parquet", {})
            .table["score"]
            .equals(own["score"].cast(pl.Float64))
        )


def test_any_finite_number_is_read_exactly(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2**64, 2000, np.uint64).view(np.float64)
    values = values[np.isfinite(values)]
    table = pl.DataFrame({"id": [f"{i}" for i in range(len(values))], "score": values})
    for name, text in {
        "a.csv": table.write_csv(),
        "a.json": json.dumps(dict(table.rows())),
    }.items():
        (tmp_path / name).write_text(text)
        assert read_scores(tmp_path / name, {}).table["score"].equals(table["score"])


def test_words_in_place_of_scores(tmp_path: Path) -> None:
    words = ["", "NaN", "no face", "Error", "missing", "unreadable", "0.5"]
    lines = "\n".join(f"{place}.png,{word}" for place, word in enumerate(words))
    (tmp_path / "a.csv").write_text(f"path,score\n{lines}\n")
    (tmp_path / "a.json").write_text(
        json.dumps(
            [
                {"path": f"{place}.png", "score": {"": None, "NaN": float("nan")}.get(word, word)}
                for place, word in enumerate(words)
            ]
        )
    )
    for name in ("a.csv", "a.json"):
        table = read_scores(tmp_path / name, {}).table
        assert table["outcome"].to_list() == [
            "failed", "failed", "no_face", "failed", "missing", "unreadable", "scored",
        ]  # fmt: skip
        assert table["score"].to_list() == [None] * 6 + [0.5]
    assert set(OUTCOME_WORDS.values()) <= set(OUTCOMES)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.csv", "", "no column of a known name for the key: it has none"),
        ("a.csv", "path,score\n", "holds no scores"),
        ("a.json", "[]", "holds no scores"),
        ("a.json", "{}", "holds no scores"),
        ("a.jsonl", "", "holds no scores"),
        ("a.csv", "a.png,0.5\nb.png,0.6\n", "no column of a known name for the key"),
        ("a.csv", "path,value\na,1\n", "no column of a known name for the score"),
        ("a.csv", "path,video,score\na,v,1\n", "several columns that may hold the key: path, vid"),
        ("a.csv", "path,prob,logit\na,1,1\n", "several columns that may hold the score: prob, lo"),
        ("a.csv", "path,score,score\na,1,1\n", "several columns that may hold the score"),
        ("a.csv", "path,score\na,0.5\nb,x1\n", "Line 3 of .* has the score 'x1', which is no num"),
        ("a.csv", "path,score\na,inf\n", "Line 2 of .* has the score 'inf', which is no number"),
        ("a.csv", "path,score\na,1e999\n", "has the score '1e999', which is no number"),
        ("a.csv", 'path,score\na,"0,5"\nb,0.5\n', "has the score '0,5', which is no number"),
        ("a.csv", "path,score\n,0.5\n", "has the key '', which is empty"),
        ("a.csv", "path,score\na,1,2\n", "Line 2 of .* has 3 cells"),
        ("a.csv", "path,score,label\na,1,spoof\n", "'spoof', which is none of real, fake, 0 and"),
        ("a.json", '{"a": [1], "b": 2}', "The score in entry 1 of .* is a list"),
        ("a.json", '{"path": ["a"], "score": [1, 2]}', "columns of .* have other lengths"),
        ("a.json", '[{"path": 1.5, "score": 1}]', "The key in entry 1 of .* is a number"),
        ("a.json", '[{"path": "a", "score": true}]', "has the score 'True', which is no number"),
        ("a.json", '["a"]', "Entry 1 of .* is text, no object"),
        ("a.json", '"a"', "is text; give a list of objects"),
        ("a.json", '{"a": 1, "a": 2}', "gives a twice, with different values"),
        ("a.json", '{"\\ud800": 1}', "Entry 1 of .* holds half a character"),
        ("a.json", f'{{"a": {"1" * 5000}}}', "is not a JSON file"),
        ("a.jsonl", '{"path": "a", "score": 1}\n[', "Line 2 of .* is no JSON"),
        ("a.parquet", "PAR1", "cannot be read"),
        ("a.xlsx", "", "The suffix of .* is none of .csv, .tsv"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_scores(tmp_path / name, {})


def test_columns_by_words(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Image_Path,fake prob,logit,Dataset,label\na.png,0.25,-1,x,fake\n")
    assert read_scores(path, {}).columns == {
        "key": "Image_Path", "score": "logit", "dataset": "Dataset", "label": "label",
    }  # fmt: skip
    file = read_scores(path, {"score": "fake prob", "dataset": None, "label": None})
    assert file.columns == {"key": "Image_Path", "score": "fake prob"}
    assert file.table["score"].to_list() == [0.25]
    for columns, sentence in {
        ("score", "prob"): "has no column prob; it has Image_Path, fake prob",
        ("score", None): "columns gives score the name null",
        ("path", "a"): "columns has path, which is none of key, score, dataset, label",
    }.items():
        with pytest.raises(InputError, match=sentence):
            read_scores(path, dict([columns]))
    (tmp_path / "a.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="columns would have no effect"):
        read_scores(tmp_path / "a.json", {"key": "a"})


CIRCLES: Mapping[str, tuple[str, dict[str, str | None]]] = {
    "two keys and scores": ("path,video,prob,logit\na,v,1,2\n", {"key": "path", "score": "prob"}),
    "blanks, colons and quotes": (
        'img path,video: id,"my ""logit\'",label\na,v,1,odd\n',
        {"key": "img path", "score": "my \"logit'"},
    ),
    "names that are other values": ("Null,0,label\na,0.5,odd\n", {"key": "Null", "score": "0"}),
    "labels": ("path,video,score,label\na,v,1,odd\n", {"key": "path", "score": "score"}),
}


@pytest.mark.parametrize("name", CIRCLES)
def test_the_remedies_of_columns_lead_to_an_end(name: str, tmp_path: Path) -> None:
    text, wanted = CIRCLES[name]
    (tmp_path / "a.csv").write_text(text)
    columns: Any = {}
    for _ in range(4):
        try:
            file = read_scores(tmp_path / "a.csv", columns)
            break
        except InputError as error:
            words = shlex.split(error.remedy[error.remedy.index("columns=") :].partition("; ")[0])
            columns = parse_value(words[0].removeprefix("columns="))
            named = [role for role, column in columns.items() if column == "NAME"]
            columns |= {role: wanted[role] for role in named}
    assert file.table.height == 1
    assert file.columns.items() >= wanted.items()


def test_columns_that_are_values_or_numbers_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a.png,0.5\nb.png,1\n")
    with pytest.raises(InputError, match="if these are values, write a first line such as path,sc"):
        read_scores(path, {})
    path.write_text("# of May\npath,score\na,1\n")
    with pytest.raises(InputError, match="it has # of May; give it a column of keys and one of"):
        read_scores(path, {})
    path.write_text("0,1\nb.png,1\n")
    assert read_scores(path, {"key": 0, "score": 1}).columns == {"key": "0", "score": "1"}
    path.write_text("path,score,score\na,1,1\n")
    for columns in ({}, {"score": "score"}):
        with pytest.raises(InputError, match="rename one of them in the file"):
            read_scores(path, columns)
    with pytest.raises(InputError, match="gives the column path two roles"):
        read_scores(path, {"key": "path", "score": "path"})


ROOT = Path("/place/of the data")


def as_file(keys: Sequence[str], **columns: Sequence[Any]) -> ScoreFile:
    """A file with these keys, whose scores are 0, 1, 2, ... unless they are given."""
    table = pl.DataFrame({"key": keys, "score": np.arange(len(keys), dtype=float), **columns})
    table = table.with_columns(outcome=pl.lit("scored")).with_row_index("place", 2)
    return ScoreFile(table.cast({"place": pl.Int64, "score": pl.Float64}), "line", {})


def matched(file: ScoreFile, **options: Any) -> Matching:
    return match_scores(file, {"folder": Manifest(rows_of(), ROOT)}, Path("a.csv"), **options)


KEYS: Mapping[str, tuple[Callable[[pl.DataFrame], pl.Series], dict[str, Any], Reading]] = {
    "relative": (lambda t: t["path"], {}, Reading("path", "frame")),
    "absolute": (lambda t: f"{ROOT}/" + t["path"], {}, Reading("path", "frame")),
    "windows": (lambda t: ".\\" + t["path"].str.replace_all("/", "\\", literal=True), {},
                Reading("path", "frame")),
    "detours": (lambda t: "./" + t["path"].str.replace("/", "/.//"), {}, Reading("path", "frame")),
    "below": (lambda t: "of the data/" + t["path"], {"root": "/place"}, Reading("path", "frame")),
    "elsewhere": (lambda t: "/home/them/" + t["path"], {"root": "/home/them/"},
                  Reading("path", "frame")),
    "drive": (lambda t: "D:\\x\\" + t["path"], {"root": "D:\\x"}, Reading("path", "frame")),
    "name": (lambda t: t["path"].str.extract("([^/]+)$"), {}, Reading("name", "frame")),
    "by name": (lambda t: "/any/" + t["path"], {"by": "name", "level": "frame"},
                Reading("name", "frame")),
    "id": (lambda t: t["video"].unique(maintain_order=True), {}, Reading("video", "video")),
    "short id": (lambda t: t["video"].unique(maintain_order=True).str.strip_prefix("folder/"), {},
                 Reading("video", "video")),
    "file": (lambda t: t["video"].unique(maintain_order=True).str.strip_prefix("folder/") + ".MP4",
             {}, Reading("video", "video")),
    "folder": (lambda t: (f"{ROOT}/" + t["path"].str.extract("(.+)/[^/]+$"))
               .unique(maintain_order=True) + "/", {}, Reading("video", "video")),
    "their folder": (lambda t: ("/them/" + t["path"].str.extract("(.+)/[^/]+$"))
                     .unique(maintain_order=True), {"root": "/them"}, Reading("video", "video")),
    "video name": (lambda t: t["video"].unique(maintain_order=True).str.extract("([^/]+)$"), {},
                   Reading("name", "video")),
    "by video name": (lambda t: "x/" + t["video"].unique(maintain_order=True) + ".mp4",
                      {"by": "name"}, Reading("name", "video")),
}  # fmt: skip
"""Keys, what is said of them, and what they are."""


@pytest.mark.parametrize("name", KEYS)
def test_every_kind_of_key_finds_its_frames(name: str) -> None:
    keys, options, reading = KEYS[name]
    table = rows_of()
    found = matched(as_file(keys(table).to_list()), **options)
    assert found.reading == reading
    rows = len(table) if reading.level == "frame" else 2 * VIDEOS
    wanted = np.arange(rows) if reading.level == "frame" else np.arange(rows).repeat(3)
    assert found.scores["folder"]["score"].to_list() == wanted.tolist()
    assert (len(found.unmatched), len(found.missing), found.duplicates) == (0, 0, 0)


def test_decomposed_and_composed_names_are_the_same() -> None:
    table = rows_of().with_columns(pl.col("path").str.replace("real", "r\u00e9al"))
    tests = {"folder": Manifest(table, ROOT)}
    keys = table["path"].str.normalize("NFD").to_list()
    found = match_scores(as_file(keys), tests, Path("a.csv"))
    assert found.scores["folder"]["score"].to_list() == [*range(len(table))]


def test_what_is_left_over_is_listed() -> None:
    table = rows_of()
    keys = ["../../x", "a\nb", "\x1b[31m", *table["path"][2:], table["path"][5]]
    scores = [7.0, 7.0, 7.0, *range(2, 72), 5.0]
    found = matched(as_file(keys, score=scores))
    assert found.unmatched["key"].to_list() == keys[:3]
    assert found.unmatched["place"].to_list() == [2, 3, 4]
    assert found.missing["key"].to_list() == table["path"][:2].to_list()
    assert found.duplicates == 1
    assert found.scores["folder"]["outcome"].to_list() == ["missing"] * 2 + ["scored"] * 70


def test_keys_that_are_not_certain_are_refused() -> None:
    table = rows_of()
    paths, videos = table["path"].to_list(), table["video"].to_list()
    cases: list[tuple[list[str], dict[str, Any], str]] = [
        ([paths[0], videos[5]], {}, "may be read in two ways: 1 paths of frames and 1 ids or fol"),
        ([paths[0], paths[0]], {}, "Lines 2 and 3 of a.csv are both of the frame"),
        (["/x/" + paths[0]], {}, "No key of a.csv is among the paths of frames or ids"),
        (["/x/" + paths[0], "/y/" + paths[0]], {"by": "name"}, "Lines 2 and 3 of a.csv are both"),
        ([paths[0]], {"level": "video"}, "No key of a.csv is among the ids or folders of videos"),
        ([paths[0]], {"level": "video", "by": "path"}, "level=video and by=path contradict"),
        ([paths[0]], {"level": "clip"}, "level=clip is unknown"),
        ([paths[0]], {"by": "hash"}, "by=hash is unknown"),
    ]  # fmt: skip
    for keys, options, sentence in cases:
        with pytest.raises(InputError, match=sentence):
            matched(as_file(keys), **options)
    found = matched(as_file([paths[0], videos[5]]), level="video")
    assert (len(found.unmatched), len(found.missing)) == (1, 2 * VIDEOS - 1)


FOREIGN: Mapping[str, Callable[[str], str]] = {
    "/home/them/x": lambda path: f"/home/them/x/{path}",
    "D:/x y": lambda path: f"D:\\x y\\{path}",
    "crops": lambda path: f"crops/{path}",
    f"{ROOT}/test": lambda path: path.removeprefix("test/"),
}


ROOTS = [(root, level) for root in FOREIGN for level in ("frame", "video")]
ROOTS.remove((f"{ROOT}/test", "video"))  # ids without the dataset, which are found


@pytest.mark.parametrize(("root", "level"), ROOTS)
def test_the_root_of_keys_that_are_not_found_is_computed(root: str, level: str) -> None:
    table = rows_of()
    paths = table["path"] if level == "frame" else table["path"].str.extract("(.+)/[^/]+$").unique()
    keys = ["of training.png", *map(FOREIGN[root], paths)]
    with pytest.raises(InputError) as caught:
        matched(as_file(keys))
    (word, *_) = shlex.split(caught.value.remedy.removeprefix("give "))
    assert word.rstrip(",") == f"root={root}"
    found = matched(as_file(keys), root=word.rstrip(",").removeprefix("root="))
    assert (found.reading.level, len(found.unmatched), len(found.missing)) == (level, 1, 0)


def test_names_are_proposed_where_they_are_found() -> None:
    with pytest.raises(InputError, match="give by=name to compare names alone") as caught:
        matched(as_file(["/x/real0_0.png"]))
    assert "root=" not in caught.value.remedy
    with pytest.raises(InputError, match="correct its keys, or give the data that they are of"):
        matched(as_file(["/x/another.png"]))


def test_names_and_paths_of_two_datasets() -> None:
    one, other = rows_of("one"), rows_of("two")
    tests = {"one": Manifest(one, Path("/one")), "two": Manifest(other, Path("/two"))}
    keys = one["path"].to_list()
    with pytest.raises(InputError, match=r"in line 2 of a.csv is that of several test frames"):
        match_scores(as_file(keys), tests, Path("a.csv"))
    with pytest.raises(InputError, match="has scores of 'three', and the tests are of one, two"):
        match_scores(as_file(keys, dataset=["three"] * len(keys)), tests, Path("a.csv"))
    both = as_file([*keys, *keys, "a"], dataset=["one"] * 72 + ["two"] * 72 + ["three"])
    found = match_scores(both, tests, Path("a.csv"))
    assert found.scores["two"]["score"].to_list() == [*range(72, 144)]
    assert found.unmatched["why"].to_list() == ["its dataset is not tested"]
    absolute = as_file([f"/{name}/{key}" for name in tests for key in keys])
    found = match_scores(absolute, tests, Path("a.csv"))
    assert found.scores["one"]["score"].to_list() == [*range(72)]


def test_probabilities_keep_their_value_and_order() -> None:
    rng = np.random.default_rng(0)
    small = 10.0 ** rng.uniform(-300, 0, 2000)
    values = np.unique(np.concatenate([small, rng.random(5000).astype(np.float32), [0.0, 1.0]]))
    logit = as_logits(values, "probability", "fake")
    assert np.isfinite(logit).all()
    table = pl.DataFrame({"dataset": "x", "logit": logit})
    score = with_scores(table)["score"].to_numpy()
    np.testing.assert_allclose(score, values, rtol=0, atol=1e-15)
    assert len(np.unique(score)) == len(values)


def test_scores_by_path_video_and_name(tree: Path, tmp_path: Path) -> None:
    table = scored_rows()
    by_path = imported(
        tree, written_csv(table.select("path", "score"), tmp_path / "a.csv"), tmp_path / "path"
    )
    assert_results(by_path.results(), wanted_results(table))
    names = table.select("score", file=pl.col("path").str.extract("([^/]+)$"))
    names.write_parquet(tmp_path / "names.parquet")
    by_name = imported(tree, tmp_path / "names.parquet", tmp_path / "name")
    assert by_name.results().drop("stamp").equals(by_path.results().drop("stamp"))
    videos = table.group_by("video", maintain_order=True).agg(pl.col("score").mean())
    (tmp_path / "videos.json").write_text(json.dumps(dict(videos.rows())))
    by_video = imported(tree, tmp_path / "videos.json", tmp_path / "video")
    found = by_video.results()
    assert set(found["level"]) == {"video"}
    assert_results(found, wanted_results(table).filter(level="video"))
    about = by_path.record()["external"]
    assert (about["kind"], about["file"], about["scale"]) == ("scores", "a.csv", "probability")
    assert (about["higher"], about["levels"]) == ("fake", ["frame", "video"])
    assert main(["verify", f"runs={tmp_path}"]) == 0
    assert main(["report", f"runs={tmp_path}"]) == 0


def test_logits_and_scores_of_any_scale(tree: Path, tmp_path: Path) -> None:
    table = scored_rows()
    logit = np.log(table["score"].to_numpy()) - np.log1p(-table["score"].to_numpy())
    logits = table.select("path", logit=pl.Series(logit))
    of_logits = imported(
        tree, written_csv(logits, tmp_path / "a.csv"), tmp_path / "logits", "scale=logit"
    )
    assert_results(of_logits.results(), wanted_results(table))
    scaled = table.select("path", score=-1e6 + 3000 * pl.col("score"))
    of_scores = imported(
        tree, written_csv(scaled, tmp_path / "b.csv"), tmp_path / "scores", "scale=score"
    )
    found = of_scores.results()
    metrics = found["metric"].unique(maintain_order=True).to_list()
    assert "auc" in metrics
    assert not {"acc", "brier", "ece"} & {*metrics}
    wanted = wanted_results(table, metrics)
    assert_results(found.filter(metric="auc"), wanted.filter(metric="auc"))


def test_the_metrics_of_scores_are_those_of_any_affine_map_of_them(
    tree: Path, tmp_path: Path
) -> None:
    table = scored_rows().with_columns(score=pl.col("score").log())
    found = []
    for name, scores in {
        "plain": table["score"],
        "mapped": 1e-7 * table["score"] - 300,
        "mirrored": 1e9 - 1e6 * table["score"],
    }.items():
        file = written_csv(table.select("path", score=scores), tmp_path / f"{name}.csv")
        higher = "higher=real" if name == "mirrored" else "higher=fake"
        run = imported(tree, file, tmp_path / name, "scale=score", higher)
        found.append(run.results().drop("stamp"))
    videos = table.group_by("video").agg(pl.col("label").first(), pl.col("score").mean())
    for level, rows in (("frame", table), ("video", videos)):
        auc = found[0].filter(metric="auc", level=level)["value"].item()
        assert auc == pytest.approx(roc_auc_score(rows["label"], rows["score"]), abs=1e-12)
    for other in found[1:]:
        assert found[0].drop("value").equals(other.drop("value"))
        np.testing.assert_allclose(found[0]["value"], other["value"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("outlier", [1e30, -3.4e38])
def test_an_outlier_leaves_the_others_ranked(
    outlier: float, tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = scored_rows().with_columns(
        score=pl.when(pl.int_range(pl.len()) == 5).then(outlier).otherwise("score")
    )
    file = written_csv(table.select("path", "score"), tmp_path / "a.csv")
    run = imported(tree, file, tmp_path / "run", "scale=score")
    auc = run.results().filter(metric="auc", level="frame")["value"].item()
    assert auc == pytest.approx(roc_auc_score(table["label"], table["score"]), abs=1e-12)
    assert "their distances are lost" in caplog.text
    assert f"{outlier:g}" in caplog.text


def test_what_a_killed_import_leaves_is_begun_anew(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written_csv(scored_rows().select("path", "score"), tmp_path / "a.csv")
    whole = imported(tree, file, tmp_path / "whole")
    left = tmp_path / "left"
    left.mkdir()
    (left / "config.yaml").write_text(whole.config.read_text())
    (left / "missing.csv").write_text("of another file")
    run = imported(tree, file, left)
    names = ({path.name for path in place.iterdir()} for place in (left, whole.folder))
    assert next(names) == next(names)
    assert run.results().equals(whole.results())


def test_a_record_with_other_words_is_damaged(tree: Path, tmp_path: Path) -> None:
    file = written_csv(scored_rows().select("path", "score"), tmp_path / "a.csv")
    run = imported(tree, file, tmp_path / "run")
    record = run.record()
    wrong = {
        "kind": "weights", "scale": "\x1b[31m", "higher": 1, "levels": [], "file": "a\nb",
        "sha256": "../x", "detector": 3,
    }  # fmt: skip
    for key, value in wrong.items():
        changed = record | {"external": record["external"] | {key: value}}
        (run.folder / "run.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=rf"run.json is damaged: 'external.{key}") as caught:
            load_rows(tmp_path)
        assert str(caught.value).isprintable()


def test_polarity_is_checked(
    tree: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = scored_rows().with_columns(score=(pl.col("score") + pl.col("label")) / 2)
    inverted = table.select("path", score=1 - pl.col("score"))
    file = written_csv(inverted, tmp_path / "a.csv")
    sentence = refusal(capsys, tree, file)
    assert "rank fakes below reals (video AUC 0." in sentence
    assert "give higher=real" in sentence
    right = imported(tree, file, tmp_path / "right", "higher=real")
    wanted = wanted_results(table).filter(metric="auc")
    assert_results(right.results().filter(metric="auc"), wanted)
    kept = imported(tree, file, tmp_path / "kept", "higher=fake")
    assert "rank fakes below reals" in caplog.text
    auc = kept.results().filter(metric="auc", level="video")["value"].item()
    assert auc == pytest.approx(1 - wanted.filter(level="video")["value"].item())


def test_incomplete_scores(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = scored_rows()
    part = table.filter(pl.int_range(pl.len()) % 10 != 3)
    other = pl.DataFrame({"path": ["../../x", "=1+1", "a\nb", "\x1b[31mred"], "score": [0.5] * 4})
    cells = pl.concat([part.select("path", "score"), other])
    file = written_csv(cells, tmp_path / "a.csv")
    sentence = refusal(capsys, tree, file)
    assert "have a score" in sentence
    assert "coverage=exclude" in sentence
    listed = tmp_path / "made" / "run.missing.csv"
    assert f"{listed} lists the frames without a score" in sentence
    run = imported(tree, file, tmp_path / "run", "coverage=exclude")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    unmatched, missing = (
        pl.read_csv(run.folder / name) for name in ("unmatched.csv", "missing.csv")
    )
    assert unmatched["key"].to_list() == ["../../x", "'=1+1", "a\nb", "\x1b[31mred"]
    lacking = table.filter(pl.int_range(pl.len()) % 10 == 3)
    assert set(missing["key"]) == set(lacking["path"])
    assert listed.read_text() == (run.folder / "missing.csv").read_text()
    predictions = read_predictions(run.folder / "predictions" / "folder.parquet")
    assert predictions.height == table.height
    assert predictions.filter(pl.col("logit").is_null())["outcome"].unique().to_list() == [
        "missing"
    ]
    results = run.results()
    assert_results(results, wanted_results(part))
    frames = results.filter(level="frame")
    assert set(frames["n_missing"]) == {len(lacking)}
    assert set(frames["n_expected"]) == {table.height}
    assert main(["report", f"runs={run.folder}"]) == 0


def test_labels_of_the_file_are_compared(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = scored_rows().select("path", "score", "label")
    good = imported(tree, written_csv(table, tmp_path / "good.csv"), tmp_path / "good")
    wrong = table.with_columns(
        label=pl.when(pl.int_range(pl.len()) < 2).then(1 - pl.col("label")).otherwise("label")
    )
    file = written_csv(wrong, tmp_path / "a.csv")
    assert "2 of the 72 labels in" in refusal(capsys, tree, file)
    opposite = written_csv(table.with_columns(label=1 - pl.col("label")), tmp_path / "b.csv")
    assert "the file may call fakes 0" in refusal(capsys, tree, opposite)
    run = imported(tree, file, tmp_path / "run", "labels=ours")
    assert run.results().drop("stamp").equals(good.results().drop("stamp"))
    listed = pl.read_csv(run.folder / "label_disagreements.csv")
    assert listed.select("line", "label", "ours").rows() == [(2, 1, 0), (3, 1, 0)]


def test_what_is_refused_leaves_nothing(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = scored_rows().select("path", "score")
    file = written_csv(table, tmp_path / "a.csv")
    logits = written_csv(table.with_columns(score=10 * pl.col("score") - 5), tmp_path / "b.csv")
    assert "are no probabilities: they go from -" in refusal(capsys, tree, logits)
    cases = {
        ("format=gend",): "format would have no effect with scores=FILE",
        ("backbone=vit_tiny",): "backbone would have no effect with scores=FILE",
        ("data.size=64",): "data.size=64 would have no effect: no image is read",
        ("weights=a.pth",): "needs only one of weights and scores",
        ("scale=percent",): "scale=percent is unknown",
        ("higher=no",): "higher=",
        ("coverage=some",): "coverage=some is unknown",
        ("size=0",): "size=0 is out of range",
        ("label='a\tb'",): "cannot name a row of a report",
        ("columns=path",): "columns=path",
        ("data.test=[other]",): "other",
    }
    for words, sentence in cases.items():
        assert sentence in refusal(capsys, tree, file, *words), words
    assert "There is no file of scores" in refusal(capsys, tree, tmp_path / "none.csv")
    for words, sentence in {
        (f"scores={file}", f"out={tmp_path / 'new'}"): "needs the data that the scores are of",
        (f"out={tmp_path / 'new'}",): "needs one of weights and scores",
        ("weights=a.pth", "higher=fake", f"out={tmp_path / 'new'}"): "higher would have no effect",
        ("weights=a.pth", "data=folder", f"out={tmp_path / 'new'}"): "data would have no effect",
    }.items():
        assert main(["import", *words]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    run = imported(tree, file, tmp_path / "run")
    assert main(["import", f"scores={file}", "data=folder", f"data.root={tree}",
                 f"out={run.folder}"]) == 2  # fmt: skip
    assert "already holds a run" in capsys.readouterr().err


def test_under_the_protocol_of_deepfakebench(tree: Path, tmp_path: Path) -> None:
    file = written_csv(scored_rows().select("path", "score"), tmp_path / "a.csv")
    run = imported(tree, file, tmp_path / "run", "protocol=dfb_compat", "data.frames=2")
    results = run.results()
    assert set(results["protocol"]) == {"dfb_compat"}
    first = scored_rows().filter(pl.col("index") < 2)
    assert_results(results, wanted_results(first))
    assert len(pl.read_csv(run.folder / "unmatched.csv")) == 2 * VIDEOS


def test_verbs_that_need_weights_refuse_it(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written_csv(scored_rows().select("path", "score"), tmp_path / "a.csv")
    run = imported(tree, file, tmp_path / "run", "label=theirs")
    assert run.record()["label"] == "theirs"
    assert main(["evaluate", f"run={run.folder}"]) == 2
    assert "holds the scores of an external detector and no weights" in capsys.readouterr().err


@pytest.mark.slow
def test_predictions_of_a_run_come_back_as_they_were(tmp_path: Path) -> None:
    data = ["data=synthetic", "data.videos=3", "data.frames=2", f"data.root={tmp_path / 'drawn'}"]
    train = ["trainer=smoke", "method=lora", f"hydra.run.dir={tmp_path / 'runs' / 'own'}"]
    assert main(["train", *data, *train]) == 0
    own = Run(tmp_path / "runs" / "own")
    paths = sorted((own.folder / "predictions").glob("*.parquet"))
    logit = pl.col("logit").cast(pl.Float64)
    table = pl.concat(read_predictions(path) for path in paths)
    scores = table.select("path", "dataset", "label", prob=1 / (1 + (-logit).exp()))
    file = written_csv(scores, tmp_path / "theirs.csv")
    out = tmp_path / "runs" / "theirs"
    # a training of a few steps may rank fakes below reals
    given = [f"scores={file}", *data, f"out={out}", "label=theirs", "higher=fake"]
    assert main(["import", *given]) == 0
    wanted = own.results().filter(~pl.col("metric").str.ends_with("_val"))
    assert_results(Run(out).results(), wanted)
    assert {path.name for path in paths} == {
        path.name for path in (out / "predictions").glob("*.parquet")
    }
    page = tmp_path / "page"
    report = [f"runs={tmp_path / 'runs'}", f"out={page}", "against=theirs", "resamples=20"]
    assert main(["report", *report]) == 0
    tidy = pl.read_csv(page / "results.csv").filter(metric="auc", level="video")
    for (_,), rows in tidy.group_by("dataset"):
        assert np.ptp(rows["value"].to_numpy()) < 1e-12
    assert "theirs" in (page / "report.html").read_text()
