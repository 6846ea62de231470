"""The servers' event loop on Windows: asyncio's default, made to keep listening when a connection breaks.

There a connection that is reset before it is accepted makes asyncio close the port for good (python/cpython gh-93821).
asyncio's other loop does not, but fails with more than 512 connections.
"""

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any

AGAIN_SECONDS = 0.05


def go_on_listening() -> None:
    """On Windows, make uvicorn's servers use this loop. Call it before one starts."""
    if sys.platform == "win32":
        import uvicorn.config

        factories: dict[str, str | None] = getattr(uvicorn.config, "LOOP_FACTORIES", {})
        factories["auto"] = f"{__name__}:loop_factory"


def loop_factory(use_subprocess: bool = False) -> Callable[[], asyncio.AbstractEventLoop]:
    """The factory of event loops, as uvicorn asks for it."""
    return new_loop


def new_loop() -> asyncio.AbstractEventLoop:
    """A new event loop for this system."""
    if sys.platform == "win32":
        return asyncio.ProactorEventLoop(patient(asyncio.IocpProactor)())
    return asyncio.new_event_loop()


def patient(proactor: type[Any]) -> type[Any]:
    """A subclass of `proactor` (asyncio's IocpProactor) whose `accept` goes on with the next connection."""

    class Patient(proactor):
        def accept(self, listener: socket.socket) -> asyncio.Task[Any]:
            return self._loop.create_task(self._accepted(listener))

        async def _accepted(self, listener: socket.socket) -> Any:
            while True:
                try:
                    return await super().accept(listener)
                except OSError:
                    if listener.fileno() == -1:  # nobody is to listen any more
                        raise
                await asyncio.sleep(AGAIN_SECONDS)

    return Patient
