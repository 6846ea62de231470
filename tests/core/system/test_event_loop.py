"""The event loop of the servers on Windows, as far as it can be seen elsewhere."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import pytest
import uvicorn

from core.system import event_loop


class Fake:
    """In place of asyncio's proactor: says what it is told to, one after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outcomes: list[Any]) -> None:
        self._loop, self.outcomes = loop, outcomes

    def accept(self, listener: socket.socket) -> asyncio.Future[Any]:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, str):
            raise OSError(outcome)
        future = self._loop.create_future()
        if isinstance(outcome, OSError):
            future.set_exception(outcome)
        elif outcome is not None:
            future.set_result(outcome)
        return future


def test_a_connection_that_breaks_does_not_end_the_listening() -> None:
    async def main() -> None:
        with socket.socket() as listener:
            broken = [OSError(22, "the network name is no longer available"), "no more sockets", ("connection", "peer")]
            proactor = event_loop.patient(Fake)(asyncio.get_running_loop(), broken)
            assert await asyncio.wait_for(proactor.accept(listener), 5) == ("connection", "peer")
            assert not broken

    asyncio.run(main())


def test_a_port_that_was_closed_is_left_alone() -> None:
    async def main() -> None:
        listener = socket.socket()
        listener.close()
        proactor = event_loop.patient(Fake)(asyncio.get_running_loop(), [OSError("closed")])
        with pytest.raises(OSError, match="closed"):
            await asyncio.wait_for(proactor.accept(listener), 5)

    asyncio.run(main())


def test_who_waits_for_a_connection_can_be_told_to_stop() -> None:
    async def main() -> None:
        with socket.socket() as listener:
            waiting = event_loop.patient(Fake)(asyncio.get_running_loop(), [None]).accept(listener)
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(waiting, 5)

    asyncio.run(main())


def test_uvicorn_takes_this_loop_on_windows_and_its_own_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(uvicorn.config.LOOP_FACTORIES)
    event_loop.go_on_listening()
    assert sys.platform == "win32" or before == uvicorn.config.LOOP_FACTORIES
    monkeypatch.setattr(uvicorn.config, "LOOP_FACTORIES", before)
    monkeypatch.setattr(event_loop.sys, "platform", "win32")
    event_loop.go_on_listening()
    assert uvicorn.Config("nothing:here").get_loop_factory() is event_loop.new_loop
