"""Runs on the Hugging Face Hub: fetched into the cache of its library, and uploaded in one commit.

The library (`huggingface_hub`) is imported with this module, so import it where a run lies there.
"""

import contextlib
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelInfo,
    constants,
    get_token,
    snapshot_download,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from fmsd.errors import InputError, error_chain, reason
from fmsd.hub_addresses import CARD, Address, parse_address
from fmsd.redaction import redact_message
from fmsd.runs.integrity import DETECTOR_FILES, PREDICTIONS, TOP

RECORD_FILES = ("run.json", "config.yaml")
"""The files that say what a run is."""

RUN_FILES = ("run.json", *TOP)
"""The files of a run but its predictions."""

ALL_FILES = (*RUN_FILES, "predictions/*.parquet", "predictions/*/*.parquet")
"""The files of a run, as patterns."""

LIBRARIES = ("huggingface_hub", "hf_xet", "httpx", "httpx2", "requests")
"""The packages whose errors are about the Hub or the way to it."""

LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def fetch_run(text: str, files: Collection[str] = RUN_FILES) -> Path:
    """The folder of a run on the Hub, in the cache of its library; nothing may be written there.

    Files that are in the cache are not fetched again, and without a connection they are used.

    Args:
        text: hf://USER/NAME or hf://USER/NAME@REVISION.
        files: patterns of the files that are needed, among `ALL_FILES`.

    Raises:
        InputError: no such address, repository, revision or run, no access, or no connection.
    """
    address = parse_address(text)
    with hub_errors(str(address), address):
        folder = Path(
            snapshot_download(
                address.repo,
                revision=address.revision,
                allow_patterns=sorted(files),
                library_name="fmsd",
            )
        )
    if missing := [name for name in RECORD_FILES if not (folder / name).is_file()]:
        raise InputError(
            f"{address} holds no run of fmsd (it has no {missing[0]})",
            "give the address of a repository that fmsd push wrote",
        )
    return folder


def check_login() -> None:
    """Checks that there is a token to upload with.

    Raises:
        InputError: there is none.
    """
    if not get_token():
        raise InputError("There is no token for the Hub", LOGIN)


