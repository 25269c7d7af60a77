"""Which of Ray's and Serve's lines reach the terminal of `make run`."""

import pytest

from serve_app.launcher.screen import Screen

REPLICA = "\x1b[36m(ServeReplica:default:pool pid=7)\x1b[0m "
RECORD = REPLICA + "{} 2026-11-29 21:50:38,855 default_pool ojxw8rvm -- {}\n"
CONTROLLER = "(ServeController pid=5) {} 2026-11-29 21:50:38,855 controller 5 -- {}\n"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (RECORD.format("INFO", "pulled x"), "21:50:38 pool: pulled x"),
        (RECORD.format("WARNING", "open"), "21:50:38 pool: warning: open"),
        (
            REPLICA + "INFO 2026-11-29 21:50:38,855 default_pool ojxw8rvm 1d5b -- POST / 200\n",
            "21:50:38 pool: POST / 200",
        ),
        (REPLICA + '{"levelname": "INFO"}\n', '{"levelname": "INFO"}'),
        (RECORD.format("INFO", "Calling user-provided callback from x"), None),
        (RECORD.format("INFO", "Started <ray.serve._private.router.X object at 0x7f>."), None),
        (REPLICA + "I1129 21:50:38.872919 28655 fork_posix.cc:71] Other threads\n", None),
        (CONTROLLER.format("INFO", "Deploying new app"), None),
        ("2026-11-29 21:50:28,306\tINFO worker.py:2029 -- Started a local Ray\n", None),
    ],
)
def test_only_a_replicas_own_words_are_shown(line: str, shown: str | None) -> None:
    assert Screen(verbose=False).show(line) == shown


def test_everything_is_shown_where_it_is_asked_for() -> None:
    line = CONTROLLER.format("INFO", "Deploying new app")
    assert Screen(verbose=True).show(line) == line.strip()


def test_a_traceback_belongs_to_its_error() -> None:
    """That of a request; a replica that does not start has its sentence before."""
    screen = Screen(verbose=False)
    frame = REPLICA + '  File "x.py", line 1\n'
    screen.show(RECORD.format("WARNING", "ollama: no executable"))
    assert screen.show(frame) is None
    screen.show(RECORD.format("ERROR", "failed"))
    assert screen.show(frame) == '  File "x.py", line 1'


def test_the_engine_is_known_when_its_replica_has_chosen() -> None:
    screen = Screen(verbose=False)
    screen.show(RECORD.format("INFO", "chosen: engine llamacpp: nothing else is here"))
    assert screen.engine_chosen.is_set()


@pytest.mark.parametrize(
    "failure",
    ["Failed to update the deployments ['pool'].", "Deploying app 'default' failed with exception"],
)
def test_a_failed_deployment_is_noticed(failure: str) -> None:
    screen = Screen(verbose=False)
    screen.show(RECORD.format("WARNING", "ollama: no executable"))
    screen.show(CONTROLLER.format("ERROR", failure))
    assert screen.has_failed
    assert screen.warning == "ollama: no executable"
