"""The files of a run as they are published: without paths of this machine and names of its files.

A published run can be verified, tested and used like any other. Its `config.yaml` has null for the
folders of data and weights; every other path is its last part. The frames of its validation and
training data have numbers in place of file names. `run.json` has the digests of the files as they
are published, and under `published` those that they had before.
"""

import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import yaml

from fmsd.data.content import CONTENT_SCHEMA
from fmsd.errors import InputError
from fmsd.package_files import EMBEDDED
from fmsd.quoting import shell_override
from fmsd.redaction import redact_settings, redact_words
from fmsd.runs.configuration import read_configuration
from fmsd.runs.folder import TRAINING, VALIDATION, Run
from fmsd.runs.integrity import DETECTOR_FILES, bytes_digest, digest_files, file_names
from fmsd.runs.predictions import read_predictions
from fmsd.tables import read_table

Content = bytes | Path
"""The content of a file to publish, or a local file that has it."""

ABSOLUTE = re.compile(r"(?:~[\w.-]*)?/|[A-Za-z]:[\\/]|\\\\")
"""How an absolute path begins."""

INSIDE = re.compile(
    r"(?:(?<=file://)|(?<![\w./:~$}\\-]))(?:(?:~[\w.-]*)?/|[A-Za-z]:[\\/])[^\s'\",;:\[\](){}=<>|]*[\\/]"
    r"(?=[^\s'\",;:\[\](){}=<>|\\/])"
)
"""The folders of an absolute path inside of a text, without its last part."""

LOGGERS = "logger"
"""The key of the places where results are sent, which are the user's own."""

LAST_PART = re.compile(r"[^\\/]*$")


def published_files(run: Run, *, file_names_too: bool = False) -> dict[str, Content]:
    """The files of a run to publish, by name; `run.json` comes last.

    Args:
        file_names_too: also the predictions on test data, and all tables with the names of the
            frames' files.

    Raises:
        InputError: the run is not finished, is an evaluation, or a file of it was changed.
    """
    record = checked_record(run)
    names = [
        name
        for name in file_names(run.folder)
        if file_names_too or not name.startswith("predictions/")
    ]
    run.check(*names)
    private = Private.of(run, record)
    files: dict[str, Content] = {}
    for name in names:
        content = None if file_names_too and name.endswith(".parquet") else private.file(run, name)
        files[name] = run.folder / name if content is None else content
    digests = {
        name: bytes_digest(content) if isinstance(content, bytes) else _known(record, name, content)
        for name, content in files.items()
    }
    before = record.get("files") or digest_files(run.folder)
    command = redact_words(record.get("command") or [])
    public = private.plain(redact_settings({**record, "command": command}))
    public |= {
        "published": {"files": before},
        "files": digests,
    }
    files["run.json"] = (json.dumps(public, indent=2) + "\n").encode()
    return files


def checked_record(run: Run) -> dict[str, Any]:
    """The record of a run that can be published.

    Raises:
        InputError: the run is not finished, is an evaluation, or lacks a file of its detector.
    """
    record = run.record(complete=True)
    if "run" in record:
        raise InputError(
            f"{run.folder} is an evaluation, which has no weights of its own",
            "give the run that it tested; its card shows the run's evaluations",
        )
    if not run.finished or record.get("finished") is False:
        raise InputError(
            f"The run in {run.folder} is not finished",
            f"go on with fmsd train {shell_override('resume', run.folder)}",
        )
    if missing := [name for name in DETECTOR_FILES if not (run.folder / name).is_file()]:
        raise InputError(
            f"{run.folder} lacks {missing[0]}, without which nobody can use the run",
            "put it back, or train anew",
        )
    return record


def _known(record: Mapping[str, Any], name: str, path: Path) -> str:
    """The digest of a file that is published as it is, which `Run.check` has compared."""
    recorded = (record.get("files") or {}).get(name)
    return recorded or bytes_digest(path.read_bytes())


