"""Compares the time to read a GGUF file's metadata: `engines/llamacpp/gguf` and PyPI's gguf.

    pip install gguf && python -m tests.bench.gguf_readers

Each reading is a new process, import included, as at the start of a replica. Seconds: the
median of the rounds, in alternation.
"""

import subprocess
import sys
import time
from importlib.util import find_spec
from statistics import median

from serve_app.engines.llamacpp.gguf.card import find_smollm2

ROUNDS = 7
READERS = {
    "nothing (start of Python)": "import sys",
    "engines/llamacpp/gguf": (
        "import sys; from serve_app.engines.llamacpp.gguf.header import read_header; "
        "read_header(__import__('pathlib').Path(sys.argv[1]))"
    ),
    "gguf.GGUFReader": "import sys; from gguf import GGUFReader; GGUFReader(sys.argv[1])",
}


def main() -> None:
    readers = dict(READERS)
    if find_spec("gguf") is None:
        print("PyPI's gguf is not installed: pip install gguf", file=sys.stderr)
        del readers["gguf.GGUFReader"]
    path = str(find_smollm2())
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(ROUNDS):
        for name, code in readers.items():
            seconds[name].append(read(code, path))
    for name, values in seconds.items():
        print(f"{name:28} {median(values):6.3f} s")


def read(code: str, path: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, path], check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
