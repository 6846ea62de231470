"""The part of the stand-in Hub that takes uploads: repositories made, small files in the commit, large ones beside."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

LARGE = (".safetensors", ".gguf")


@dataclass
class Uploads:
    """What has come: repositories with what was said of them, and the content of their files.

    `public` are repositories that were there before, for all to see; `refuse` is the status that a commit gets.
    """

    created: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    public: tuple[str, ...] = ()
    refuse: int | None = None


def answer(uploads: Uploads, url: str, method: str, path: str, body: bytes) -> tuple[int, Any] | None:
    """The status and JSON for a request that is about an upload; None where it is about something else."""
    repo = "/".join(path.removeprefix("/api/models").removeprefix("/").split("/")[:2]).removesuffix(".git")
    if path == "/api/repos/create":
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}"
        uploads.created[repo] = asked
        return (409 if repo in uploads.public else 200), {"url": f"{url}/{repo}", "name": repo}
    if path == "/api/validate-yaml":
        return 200, {"errors": [], "warnings": []}
    if "/preupload/" in path:
        return 200, {"files": [_mode(file["path"]) for file in json.loads(body)["files"]]}
    if path.endswith("/info/lfs/objects/batch"):
        actions = {"upload": {"href": f"{url}/uploads/"}}
        objects = json.loads(body)["objects"]
        told = [{**each, "actions": {"upload": {"href": actions["upload"]["href"] + each["oid"]}}} for each in objects]
        return 200, {"transfer": "basic", "objects": told}
    if method == "PUT" and path.startswith("/uploads/"):
        uploads.blobs[path.removeprefix("/uploads/")] = body
        return 200, {}
    if "/commit/" in path:
        if uploads.refuse is not None:
            return uploads.refuse, {"error": "no"}
        uploads.files[repo] = dict(_content(uploads, json.loads(line)) for line in body.splitlines()[1:])
        return 200, {"commitUrl": f"{url}/{repo}/commit/0", "commitOid": "0" * 40}
    if (
        method == "GET"
        and path in (f"/api/models/{repo}", f"/api/models/{repo}/revision/main")
        and repo in uploads.created
    ):
        return 200, {"id": repo, "private": repo not in uploads.public, "sha": "0" * 40, "siblings": [], "tags": []}
    return None


def _mode(path: str) -> dict[str, Any]:
    return {
        "path": path,
        "uploadMode": "lfs" if path.endswith(LARGE) else "regular",
        "shouldIgnore": False,
        "oid": None,
    }


def _content(uploads: Uploads, line: dict[str, Any]) -> tuple[str, bytes]:
    value = line["value"]
    if line["key"] == "lfsFile":
        return value["path"], uploads.blobs[value["oid"]]
    return value["path"], base64.b64decode(value["content"])
