"""An executable in place of `ollama` that starts the simulator of the tests."""

import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def write_ollama(path: Path, *options: str) -> Path:
    """Write the executable at `path`. `options`: further options of the simulator."""
    path.write_text(
        "#!/bin/sh\n"
        f"cd {shlex.quote(str(ROOT))} && exec {sys.executable} -m tests.support.ollama_simulator "
        '--port "${OLLAMA_HOST##*:}" --slots "$OLLAMA_NUM_PARALLEL" '
        f"{shlex.join(options)}\n"
    )
    path.chmod(0o755)
    return path
