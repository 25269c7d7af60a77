"""Streaming chat users for Locust: `locust -f locustfiles/chat.py`, with the web UI or --headless.

An open load is one `Arrivals` in each process, which sends requests at their times, however slow
the answers are. A closed load is as many `Chatter`s as the shape says, who wait for each answer.
"""

import logging
import signal
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import gevent
import gevent.pool
from locust import LoadTestShape, User, constant, events, task
from locust.env import Environment

# Wherever `locust` is started from
sys.path.append(str(Path(__file__).parents[1]))

from locustfiles.conductor import Conductor, Part
from locustfiles.options import add_options, chat_parser
from locustfiles.streaming import StreamingClient
from serve_app.capacity.workload.load import AHEAD_S, Visit, Visits
from serve_app.errors import ServiceError

_FOR_EVER = 10**9
_AT_ONCE = 100  # users a second; Locust warns above that

events.init_command_line_parser.add_listener(add_options)


@events.init.add_listener
def _prepare(environment: Environment, **_: Any) -> None:
    environment.conductor = Conductor(environment)
    options = environment.parsed_options
    if options and options.headless:
        # While a shape runs without the UI, Locust knows how to end by Ctrl-C alone
        signal.signal(signal.SIGTERM, signal.default_int_handler)


class _ChatUser(User):
    abstract = True
    concurrency = 1

    def on_start(self) -> None:
        self.part: Part = self.environment.conductor.worker.part
        self.client = StreamingClient(
            self.part.target, self.part.clock, self.part.keep, self.concurrency
        )

    def on_stop(self) -> None:
        self.client.close()


class Chatter(_ChatUser):
    """One of a closed load: asks, reads the answer, pauses, asks again."""

    def on_start(self) -> None:
        super().on_start()
        part = self.part
        self.visits = Visits(part.spec, part.lengths, part.next_name(), part.queue)
        self.visit = self.visits.next()

    def wait_time(self) -> float:
        return self.visit.pause() if not self.part.stopping else _FOR_EVER

    @task
    def turn(self) -> None:
        """Locust stops a user between its tasks, never within one."""
        prompt = self.visit.next_prompt()
        if prompt is None:
            self.visit = self.visits.next()
            prompt = self.visit.next_prompt()
        self.part.reporter.running += 1
        try:
            request = self.client.ask(prompt)
        finally:
            self.part.reporter.running -= 1
        if request.record().ok:
            self.visit.answered(request.answer)
        else:
            self.visit.failed()


class Arrivals(_ChatUser):
    """All arrivals of an open load, or one process's share of them."""

    concurrency = 100_000
    wait_time = constant(_FOR_EVER)

    @task
    def arrive(self) -> None:
        visits = gevent.pool.Group()
        self.part.reporter.running += 1
        try:
            self._schedule(visits)
            visits.join()
        finally:
            visits.kill()
            self.part.reporter.running -= 1

    def _schedule(self, visits: gevent.pool.Group) -> None:
        part, began = self.part, self.part.clock()
        ours = islice(enumerate(part.spec.arrivals()), part.index, None, part.processes)
        for number, first in ours:
            self._sleep_until(began + first.at_s - AHEAD_S)
            if part.stopping:
                return
            visit = Visit(part.spec, first, part.lengths, str(number))
            visits.spawn(self._visit, visit, began + first.at_s)

    def _visit(self, visit: Visit, due: float) -> None:
        while prompt := visit.next_prompt():
            self._sleep_until(due)
            if self.part.stopping:
                return None
            request = self.client.ask(prompt, due)
            if not request.record().ok:
                return visit.failed()
            visit.answered(request.answer)
            due = self.part.clock() + visit.pause()
        return None

    def _sleep_until(self, at: float) -> None:
        while (left := at - self.part.clock()) > 0 and not self.part.stopping:
            gevent.sleep(min(left, 1.0))


class Shape(LoadTestShape):
    """The shape that `--shape` asks for."""

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        head = self.runner.environment.conductor.head
        try:
            if head.course is None:
                head.begin()
        except ServiceError as exc:
            logging.error("This test can't start: %s", exc)
            self.runner.environment.process_exit_code = 2
            return None
        users = head.course.users(self.get_run_time())
        kind = Arrivals if head.course.spec.is_open else Chatter
        return None if users is None else (users, _AT_ONCE, [kind])


if __name__ == "__main__":
    chat_parser().parse_args(["--help"])
