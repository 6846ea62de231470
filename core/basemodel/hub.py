"""The Hugging Face Hub, asked about a model: which files it has and at which commit; else, in a sentence, why not.

Imports no torch. A token is handed to huggingface_hub's own functions and never into a sentence; neither is an
address that was redirected to, for it is signed.
"""

import errno
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from core.errors import ModelError
from core.sizes import show_bytes
from core.untrusted.paths import is_plain

TIMEOUT_SECONDS = 10
SILENCE_SECONDS = 15  # of a server that has begun to send
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# What transformers reads beside the weights: settings, and the files that its tokenizers, chat templates and processors
# are in; and what a merged model must be passed on with.
_SETTINGS = (
    *("config.json", "generation_config.json", "tokenizer.*", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.model", "*.tiktoken", "tekken.json"),
    *("chat_template.jinja", "chat_template.json", "*processor_config.json", "LICENSE*", "NOTICE*"),
)
_TEMPLATES = "additional_chat_templates/*.jinja"
_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class HubFile:
    """A file on the Hub. `etag` is its content's: the SHA-256 of a large file, git's SHA-1 of a small one."""

    name: str
    bytes: int
    etag: str


@dataclass(frozen=True)
class HubModel:
    """A model on the Hub at one commit. `parameters` is 0 where the Hub has not counted them."""

    id: str
    commit: str
    files: dict[str, HubFile]
    parameters: int

    def settings(self) -> list[HubFile]:
        """What is needed beside the weights."""
        return [file for name, file in self.files.items() if is_setting(name)]


def is_setting(name: str) -> bool:
    """Whether transformers reads the file of this name beside a model's weights."""
    if "/" in name:
        return fnmatchcase(name, _TEMPLATES)
    return any(fnmatchcase(name, pattern) for pattern in _SETTINGS)


def look_up(model_id: str, revision: str | None = None) -> HubModel:
    """The model at `revision` (a commit; None: the newest), asked over the network. Raises ModelError."""
    from huggingface_hub import HfApi, constants, errors

    if constants.HF_HUB_OFFLINE:
        raise refusal(errors.OfflineModeIsEnabled(), model_id)
    try:
        info = HfApi().model_info(model_id, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS)
    except (errors.HTTPError, OSError) as error:
        raise refusal(error, model_id) from None
    files = {}
    for sibling in info.siblings or []:
        etag = str(sibling.lfs.sha256 if sibling.lfs else sibling.blob_id)
        if is_plain(sibling.rfilename) and _ETAG.fullmatch(etag):
            files[sibling.rfilename] = HubFile(sibling.rfilename, int(sibling.size or 0), etag)
    return HubModel(model_id, str(info.sha), files, info.safetensors.total if info.safetensors else 0)


def fetch_small(model_id: str, name: str, revision: str | None = None) -> Path:
    """A small file of the model, in Hugging Face's cache. Raises ModelError.

    Without a `revision` the cache notes which commit is the newest, for whoever looks there without a network.
    """
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(model_id, name, revision=revision, etag_timeout=TIMEOUT_SECONDS))
    except (errors.HTTPError, OSError) as error:
        raise refusal(error, model_id) from None


@contextmanager
def streamed(model_id: str, name: str, commit: str, span: str | None = None) -> Iterator[Any]:
    """The Hub's answer with the bytes of a file, or those of a `span` such as 'bytes=0-99'; not read yet.

    Raises HTTPError or OSError.
    """
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    url = hf_hub_url(model_id, name, revision=commit)
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", **({"Range": span} if span else {})}
    with get_session().stream("GET", url, headers=headers, timeout=SILENCE_SECONDS) as response:
        hf_raise_for_status(response)
        yield response


def cache_folder() -> Path:
    """Where Hugging Face keeps what it downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser().resolve()


def repository_folder(model_id: str) -> Path:
    """The model's part of the cache: `blobs` holds contents by etag, `snapshots/<commit>` the names of them."""
    from huggingface_hub.file_download import repo_folder_name

    return cache_folder() / repo_folder_name(repo_id=model_id, repo_type="model")