class Private(NamedTuple):
    """What of a run stays on this machine.

    Args:
        paths: the absolute paths that its settings name, and its folder, the longest first.
    """

    paths: tuple[str, ...]

    @classmethod
    def of(cls, run: Run, record: Mapping[str, Any]) -> "Private":
        """Those of a run."""
        settings = read_configuration(run.folder)
        found = {text for text in _texts([settings, record]) if _is_path(text)}
        found.add(str(run.folder.absolute()))
        return cls(tuple(sorted(found - {"/"}, key=len, reverse=True)))

    def file(self, run: Run, name: str) -> bytes | None:
        """A file as it is published; None where that is the file itself."""
        path = run.folder / name
        if name == run.config.name:
            return self.configuration(read_configuration(run.folder))
        if name.endswith(".json"):
            content = json.loads(path.read_text(encoding="utf-8"))
            public = self.plain(content)
            return None if public == content else (json.dumps(public, indent=1) + "\n").encode()
        if name == VALIDATION:
            return _parquet(without_names(read_predictions(path)))
        if name == TRAINING:
            return _parquet(numbered_contents(path))
        return None

    def configuration(self, settings: dict[str, Any]) -> bytes:
        """A `config.yaml` as it is published."""
        public = self.plain(redact_settings(settings))
        data, backbone = public.get("data"), public.get("backbone")
        if isinstance(data, dict):
            data["root"] = data["manifest"] = None
            data["roots"] = dict.fromkeys(data.get("roots") or {})
        if isinstance(backbone, dict) and not str(backbone.get("weights")).startswith(EMBEDDED):
            backbone["weights"] = None
        if LOGGERS in public:
            public[LOGGERS] = {}
        text = yaml.safe_dump(public, sort_keys=False, allow_unicode=True, width=1000)
        return text.encode()

    def plain(self, node: Any) -> Any:
        """Settings or a record with the last part of every absolute path."""
        if isinstance(node, dict):
            return {name: self.plain(part) for name, part in node.items()}
        if isinstance(node, list):
            return [self.plain(part) for part in node]
        return self.text(node) if isinstance(node, str) else node

    def text(self, text: str) -> str:
        """A text with the last part of every absolute path."""
        if _is_path(text):
            return _last_part(text)
        key, sign, value = text.partition("=")
        if sign and _is_path(unquoted := value.strip("'\"")):
            return f"{key}={_last_part(unquoted)}"
        for path in self.paths:
            text = re.sub(rf"{re.escape(path)}(?![\w.-])", lambda _, p=path: _last_part(p), text)
        return INSIDE.sub("", text)


def _texts(node: Any) -> Iterable[str]:
    """The texts in settings."""
    if isinstance(node, dict | list):
        for part in node.values() if isinstance(node, dict) else node:
            yield from _texts(part)
    elif isinstance(node, str):
        yield node


def _is_path(text: str) -> bool:
    return ABSOLUTE.match(text) is not None and "://" not in text


def _last_part(path: str) -> str:
    match = LAST_PART.search(path.rstrip("\\/"))
    return match[0] if match else ""


def without_names(predictions: pl.DataFrame) -> pl.DataFrame:
    """Predictions with numbers in place of the names of files and videos, and without digests.

    Videos of one name in several domains keep one name.
    """
    name = pl.col("video").str.extract(r"([^/]+)$").fill_null("")
    columns = [column for column in predictions.columns if column != "content"]
    return (
        predictions.with_row_index("row")
        .with_columns(name=name.rank("dense"), number=pl.col("video").rank("dense"))
        .with_columns(
            path=pl.col("row").cast(pl.String).str.zfill(7),
            video=pl.concat_str("dataset", "domain", "number", "name", separator="/"),
        )
        .select(columns)
    )


def numbered_contents(path: Path) -> pl.DataFrame:
    """The content of training frames, in the order of its digests, with numbers as their paths.

    Raises:
        InputError: the table is damaged.
    """
    contents = read_table(path, CONTENT_SCHEMA, "put it back").select("size", "content")
    return (
        contents.unique()
        .sort("content", "size")
        .with_row_index("path")
        .select(pl.col("path").cast(pl.String).str.zfill(7), "size", "content")
    )


def _parquet(table: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()
