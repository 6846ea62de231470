"""A child process that answers requests in lines of JSON: how the server uses torch without importing it.

The child's standard output is for answers only; what libraries print goes to standard error.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from core.errors import AskError, ChildError, NibbleError
from core.system.process import as_process
from core.text.library_errors import telling_line

Request = dict[str, Any]
Answer = dict[str, Any]


class _Left(ChildError):
    """The child ended of its own accord, to free the device: a new one can be asked the same."""


class Child:
    """The parent's end: starts `python -m <module>` on first use, asks one request at a time, ends it by `close`."""

    def __init__(self, module: str, log: Path, purpose: str) -> None:
        self.module, self.log, self.purpose = module, log, purpose
        self._process: subprocess.Popen[str] | None = None
        self._asking = threading.Lock()
        self._starting = threading.Lock()
        self._number = 0

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process unless it runs. Returns at once, while the process is still importing."""
        with self._starting:
            if self.alive:
                return
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    **as_process(self.module),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    encoding="utf-8",
                )

    def ask(self, request: Request) -> Iterator[Answer]:
        """Send one request and yield its answers up to the one that is `done`.

        Raises NibbleError where the child refuses, AskError where a setting of the request is why, and ChildError where
        it ends without an answer.
        """
        with self._asking:
            begun = False
            try:
                for answer in self._answers(request):
                    begun = True
                    yield answer
            except _Left:
                if begun:
                    raise
                yield from self._answers(request)

    def _answers(self, request: Request) -> Iterator[Answer]:
        """As `ask`, but of one process only, which may be about to end of its own accord."""
        self.start()
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise ChildError(f"{self.purpose} could not be started.")
        self._number += 1
        try:
            process.stdin.write(json.dumps({**request, "id": self._number}) + "\n")
            process.stdin.flush()
        except OSError:
            raise self._gone(process) from None
        while True:
            line = process.stdout.readline()
            if not line:
                raise self._gone(process)
            answer = json.loads(line)
            if answer.pop("id") != self._number:
                continue  # of a request that nobody waits for any more
            if "refusal" in answer:
                if answer.get("ends"):
                    self.close()  # so that the next request does not meet it while it goes
                if "setting" in answer:
                    raise AskError(answer["refusal"], answer["setting"], answer["code"])
                raise NibbleError(answer["refusal"])
            yield answer
            if answer.get("done"):
                return

    def tell(self, request: Request) -> None:
        """Send a request that has no answer, such as to stop the current one."""
        process = self._process
        if process is not None and process.stdin is not None and self.alive:
            with contextlib.suppress(OSError):
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()

    def _gone(self, process: subprocess.Popen[str]) -> ChildError:
        code = process.wait()
        last = self.log.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["nothing in its log"]
        kind = ChildError if code else _Left
        return kind(f"{self.purpose} ended unexpectedly (exit code {code}): {last[0][:200]}. Try again.")

    def close(self) -> None:
        """End the process, which frees all of its memory."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):  # a process inside a broken driver may stay
                    process.wait(timeout=5)


def _sentence(error: Exception) -> str:
    """What went wrong, in words for the user."""
    if isinstance(error, NibbleError):
        return str(error)
    text = str(error)
    if "out of memory" in text.lower() or "can't allocate memory" in text or isinstance(error, MemoryError):
        return "Not enough free memory. Stop the running training, or choose a smaller model."
    return f"{telling_line(error, kind=True)}. Please report it."


def _device_may_be_lost(error: Exception) -> bool:
    """Whether CUDA may refuse everything else in this process; a new process can start afresh."""
    text = str(error)
    return "CUDA error" in text and "out of memory" not in text and "ALLOC_FAILED" not in text


def serve(
    handle: Callable[[Request], Iterator[Answer]],
    interrupt: Callable[[Request], bool],
    is_over: Callable[[], bool] = lambda: False,
) -> int:
    """The child's end: answer requests from standard input until it closes.

    `interrupt` sees each request the moment it arrives, also while another is being answered, and returns whether
    it needs no answer. `is_over` is asked after an error: if it says so, or if the GPU may no longer work for this
    process, the process ends, which frees all its memory, and the parent starts another for its next request.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print must not get among the answers
    source = os.fdopen(os.dup(0), encoding="utf-8")
    # On Windows whoever looks at standard input while it is being read waits until something comes: as numpy does when
    # it is imported. So what is looked at is not what is read.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    requests: list[Request | None] = []
    arrived = threading.Condition()

    def listen() -> None:
        for line in source:
            request = json.loads(line)
            if not interrupt(request):
                with arrived:
                    requests.append(request)
                    arrived.notify()
        with arrived:
            requests.append(None)
            arrived.notify()

    threading.Thread(target=listen, daemon=True).start()
    while True:
        with arrived:
            arrived.wait_for(lambda: bool(requests))
            request = requests.pop(0)
        if request is None:
            return 0
        number = request.pop("id")

        def answer_with(answer: Answer, number: int = number) -> None:
            answers.write(json.dumps({**answer, "id": number}) + "\n")

        try:
            for answer in handle(request):
                answer_with(answer)
            continue
        except NibbleError as error:
            refused: Exception = error
        except Exception as error:  # told to the parent, which tells the person; the traceback goes to the log
            traceback.print_exc()
            refused = error
        over = _device_may_be_lost(refused) or is_over()
        more: Answer = {"setting": refused.setting, "code": refused.code} if isinstance(refused, AskError) else {}
        answer_with({"refusal": _sentence(refused), **more, **({"ends": True} if over else {})})
        if over:
            sys.stderr.flush()
            os._exit(1)
