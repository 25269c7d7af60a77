"""Play a recording: `python -m tests.support.kubernetes RECORDING [SPEED]`."""

import sys
import tempfile
import threading
from pathlib import Path

from tests.support.kubernetes.recordings import CRD, Recording
from tests.support.kubernetes.replay import Replay
from tests.support.kubernetes.schema import Schema
from tests.support.kubernetes.server import ApiServer


def main(name: str, speed: str = "1") -> None:
    with tempfile.TemporaryDirectory() as folder, ApiServer(Path(folder), Schema(CRD)) as server:
        print(f"export KUBECONFIG={server.kubeconfig()}", flush=True)
        stop = threading.Event()
        try:
            Replay(Recording(name), server.cluster.store).run(float(speed), stop)
            print("the recording has ended; Ctrl-C ends the server", flush=True)
            stop.wait()
        except KeyboardInterrupt:
            stop.set()


if __name__ == "__main__":
    main(*sys.argv[1:])