def snapshot_folder(model_id: str, commit: str) -> Path:
    """Where the cache has the files of `commit` under their names."""
    return repository_folder(model_id) / "snapshots" / commit


def bytes_here(model_id: str, commit: str, files: Collection[HubFile]) -> int:
    """How much of `files` the cache holds, unfinished ones with what they have."""
    blobs, named = repository_folder(model_id) / "blobs", snapshot_folder(model_id, commit)
    places = ((named / file.name, blobs / file.etag, blobs / f"{file.etag}.incomplete") for file in files)
    return sum(next((size for size in map(_size, of_one) if size), 0) for of_one in places)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def refuse_full_disk(label: str, needed_bytes: int) -> None:
    """Raise ModelError where the cache's disk has not room for `needed_bytes` more."""
    folder = cache_folder()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed_bytes > free:
        raise ModelError(
            f"{label} needs {show_bytes(needed_bytes)} more on the disk, and {folder} has {show_bytes(free)} free. "
            f"Free {show_bytes(needed_bytes - free)}, or set HF_HOME to a folder on a larger disk."
        )


def refusal(error: Exception, model_id: str) -> ModelError:
    """What `error`, met while the Hub was asked for `model_id` or its answer written to the cache, says to a person."""
    from huggingface_hub import constants, errors, get_token

    cause = error.__cause__
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(cause, Exception):
        return refusal(cause, model_id)
    link = f"{constants.ENDPOINT}/{model_id}"
    if isinstance(error, errors.GatedRepoError):
        then = "then start again: your account does not have access yet" if get_token() else "then sign in"
        where = "" if get_token() else " to Hugging Face on the System tab"
        return ModelError(f"{model_id} is gated: accept its terms at {link}, {then}{where}.")
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(f"{model_id} no longer has the requested commit. See its history at {link}/commits.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelError(
            f"There is no model {model_id} on Hugging Face, or it is private. Check the name, "
            "or sign in on the System tab."
        )
    if isinstance(error, errors.DisabledRepoError):
        return ModelError(f"Hugging Face has disabled {model_id}. Choose another model.")
    if isinstance(error, errors.EntryNotFoundError):
        return ModelError(f"{model_id} has lost a file since it was looked up. Start again.")
    if isinstance(error, errors.HfHubHTTPError):
        return ModelError(_answered(error.response.status_code, model_id, link))
    if isinstance(error, errors.OfflineModeIsEnabled):
        return ModelError(f"{model_id} is not on this machine, and HF_HUB_OFFLINE forbids downloading it.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelError(
            f"The disk is full: {model_id} does not fit into {cache_folder()}. Free some space and start again; the "
            f"download continues where it stopped."
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ModelError(
            f"{model_id} cannot be downloaded: {cache_folder()} is not writable. Change its permissions, or set "
            f"HF_HOME to another folder."
        )
    return ModelError(
        f"{model_id} is not completely on this machine, and Hugging Face cannot be reached ({type(error).__name__}). "
        "Check the network, or choose a model on this machine."
    )


def _answered(status: int, model_id: str, link: str) -> str:
    """What the Hub's refusal with `status` means."""
    if status == 401:
        return (
            "Hugging Face no longer accepts your access token. Sign out on the System tab, then sign in with a new one."
        )
    if status == 403:
        return f"Your access token does not allow reading {model_id}. Change its permissions, or see {link}."
    if status == 429:
        return (
            "Too many requests to Hugging Face. Wait a few minutes and start again; if you sign in on the System "
            "tab, more are allowed."
        )
    if status >= 500:
        return f"Hugging Face has a server error ({status}). Start again in a few minutes."
    return f"Hugging Face refuses to serve {model_id} (error {status}). See {link}."
