"""What is a secret and what is not, and what the configuration of a run keeps of each."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from fmsd.cli.conf_files import choices
from fmsd.cli.loaded_runs import load_interrupted_run
from fmsd.cli.recorded_config import recorded_config
from fmsd.cli.resolvers import digest
from fmsd.cli.run_loggers import trusted_loggers
from fmsd.cli.trust import load_run_config
from fmsd.errors import InputError
from fmsd.redaction import (
    COMPUTED,
    note_lookup,
    redact,
    redact_message,
    redact_settings,
    redact_word,
    redact_words,
)
from fmsd.runs.configuration import first_difference, weights_digest
from tests.foreign_runs import folder, foreign_config, settings

SECRET = {
    "uri=http://user:canary@host:5000/x": "uri=http://user:***@host:5000/x",
    "uri=redis://:canary@host": "uri=redis://:***@host",
    "uri=postgresql://user:ca/na?ry#canary@host/db": "uri=postgresql://user:***@host/db",
    "a=http://u:canary@h,http://u:canary@h2": "a=http://u:***@h,http://u:***@h2",
    "u=https://canarycanarycanary00@host/1": "u=https://***@host/1",
    "u=https://h/p?x=1&X-Amz-Signature=canary&y=2": "u=https://h/p?x=1&X-Amz-Signature=***&y=2",
    "u=https://h/p?sig=canary": "u=https://h/p?sig=***",
    "https://h/p?access_token=canary#top": "https://h/p?access_token=***#top",
    "+logger.comet.api_key=canary": "+logger.comet.api_key=***",
    "+db.PASSWORD='a canary of words'": "+db.PASSWORD=***",
    "++hydra.job.env_set.WANDB_API_KEY=canary": "++hydra.job.env_set.WANDB_API_KEY=***",
    "uri=http://${oc.env:USER}:canary@h": "uri=http://${oc.env:USER}:***@h",
    "+a={api_key: canary, n: 1}": "+a={api_key: ***, n: 1}",
    "+a.password=123456": "+a.password=***",
    "+a.password=${oc.env:PW,canary}": "+a.password=${oc.env:PW,'***'}",
    "+a.uri=${oc.env:URI,'http://u:canary@h'}": "+a.uri=${oc.env:URI,'http://u:***@h'}",
    'bad {"token": "canary"}': 'bad {"token": "***"}',
    "uri=http://user:ca@na/ry/canary@host:5000/x": "uri=http://user:***@host:5000/x",
    "+db.at=user:canary@host:5432/x": "+db.at=user:***@host:5432/x",
    "+db_pass=canary": "+db_pass=***",
    "+db.pwd=canary": "+db.pwd=***",
    "+db.auth=canary": "+db.auth=***",
    "c=AccountName=me;AccountKey=canary01+/==;x=1": "c=AccountName=me;AccountKey=***;x=1",
    "+logger.wandb.key=canary" + "0123456789" * 4: "+logger.wandb.key=***",
    "train --token canary --x": "train --token *** --x",
    "backbone.depth=2,+a.token=canary,seed=1": "backbone.depth=2,+a.token=***,seed=1",
    "seed=1,+a.text=canary-of-a-variable": "seed=1,+a.text=***",
    "data.source.token=canary": "data.source.token=***",
    "Authorization: Bearer canarycanary": "Authorization: Bearer ***",
    "note=canary-of-a-variable": "note=***",
    **dict.fromkeys(
        (
            "hf_" + "canaryCANARY1" * 3,
            "ghp_" + "canaryCANARY1" * 3,
            "AKIA" + "CANARY0123456789",
            "sk-proj-Canary0123456789canary",
            "AIza" + "Canary0" * 5,
            "eyJcanaryxx.eyJcanaryxx.canary",
        ),
        "***",
    ),
}

NO_SECRET = (
    "data.tokens=4",
    "hydra.run.dir=runs/token_mixing",
    "backbone.class_token=true",
    "backbone.token=null",
    "+a.token=12",
    "+n_token=1000000",
    "method.pool_token=cls",
    "+method.pool_token=mean",
    "method.secret={token: cls}",
    "data.crop_secret=some",
    "data.root=/mnt/researchers/ff++",
    "method.words=researchers",
    "/mnt/researchers/ff++",
    "someone@example.org",
    "mailto:someone@example.org",
    "image:tag@sha256:0123456789",
    "12:30@room:8080",
    "sha256:" + "0123456789abcdef" * 4,
    "second pass: reading",
    "bypass=reading",
    "the bearer certificates",
    "http://host:5000,http://host:5001/x@1",
    "[http://host:5000],someone@example.org",
    "backbone.global_pool=token",
    "data.root=/data/secrets/ff++",
    "logger.mlflow.uri=http://host:5000/x@1",
    "logger.mlflow.uri=${oc.env:URI}",
    "+a.password=${oc.env:PASSWORD}",
    "+a.password='${oc.decode:${oc.env:PASSWORD}}'",
    "uri=http://${oc.env:USER}:${oc.env:PASSWORD}@h",
    "git@github.com:someone/something.git",
    "ssh://git@host/x",
    "sqlite:////tmp/mlflow.db?timeout=60",
    "0123456789abcdef0123456789abcdef01234567",
    "runs/sk-learn-baseline_comparison_of_methods",
    "optimizer.lr=1e-4",
    "seed=123456789",
)


@pytest.fixture(autouse=True)
def variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "canary-of-a-variable")
    monkeypatch.setenv("POSTGRES_PASSWORD", "researchers")


@pytest.mark.parametrize("text", SECRET)
def test_a_secret_is_redacted_and_the_rest_stays(text: str) -> None:
    assert redact_word(text) == SECRET[text]
    assert redact_word(SECRET[text]) == SECRET[text]
    assert "canary" not in redact(f"it failed with {text.replace(' of words', '')} at last").lower()


@pytest.mark.parametrize("text", NO_SECRET)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact_word(text) == text


def test_the_word_after_an_option_is_redacted() -> None:
    assert redact_words(["x", "--token", "hf", "--auth", "-v"]) == [
        "x", "--token", "***", "--auth", "-v",
    ]  # fmt: skip


@pytest.mark.parametrize("key", ["method.pool_token", "backbone.secret", "data.crop_token"])
def test_a_setting_of_the_computation_is_part_of_what_identifies_it(key: str) -> None:
    group, name = key.split(".")
    texts = []
    for value in ("cls", "mean", 1000000, 1000001):
        config = OmegaConf.create({group: {name: value}})
        texts.append(recorded_config(config))
        assert yaml.safe_load(texts[-1]) == {group: {name: value}}
        assert first_difference(texts[0], texts[-1]) == (None if value == "cls" else key)
    assert len({digest([f"{key}={value}"]) for value in ("cls", "mean")}) == 2
    if key != "data.crop_token":
        assert len({weights_digest(text) for text in texts}) == len(texts)


def test_a_logger_s_password_does_not_identify_a_computation() -> None:
    words = ("+logger.x.token=one", "+logger.x.token=two")
    assert len({digest(["method=fmsd", word]) for word in words}) == 1


@pytest.mark.parametrize("method", choices("method"))
def test_no_setting_of_fmsd_s_own_is_taken_for_a_secret(method: str) -> None:
    found = settings("train", "data=folder", "data.root=/d", f"method={method}", "wrapper=roga")
    assert redact_settings(found) == found


def test_errors_hide_what_a_setting_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADDRESS", "an-address-without-form")
    monkeypatch.setenv("PLACE", "/tmp")
    assert "an-address" in redact_message("no such host an-address-without-form")
    note_lookup("ADDRESS")
    monkeypatch.setenv("SERVER", "http://of-its-own:80")
    note_lookup("SERVER")
    assert redact_message("at http://of-its-own:80/api") == "at ***/api"
    note_lookup("PLACE")
    assert redact_message("no host an-address-without-form in /tmp") == "no host *** in /tmp"


def test_errors_show_what_a_setting_of_the_computation_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORGERIES", "some-forgeries")
    monkeypatch.setenv("PLACE_OF_RUNS", "a-place-of-runs")
    config = {"data": {"test": "${oc.env:FORGERIES}"}, "logger": {"x": "${oc.env:PLACE_OF_RUNS}"}}
    recorded_config(OmegaConf.create(config))
    assert redact_message("some-forgeries, a-place-of-runs") == "some-forgeries, ***"


@pytest.mark.usefixtures("looked_up")
def test_a_password_of_a_data_source_stays_a_lookup() -> None:
    source = {"address": "${oc.env:PASSWORD}", "root": "${oc.env:ROOT}"}
    recorded = yaml.safe_load(recorded_config(OmegaConf.create({"data": {"source": source}})))
    assert recorded["data"]["source"] == {"address": "${oc.env:PASSWORD}", "root": "/data/here"}


def test_every_setting_of_a_training_is_of_the_computation_or_of_its_loggers() -> None:
    keys = set(settings("train", "data=folder", "data.root=/d"))
    assert keys - {"resume", "trust", "logger", "label"} <= {*COMPUTED}


def lookups(logger: str) -> dict[str, Any]:
    """A run that looks up its seed, its root, a password and the address of its logger."""
    mlflow = {
        "_target_": "fmsd.tracking.mlflow.build_mlflow_logger",
        "_partial_": True,
        "project": "fmsd",
        "uri": logger,
    }
    changed = foreign_config() | {"logger": {"mlflow": mlflow}, "mine": "${oc.env:URI}"}
    changed["seed"] = "${oc.decode:${oc.env:SEED}}"
    changed["data"]["root"] = "${oc.env:ROOT}"
    changed["overrides"] = ["logger.mlflow.uri=${oc.env:URI}", "data.root=${oc.env:ROOT}"]
    return changed


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"URI": "http://canary", "SEED": "3", "ROOT": "/data/here", "PASSWORD": "canary"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("looked_up")
@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("${oc.env:URI}", "${oc.env:URI}"),
        ("${mine}/x", "${oc.env:URI}/x"),
        ("http://${oc.env:USER,'a, b'}:${oc.env:PASSWORD}@h/${oc.env:SEED}", None),
        ("http://u:${oc.env:PASSWORD}@h?sig=${oc.env:NONE,''}", None),
        ("${oc.env:NONE,${oc.env:URI}}", "${oc.env:NONE,${oc.env:URI}}"),
        ("${oc.env:NONE,null}", "${oc.env:NONE,null}"),
        ("${oc.decode:${oc.env:URI}}", "${oc.decode:${oc.env:URI}}"),
    ],
)
def test_lookups_of_the_computation_are_recorded_as_values_and_others_as_they_are(
    written: str, kept: str | None, tmp_path: Path
) -> None:
    text = recorded_config(OmegaConf.create(lookups(written)))
    assert "canary" not in text
    recorded = yaml.safe_load(text)
    assert (recorded["seed"], recorded["data"]["root"]) == (3, "/data/here")
    assert recorded["mine"] == "${oc.env:URI}"
    assert recorded["overrides"][0] == "logger.mlflow.uri=${oc.env:URI}"
    assert recorded["logger"]["mlflow"]["uri"] == (written if kept is None else kept)
    run = folder(tmp_path / "run", recorded)
    loaded = load_run_config(run / "config.yaml")
    assert yaml.safe_load(recorded_config(loaded)) == recorded
    first, second = OmegaConf.create(lookups(written)), loaded
    assert first.logger.mlflow.uri == second.logger.mlflow.uri
    assert list(trusted_loggers(loaded.logger)) == []
    assert list(trusted_loggers(loaded.logger, ["fmsd.tracking.mlflow."])) == ["mlflow"]


@pytest.mark.usefixtures("looked_up")
def test_a_credential_is_no_value_of_the_computation() -> None:
    config = {"data": {"source": {"token": "${oc.env:PASSWORD}", "root": "${oc.env:ROOT}"}}}
    recorded = yaml.safe_load(recorded_config(OmegaConf.create(config)))
    assert recorded["data"]["source"] == {"token": "${oc.env:PASSWORD}", "root": "/data/here"}


@pytest.mark.usefixtures("looked_up")
@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"seed": "${oc.env:SEED}"}, "seed"),
        ({"note": "${hydra:runtime.cwd}"}, "note"),
        ({"note": "${oc.env:A}${now:%Y}"}, "note"),
        ({"overrides": "${oc.env:URI}"}, "overrides"),
        ({"logger": "${oc.env:URI}"}, "logger"),
        ({"note": {"${oc.env:URI}": 1}}, "note"),
        ({"${oc.env:URI}": 1}, "the top level"),
    ],
)
def test_other_lookups_in_the_run_of_a_stranger_are_refused(
    change: dict[str, Any], place: str, tmp_path: Path
) -> None:
    run = folder(tmp_path / "run", foreign_config() | change)
    said = f"look something up: .* at {place}|logger has no _target|is damaged: '{place}' should be"
    with pytest.raises(InputError, match=said):
        load_run_config(run / "config.yaml")


def test_runs_that_differ_in_a_password_are_the_same(tmp_path: Path) -> None:
    one, two = (
        OmegaConf.create(lookups(f"http://user:{word}@host") | {"seed": 1, "mine": None})
        for word in ("canary-one", "canary-two")
    )
    one.data.root = two.data.root = "/d"
    first, second = recorded_config(one), recorded_config(two)
    assert first == second
    assert first_difference(OmegaConf.to_yaml(one), second) is None  # written before redaction
    assert weights_digest(first) == weights_digest(second)
    assert digest(["a=http://u:one@h", "b=1"]) == digest(["a=http://u:two@h", "b=1"])
    assert digest(["seed=1"]) != digest(["seed=2"])


def test_a_redacted_value_is_given_again_to_a_run_that_needs_it(tmp_path: Path) -> None:
    config = lookups("http://user:canary@host") | {"seed": 1, "mine": "http://user:canary@host"}
    config["data"]["root"] = "/d"
    recorded = yaml.safe_load(recorded_config(OmegaConf.create(config)))
    run = folder(tmp_path / "run", recorded, finished=False)
    needed = re.escape("give the whole value again, logger.mlflow.uri=VALUE")
    with pytest.raises(InputError, match=needed):
        load_interrupted_run(run, ["resume=run"])
    trust = ["fmsd.tracking.mlflow."]
    with pytest.raises(InputError, match="without its password or token"):
        load_interrupted_run(run, ["resume=run"], trust)
    again = ["resume=run", "++logger.mlflow.uri='http://user:canary@host'"]
    loaded, _ = load_interrupted_run(run, again)
    assert loaded.logger.mlflow.uri == "http://user:canary@host"
    assert first_difference((run / "config.yaml").read_text(), recorded_config(loaded)) is None
    with pytest.raises(InputError, match="would change the run"):
        load_interrupted_run(run, [*again, "++logger.mlflow.project=mine"])


def test_a_command_without_words_has_none() -> None:
    assert redact_words([]) == []
