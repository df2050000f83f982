"""Facts of a detector survive JSON; damaged ones are refused."""

import copy
import json
from typing import Any

import numpy as np
import polars as pl
import pytest

from fmsd.errors import InputError
from fmsd.inference.crop_scoring import CropSettings
from fmsd.inference.facts import DetectorFacts, read_facts
from fmsd.metrics.decision import score_meanings


@pytest.fixture(scope="module")
def facts() -> DetectorFacts:
    generator = np.random.default_rng(0)
    label = np.repeat([0, 1], 40)
    validation = pl.DataFrame(
        {
            "dataset": "faces",
            "video": [f"v{number}" for number in range(80)],
            "label": label,
            "logit": generator.normal(size=80) + 2 * label,
        }
    )
    return DetectorFacts(
        "run",
        224,
        CropSettings(),
        True,
        "mean",
        {"faces": (40, 40)},
        "iid",
        score_meanings(validation),
    )


def test_facts_survive_json(facts: DetectorFacts) -> None:
    content = json.loads(json.dumps(facts.to_json()))
    again = read_facts(content, "file", "export it again")
    assert json.dumps(again.to_json()) == json.dumps(facts.to_json())
    scores = np.linspace(0, 1, 11)
    for level in ("frame", "video"):
        before, after = facts.meanings[level], again.meanings[level]
        assert before.calibration is not None
        assert after.calibration is not None
        assert np.array_equal(before.calibration(scores), after.calibration(scores))
        assert before.percentile(0.4, 0) == after.percentile(0.4, 0)
        assert before.points == after.points


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("size",), "224"),
        (("crops", "margin"), float("nan")),
        (("validation", "faces"), [40]),
        (("meanings", "video", "points", "0.05", "threshold"), None),
        (("meanings", "video", "quantiles"), [[0.5]]),
        (("meanings", "video", "calibration", "kind"), "magic"),
        (("meanings", "video", "points"), {"often": {}}),
    ],
)
def test_damaged_facts_are_refused(
    path: tuple[str, ...], value: object, facts: DetectorFacts
) -> None:
    content: Any = copy.deepcopy(json.loads(json.dumps(facts.to_json())))
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InputError, match="file is damaged"):
        read_facts(content, "file", "export it again")
