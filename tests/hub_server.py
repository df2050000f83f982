"""As much of the Hugging Face Hub as a run needs, on this machine."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_" + "a" * 34
LFS = (".safetensors", ".parquet")


@dataclass
class Repository:
    """A repository: its files by commit, and the commit of each branch."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        text = json.dumps([len(self.commits), sorted(files)])
        oid = hashlib.sha1(text.encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        return oid

    def files(self, branch: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches[branch]]


@dataclass
class Store:
    """What the server keeps, and the requests that it got."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    refuses_commits: bool = False
    before_commit: Callable[[], object] | None = None
    """Called once, when a commit arrives."""


class Hub(BaseHTTPRequestHandler):
    """Answers as the Hub does."""

    store: Store

    def answer(
        self, content: Any = b"", status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str = "") -> None:
        self.answer({"error": "no"}, status, {"X-Error-Code": code} if code else {})

    def body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    @property
    def logged_in(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def opened(self, repo: str) -> Repository | None:
        """A repository that this user may read; answers why not otherwise."""
        found = self.store.repositories.get(repo)
        if found is None or (found.private and not self.logged_in):
            self.refuse(404 if self.logged_in else 401, "RepoNotFound")
        elif found.gated:
            self.refuse(403, "GatedRepo")
        else:
            return found
        return None

    def handle_one(self) -> None:
        body, path = self.body(), unquote(urlsplit(self.path).path)
        self.store.requests.append(f"{self.command} {path}")
        for pattern, action in ROUTES:
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                action(self, body, *match.groups())
                return
        self.refuse(404, "EntryNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = handle_one  # noqa: N815

    def create(self, body: bytes) -> None:
        settings = json.loads(body)
        name = f"{settings['organization']}/{settings['name']}"
        if not self.logged_in:
            return self.refuse(401)
        if settings["organization"] != "me":
            return self.refuse(403)
        place = {"url": f"http://{self.headers['Host']}/{name}"}
        if name in self.store.repositories:
            return self.answer(place, 409)
        made = Repository(private=settings.get("visibility") == "private")
        made.commit("main", {".gitattributes": b"*.safetensors filter=lfs"})
        self.store.repositories[name] = made
        return self.answer(place)

    def branch(self, body: bytes, repo: str, branch: str) -> None:
        if (found := self.opened(repo)) is not None:
            known = branch in found.branches
            start = json.loads(body or b"{}").get("startingPoint") or found.branches["main"]
            found.branches.setdefault(branch, start)
            self.answer({}, 409 if known else 201)

    def validate(self, body: bytes) -> None:
        card = json.loads(body)["content"]
        good = card.startswith("---\n") and "\n---\n" in card[4:]
        self.answer({"errors": [] if good else [{"message": "bad"}]}, 200 if good else 400)

    def preupload(self, body: bytes, repo: str, revision: str) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LFS) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self.answer({"files": files})

    def batch(self, body: bytes, repo: str) -> None:
        place = f"http://{self.headers['Host']}/large"
        objects = [
            {**one, "actions": {"upload": {"href": f"{place}/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.store.large[oid] = body
        self.answer()

    def commit(self, body: bytes, repo: str, revision: str) -> None:
        if not self.logged_in or self.store.refuses_commits:
            return self.refuse(403)
        meanwhile, self.store.before_commit = self.store.before_commit, None
        if meanwhile is not None:
            meanwhile()
        found = self.store.repositories[repo]
        files = dict(found.files(revision))
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if value.get("parentCommit", found.branches[revision]) != found.branches[revision]:
                return self.refuse(412)
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.store.large[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        oid = found.commit(revision, files)
        url = f"http://{self.headers['Host']}/{repo}/commit/{oid}"
        return self.answer({"commitUrl": url, "commitOid": oid})

    def info(self, body: bytes, repo: str, revision: str | None) -> None:
        if (found := self.opened(repo)) is None:
            return
        oid = found.branches.get(revision or "main", revision)
        if oid not in found.commits:
            self.refuse(404, "RevisionNotFound")
            return
        names = [{"rfilename": name} for name in found.commits[oid]]
        self.answer({"id": repo, "sha": oid, "siblings": names, "private": found.private})

    def tree(self, body: bytes, repo: str, revision: str, folder: str) -> None:
        if (found := self.opened(repo)) is None:
            return
        files = found.commits[found.branches.get(revision, revision)]
        self.answer([entry(name, files[name]) for name in files if name.startswith(folder)])

    def paths_info(self, body: bytes, repo: str, revision: str) -> None:
        if (found := self.opened(repo)) is None:
            return
        files = found.commits[found.branches.get(revision, revision)]
        paths = json.loads(body)["paths"]
        self.answer([entry(name, files[name]) for name in paths if name in files])

    def resolve(self, body: bytes, repo: str, revision: str, name: str) -> None:
        if (found := self.opened(repo)) is None:
            return
        oid = found.branches.get(revision, revision)
        content = found.commits[oid].get(name)
        if content is None:
            self.refuse(404, "EntryNotFound")
            return
        self.answer(content, 200, {"ETag": f'"{etag(content)}"', "X-Repo-Commit": oid})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in the library
        """Says nothing."""


def entry(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(content), "oid": etag(content)[:40]}


def etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


REPO = r"([\w.-]+/[\w.-]+)"
ROUTES = (
    (r"POST /api/repos/create", Hub.create),
    (rf"POST /api/models/{REPO}/branch/(.+)", Hub.branch),
    (r"POST /api/validate-yaml", Hub.validate),
    (rf"POST /api/models/{REPO}/preupload/(.+)", Hub.preupload),
    (rf"POST /{REPO}\.git/info/lfs/objects/batch", Hub.batch),
    (r"PUT /large/(\w+)", Hub.put),
    (rf"POST /api/models/{REPO}/commit/(.+)", Hub.commit),
    (rf"GET /api/models/{REPO}/tree/([^/]+)/?(.*)", Hub.tree),
    (rf"POST /api/models/{REPO}/paths-info/(.+)", Hub.paths_info),
    (rf"GET /api/models/{REPO}(?:/revision/(.+))?", Hub.info),
    (rf"(?:GET|HEAD) /{REPO}/resolve/([^/]+)/(.+)", Hub.resolve),
)


@contextlib.contextmanager
def serving(cache: Path, token: str | None = TOKEN) -> Iterator[Store]:
    """A Hub on this machine that the library talks to, with a cache and a user of its own."""
    store = Store()
    handler = type("Answering", (Hub,), {"store": store, "protocol_version": "HTTP/1.1"})
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        point_to(f"http://127.0.0.1:{server.server_port}", cache, patch)
        if token:
            patch.setenv("HF_TOKEN", token)
        yield store
        server.shutdown()
        thread.join()


def point_to(endpoint: str, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Lets the library talk to a server. It reads its variables when it is imported."""
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        patch.delenv(name, raising=False)
    for name, value in {
        "ENDPOINT": endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_TOKEN_PATH": str(cache / "token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_OFFLINE": False,
    }.items():
        patch.setattr(constants, name, value)
