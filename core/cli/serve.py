"""`python launch.py serve`: a run's adapter for other programs, behind OpenAI's API."""

import argparse
import contextlib
import json
import sys

from core.untrusted.paths import Reach
from core.workspace import Workspace


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `serve` takes."""
    command.add_argument("run_id", metavar="RUN", help="an id, the start of one, 'last'; or base:MODEL, adapter:FOLDER")
    command.add_argument("--port", type=int, help="default: 8000, or the next free one")
    command.add_argument(
        "--address",
        default="127.0.0.1",
        help="address to listen on; default: this machine only. Give another of its addresses, such as Docker's "
        "bridge 172.17.0.1, or 0.0.0.0 for all. The key is always required; the connection is not encrypted",
    )
    command.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="another host name that clients use; names that containers use for this machine are already accepted",
    )
    command.add_argument(
        "--key-file",
        metavar="FILE",
        help="a file with the API key; default: NIBBLE_API_KEY, or a new key that is printed",
    )


def serve(options: argparse.Namespace) -> tuple[int, None]:
    """Load, serve, and wait to be ended. What a client needs is printed once, with --json as the one document."""
    from core.chat.client import ChatClient
    from core.launch.typed_input import typed_chat_model
    from core.runs.chat_models import find_chat_model
    from core.serve.server import EndpointServer, given_key, new_key

    workspace = Workspace.open(options.data_dir)
    reach, key = Reach.of(workspace), options.run_id if ":" in options.run_id else f"run:{options.run_id}"
    model = find_chat_model(workspace, typed_chat_model(reach, workspace, key))
    given = given_key(str(reach.read(options.key_file, "The key file")) if options.key_file else None)
    client = ChatClient(workspace)
    server = EndpointServer(
        client, workspace, model, given or new_key(), options.port, options.address, options.allow_host
    )
    try:
        print(f"Loading {model.label} …", file=sys.stderr)
        client.load(model, lambda line: print(line, file=sys.stderr))
        models = list(server.served.models())
        if options.json:
            shown = {} if given else {"key": server.key}
            document = json.dumps({"url": server.url, **shown, "models": models}, ensure_ascii=False)
            print(document, file=sys.__stdout__, flush=True)  # it goes on from here, and this is its one document
        else:
            print(f"Address  {server.url}\nKey      {'as given' if given else server.key}", flush=True)
            print("Models   " + "\n         ".join(models), flush=True)
            print("Press Ctrl-C to stop.", file=sys.stderr)
        with contextlib.suppress(KeyboardInterrupt):
            server.run()
    finally:
        client.close()
    return 0, None
