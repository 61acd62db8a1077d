"""One repository on the Hub: read a file, commit files in one atomic step, and errors that say what to do."""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from hf_mambalrp.errors import (
    CardError,
    HubConnectionError,
    HubError,
    InputError,
    MambaLRPError,
    MissingRepositoryError,
    NotLoggedInError,
    OfflineError,
    RepositoryAccessError,
)

RepoType = Literal["model", "dataset", "space"]
CARD = "README.md"
Token = str | bool | None
"""A token; None, the one of ``hf auth login`` or ``HF_TOKEN``; False, none."""


@dataclass(frozen=True)
class Repository:
    """A repository at one commit, on which the next one is built."""

    api: Any
    repo_id: str
    repo_type: RepoType
    revision: str | None
    head: str
    files: frozenset[str]

    def read(self, path: str) -> bytes | None:
        """Content of a file at this commit, or None where there is none."""
        if path not in self.files:
            return None
        with hub_errors(self.repo_id, self.repo_type):
            found = hf_hub_download(
                self.repo_id, path, repo_type=self.repo_type, revision=self.head, token=self.api.token
            )
        return Path(found).read_bytes()

    def commit(
        self, files: Mapping[str, bytes | Path], message: str, *, replaced: Sequence[str] = (), **options: Any
    ) -> Any:
        """Commit all of ``files`` or none of them; without a change there is no commit.

        Args:
            files: path in the repository to content, or to the file that holds it.
            message: title of the commit.
            replaced: patterns of files that are deleted where ``files`` does not have them.
            **options: ``create_pr`` and ``commit_description`` of ``HfApi.create_commit``.

        Raises:
            HubError: of the Hub, or someone else has committed since this repository was opened.
            CardError: the Hub refuses the front matter.
        """
        stale = {path for pattern in replaced for path in fnmatch.filter(self.files, pattern)} - {*files}
        # A file is given by name, so that one of gigabytes is streamed; only cards and pictures are in memory.
        operations: list[Any] = [
            CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
            for path, content in files.items()
        ]
        operations += [CommitOperationDelete(path) for path in sorted(stale)]
        try:
            with hub_errors(self.repo_id, self.repo_type):
                return self.api.create_commit(
                    self.repo_id,
                    operations,
                    commit_message=message,
                    repo_type=self.repo_type,
                    revision=self.revision,
                    parent_commit=self.head,
                    **options,
                )
        except MambaLRPError:
            raise
        except ValueError as error:  # the Hub reads the front matter before anything is sent
            raise CardError(f"The Hub refuses {CARD} of {self.repo_id!r}: {error}") from error


def hub_api(token: Token = None) -> Any:
    """The client, which says who is calling."""
    from hf_mambalrp import __version__

    return HfApi(token=token, library_name="hf_mambalrp", library_version=__version__)


def open_repository(
    repo_id: str,
    repo_type: RepoType,
    *,
    private: bool | None = None,
    token: Token = None,
    revision: str | None = None,
    **space: Any,
) -> Repository:
    """Create the repository, and the branch, unless they are there, and look at what they hold.

    Args:
        repo_id: "user/name", or "name" for one of your own.
        repo_type: "model", "dataset" or "space".
        private: visibility of a repository that is created; one that exists keeps its own.
        token: by default the one of ``hf auth login`` or ``HF_TOKEN``.
        revision: the branch; default ``main``.
        **space: ``space_sdk`` and other options of ``HfApi.create_repo``.
    """
    api = hub_api(token)
    with hub_errors(repo_id, repo_type):
        url = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, **space)
        repo_id = url.repo_id
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, repo_type=repo_type, branch=revision, exist_ok=True)
        head = api.repo_info(repo_id, repo_type=repo_type, revision=revision).sha
        files = api.list_repo_files(repo_id, repo_type=repo_type, revision=head)
    return Repository(api, repo_id, repo_type, revision, head, frozenset(files))


@contextmanager
def hub_errors(repo_id: str, repo_type: RepoType) -> Iterator[None]:
    """Turn every error of huggingface_hub, and of the HTTP client below it, into one that says what to do."""
    where = f"{repo_type} repository {repo_id!r}"
    try:
        yield
    except HFValidationError as error:
        raise InputError(f"{repo_id!r} is not the name of a repository: {error} Give user/name.") from error
    except OfflineModeIsEnabled as error:
        raise _offline(where) from error
    except LocalEntryNotFoundError as error:
        raise (_offline(where) if constants.HF_HUB_OFFLINE else _unreachable(where, error)) from error
    except Exception as error:
        if isinstance(error, ValueError) and not isinstance(error, HfHubHTTPError):  # such as a card that is refused
            raise
        for cause in _causes(error):  # an upload's error comes wrapped in a RuntimeError
            if isinstance(cause, HfHubHTTPError) and not isinstance(cause, LocalEntryNotFoundError):
                raise _refused(cause, where) from error
            if isinstance(cause, (LocalEntryNotFoundError, ConnectionError, TimeoutError)) or _is_transport(cause):
                raise _unreachable(where, cause) from error
        raise


def _refused(error: Any, where: str) -> HubError:
    status = getattr(error.response, "status_code", None)
    said = (getattr(error, "server_message", None) or " ".join(str(error).split())).rstrip(".") + "."
    if isinstance(error, GatedRepoError):  # which is also a RepositoryNotFoundError
        return RepositoryAccessError(f"The {where} is gated: {said} Ask for access on its page on the Hub.")
    if status == 403:
        proposal = "" if where.startswith("space") else ", or create_pr=True to propose the change to its owner"
        return RepositoryAccessError(
            f"The token does not allow this on {where}: {said} Give a repository of your own (your-name/...), or a "
            f"token that may write{proposal}."
        )
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return MissingRepositoryError(
            f"{where[0].upper()}{where[1:]} has not what was asked for, or is private and your token does not reach "
            f"it: {said} Check the name, and with `hf auth whoami` who you are."
        )
    if status == 401:
        return NotLoggedInError(
            f"The Hub wants to know who asks for {where}: {said} Log in with `hf auth login`, or set HF_TOKEN, or pass "
            "token=. A token comes from huggingface.co/settings/tokens; pushing needs one that may write."
        )
    if status in (409, 412):
        return HubError(f"Someone else has changed {where} in the meantime; nothing was written. Do the same again.")
    return HubError(
        f"The Hub answered for {where}: {said} A commit takes effect as a whole or not at all; the same call may be "
        "made again."
    )


def _offline(where: str) -> OfflineError:
    return OfflineError(
        f"HF_HUB_OFFLINE is set, so the {where} cannot be reached. Unset it, or write into a folder: "
        "model.save_pretrained(folder, explanations=...)."
    )


def _unreachable(where: str, error: BaseException) -> HubConnectionError:
    return HubConnectionError(
        f"The connection to the Hub broke, or none could be made, for {where} ({type(error).__name__}: {error}). "
        "A commit takes effect as a whole or not at all: do the same again; what has arrived is not sent twice."
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _is_transport(error: BaseException) -> bool:
    """Whether it comes from the HTTP client, which differs between the releases of huggingface_hub."""
    return type(error).__module__.split(".")[0] in {"httpx", "httpx2", "httpcore", "requests", "urllib3"}
