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
from fmsd.metrics.score_meaning import VideoCounts

DELETED = object()

POINT = {
    "threshold": 0.5,
    "false_positives": 2,
    "reals": 40,
    "true_positives": 30,
    "fakes": 40,
}

ISOTONIC = {
    "kind": "isotonic",
    "slope": 1.0,
    "offset": 0.0,
    "places": [0.0, 1.0],
    "heights": [0.0, 2.0],
}


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
        {"faces": VideoCounts(40, 40, 80)},
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
        assert after.videos == VideoCounts(40, 40, images=80)
    assert again.validation["faces"].noun == "images"


def test_facts_of_another_version_may_say_more(facts: DetectorFacts) -> None:
    content = json.loads(json.dumps(facts.to_json()))
    meaning = content["meanings"]["video"]
    meaning["points"]["0.05"] = POINT | {"new": 1}
    meaning["calibration"] = ISOTONIC | {"new": 1}
    for part in (content, content["crops"], meaning):
        part["new"] = 1
    again = read_facts(content, "file", "export it again").meanings["video"]
    assert again.points[0.05].false_positive_rate[0] == 0.05
    assert again.calibration is not None
    assert again.calibration(np.array([0.5]))[0] == 0.5


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
        (("meanings", "video"), DELETED),
        (("meanings", "frame"), DELETED),
        (("meanings", "frame", "points", "0.05"), DELETED),
        (("meanings", "video", "points", "0.050"), POINT),
        (("meanings", "video", "points", "0.05"), POINT | {"reals": 0, "false_positives": 0}),
        (("meanings", "video", "points", "0.05"), POINT | {"fakes": 0, "true_positives": 0}),
        (("meanings", "frame", "points", "0.1"), POINT | {"false_positives": 41}),
        (("meanings", "frame", "points", "0.1"), POINT | {"true_positives": 41}),
        (("meanings", "frame", "points", "0.1"), POINT | {"threshold": 7}),
        (("meanings", "video", "videos"), [0, 0, 0]),
        (("meanings", "video", "videos"), [40, 0, 0]),
        (("meanings", "video", "videos"), [40, 40, 81]),
        (("meanings", "frame", "quantiles"), [[0.5, 0.2], [0.5]]),
        (("meanings", "frame", "quantiles"), [[0.5], []]),
        (("meanings", "frame", "quantiles"), [[0.5], [0.5, 2]]),
        (("meanings", "video", "after"), {}),
        (("meanings", "video", "before", "ece"), DELETED),
        (("meanings", "video", "calibration"), ISOTONIC | {"places": [], "heights": []}),
        (("meanings", "video", "calibration"), ISOTONIC | {"places": [0.0]}),
        (("meanings", "video", "calibration"), ISOTONIC | {"places": [1.0, 0.0]}),
        (("meanings", "video", "calibration"), ISOTONIC | {"places": [1.0, 1.0]}),
        (("meanings", "video", "calibration"), ISOTONIC | {"heights": [1.0, 0.0]}),
        (("meanings", "video", "calibration"), ISOTONIC | {"heights": [0.0, 10**300]}),
        (("meanings", "frame", "calibration", "slope"), 10**300),
        (("video_score",), "best"),
        (("video_score",), "top" + "9" * 30),
        (("size",), 0),
        (("size",), 10**6),
        (("crops", "size"), 0),
        (("crops", "size"), 10**6),
        (("crops", "margin"), 0),
        (("crops", "margin"), 10**30),
        (("crops", "format"), "gif"),
        (("crops", "quality"), 0),
        (("crops", "min_face"), -1),
    ],
)
def test_damaged_facts_are_refused(
    path: tuple[str, ...], value: object, facts: DetectorFacts
) -> None:
    content: Any = copy.deepcopy(json.loads(json.dumps(facts.to_json())))
    place = content
    for key in path[:-1]:
        place = place[key]
    if value is DELETED:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    with pytest.raises(InputError, match="file is damaged"):
        read_facts(content, "file", "export it again")
