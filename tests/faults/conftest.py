"""What the fault suite shares: a warm process that forks workers, and the run in which nothing goes wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.runs.find import list_runs
from core.runs.store import Run
from tests.faults.place import Place, Warm, end
from tests.waiting import ended


@pytest.fixture(scope="session", autouse=True)
def alike() -> Iterator[None]:
    """Every worker computes on the CPU with one thread: then the same numbers are the same bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


@pytest.fixture(scope="session")
def warm(alike: None) -> Iterator[Warm]:
    """One for all tests."""
    process = Warm()
    yield process
    process.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Iterator[Place]:
    """A workspace for a file's tests."""
    found = Place(tmp_path_factory.mktemp("workspace"), warm)
    yield found
    for run in list_runs(found.workspace):
        end(run)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Run:
    """The run in which nothing goes wrong."""
    run = Place(tmp_path_factory.mktemp("undisturbed"), warm).start()
    assert ended(run) == "finished", (run.status(), run.log_tail())
    return run
