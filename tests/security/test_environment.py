"""Whatever the environment says: on this machine only, shared with nobody, and no file of it served.

The variables are read off the installed Gradio's source, so that one it learns to read tomorrow is tried as well.
"""

from __future__ import annotations

import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import gradio
import psutil
import pytest
import uvicorn

from app.server.keys import SCRUBBED
from core.workspace import ROOT
from tests.app_process import next_line, start

# Read by Gradio, but the system's own; a process without them is not what a person has.
SYSTEM = {"PATH", "DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "CI", "HF_TOKEN", "HF_HUB_DISABLE_TELEMETRY"}
_READ = re.compile(r"""environ(?:\.get)?[(\[]\s*["']([A-Z][A-Z0-9_]+)["']|getenv\(\s*["']([A-Z][A-Z0-9_]+)["']""")
# What each of them would do, were it believed.
OPENING = {
    "GRADIO_SHARE": "true",
    "GRADIO_SERVER_NAME": "0.0.0.0",
    "GRADIO_SERVER_PORT": "1",
    "GRADIO_ALLOWED_PATHS": "/",
    "GRADIO_ROOT_PATH": "/gone-astray",
    "GRADIO_MCP_SERVER": "true",
    "GRADIO_SSR_MODE": "true",
    "GRADIO_NUM_WORKERS": "2",
    "GRADIO_DEBUG": "1",
    "GRADIO_WATCH_DIRS": "/",
    "GRADIO_SHARE_SERVER_ADDRESS": "127.0.0.1:9",
    "GRADIO_TEMP_DIR": "/",
    "GRADIO_EXAMPLES_CACHE": "/",
    "SYSTEM": "spaces",
    "SPACE_ID": "evil/space",
    "SPACE_HOST": "evil.hf.space",
    "FORWARDED_ALLOW_IPS": "*",
    "UVICORN_HOST": "0.0.0.0",
    "UVICORN_FD": "0",
    "HF_ENDPOINT": "http://127.0.0.1:9",
    "HF_TOKEN": "hf_planted",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "NO_PROXY": "",
}


def read_by_gradio() -> set[str]:
    """Every variable that the installed Gradio and uvicorn read."""
    found = set()
    for package in (gradio, uvicorn):
        for file in Path(package.__path__[0]).glob("*.py"):
            found |= {a or b for a, b in _READ.findall(file.read_text(encoding="utf-8"))}
    return {name for name in found if name not in SYSTEM and not name.startswith("SSH_")}


@dataclass(frozen=True)
class Started:
    """An app that runs as a process: its workspace, the address it printed, the process."""

    folder: Path
    url: str
    process: subprocess.Popen[str]

    @property
    def bare(self) -> str:
        """The address without the key."""
        return self.url.partition("?")[0]

    def ask(self, path: str = "", **headers: str) -> tuple[int, str]:
        """Status and body of one of its paths, asked with the key."""
        port, token = self.bare.rstrip("/").rpartition(":")[2], self.url.partition("token=")[2]
        asked = {"Cookie": f"nibble_{port}={token}", **headers}
        return status(urllib.request.Request(self.bare + path, headers=asked))


def status(request: urllib.request.Request | str) -> tuple[int, str]:
    """Status and body of an answer, whatever it is. Goes through no proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=20) as answer:
            return int(answer.status), answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """An app in the most hostile of environments."""
    folder = tmp_path_factory.mktemp("started")
    process = start(folder, "--port", "0", **dict.fromkeys(read_by_gradio(), "true") | OPENING)
    line = next_line(process)
    yield Started(folder, line.split()[-1], process)
    process.kill()
    process.wait()


def test_gradio_reads_more_variables_than_anybody_would_list(started: Started) -> None:
    found = read_by_gradio()
    assert len(found) > 25 and {"GRADIO_SHARE", "GRADIO_ALLOWED_PATHS", "SPACE_ID"} <= found
    ours = {name for name in found if name.startswith("GRADIO_")} | SCRUBBED | {"SYSTEM"}
    assert found <= ours, f"Gradio reads {found - ours} too: scrub them in app/server/keys.py"


def test_it_listens_on_this_machine_only_and_talks_to_nobody(started: Started) -> None:
    assert started.url.startswith("http://127.0.0.1:") and "/?token=" in started.url
    family = [psutil.Process(started.process.pid)]
    family += family[0].children(recursive=True)
    places = [place for process in family for place in process.net_connections("inet")]
    listening = [place.laddr for place in places if place.status == psutil.CONN_LISTEN]
    assert [(place.ip, f":{place.port}/" in started.bare) for place in listening] == [("127.0.0.1", True)]
    assert all(place.raddr.ip == "127.0.0.1" for place in places if place.raddr)


def test_the_printed_address_opens_it_and_without_the_token_it_stays_shut(started: Started) -> None:
    assert status(started.url)[0] == 200
    for path in ("", "config", "gradio_api/file=/etc/hostname", "manifest.json", "gradio_api/startup-events"):
        assert status(started.bare + path)[0] == 401


def test_it_is_not_shared_and_lies_where_it_lies(started: Started) -> None:
    code, page = started.ask()
    assert code == 200 and "gone-astray" not in page and "gradio.live" not in page
    code, settings = started.ask(
        "config", **{"X-Forwarded-Host": "evil.example", "X-Gradio-Server": "http://evil.example"}
    )
    assert code == 200 and f'"root":"{started.bare.rstrip("/")}"' in settings
    assert "evil" not in settings and '"space_id":null' in settings


@pytest.mark.parametrize(
    "path",
    [
        "/etc/hostname",
        "/proc/self/environ",
        str(ROOT / "README.md"),
        "STATE/token",
        "STATE/server.json",
        "STATE/../state/token",
        "http://127.0.0.1:9/",
        "file:///etc/hostname",
    ],
)
def test_no_file_of_the_machine_is_served(started: Started, path: str) -> None:
    path = path.replace("STATE", str(started.folder / "state"))
    for route in (
        "gradio_api/file=",
        "gradio_api/file/",
        "file=",
        "static/",
        "assets/",
        "svelte/",
        "gradio_api/proxy=",
    ):
        for given in (path.replace(" ", "%20"), quote(path), quote(quote(path, safe=""), safe="")):
            code, body = started.ask(route + given)
            assert code >= 400 and "root:" not in body and "PATH=" not in body, (route, given)


@pytest.mark.parametrize("page", ["docs", "openapi.json", "redoc", "gradio_api/mcp/", "monitoring", "gradio_api/runs"])
def test_no_page_is_served_that_nobody_asked_for(started: Started, page: str) -> None:
    assert started.ask(page)[0] in (403, 404)


def test_a_second_start_on_the_same_workspace_finds_the_first(started: Started) -> None:
    second = start(started.folder)
    assert next_line(second).endswith(started.url)
    assert second.wait(timeout=60) == 0
