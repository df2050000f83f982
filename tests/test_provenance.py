"""Where a run says that its numbers come from."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fmsd.runs import provenance as module
from fmsd.runs.provenance import PACKAGES, git_revision, provenance

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")


def git(folder: Path, *arguments: str) -> str:
    """Runs git in a folder as somebody with a name."""
    who = (
        "-c",
        "user.name=Somebody",
        "-c",
        "user.email=somebody@example.org",
        "-c",
        "commit.gpgsign=false",
        "-c",
        f"safe.directory={folder}",
    )
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def checkout(folder: Path) -> Path:
    """A repository with a package and a configuration, all committed; the package."""
    for name in ("fmsd/__init__.py", "fmsd/tool.py", "conf/train.yaml", "README.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("first\n")
    (folder / ".gitignore").write_text("__pycache__/\nvenv/\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder / "fmsd"


def test_a_checkout_is_named_by_its_revision(tmp_path: Path) -> None:
    package = checkout(tmp_path / "fmsd")
    head = git(package.parent, "rev-parse", "HEAD")
    assert git_revision(package) == head
    (tmp_path / "link").symlink_to(package.parent)
    assert git_revision(tmp_path / "link" / "fmsd") == head


@pytest.mark.parametrize(
    "place", ["fmsd/tool.py", "fmsd/mine.py", "conf/train.yaml", "conf/data/mine.yaml"]
)
def test_changed_and_new_source_and_configuration_are_changes(place: str, tmp_path: Path) -> None:
    package = checkout(tmp_path)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("second\n")
    assert git_revision(package) == git(tmp_path, "rev-parse", "HEAD") + "+changes"


@pytest.mark.parametrize(
    "place", ["README.md", "notes.txt", "runs/one/run.json", "fmsd/__pycache__/tool.pyc"]
)
def test_what_no_number_rests_on_is_no_change(place: str, tmp_path: Path) -> None:
    package = checkout(tmp_path)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text("second\n")
    assert git_revision(package) == git(tmp_path, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    "place", ["venv/lib/python3/site-packages/fmsd", "third_party/fmsd", "fmsd"]
)
@pytest.mark.parametrize("tracked", [False, True])
def test_a_repository_around_an_installed_package_is_another_projects(
    place: str, tracked: bool, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    checkout(project)
    shutil.rmtree(project / "fmsd")
    git(project, "rm", "-rq", "--cached", "fmsd")
    package = project / place
    shutil.copytree(
        Path(module.__file__).parents[1],
        package,
        ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"),
    )
    if tracked:
        git(project, "add", "-f", place)
    git(project, "commit", "-q", "-m", "Without a package of its own")
    assert git_revision(package) == (
        git(project, "rev-parse", "HEAD") if tracked and place == "fmsd" else None
    )  # there it is the project's source


def test_outside_of_any_repository_there_is_no_revision(tmp_path: Path) -> None:
    (tmp_path / "fmsd").mkdir()
    (tmp_path / "fmsd" / "__init__.py").touch()
    assert git_revision(tmp_path / "fmsd") is None


def test_a_repository_without_a_commit_has_no_revision(tmp_path: Path) -> None:
    (tmp_path / "fmsd").mkdir()
    (tmp_path / "fmsd" / "__init__.py").touch()
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    assert git_revision(tmp_path / "fmsd") is None


def test_variables_that_point_git_elsewhere_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a hook of another repository that trains."""
    package, other = checkout(tmp_path / "fmsd"), checkout(tmp_path / "other").parent
    (other / "README.md").write_text("second\n")
    git(other, "commit", "-aqm", "second")
    head = git(package.parent, "rev-parse", "HEAD")
    assert head != git(other, "rev-parse", "HEAD")
    for name, value in {
        "GIT_DIR": ".git",
        "GIT_WORK_TREE": "",
        "GIT_INDEX_FILE": ".git/index",
    }.items():
        monkeypatch.setenv(name, str(other / value))
    assert git_revision(package) == head
    (tmp_path / "alone").mkdir()
    assert git_revision(tmp_path / "alone") is None


def test_a_checkout_of_another_user_has_its_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a container mounts it; git itself refuses it as of dubious ownership."""
    package = checkout(tmp_path)
    head = git(tmp_path, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    refused = subprocess.run(
        ["git", "-C", str(tmp_path), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "dubious ownership" in refused.stderr
    assert git_revision(package) == head


def test_without_git_there_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = checkout(tmp_path / "fmsd")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_revision(package) is None


def test_the_version_is_that_of_the_source_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another copy of the package may be installed, or the same one of an earlier version, as
    editable.
    """
    versions = provenance([])["versions"]
    assert versions.keys() == {*PACKAGES, "python"}
    monkeypatch.setattr(module, "PACKAGE", tmp_path / "fmsd")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "fmsd"\nversion = "7.1"\n')
    assert provenance([])["versions"] == versions | {"fmsd": "7.1"}
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mine"\nversion = "7.1"\n')
    assert provenance([])["versions"]["fmsd"] != "7.1"
