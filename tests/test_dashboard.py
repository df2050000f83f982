"""`fmsd dashboard` against a service on this machine."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import wandb as client

from fmsd.cli.main import main
from tests.logged_runs import user_without_key

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with user_without_key(tmp_path_factory.mktemp("home")) as home:
        yield home


RUNS = [
    {"test/ff++/video_auc": 0.9, "cost/trainable": 10},
    {"test/celebdf_v2/video_auc": 0.8, "corruptions/ff++/mean/video_auc": 0.7},
]


class Service(BaseHTTPRequestHandler):
    """As much of the service as a view needs: who asks, what the runs have logged, and a view to
    keep.
    """

    saved: list[dict[str, Any]]
    runs: list[dict[str, float]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        query = json.loads(body) if self.path == "/graphql" else {"query": ""}
        answer = json.dumps({"data": self.answer(query["query"], query.get("variables"))}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def answer(self, query: str, variables: Any) -> dict[str, Any]:
        if "upsertView" in query:
            self.saved.append(variables)
            return {"upsertView": {"view": {"id": "1", "name": "nw-abc-v"}, "inserted": True}}
        if "query Runs" in query:
            edges = [
                {"node": self.run(place, numbers), "cursor": str(place)}
                for place, numbers in enumerate(self.runs)
            ]
            found = {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}
            return {
                "project": {
                    "internalId": "1",
                    "runCount": len(edges),
                    "readOnly": False,
                    "runs": found,
                }
            }
        return {
            "viewer": {
                "id": "1",
                "entity": "me",
                "username": "me",
                "email": "",
                "flags": "{}",
                "teams": {"edges": []},
            }
        }

    @staticmethod
    def run(place: int, numbers: dict[str, float]) -> dict[str, Any]:
        texts = {"config": "{}", "systemMetrics": "{}", "summaryMetrics": json.dumps(numbers)}
        names = {
            "id": f"{place}",
            "name": f"{place}",
            "displayName": f"{place}",
            "state": "finished",
            "projectId": "1",
            "tags": [],
        }
        empty = ("sweepName", "group", "jobType", "commit", "description", "notes", "historyKeys")
        times = dict.fromkeys(("createdAt", "heartbeatAt"), "2026-01-01T00:00:00Z")
        user = {"name": "me", "username": "me"}
        return {
            **texts,
            **names,
            **times,
            **dict.fromkeys(empty),
            "readOnly": False,
            "historyLineCount": 1,
            "user": user,
        }

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in the library
        """Says nothing."""


@pytest.fixture
def service(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Service]]:
    """A service that answers on this machine, and a key for it."""
    handler = type("Answering", (Service,), {"saved": [], "runs": RUNS})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        client.teardown()
        yield handler
        client.teardown()
        server.shutdown()
        thread.join()


def test_the_dashboard_is_saved(service: type[Service], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", "entity=me", "project=faces", "name=mine"]) == 0
    (view,) = service.saved
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("me", "faces", "mine")
    section = json.loads(view["spec"])["section"]
    bars = section["panelBankConfig"]["sections"][0]["panels"]
    assert bars[0]["config"]["metrics"] == ["test/celebdf_v2/video_auc", "test/ff++/video_auc"]
    assert "The dashboard lies at http://127.0.0.1:" in capsys.readouterr().out


def test_a_project_without_results_has_no_dashboard(
    service: type[Service], capsys: pytest.CaptureFixture[str]
) -> None:
    service.runs = [{"train/loss": 1.0}]
    assert main(["dashboard", "entity=me"]) == 2
    assert (
        "No run in me/fmsd has logged a result; train with logger=wandb" in capsys.readouterr().err
    )
    assert service.saved == []


def test_without_a_key_there_is_no_dashboard(
    nobody: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dashboard", "entity=me"]) == 2
    assert (
        "where nobody is logged in; run wandb login, or set WANDB_API_KEY."
        in capsys.readouterr().err
    )
