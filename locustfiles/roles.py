"""The roles of Locust's processes in a test.

Controller   in the master: number of users over time, records of all processes
Worker       in a worker: its share of the arrivals or users

A single process has both roles.
"""

import logging
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import gevent
from locust import __version__ as locust_version
from locust.env import Environment
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from locustfiles.entries import Entries
from locustfiles.options import slo_of, spec_of, target_of
from locustfiles.records import RecordWriter, Report, Reporter
from locustfiles.shapes import UserSchedule
from serve_app.capacity.clients.chat import RequestTarget
from serve_app.capacity.clients.client_request import UnixClock
from serve_app.capacity.results.request_records import Record, Run
from serve_app.capacity.results.show import run_table
from serve_app.capacity.workload.lengths import Lengths
from serve_app.capacity.workload.load import LoadSpec
from serve_app.capacity.workload.requests import WorkloadRequest

logger = logging.getLogger("chat")

_FLUSH_S = 1.0
_RECORDS, _SHARE, _FINISH = "chat records", "chat share", "chat finish"


@dataclass(slots=True)
class ProcessShare:
    """The share of one process: every `processes`-th arrival from its `index` on."""

    spec: LoadSpec
    target: RequestTarget
    lengths: Lengths
    clock: UnixClock
    reporter: Reporter
    entries: Entries
    index: int = 0
    processes: int = 1
    stopping: bool = False
    queue: Iterator[WorkloadRequest] | None = field(init=False)
    names: "count[int]" = field(default_factory=count)

    def __post_init__(self) -> None:
        queue = self.spec.queue()
        self.queue = queue and islice(queue, self.index, None, self.processes)

    def keep(self, record: Record) -> None:
        self.reporter.note(record)
        self.entries.log(record)

    def next_name(self) -> str:
        return f"user-{self.index}-{next(self.names)}"


class Worker:
    """Creates the share at each start of a test. Sends reports every second and at the end."""

    def __init__(self, environment: Environment, send: Callable[[Report], None]) -> None:
        self._environment = environment
        self._send = send
        self._position = (0, 1)
        self.share: ProcessShare | None = None
        environment.events.test_start.add_listener(self._start)
        environment.events.test_stop.add_listener(self._stop)
        gevent.spawn(self._flush_for_ever)

    def take_position(self, environment: Environment, msg: Any) -> None:
        self._position = (msg.data["index"], msg.data["processes"])

    def finish(self, **_: Any) -> None:
        """Start no new requests from now on."""
        if self.share:
            self.share.stopping = True

    def _start(self, environment: Environment, **_: Any) -> None:
        options, clock = _options(environment), UnixClock()
        spec, target = spec_of(options), target_of(options)
        lengths = spec.lengths()  # reading a trace takes a while
        self.share = ProcessShare(
            spec,
            target,
            lengths,
            clock,
            Reporter(environment.runner.client_id, clock, self._send),
            Entries(environment, target.path, slo_of(options)),
            *self._position,
        )

    def _stop(self, **_: Any) -> None:
        self.finish()
        if self.share:
            self.share.reporter.flush()

    def _flush_for_ever(self) -> None:
        while True:
            gevent.sleep(_FLUSH_S)
            if self.share:
                self.share.reporter.flush()


class Controller:
    """Controls the number of users, and writes the records of all processes."""

    def __init__(self, environment: Environment, finish: Callable[[], None]) -> None:
        self._environment = environment
        self._finish = finish
        self.schedule: UserSchedule | None = None
        self.writer: RecordWriter | None = None
        environment.events.test_start.add_listener(self._send_positions)
        environment.events.test_stopping.add_listener(self._drain)
        environment.events.test_stop.add_listener(self._stop)
        environment.events.quit.add_listener(self._show)

    def begin(self) -> None:
        """Start the records of a test. Raises ServiceError for invalid options."""
        options = _options(self._environment)
        spec, target = spec_of(options), target_of(options)
        slo_of(options)
        runner = self._environment.runner
        distributed = isinstance(runner, MasterRunner)
        self.writer = RecordWriter(_folder(options), _run(spec, target, options))
        self.schedule = UserSchedule(
            spec,
            spec.seconds,
            spec.turns * (target.timeout_s + 10 * spec.think_s) + 10,
            runner.worker_count if distributed else 1,
            distributed,
            lambda: self.writer.idle,
        )
        # A stopped user finishes its request first
        self._environment.stop_timeout = self._environment.stop_timeout or target.timeout_s

    def take(self, report: Report) -> None:
        if self.writer:
            self.writer.take(report)

    def take_message(self, environment: Environment, msg: Any) -> None:
        self.take(msg.data)

    def _send_positions(self, **_: Any) -> None:
        runner = self._environment.runner
        if isinstance(runner, MasterRunner):
            workers = [client.id for client in runner.clients.all]
            for index, worker in enumerate(workers):
                share = {"index": index, "processes": len(workers)}
                runner.send_message(_SHARE, share, worker)

    def _drain(self, **_: Any) -> None:
        """Start no new requests, and wait for the end of those in progress.

        Locust's master exits half a second after it has stopped its workers.
        """
        self._finish()
        deadline = time.monotonic() + self._environment.stop_timeout
        while self.writer and not self.writer.idle and time.monotonic() < deadline:
            gevent.sleep(0.1)

    def _stop(self, **_: Any) -> None:
        self.schedule = None
        if self.writer:
            run = self.writer.close()
            logger.info("Wrote one record per request to %s", self.writer.folder)
            for reason in run.invalid:
                logger.error("Recorded an invalid run: %s", reason)
                self._environment.process_exit_code = 3

    def _show(self, **_: Any) -> None:
        if self.writer and self.writer.closed:
            print(run_table(self.writer.folder, slo_of(_options(self._environment))))


class Roles:
    """The roles of this process, and the messages between roles."""

    def __init__(self, environment: Environment) -> None:
        self.controller: Controller | None = None
        self.worker: Worker | None = None
        match environment.runner:
            case LocalRunner():
                self.worker = Worker(environment, lambda report: self.controller.take(report))
                self.controller = Controller(environment, self.worker.finish)
            case MasterRunner() as runner:
                self.controller = Controller(environment, lambda: runner.send_message(_FINISH, {}))
                runner.register_message(_RECORDS, self.controller.take_message)
            case WorkerRunner() as runner:
                send = partial(runner.send_message, _RECORDS)
                self.worker = Worker(environment, send)
                runner.register_message(_SHARE, self.worker.take_position)
                runner.register_message(_FINISH, self.worker.finish)


def _options(environment: Environment) -> Namespace:
    options = environment.parsed_options
    options.host = environment.host or options.host
    return options


def _folder(options: Namespace) -> Path:
    return Path(options.records or f"results/locust-{time.strftime('%Y%m%d-%H%M%S')}")


def _run(spec: LoadSpec, target: RequestTarget, options: Namespace) -> Run:
    command = shlex.join(sys.argv)
    return Run(
        tool="locust",
        base_url=target.base_url,
        began=UnixClock()(),
        ended=UnixClock()(),
        options={**spec.options(), "slo": options.slo},
        command=command.replace(target.api_key, "…") if target.api_key else command,
        version=locust_version,
        open_model=spec.is_open,
        timeout_s=target.timeout_s,
    )
