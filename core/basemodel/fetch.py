"""Fetches one file of the Hub into Hugging Face's cache: resumes, waits out faults, verifies the content.

huggingface_hub 2.4 discards a partial file when it is interrupted, so the bytes are fetched here, into
`blobs/<etag>.incomplete`, where its earlier versions kept and continued them too, under the lock that they all
share. huggingface_hub then gives the finished file its name in the cache. Imports no torch.
"""

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from core.basemodel.hub import SILENCE_SECONDS, HubFile, cache_folder, repository_folder, snapshot_folder, streamed
from core.errors import ModelError
from core.workspace import SCAN_SECONDS, patiently

# Seconds to wait after each fault in a row; bytes that came in between begin the row anew.
PAUSES = (2, 5, 15, 30, 60)
LONGEST_PAUSE = 300
_BLOCK = 2**20
_TRANSIENT = {408, 429, 500, 502, 503, 504}


class Halted(Exception):
    """The download was stopped, here or by another file's failure."""


class Fetch:
    """One file of `model_id` at `commit`, on its way into the cache. `note` says what it waits for, '' otherwise."""

    def __init__(self, model_id: str, commit: str, file: HubFile, halt: threading.Event) -> None:
        self.model_id, self.commit, self.file = model_id, commit, file
        self.note = ""
        self._halt = halt
        self._repository = repository_folder(model_id)
        self._blob = self._repository / "blobs" / file.etag
        self._partial = self._blob.with_name(f"{file.etag}.incomplete")
        self._named = snapshot_folder(model_id, commit) / file.name

    @property
    def whole(self) -> bool:
        """Whether the cache holds it under its name."""
        return self._named.exists()

    def run(self) -> None:
        """Bring the file. Raises ModelError where it comes damaged twice, Halted, and what the last fault raised."""
        if self.whole:
            return
        with self._alone():
            if not self._blob.exists():
                self._bring()
        self._patiently(self._name)

    def _bring(self) -> None:
        for last_try in (False, True):
            self._patiently(self._continue)
            if self._is_right():
                patiently(lambda: self._partial.replace(self._blob), SCAN_SECONDS)
                return
            self._partial.unlink()
            if last_try:
                raise ModelError(
                    f"{self.file.name} of {self.model_id} was damaged twice: its content does not match Hugging "
                    f"Face's checksum. Something on the network changes it; try another network."
                )

    def _name(self) -> None:
        """Have huggingface_hub give the finished content its name: by a link, where the disk has links."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.file_download import are_symlinks_supported

        if not are_symlinks_supported(cache_folder()):  # it would copy, and the disk hold the weights twice
            self._named.parent.mkdir(parents=True, exist_ok=True)
            patiently(lambda: self._blob.replace(self._named), SCAN_SECONDS)
            return
        hf_hub_download(self.model_id, self.file.name, revision=self.commit, etag_timeout=SILENCE_SECONDS)

    def _continue(self) -> None:
        """Append what is missing to the partial file."""
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        with self._partial.open("ab") as out:
            here = out.tell()
            if here >= self.file.bytes:
                return
            span = f"bytes={here}-" if here else None
            with streamed(self.model_id, self.file.name, self.commit, span) as response:
                if here and response.status_code != 206:  # a server that knows no ranges sends all of it
                    out.truncate(0)
                for chunk in response.iter_bytes():
                    self._go_on()
                    out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        if self._partial.stat().st_size < self.file.bytes:
            raise ConnectionError("the download ended early")

    def _is_right(self) -> bool:
        """Whether the partial file is whole: of the right size, and its content the one that `etag` names."""
        if self._partial.stat().st_size != self.file.bytes:
            return False
        is_large = len(self.file.etag) == 64
        digest = hashlib.sha256() if is_large else hashlib.sha1(usedforsecurity=False)
        if not is_large:
            digest.update(b"blob %d\0" % self.file.bytes)  # as git hashes a file
        if self.file.bytes > 256 * _BLOCK:
            self.note = f"checking {self.file.name}"
        with self._partial.open("rb") as content:
            while block := content.read(_BLOCK):
                self._go_on()
                digest.update(block)
        self.note = ""
        return digest.hexdigest() == self.file.etag

    def _patiently(self, action: Callable[[], None]) -> None:
        """Do `action`, and again after a pause where the network or the Hub failed it."""
        from huggingface_hub.errors import HTTPError

        faults, before = 0, self._here()
        while True:
            try:
                return action()
            except (HTTPError, OSError) as error:
                if self._here() > before:
                    faults, before = 0, self._here()
                seconds = pause_after(error, faults)
                if seconds is None:
                    raise
                self._wait(what_happened(error), seconds)
                faults += 1

    def _here(self) -> int:
        return self._partial.stat().st_size if self._partial.exists() else 0

    def _wait(self, happened: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.note = f"{happened}; trying again in {max(1, round(left))} s"
            self._halt.wait(min(left, 0.5))
            self._go_on()
        self.note = ""

    def _go_on(self) -> None:
        if self._halt.is_set():
            raise Halted

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock that every tool takes to write this content into the cache."""
        from filelock import Timeout
        from huggingface_hub.utils import WeakFileLock

        lock = cache_folder() / ".locks" / self._repository.name / f"{self.file.etag}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                with WeakFileLock(lock, timeout=0.5):
                    self.note = ""
                    yield
                    return
            except Timeout:
                self.note = "another program is downloading it; waiting"
                self._go_on()


def pause_after(error: Exception, faults: int) -> float | None:
    """Seconds to wait before another try, after `faults` earlier ones in a row; None where none would help."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return pause_after(error.__cause__, faults)
    if isinstance(error, errors.OfflineModeIsEnabled) or faults >= len(PAUSES):
        return None
    if isinstance(error, errors.HfHubHTTPError):
        if error.response.status_code not in _TRANSIENT:
            return None
        asked = _asked_to_wait(error.response.headers.get("Retry-After"), error.response.headers.get("RateLimit"))
        return max(PAUSES[faults], asked) if asked <= LONGEST_PAUSE else None
    return PAUSES[faults] if isinstance(error, (errors.HTTPError, ConnectionError, TimeoutError)) else None


def _asked_to_wait(retry_after: str | None, rate_limit: str | None) -> int:
    """Seconds that the Hub asks to wait: `Retry-After: 5`, or `RateLimit: "resolvers";r=0;t=55` with nothing left."""
    if retry_after and retry_after.isdigit():
        return int(retry_after)
    left = re.search(r"\br=0\b.*\bt=(\d+)", rate_limit or "")
    return int(left[1]) if left else 0


def what_happened(error: Exception) -> str:
    """A fault that is worth another try, in a few words for the progress line."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        return "Hugging Face asks us to wait" if status == 429 else f"Hugging Face has a server error ({status})"
    return "the connection was lost"
