"""Runs a command with a card: `python -m tests.gpu_standin NAME CAPABILITY MIB -- command`."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.gpu_standin.build import environment
from tests.gpu_standin.machine import Card, Machine

name, capability, mib = sys.argv[1 : sys.argv.index("--")]
major, minor = map(int, capability.split("."))
with tempfile.TemporaryDirectory() as folder:
    machine = Machine(cards=(Card(name, (major, minor), int(mib)),))
    variables = environment(Path(folder) / "machine", machine)
    command = sys.argv[sys.argv.index("--") + 1 :]
    sys.exit(subprocess.call(command, env={**os.environ, **variables}))
