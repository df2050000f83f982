"""`fmsd predict`: files of every kind and name, verdicts, tables, and what is said about them."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

from fmsd.cli.conf_files import groups
from fmsd.cli.file_words import cut_files, split_files
from fmsd.cli.main import main
from fmsd.errors import InputError
from fmsd.inference.crop_scoring import CropScores, CropSettings, ScoreError
from fmsd.inference.facts import DetectorFacts
from fmsd.inference.loaded_detector import LoadedDetector
from fmsd.inference.media import Sampling, expected_frames
from fmsd.inference.outcome import FilePrediction
from fmsd.inference.prediction_files import FILE_COLUMNS, check_out, prediction_document
from fmsd.inference.rendering import count_pictured, draw_page
from fmsd.inference.sentences import percent, persons_sentences, threshold_sentences
from fmsd.inference.verdict import Level, check_at
from fmsd.metrics.decision import score_meanings
from fmsd.metrics.score_meaning import VideoCounts, format_rate, selection_sentence, wilson
from fmsd.tables import as_plain_text
from fmsd.tasks.predict import predict, predict_files
from tests.detectors import train_detector
from tests.films import film, shot, sound, turned, walk

ROOM = np.full((120, 160, 3), 128, np.uint8)
TWO = shot((400, 200), [(1, 10, 20, 120), (2, 200, 10, 180)])


def redness(crops: np.ndarray) -> CropScores:
    """A detector that takes red faces for fakes, and dark ones for unusual."""
    red = crops[..., 0].mean((1, 2)) / 255
    return CropScores(red, 1 - crops.mean((1, 2, 3)) / 255)


def known_facts(reals: int = 40) -> DetectorFacts:
    """Facts of a detector whose validation scores lie around .3 and .7."""
    generator = np.random.default_rng(0)
    label = np.repeat([0, 1], reals)
    videos = [f"v{number}" for number in range(2 * reals)]
    logit = generator.normal(size=2 * reals) + 2 * label - 1
    table = pl.DataFrame({"dataset": "faces", "video": videos, "label": label, "logit": logit})
    table = pl.concat([table, table])
    meanings = score_meanings(table)
    counts = {"faces": VideoCounts(reals, reals)}
    return DetectorFacts("mine", 224, CropSettings(), True, "mean", counts, "iid", meanings)


@pytest.fixture(scope="module")
def detector() -> LoadedDetector:
    return LoadedDetector(known_facts(), redness, unusual_limit=0.9)


def image(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels[..., ::-1])
    return path


def corrupt(path: Path) -> None:
    content = bytearray(film(path, walk(6)).read_bytes())
    content[len(content) // 3 :] = bytes(len(content) - len(content) // 3)
    path.write_bytes(content)


def uneven(path: Path) -> None:
    film(path, walk(6), stamps=[0, 3, 20, 21, 90, 100])


MEDIA: dict[str, tuple[Callable[[Path], object], str]] = {
    "plain.mp4": (lambda path: film(path, walk(6)), "scored"),
    "zeroed.mp4": (corrupt, "unreadable"),
    "empty.mp4": (lambda path: path.touch(), "unreadable"),
    "empty.jpg": (lambda path: path.touch(), "unreadable"),
    "audio.m4a": (sound, "unreadable"),
    "audio.mp4": (sound, "unreadable"),
    "room.mp4": (lambda path: film(path, [ROOM] * 4), "no face"),
    "room.png": (lambda path: image(path, ROOM), "no face"),
    "two.mp4": (lambda path: film(path, [TWO] * 4), "scored"),
    "turned.mp4": (lambda path: turned(film(path, [np.rot90(f) for f in walk(4)])), "scored"),
    "uneven.mkv": (uneven, "scored"),
    "one frame.mp4": (lambda path: film(path, walk(1)), "scored"),
    "портрет ü 数据.png": (lambda path: image(path, walk(1)[0]), "scored"),
    "moving.gif": (lambda path: film(path, walk(3), codec="gif"), "scored"),
    "no suffix": (lambda path: film(path.with_name("x.mp4"), walk(3)).rename(path), "scored"),
    "image named.mp4": (
        lambda path: image(path.with_name("x.png"), walk(1)[0]).rename(path),
        "scored",
    ),
    "text.txt": (lambda path: path.write_text("no picture"), "unreadable"),
    "cut.png": (
        lambda path: path.write_bytes(image(path, walk(1)[0]).read_bytes()[:500]),
        "unreadable",
    ),
    "nothing.mp4": (lambda path: path.symlink_to(path.with_name("gone.mp4")), "unreadable"),
}
"""By name of a file, how it is made and what becomes of it."""


@pytest.mark.parametrize("name", MEDIA)
def test_every_file_has_an_outcome_and_only_a_face_has_a_score(
    name: str, detector: LoadedDetector, tmp_path: Path
) -> None:
    make, status = MEDIA[name]
    make(tmp_path / name)
    found = detector.predict(tmp_path / name, frames=4)
    verdict = detector.verdict(found)
    assert found.status == status, found.message
    assert (verdict is not None) == (status == "scored")
    assert bool(found.message) == (status == "unreadable")
    if status == "unreadable":
        assert name in found.message
        assert "; " in found.message  # the remedy
    assert len(found.persons) == (2 if name == "two.mp4" else int(status == "scored"))


def test_a_detector_without_numbers_is_no_fault_of_the_file(tmp_path: Path) -> None:
    def diverged(crops: np.ndarray) -> CropScores:
        return CropScores(np.full(len(crops), np.nan), np.full(len(crops), np.nan))

    photo = image(tmp_path / "a.png", walk(1)[0])
    with pytest.raises(ScoreError, match="scores are not finite"):
        LoadedDetector(known_facts(), diverged).predict(photo)


def test_a_folder_with_broken_files_is_scored_but_for_these(
    detector: LoadedDetector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (make, _) in MEDIA.items():
        make(tmp_path / name)
    files = [tmp_path / name for name in MEDIA]
    broken = sum(status == "unreadable" for _, status in MEDIA.values())
    assert predict(detector, files, Sampling(2), out=tmp_path / "out") == broken
    said = capsys.readouterr().out
    assert f"{len(files)} files, scored by mine" in said
    assert f"{broken} files could not be read" in said
    document = json.loads((tmp_path / "out" / "predictions.json").read_text("utf-8"))
    assert [file["path"] for file in document["files"]] == [str(file) for file in files]
    assert [file["status"] for file in document["files"]] == [each for _, each in MEDIA.values()]
    table = pl.read_csv(tmp_path / "out" / "predictions.csv")
    assert table["path"].unique(maintain_order=True).to_list() == [str(file) for file in files]
    for file in document["files"]:
        rows = table.filter(path=file["path"])
        assert (file["score"] is None) == (rows["score"].null_count() > 0)
        if file["score"] is not None:
            own = rows.filter(person=file["person"])
            assert own["score"].mean() == pytest.approx(file["score"])
    each = pl.read_csv(tmp_path / "out" / "files.csv", schema=FILE_COLUMNS)
    for row, file in zip(each.iter_rows(named=True), document["files"], strict=True):
        assert {key: "" if value is None else value for key, value in row.items()} == {
            key: "" if file[key] is None else file[key] for key in FILE_COLUMNS
        }
    assert (tmp_path / "out" / "report.html").is_file()


NAMES = ["=1+2.png", "+1.png", "-1.png", "@x.png", '"quo,ted".png', "<b>&.png", "new\nline.png"]


def test_hostile_names_stay_names_in_every_output(
    detector: LoadedDetector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    escape = "\x1b[31mred.png"
    for name in (*NAMES, escape):
        image(Path("x.png"), walk(1)[0]).rename(name)
    assert predict(detector, [Path(name) for name in (*NAMES, escape)], out=Path("out")) == 0
    assert "\x1b[31m" not in capsys.readouterr().out
    document = json.loads(Path("out/predictions.json").read_text("utf-8"))
    assert [file["path"] for file in document["files"]] == [*NAMES, escape]
    cells = pl.read_csv("out/predictions.csv")["path"].to_list()
    assert cells == [as_plain_text(name) for name in (*NAMES, escape)]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    assert pl.read_csv("out/files.csv")["path"].to_list() == cells
    assert "<b>&" not in Path("out/report.html").read_text("utf-8")


def test_nothing_of_the_user_s_is_overwritten(detector: LoadedDetector, tmp_path: Path) -> None:
    photo = image(tmp_path / "a.png", walk(1)[0])
    out = tmp_path / "out"
    predict(detector, [photo], out=out)
    predict(detector, [photo], out=out)  # its own files
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "report.html").write_text("mine")
    with pytest.raises(InputError, match="was not written by fmsd predict"):
        predict(detector, [photo], out=mine)
    assert [path.name for path in mine.iterdir()] == ["report.html"]
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="is the folder of a run"):
        predict(detector, [photo], out=tmp_path)


def test_a_detector_that_cannot_be_explained_has_a_page_without_heat_maps(
    detector: LoadedDetector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def heat(faces: object) -> list[np.ndarray]:
        raise InputError("The output of features has one place only", "give another layer=NAME")

    photo = image(tmp_path / "a.png", walk(1)[0])
    predict(replace(detector, heat=heat), [photo], out=tmp_path / "out")
    assert "shows no heat maps: The output of features" in caplog.text
    assert "data:image" in (tmp_path / "out" / "report.html").read_text("utf-8")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ScoreError("no number", "give another")])
def test_what_is_scored_is_written_if_the_rest_cannot_be(
    error: BaseException,
    detector: LoadedDetector,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = 0

    def failing(crops: np.ndarray) -> CropScores:
        nonlocal done
        if done == 2:
            raise error
        done += 1
        return redness(crops)

    def heat(faces: object) -> list[np.ndarray]:
        raise AssertionError("whoever ends a command does not wait for heat maps")

    broken = replace(detector, scorer=failing, heat=heat, batch_size=1)
    files = [image(tmp_path / f"{number}.png", walk(1)[0]) for number in range(4)]
    with pytest.raises(type(error)):
        predict(broken, files, out=tmp_path / "out")
    document = json.loads((tmp_path / "out" / "predictions.json").read_text("utf-8"))
    assert document["note"] == "2 of 4 files were scored."
    assert [file["path"] for file in document["files"]] == [str(file) for file in files[:2]]
    assert pl.read_csv(tmp_path / "out" / "predictions.csv").height == 2
    assert "data:image" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "2 of 4 files were scored." in capsys.readouterr().out
    predict(detector, files, out=tmp_path / "out")
    document = json.loads((tmp_path / "out" / "predictions.json").read_text("utf-8"))
    assert (document["note"], len(document["files"])) == ("", 4)
    with pytest.raises(type(error)):
        predict(broken, files, out=tmp_path / "none")  # it fails at the first file
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("a.png", "out=.*a.png cannot be a folder"),
        ("a.png/deep/er", "out=.*/deep/er cannot be a folder: .*a.png is none"),
        ("/proc/deep/er", "out=/proc/deep/er cannot be written"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_before_a_file_is_looked_at(
    out: str, message: str, tmp_path: Path
) -> None:
    photo = image(tmp_path / "a.png", walk(1)[0])
    with pytest.raises(InputError, match=message):
        check_out(tmp_path / out)
    check_out(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == [photo]


def test_the_bar_of_the_page_counts_the_files_that_have_heat_maps(
    detector: LoadedDetector, tmp_path: Path
) -> None:
    files = [image(tmp_path / f"{n}.png", walk(1)[0]) for n in range(3)]
    files.append(image(tmp_path / "room.png", ROOM))
    mapped = replace(detector, heat=lambda faces: [face.crop[..., 0] / 255.0 for face in faces])
    found = mapped.predict(files)
    advanced = list[int]()
    draw_page(mapped, found, [mapped.verdict(each) for each in found], lambda: advanced.append(1))
    assert len(advanced) == count_pictured(found) == 3


def test_the_bar_ends_when_the_files_do(
    detector: LoadedDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [film(tmp_path / "short.mp4", walk(3)), image(tmp_path / "a.png", ROOM)]
    files.append(tmp_path / "empty.mp4")
    files[-1].touch()
    total, steps = [], []

    @contextlib.contextmanager
    def counted(what: str, count: int, unit: str) -> Iterator[Callable[..., None]]:
        total.append(count)
        yield lambda step=1, note="": steps.append(step)

    monkeypatch.setattr("fmsd.tasks.predict.progress", counted)
    found = list(predict_files(detector, files, Sampling()))
    assert [each.status for each in found] == ["scored", "no face", "unreadable"]
    assert total == [sum(steps)] == [32 + 1 + 32]


def test_the_frames_that_a_bar_counts_are_those_that_are_scored(tmp_path: Path) -> None:
    clip, photo = film(tmp_path / "a.mp4", walk(50)), image(tmp_path / "a.png", ROOM)
    assert expected_frames(clip, Sampling()) == 32
    assert expected_frames(clip, Sampling(None)) == 50
    assert expected_frames(clip, Sampling(fps=5)) == 10
    assert expected_frames(photo, Sampling()) == 1
    (tmp_path / "b.mp4").touch()
    assert expected_frames(tmp_path / "b.mp4", Sampling(None)) == 1


# ---- verdicts


def test_a_file_is_judged_by_the_threshold_of_its_level(
    detector: LoadedDetector, tmp_path: Path
) -> None:
    clip, photo = film(tmp_path / "a.mp4", walk(6)), image(tmp_path / "a.png", walk(1)[0])
    for path, level in ((clip, "video"), (photo, "frame")):
        found = detector.predict(path)
        meaning = detector.facts.meanings[level]
        for at, rate in (("fpr1", 0.01), ("fpr5", 0.05), ("fpr10", 0.1)):
            verdict = detector.verdict(found, at)
            assert verdict is not None
            assert (verdict.level, verdict.point) == (level, meaning.points[rate])
            if at == "fpr1":  # 40 real videos
                assert (verdict.threshold, verdict.called) == (None, None)
                assert "fpr1: 40 of at least 100; at=fpr5 or at=fpr10 or" in verdict.reason
            else:
                assert verdict.threshold is not None
                assert verdict.threshold == meaning.points[rate].threshold
                assert verdict.called == (
                    "fake" if verdict.score >= verdict.threshold else "not fake"
                )
            assert meaning.calibration is not None
            assert verdict.probability == meaning.calibration(np.array([verdict.score]))[0]
            assert verdict.percentile_real == meaning.percentile(verdict.score, 0)
        for threshold, called in ((0, "fake"), (1, "not fake"), (0.0, "fake")):
            verdict = detector.verdict(found, threshold=threshold)
            assert verdict is not None
            assert (verdict.called, verdict.point) == (called, None)


@pytest.mark.parametrize("at", ["fpr2", "often", "", "nan", "1.5", "-0.1", None])
def test_a_threshold_that_is_none_is_refused(at: str) -> None:
    with pytest.raises(InputError, match="is no threshold; give one of fpr1, fpr5, fpr10"):
        check_at(at)


def test_a_file_without_a_score_has_no_verdict(detector: LoadedDetector) -> None:
    assert detector.verdict(FilePrediction("a.mp4", "no face", kind="video")) is None


def test_the_sentence_of_a_threshold_has_its_counts_and_its_interval() -> None:
    facts = known_facts()
    point = facts.meanings["video"].points[0.05]
    said, choice = threshold_sentences(facts, ["video"], "fpr5")
    assert "40 real and 40 fake videos of the validation split of faces" in said
    assert f"{point.false_positives} of 40 real videos" in said
    assert format_rate(point.false_positive_rate) in said
    assert choice == selection_sentence("iid")
    still, _ = threshold_sentences(facts, ["frame"], "fpr5")
    assert format_rate(facts.meanings["frame"].error_rates(0.05)[0]) in still
    refused, _ = threshold_sentences(facts, ["video"], "fpr1")
    assert refused.startswith("Videos get no verdict: too few real validation videos for fpr1: 40 ")


def test_a_threshold_of_ones_own_has_the_rates_of_the_validation_data() -> None:
    facts = known_facts()
    levels: list[Level] = ["frame", "video"]
    for level in levels:
        meaning = facts.meanings[level]
        for threshold in (0.0, 0.41, 0.7, 1.0):
            for (rate, low, high), scores in zip(
                meaning.error_rates_at(threshold), meaning.quantiles, strict=True
            ):
                assert rate == np.mean(scores >= threshold)
                assert (low, high) == pytest.approx(wilson(40 * rate, 40))
        for rate, point in meaning.points.items():  # it lies between two scores
            assert meaning.error_rates_at(point.threshold) == meaning.error_rates(rate)
        said, choice = threshold_sentences(facts, [level], "0.7")
        assert "with a score of at least 0.7 are called fake (as at=0.7 asks for): on" in said
        assert format_rate(meaning.error_rates_at(0.7)[0]) in said
        assert choice == selection_sentence("iid")
    said, _ = threshold_sentences(facts, ["video"], "0.05")
    assert "at=0.05 asks for, which is a score; the false positive rate is at=fpr5)" in said
    (unknown,) = threshold_sentences(replace(facts, meanings={}), ["video"], "0.7")
    assert "at=0.7 asks for. How often that is wrong is not known" in unknown


def test_a_rate_is_not_taken_for_a_score(detector: LoadedDetector, tmp_path: Path) -> None:
    found = detector.predict(image(tmp_path / "a.png", walk(1)[0]))
    with pytest.raises(InputError, match=r"at=0.05 could be a score .*; give threshold=0.05 for"):
        detector.verdict(found, 0.05)  # pyright: ignore[reportArgumentType]
    given = detector.verdict(found, threshold=0.05)
    assert given is not None
    assert (given.threshold, given.called) == (0.05, "fake")
    with pytest.raises(InputError, match="at=5 is no threshold; for at most 5 % false positives"):
        check_at(5)


def test_images_among_the_validation_data_are_not_called_videos() -> None:
    facts = known_facts()
    meanings = dict(facts.meanings)
    for images, data, item in (
        (80, "40 real and 40 fake images of the validation split", "real images"),
        (70, "40 real and 40 fake files (10 videos, 70 images) of the", "real files"),
    ):
        for level, meaning in facts.meanings.items():
            meanings[level] = replace(meaning, videos=VideoCounts(40, 40, images))
        said, *_ = threshold_sentences(replace(facts, meanings=meanings), ["video"], "fpr5")
        assert data in said
        assert f" of 40 {item}, " in said
        assert "videos" not in said.replace("10 videos", "")


def test_of_several_persons_each_is_judged_and_more_real_files_are_called_fake(
    detector: LoadedDetector, tmp_path: Path
) -> None:
    found = detector.predict(film(tmp_path / "two.mp4", [TWO] * 4))
    assert isinstance(found, FilePrediction)
    verdict = detector.verdict(found)
    assert verdict is not None
    upper = detector.facts.meanings["video"].error_rates(0.05)[0][2]
    assert verdict.false_positive_bound == pytest.approx(1 - (1 - upper) ** 2)
    (said,) = persons_sentences([verdict])
    assert f"of real videos with 2 persons up to {percent(1 - (1 - upper) ** 2)}" in said
    record = prediction_document([found], [verdict], detector.facts, "fpr5")["files"][0]
    assert (record["counted"], record["share"], record["reason"]) == (2, 1.0, "")
    assert record["false_positive_bound"] == verdict.false_positive_bound
    for person in record["persons"]:
        assert person["called"] == ("fake" if person["score"] >= verdict.threshold else "not fake")
        assert 0 < person["probability"] < 1
    given = detector.verdict(found, threshold=0.5)
    assert given is not None
    upper = detector.facts.meanings["video"].error_rates_at(0.5)[0][2]
    assert given.false_positive_bound == pytest.approx(1 - (1 - upper) ** 2)
    merged = replace(detector, facts=replace(detector.facts, meanings={}))
    unknown = merged.verdict(found, threshold=0.5)
    assert unknown is not None
    assert unknown.false_positive_bound is None
    assert "are called fake more often than those with one" in persons_sentences([unknown])[0]
    assert persons_sentences([None, detector.verdict(found, "fpr1")]) == []


# ---- the command line


@pytest.mark.parametrize(
    ("words", "overrides", "files"),
    [
        (["run=r", "a.mp4", "my film (1) [x].mp4"], ["run=r"], ["a.mp4", "my film (1) [x].mp4"]),
        (["a.mp4", "run=r", "frames=4"], ["run=r", "frames=4"], ["a.mp4"]),
        (["run=r", "detector.score=0.5", "~x"], ["run=r", "detector.score=0.5"], ["~x"]),
        (["run=r", "--", "frames=1.mp4", "-x", "--"], ["run=r"], ["frames=1.mp4", "-x", "--"]),
        (["--cfg", "job", "run=r"], ["--cfg=job", "run=r"], []),
        (["run=r", "--", "--json", "help"], ["run=r"], ["--json", "help"]),
    ],
)
def test_words_are_files_or_overrides(
    words: list[str], overrides: list[str], files: list[str]
) -> None:
    before, behind = cut_files("predict", words)
    given, named = split_files("predict", before, groups("predict"))
    assert (given, [*named, *behind]) == (overrides, files)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a=b.mp4"], "a=b.mp4 sets a, which is no key of fmsd predict.* behind --"),
        (["/data/x=1.mp4"], "sets /data/x, which is no key"),
        (["frmes=4"], r"did you mean frames\?"),
        (["threshold=0.7"], r"threshold=0.7 sets threshold, .*did you mean at\?"),
        (["-x.mp4"], "has no option -x.mp4; .* behind --"),
        (["=x"], "sets nothing"),
    ],
)
def test_words_that_are_neither_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_files("predict", words, groups("predict"))


def test_other_verbs_have_no_files() -> None:
    assert cut_files("train", ["data=x", "--", "y"]) == (["data=x", "--", "y"], [])
    assert split_files("train", ["a.mp4"], {}) == (["a.mp4"], [])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_detector(tmp_path_factory.mktemp("predict"))


def test_a_run_predicts_files_of_any_name(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("films/a b.mp4", "x=1 [2].mp4", "-dash.mp4", "ü, 数据 ${HOME}.mp4"):
        film(Path(name), walk(3))
    image(Path("listed one.png"), walk(1)[0])
    Path("paths.txt").write_text("listed one.png\n", encoding="utf-8")
    words = ["predict", f"run={run}", "device=cpu", "frames=2", "films", "list=paths.txt"]
    words += ["files=['x=1 [2].mp4']", "ü, 数据 ${HOME}.mp4", "--json"]
    capsys.readouterr()
    assert main([*words, "--", "-dash.mp4"]) == 0
    document = json.loads(capsys.readouterr().out)
    found = document["tables"]["predictions"]
    assert [each["path"] for each in found] == [
        *("films/a b.mp4", "ü, 数据 ${HOME}.mp4", "-dash.mp4", "x=1 [2].mp4", "listed one.png"),
    ]
    assert {each["status"] for each in found} == {"scored"}
    assert {each["called"] for each in found} == {None}  # of three real validation videos
    assert "A score is no proof" in " ".join(document["notes"])
    assert "too few real validation videos for fpr5: 3 of at least 20" in " ".join(
        document["notes"]
    )
    assert "There is no P(fake): a calibration needs 10 real" in " ".join(document["notes"])
    Path("broken.mp4").touch()
    Path("paths.txt").write_text("gone.png\nfilms\n", encoding="utf-8")
    assert main(["predict", f"run={run}", "device=cpu", "broken.mp4", "list=paths.txt"]) == 1
    said = capsys.readouterr().out
    assert "2 files could not be read" in said
    assert "gone.png does not exist" in said


def test_a_run_among_the_files_is_told_how_to_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine", "run.json").touch()
    assert main(["predict", "mine", "a.png"]) == 2
    assert "mine is the folder of a run, and words without a key are files; write run=mine" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs files; give images"),
        (["gone.mp4"], "gone.mp4 does not exist"),
        (["list=gone.txt"], "The list gone.txt cannot be read"),
        (["paths.txt"], "paths.txt is a text, and .*; if it holds paths, .* write list=paths.txt"),
        (["a.png", "at=fpr3"], "at=fpr3 is no threshold"),
        (["a.png", "frames=0"], "frames=0 is out of range"),
        (["a.png", "frames=many"], "frames=many is no whole number"),
        (["a.png", "fps=-1"], "fps=-1 is out of range"),
        (["a.png", "fps=fast"], "fps=fast is no number"),
        (["a.png", "batch_size=0"], "batch_size=0 is out of range"),
        (["a.png", "device=tpu"], "device=tpu is no device"),
        (["a.png", "out=."], "was not written by fmsd predict"),
        (["a.png", "detector.score=2"], "detector.score=2"),
        (["a.png", ""], "The name of a file is empty"),
    ],
)
def test_bad_words_end_with_one_sentence(
    words: list[str],
    message: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    image(Path("a.png"), walk(1)[0])
    Path("predictions.csv").write_text("mine", encoding="utf-8")
    Path("paths.txt").write_text("a.png\n", encoding="utf-8")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(["predict", f"run={run}", *words]) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert re.search(message, said), said
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_run_without_its_base_weights_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = image(tmp_path / "a.png", walk(1)[0])
    assert main(["predict", f"run={run}", f"base={tmp_path / 'gone.pth'}", str(photo)]) == 2
    assert "There is no weights file" in capsys.readouterr().err
