"""The options of `chat.py`: `--help`, sensible defaults, environment twins."""

import os
from argparse import Namespace
from dataclasses import replace

from locust.argument_parser import LocustArgumentParser

from serve_app.capacity.chat import DIALECTS, Target
from serve_app.capacity.scenario import Scenario, descriptions
from serve_app.capacity.slo import Slo

_TARGET = {
    "model": ("smollm2:135m", "model to ask"),
    "dialect": ("openai", "API to speak"),
    "stream": ("true", "whether answers are streamed"),
    "api_key": ("", "key of the service, if it asks for one"),
    "timeout_s": (120.0, "seconds from a request's sending to its last byte"),
}
_CHOICES = {
    "dialect": list(DIALECTS),
    "stream": ["true", "false"],
    "load": ["open", "closed"],
}
_OURS = {
    "slo": (
        "ttft_p99=2s,itl_p99=200ms,error_rate=1%",
        "what goodput means: bounds of ttft, itl, tpot, e2e at percentiles, and error_rate",
    ),
    "records": ("", "folder for one record per request; default results/locust-TIME"),
}


def add_options(parser: LocustArgumentParser) -> None:
    """Locust's own stay as they are; `--host` is the address, with BASE_URL as its default."""
    for name, (default, text) in (_TARGET | descriptions() | _OURS).items():
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=type(default),
            default=default,
            env_var=name.upper(),
            help=text.replace("%", "%%"),
            choices=_CHOICES.get(name),
            is_secret=name == "api_key",
        )
    parser.set_defaults(host=os.environ.get("BASE_URL", Target().base_url))


def target_of(options: Namespace) -> Target:
    given = {name: getattr(options, name) for name in _TARGET}
    return replace(Target(**given), base_url=options.host, stream=options.stream == "true")


def scenario_of(options: Namespace) -> Scenario:
    """Raises WorkloadError."""
    return Scenario(**{name: getattr(options, name) for name in descriptions()})


def slo_of(options: Namespace) -> Slo:
    """Raises SloError."""
    return Slo.parse(options.slo)
