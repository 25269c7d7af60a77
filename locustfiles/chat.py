"""Streaming chat users for Locust: `locust -f locustfiles/chat.py`, with the web UI or --headless.

An open load has one `ArrivalsUser` in each process, which sends requests at their times, however
slow the answers are. A closed load has as many `ChatUser`s as its shape; they wait for answers.
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

# `locust` may be started in any folder
sys.path.append(str(Path(__file__).parents[1]))

from locustfiles.options import add_options, chat_parser
from locustfiles.roles import ProcessShare, Roles
from locustfiles.streaming import StreamingClient
from serve_app.capacity.workload.load import AHEAD_S, Visit, Visits
from serve_app.errors import ServiceError

_FOR_EVER = 10**9
_AT_ONCE = 100  # users a second; Locust warns above that

events.init_command_line_parser.add_listener(add_options)


@events.init.add_listener
def _prepare(environment: Environment, **_: Any) -> None:
    environment.roles = Roles(environment)
    options = environment.parsed_options
    if options and options.headless:
        # Without the UI, Locust ends a shape only by Ctrl-C
        signal.signal(signal.SIGTERM, signal.default_int_handler)


class _ChatUser(User):
    abstract = True
    concurrency = 1

    def on_start(self) -> None:
        self.share: ProcessShare = self.environment.roles.worker.share
        self.client = StreamingClient(
            self.share.target, self.share.clock, self.share.keep, self.concurrency
        )

    def on_stop(self) -> None:
        self.client.close()


class ChatUser(_ChatUser):
    """A user of a closed load: sends a prompt, reads the answer, pauses, sends the next one."""

    def on_start(self) -> None:
        super().on_start()
        share = self.share
        self.visits = Visits(share.spec, share.lengths, share.next_name(), share.queue)
        self.visit = self.visits.next()

    def wait_time(self) -> float:
        return self.visit.pause() if not self.share.stopping else _FOR_EVER

    @task
    def turn(self) -> None:
        """Send one prompt. Locust stops a user between its tasks, never within one."""
        prompt = self.visit.next_prompt()
        if prompt is None:
            self.visit = self.visits.next()
            prompt = self.visit.next_prompt()
        self.share.reporter.running += 1
        try:
            request = self.client.ask(prompt)
        finally:
            self.share.reporter.running -= 1
        if request.record().ok:
            self.visit.answered(request.answer)
        else:
            self.visit.failed()


class ArrivalsUser(_ChatUser):
    """Sends the arrivals of an open load, or the share of one process."""

    concurrency = 100_000
    wait_time = constant(_FOR_EVER)

    @task
    def arrive(self) -> None:
        visits = gevent.pool.Group()
        self.share.reporter.running += 1
        try:
            self._schedule(visits)
            visits.join()
        finally:
            visits.kill()
            self.share.reporter.running -= 1

    def _schedule(self, visits: gevent.pool.Group) -> None:
        share, start = self.share, self.share.clock()
        arrivals = islice(enumerate(share.spec.arrivals()), share.index, None, share.processes)
        for number, first in arrivals:
            self._sleep_until(start + first.at_s - AHEAD_S)
            if share.stopping:
                return
            visit = Visit(share.spec, first, share.lengths, str(number))
            visits.spawn(self._visit, visit, start + first.at_s)

    def _visit(self, visit: Visit, due: float) -> None:
        while prompt := visit.next_prompt():
            self._sleep_until(due)
            if self.share.stopping:
                return
            request = self.client.ask(prompt, due)
            if not request.record().ok:
                visit.failed()
                return
            visit.answered(request.answer)
            due = self.share.clock() + visit.pause()

    def _sleep_until(self, at: float) -> None:
        while (left := at - self.share.clock()) > 0 and not self.share.stopping:
            gevent.sleep(min(left, 1.0))


class Shape(LoadTestShape):
    """The shape of `--shape`."""

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        controller = self.runner.environment.roles.controller
        try:
            if controller.schedule is None:
                controller.begin()
        except ServiceError as exc:
            logging.error("Failed to start the test: %s", exc)
            self.runner.environment.process_exit_code = 2
            return None
        users = controller.schedule.users(self.get_run_time())
        kind = ArrivalsUser if controller.schedule.spec.is_open else ChatUser
        return None if users is None else (users, _AT_ONCE, [kind])


if __name__ == "__main__":
    chat_parser().parse_args(["--help"])
