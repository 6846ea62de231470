"""Puts an export on the Hugging Face Hub: private unless said otherwise, and after one has seen what. No torch.

The token is the one that huggingface_hub holds; it is neither read nor kept here.
"""

from dataclasses import dataclass
from pathlib import Path

from core.basemodel.hub import TIMEOUT_SECONDS
from core.export.shared.destination import ExportError
from core.sizes import show_bytes

SIGN_IN = "First sign in to Hugging Face on the System tab, with a token that has write access."


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
        seen = "private" if self.private else "public"
        return f"{len(self.files)} files, {show_bytes(self.bytes)}, to {self.repo}, {seen}"


def plan_upload(folder: Path, repo: str, private: bool = True) -> Upload:
    """What would be uploaded; asks nobody. Raises ExportError: no such folder, not an id, nobody signed in."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if not (folder / "README.md").is_file():
        raise ExportError(f"{folder} is not an export: it contains no README.md. Export a run first.")
    named = repo.strip()
    try:
        validate_repo_id(named)
    except HFValidationError:
        named = ""
    if named.count("/") != 1:
        raise ExportError(f"{repo!r} is not a valid repository. Write your-name/model-name.")
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
                f"{upload.repo} already exists and is public. Nothing was uploaded: choose another name, make it "
                f"private on its page, or allow a public upload."
            )
        hub.upload_folder(
            repo_id=upload.repo,
            folder_path=upload.folder,
            allow_patterns=[name for name, _ in upload.files],
            commit_message="Upload from Nibble",
        )
    except errors.OfflineModeIsEnabled:
        raise ExportError("HF_HUB_OFFLINE forbids contacting Hugging Face. Unset it, then upload again.") from None
    except errors.HfHubHTTPError as error:
        raise ExportError(_refused(error.response.status_code, upload.repo)) from None
    except (errors.HTTPError, OSError, RuntimeError) as error:
        raise ExportError(
            f"Hugging Face cannot be reached, or the upload was interrupted ({type(error).__name__}). Start it "
            f"again; files already uploaded are not sent twice."
        ) from None
    return address


def _refused(status: int, repo: str) -> str:
    """What the Hub's refusal with `status` means."""
    if status == 401:
        return f"Hugging Face does not accept your access token. {SIGN_IN}"
    if status == 403:
        owner = repo.partition("/")[0]
        return f"Your access token has no write access to {owner}. Use one that has, or upload under your own name."
    if status == 409:
        return f"{repo} changed on Hugging Face during the upload. Start the upload again."
    if status == 429:
        return "Too many requests to Hugging Face. Wait a few minutes, then start the upload again."
    if status >= 500:
        return f"Hugging Face has a server error ({status}). Start the upload again in a few minutes."
    return f"Hugging Face rejected the upload (error {status})."
