"""One test from start to end, in each kind of process that Locust has.

the only process     Course, Ledger and Part
master               Course and Ledger: how many users, and what all of them wrote
worker               Part: its share of the arrivals or users
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
from locustfiles.ledger import Ledger, Report, Reporter
from locustfiles.options import slo_of, spec_of, target_of
from locustfiles.shapes import Course
from serve_app.capacity.clients.chat import Target
from serve_app.capacity.clients.client_request import Clock
from serve_app.capacity.results.request_records import Record, Run
from serve_app.capacity.results.show import table
from serve_app.capacity.workload.lengths import Lengths
from serve_app.capacity.workload.load import LoadSpec
from serve_app.capacity.workload.requests import Request

logger = logging.getLogger("chat")

_FLUSH_S = 1.0
_RECORDS, _SHARE, _FINISH = "chat records", "chat share", "chat finish"


@dataclass(slots=True)
class Part:
    """What one process does of a test: every `processes`-th arrival from its `index` on."""

    spec: LoadSpec
    target: Target
    lengths: Lengths
    clock: Clock
    reporter: Reporter
    entries: Entries
    index: int = 0
    processes: int = 1
    stopping: bool = False
    queue: Iterator[Request] | None = field(init=False)
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
    """Makes this process's part at each start; sends what it has once a second and at the end."""

    def __init__(self, environment: Environment, send: Callable[[Report], None]) -> None:
        self._environment = environment
        self._send = send
        self._share = (0, 1)
        self.part: Part | None = None
        environment.events.test_start.add_listener(self._start)
        environment.events.test_stop.add_listener(self._stop)
        gevent.spawn(self._flush_for_ever)

    def take_share(self, environment: Environment, msg: Any) -> None:
        self._share = (msg.data["index"], msg.data["processes"])

    def finish(self, **_: Any) -> None:
        """Nothing new begins from now on."""
        if self.part:
            self.part.stopping = True

    def _start(self, environment: Environment, **_: Any) -> None:
        options, clock = _options(environment), Clock()
        spec, target = spec_of(options), target_of(options)
        lengths = spec.lengths()  # of a trace it takes a while
        self.part = Part(
            spec,
            target,
            lengths,
            clock,
            Reporter(environment.runner.client_id, clock, self._send),
            Entries(environment, target.path, slo_of(options)),
            *self._share,
        )

    def _stop(self, **_: Any) -> None:
        self.finish()
        if self.part:
            self.part.reporter.flush()

    def _flush_for_ever(self) -> None:
        while True:
            gevent.sleep(_FLUSH_S)
            if self.part:
                self.part.reporter.flush()


class Head:
    """Says how many users there are to be, and writes down what all processes report."""

    def __init__(self, environment: Environment, finish: Callable[[], None]) -> None:
        self._environment = environment
        self._finish = finish
        self.course: Course | None = None
        self.ledger: Ledger | None = None
        environment.events.test_start.add_listener(self._share_out)
        environment.events.test_stopping.add_listener(self._drain)
        environment.events.test_stop.add_listener(self._stop)
        environment.events.quit.add_listener(self._show)

    def begin(self) -> None:
        """Raises ServiceError for options that make no sense."""
        options = _options(self._environment)
        spec, target = spec_of(options), target_of(options)
        slo_of(options)
        runner = self._environment.runner
        distributed = isinstance(runner, MasterRunner)
        self.ledger = Ledger(_folder(options), _run(spec, target, options))
        self.course = Course(
            spec,
            spec.seconds,
            spec.turns * (target.timeout_s + 10 * spec.think_s) + 10,
            runner.worker_count if distributed else 1,
            distributed,
            lambda: self.ledger.idle,
        )
        # A user that is to go finishes its request first
        self._environment.stop_timeout = self._environment.stop_timeout or target.timeout_s

    def take(self, report: Report) -> None:
        if self.ledger:
            self.ledger.take(report)

    def take_message(self, environment: Environment, msg: Any) -> None:
        self.take(msg.data)

    def _share_out(self, **_: Any) -> None:
        runner = self._environment.runner
        if isinstance(runner, MasterRunner):
            workers = [each.id for each in runner.clients.all]
            for index, worker in enumerate(workers):
                share = {"index": index, "processes": len(workers)}
                runner.send_message(_SHARE, share, worker)

    def _drain(self, **_: Any) -> None:
        """Whatever the reason to stop: no new requests, and the answers in progress to their end.

        Locust's master quits half a second after it has told its workers to.
        """
        self._finish()
        deadline = time.monotonic() + self._environment.stop_timeout
        while self.ledger and not self.ledger.idle and time.monotonic() < deadline:
            gevent.sleep(0.1)

    def _stop(self, **_: Any) -> None:
        self.course = None
        if self.ledger:
            run = self.ledger.close()
            logger.info("One record per request is in %s", self.ledger.folder)
            for reason in run.invalid:
                logger.error("This run is invalid: %s", reason)
                self._environment.process_exit_code = 3

    def _show(self, **_: Any) -> None:
        if self.ledger and self.ledger.closed:
            print(table(self.ledger.folder, slo_of(_options(self._environment))))


class Conductor:
    """Head and worker, as far as this process has them, and what they tell each other."""

    def __init__(self, environment: Environment) -> None:
        self.head: Head | None = None
        self.worker: Worker | None = None
        match environment.runner:
            case LocalRunner():
                self.worker = Worker(environment, lambda report: self.head.take(report))
                self.head = Head(environment, self.worker.finish)
            case MasterRunner() as runner:
                self.head = Head(environment, lambda: runner.send_message(_FINISH, {}))
                runner.register_message(_RECORDS, self.head.take_message)
            case WorkerRunner() as runner:
                send = partial(runner.send_message, _RECORDS)
                self.worker = Worker(environment, send)
                runner.register_message(_SHARE, self.worker.take_share)
                runner.register_message(_FINISH, self.worker.finish)


def _options(environment: Environment) -> Namespace:
    options = environment.parsed_options
    options.host = environment.host or options.host
    return options


def _folder(options: Namespace) -> Path:
    return Path(options.records or f"results/locust-{time.strftime('%Y%m%d-%H%M%S')}")


def _run(spec: LoadSpec, target: Target, options: Namespace) -> Run:
    command = shlex.join(sys.argv)
    return Run(
        tool="locust",
        base_url=target.base_url,
        began=Clock()(),
        ended=Clock()(),
        options={**spec.options(), "slo": options.slo},
        command=command.replace(target.api_key, "…") if target.api_key else command,
        version=locust_version,
        open_model=spec.is_open,
        timeout_s=target.timeout_s,
    )
