"""Puts an export on the Hugging Face Hub: private unless said otherwise, and after one has seen what. No torch.

The token is the one that huggingface_hub holds; it is neither read nor kept here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.basemodel.hub import TIMEOUT_SECONDS
from core.export.shared.destination import ExportError
from core.sizes import show_bytes

SIGN_IN = "Sign in to Hugging Face on the System tab first, with a token that may write."


@dataclass(frozen=True)
class Upload:
    """What would be uploaded to `repo`: names below the folder with their bytes."""

    folder: Path
    repo: str
    private: bool
    files: tuple[tuple[str, int], ...]

    @property
    def bytes(self) -> int:
        """All of it."""
        return sum(size for _, size in self.files)

    @property
    def heading(self) -> str:
        """In a sentence: '9 files, 1.8 MB, to me/pirate, which only you will see'."""
        seen = "which only you will see" if self.private else "which everybody can see"
        return f"{len(self.files)} files, {show_bytes(self.bytes)}, to {self.repo}, {seen}"


def plan_upload(folder: Path, repo: str, private: bool = True) -> Upload:
    """What would be uploaded; asks nobody. Raises ExportError: no such folder, not an id, nobody signed in."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if not (folder / "README.md").is_file():
        raise ExportError(f"{folder} is no export: there is no README.md in it. Export a run first.")
    named = repo.strip()
    try:
        validate_repo_id(named)
    except HFValidationError:
        named = ""
    if named.count("/") != 1:
        raise ExportError(f"{repo!r} is no name for it on Hugging Face. Write your name, a slash, and what to call it.")
    if not get_token():
        raise ExportError(SIGN_IN)
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    files = tuple((path.relative_to(folder).as_posix(), path.stat().st_size) for path in found)
    return Upload(folder, named, private, files)


def push(upload: Upload) -> str:
    """Upload it in one commit, the repository made where there is none; returns its address. Raises ExportError.

    A repository that is there already and public is left alone where the upload is to be private.
    """
    from huggingface_hub import HfApi, errors

    hub = HfApi()
    try:
        address = str(hub.create_repo(upload.repo, private=upload.private, exist_ok=True))
        if upload.private and not hub.model_info(upload.repo, timeout=TIMEOUT_SECONDS).private:
            raise ExportError(
                f"{upload.repo} is there already, and everybody can see it. Nothing was uploaded: choose another name, "
                "make it private on its page, or say that it may be public."
            )
        hub.upload_folder(
            repo_id=upload.repo,
            folder_path=upload.folder,
            allow_patterns=[name for name, _ in upload.files],
            commit_message="Upload from Nibble",
        )
    except errors.OfflineModeIsEnabled:
        raise ExportError("HF_HUB_OFFLINE forbids to talk to Hugging Face. Take it away, then upload again.") from None
    except errors.HfHubHTTPError as error:
        raise ExportError(_refused(error.response.status_code, upload.repo)) from None
    except (errors.HTTPError, OSError, RuntimeError) as error:
        raise ExportError(
            f"Hugging Face cannot be reached, or the upload broke off ({type(error).__name__}). Start it again: what "
            "is there is not sent twice."
        ) from None
    return address


def _refused(status: int, repo: str) -> str:
    """What the Hub's refusal with `status` means."""
    if status == 401:
        return f"Hugging Face does not accept your access token. {SIGN_IN}"
    if status == 403:
        owner = repo.partition("/")[0]
        return f"Your access token may not write to {owner}. Take one that may, or upload under your own name."
    if status == 409:
        return f"{repo} has changed on Hugging Face meanwhile. Start the upload again."
    if status == 429:
        return "Hugging Face has had too many requests from here. Wait some minutes, then start the upload again."
    if status >= 500:
        return f"Hugging Face has a fault of its own (error {status}). Start the upload again in some minutes."
    return f"Hugging Face does not take the upload (error {status})."
