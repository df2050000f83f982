"""The verbs predict and demo: the files on the command line, and the detector that scores them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig, OmegaConf

from fmsd.checks import check_range
from fmsd.cli.build import build, check_argument_types
from fmsd.cli.data_config import absolute_path
from fmsd.cli.logs import configure_logging
from fmsd.cli.run_places import check_named_run
from fmsd.errors import InputError
from fmsd.magic_numbers import recognise_text
from fmsd.paths import expand_home
from fmsd.quoting import shell_override

LISTS = (".txt", ".csv", ".tsv", ".lst")
"""Suffixes of text files, which may be meant as lists of paths."""

if TYPE_CHECKING:
    from fmsd.inference.loaded_detector import LoadedDetector
    from fmsd.inference.media import Sampling


def predict(config: DictConfig, folder: Path, command: list[str], words: Sequence[str]) -> int:
    """fmsd predict: scores images and videos.

    Args:
        words: of the command line that are files.
    """
    from fmsd.cli.detectors import is_exported, load_detector
    from fmsd.inference.media import list_media
    from fmsd.inference.verdict import check_at
    from fmsd.tasks import predict as task

    check_run_named(config, words)
    source = config.run  # refused first where it is missing
    values: Any = OmegaConf.to_container(config)
    named = {key: values[key] for key in ("files", "list")}
    check_argument_types(given_paths, named, "")
    sampling = read_sampling(values)
    at = check_at(values["at"])
    out = None if config.out is None else Path(absolute_path(config.out))
    if out is not None:
        task.check_out(out)
    files = list_media(*given_paths(words, **named))
    check_named_run(source)
    configure_logging(lightning=not is_exported(source))
    detector = load_detector(
        source, config.device, config.base, config.trust, build(config.detector)
    )
    failures = task.predict(
        replace(detector, batch_size=config.batch_size), files, sampling, at, out
    )
    return 1 if failures else 0


def check_run_named(config: DictConfig, words: Sequence[str]) -> None:
    """Refuses the folder of a run among the files where `run=` is missing.

    Raises:
        InputError: it is meant as the run.
    """
    if OmegaConf.is_missing(config, "run") and words and (Path(words[0]) / "run.json").is_file():
        raise InputError(
            f"{words[0]} is the folder of a run, and words without a key are files",
            f"write {shell_override('run', words[0])}",
        )


def demo(config: DictConfig, folder: Path, command: list[str]) -> None:
    """fmsd demo: a page that scores images and videos."""
    from fmsd.cli.detectors import is_exported, load_detector
    from fmsd.inference.page.server import check_installed
    from fmsd.inference.verdict import check_at
    from fmsd.tasks import demo as task

    source = config.run  # refused first where it is missing
    values: Any = OmegaConf.to_container(config)
    sampling = read_sampling(values)
    served = {key: values[key] for key in ("host", "port", "limit")}
    check_argument_types(task.demo, served, "")
    check_range("port", values["port"], 0, 65535)
    check_range("limit", values["limit"], 1)
    at = check_at(values["at"])
    check_installed()
    check_named_run(source)
    configure_logging(lightning=not is_exported(source))

    def load() -> "LoadedDetector":
        face_detector = build(config.detector)
        loaded = load_detector(source, config.device, config.base, config.trust, face_detector)
        return replace(loaded, batch_size=config.batch_size)

    task.demo(load, sampling, at, **served)


def read_sampling(values: Mapping[str, Any]) -> "Sampling":
    """Which frames of a video are scored; checks the settings of a prediction on the way.

    Args:
        values: of the keys of a verb.

    Raises:
        InputError: a setting is of another kind or out of range.
    """
    from fmsd.inference.media import Sampling

    settings = {key: values[key] for key in ("frames", "fps", "device", "batch_size")}
    check_argument_types(check_settings, settings, "")
    check_settings(**settings)
    return Sampling(None if values["frames"] == "all" else values["frames"], values["fps"])


def check_settings(
    frames: int | Literal["all"] | None,
    fps: float | None,
    device: str | None,
    batch_size: int,
) -> None:
    """Checks the number of faces in a batch; by its annotations, the kinds of the other settings.

    Raises:
        InputError: it is out of range.
    """
    check_range("batch_size", batch_size, 1)


def given_paths(
    words: Sequence[str],
    files: Sequence[str],
    list: str | None,  # noqa: A002
) -> tuple[Sequence[Path], Sequence[Path]]:
    """The paths on the command line, then those of `files=`; and those of `list=`.

    Raises:
        InputError: there are none, one is empty or a text file, or the list cannot be read.
    """
    from fmsd.inference.media import read_media_list

    texts = [*words, *files]
    if "" in texts:
        raise InputError("The name of a file is empty", "leave it out, or set its variable")
    paths = [expand_home(text) for text in texts]
    for text, path in zip(texts, paths, strict=True):
        if path.suffix.lower() in LISTS and path.is_file() and recognise_text(path):
            raise InputError(
                f"{text} is a text, and neither an image nor a video",
                f"if it holds paths, one a line, write {shell_override('list', text)}",
            )
    listed = [] if list is None else read_media_list(expand_home(list))
    if not paths and not listed:
        raise InputError(
            "fmsd predict needs files", "give images, videos or folders, or list=PATHS.txt"
        )
    return paths, listed
