"""Loggers that fail, beside those that work: what each of them has is recorded, and what one missed
is tried again.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from fmsd.tracking import publish
from tests.logged_runs import begun, kept

HEAVY = ("lightning", "wandb", "mlflow", "tensorboard")


class Steady(CSVLogger):
    """A logger of one's own: a CSV file named after its class."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name=type(self).__name__, version="")

    def rows(self) -> list[dict[str, str]]:
        """What the file holds, without empty places."""
        file = Path(self.log_dir) / "metrics.csv"
        if not file.exists():
            return []
        return [
            {name: value for name, value in row.items() if value}
            for row in csv.DictReader(file.read_text().splitlines())
        ]


class Flaky(Steady):
    """Cannot be reached the first `down` times."""

    down = 0

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if type(self).down:
            type(self).down -= 1
            raise ConnectionError("the server is down")
        super().log_metrics(metrics, step)


def test_a_logger_that_failed_gets_what_it_missed_at_the_next_evaluation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Flaky, "down", 2)
    costs = {"steps": 3, "trainable": 1, "parameters": 2, "seconds": 60}
    run = kept(begun(tmp_path / "run"), {"near": (0.9, "aaa")}, **costs)
    factories: dict[str, publish.LoggerFactory] = {"steady": Steady, "flaky": Flaky}
    book = run.folder / "published.json"

    def evaluated(name: str, aucs: dict[str, tuple[float, str]]) -> int:
        """How many sentences an evaluation costs."""
        caplog.clear()
        publish.publish_evaluation(
            factories, run, kept(run.folder / "evaluations" / name, aucs, run=str(run.folder))
        )
        return len([record for record in caplog.records if "did not take" in record.message])

    def shown() -> dict[str, list[str]]:
        """The datasets of each logger's rows."""
        rows = {
            name: factory(run.folder).rows()
            for name, factory in (("steady", Steady), ("flaky", Flaky))
        }
        return {
            name: sorted(key.split("/")[1] for row in own for key in row if key.startswith("test/"))
            for name, own in rows.items()
        }

    publish.publish_run(publish.build_loggers(factories, run.folder), run)
    assert json.loads(book.read_text()).keys() == {"steady"}
    assert evaluated("one", {"far": (0.7, "ccc")}) == 1
    assert json.loads(book.read_text()).keys() == {"steady"}
    assert shown() == {"steady": ["far"], "flaky": []}  # a CSV file begins anew with each logger
    assert evaluated("two", {"far": (0.7, "ccc")}) == 0
    assert shown()["flaky"] == ["far", "near"]
    done = json.loads(book.read_text())
    assert done["flaky"] == done["steady"]
    assert done["flaky"]["stamps"].keys() == {"near", "far"}
    before = {
        name: (run.folder / name / "metrics.csv").read_bytes() for name in ("Steady", "Flaky")
    }
    assert evaluated("three", {"far": (0.7, "ccc"), "near": (0.9, "aaa")}) == 0
    assert {
        name: (run.folder / name / "metrics.csv").read_bytes() for name in ("Steady", "Flaky")
    } == before


def test_evaluations_of_two_sweeps_are_logged_under_two_names(tmp_path: Path) -> None:
    run = kept(begun(tmp_path / "run"), {"near": (0.9, "aaa")}, steps=3)
    tests = [run.folder / "evaluations" / date / "0" for date in ("monday", "tuesday")]
    names = [publish.artifact_folder(kept(test, {"far": (0.7, "ccc")})) for test in tests]
    assert names == ["evaluations/monday/0/", "evaluations/tuesday/0/"]
    elsewhere = kept(tmp_path / "elsewhere" / "0", {"far": (0.7, "ccc")})
    assert publish.artifact_folder(elsewhere) == "evaluations/0/"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"steady": {"stamps": {}}}',
        '{"steady": {"stamps": {"near": 1}, "curves": {}}}',
        '{"stamps": {}}',
    ],
)
def test_a_damaged_record_of_what_was_published_costs_a_sentence_alone(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = kept(begun(tmp_path / "run"), {"near": (0.9, "aaa")}, steps=3)
    (run.folder / "published.json").write_text(text)
    publish.publish_evaluation(
        {"steady": Steady},
        run,
        kept(run.folder / "evaluations" / "far", {"far": (0.7, "ccc")}, run=str(run.folder)),
    )
    assert "remove it: the loggers then get everything again." in caplog.text
    assert (run.folder / "published.json").read_text() == text
    assert not (run.folder / "Steady").exists()


@pytest.mark.slow
@pytest.mark.parametrize("module", ["fmsd.tracking.publish", "fmsd.tasks.report"])
def test_trackers_are_imported_when_a_logger_is_built(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