def upload(
    address: Address, files: Mapping[str, bytes | Path], private: bool, message: str
) -> Address:
    """Uploads the files of a run in one commit; files of an earlier run that it lacks are deleted.

    The repository and the branch are made if they do not exist, after what is there was checked.

    Args:
        address: the repository, and the branch if it is not the default one.
        files: their content by name, as bytes or as a local file.
        private: whether the repository must be private; a new one is made so.
        message: of the commit.

    Returns:
        The address with the commit.

    Raises:
        InputError: the branch holds something else, or changes meanwhile, the repository is public
            against `private`, or the Hub refuses; nothing is uploaded.
    """
    check_login()
    api, branch = HfApi(library_name="fmsd"), address.revision
    with hub_errors(f"{address} cannot be written", address, writes=True):
        before = find_target(api, address)
        if before is None:
            # None: as its owner has set it for new ones
            api.create_repo(address.repo, private=private or None, exist_ok=True)
            before = api.model_info(address.repo)
        names = check_target(api, address, before, private)
        if branch is not None:
            api.create_branch(address.repo, branch=branch, revision=before.sha, exist_ok=True)
        additions = [CommitOperationAdd(name, content) for name, content in files.items()]
        deletions = [
            CommitOperationDelete(name)
            for name in names
            if (name in TOP or PREDICTIONS.fullmatch(name)) and name not in files
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a run holds parquet files, on purpose
            commit = api.create_commit(
                address.repo,
                [*additions, *deletions],
                commit_message=message,
                revision=branch,
                parent_commit=before.sha,
            )
    return Address(address.repo, commit.oid)


def find_target(api: HfApi, address: Address) -> ModelInfo | None:
    """What a commit to an address would change: its branch, or what a new branch begins with.

    Returns:
        The latest commit there; None if the repository does not exist, or this user cannot see it.
    """
    try:
        return api.model_info(address.repo, revision=address.revision)
    except GatedRepoError:
        raise
    except RevisionNotFoundError:
        return api.model_info(address.repo)
    except RepositoryNotFoundError:
        return None


def check_target(api: HfApi, address: Address, before: ModelInfo, private: bool) -> list[str]:
    """Checks that a run may be written over a commit.

    Returns:
        The names of the files of the commit.

    Raises:
        InputError: it holds something else than a run, or its repository is public against
            `private`.
    """
    if private and not before.private:
        raise InputError(
            f"{address.repo} is there already, and public",
            f"make it private on {repository_url(address)}/settings, or give another repo=",
        )
    names = api.list_repo_files(address.repo, revision=before.sha)
    check_is_of_run(address, names)
    return names


def check_is_of_run(address: Address, names: Collection[str]) -> None:
    """Checks that a repository holds a run, or nothing yet.

    Args:
        names: of its files.

    Raises:
        InputError: it holds something else.
    """
    foreign = sorted({*names} - {".gitattributes", CARD})
    if foreign and not {*RECORD_FILES, *DETECTOR_FILES} <= {*names}:
        raise InputError(
            f"{address} holds something else than a run ({foreign[0]} for one)",
            "give another repo=USER/NAME, or another revision=BRANCH",
        )


def repository_url(address: Address) -> str:
    """The page of a repository."""
    return f"{constants.ENDPOINT}/{address.repo}"


@contextlib.contextmanager
def hub_errors(what: str, address: Address, *, writes: bool = False) -> Iterator[None]:
    """Turns errors of the Hub, and of the way to it, into one sentence with its remedy.

    Args:
        what: what cannot be done, for errors that are not known by their kind.
        writes: whether something is uploaded.

    Raises:
        InputError: such an error.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        refusal = _refusal(error, what, address, writes)
        if refusal is None:
            raise
        raise refusal from error


def _refusal(error: Exception, what: str, address: Address, writes: bool) -> InputError | None:
    """The input error for an error of the Hub; None for any other, as of a full disk."""
    causes = [cause for cause in error_chain(error) if isinstance(cause, Exception)]
    for kind, refusal in (
        (GatedRepoError, _gated(address)),  # before its base class
        (RevisionNotFoundError, _no_revision(address)),
        (RepositoryNotFoundError, _no_repository(address)),
    ):
        if any(isinstance(cause, kind) for cause in causes):
            return refusal
    statuses = [_status(cause) for cause in causes if isinstance(cause, HfHubHTTPError)]
    if statuses:
        return _refused(statuses[0], reason(causes[-1]), what, address, writes)
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in causes):
        return InputError(
            f"{address} {'cannot be written' if writes else 'is not in the cache'}, and "
            "HF_HUB_OFFLINE forbids to connect",
            "unset HF_HUB_OFFLINE" + ("" if writes else ", or fetch it on a machine that may"),
        )
    modules = {type(cause).__module__.partition(".")[0] for cause in causes}
    if isinstance(error, LocalEntryNotFoundError) or modules & {"httpx", "httpx2", "requests"}:
        return InputError(
            f"{constants.ENDPOINT} cannot be reached, and {address} "
            f"{'was not written' if writes else 'is not whole in the cache'}",
            "check the connection (HF_ENDPOINT names another server)"
            + ("" if writes else ", or give the folder of a copy"),
        )
    if modules & {*LIBRARIES}:
        return InputError(
            f"{what} ({redact_message(reason(error))})", "try it again, or give another address"
        )
    return None


def _status(error: HfHubHTTPError) -> int:
    """The status of the answer that an error is about; 0 without one."""
    return getattr(error.response, "status_code", 0)


def _gated(address: Address) -> InputError:
    return InputError(
        f"{address} is open to those alone whom its owner has let in",
        f"ask for access on {repository_url(address)}, and then {LOGIN}",
    )


def _no_revision(address: Address) -> InputError:
    return InputError(
        f"{address.repo} on {constants.ENDPOINT} has no revision {address.revision or 'main'}",
        "correct what follows the @: a branch, a tag or a commit",
    )


def _no_repository(address: Address) -> InputError:
    return InputError(
        f"There is no repository {address.repo} on {constants.ENDPOINT}, or it is private",
        f"correct the name; for a private one, {LOGIN}",
    )


def _refused(status: int, text: str, what: str, address: Address, writes: bool) -> InputError:
    if status == 401:
        return InputError(f"The Hub does not accept the token for {address.repo}", LOGIN)
    if status == 403:
        may = "write to" if writes else "read"
        return InputError(
            f"Your token may not {may} {address.repo}",
            f"make one that may on {constants.ENDPOINT}/settings/tokens, and {LOGIN}",
        )
    if status == 412 and writes:
        return InputError(
            f"{address} was changed by somebody else meanwhile, and nothing was uploaded",
            "run the command again, which looks at what is there now",
        )
    return InputError(
        f"{what}: the Hub answers with the status {status} ({redact_message(text)})",
        "try it again later",
    )
