"""The options of `chat.py`, with defaults and environment variables.

Locust answers `--help` before it reads a locustfile. `--chat-help` and
`python locustfiles/chat.py --help` show the options of this one.
"""

import os
from argparse import Action, ArgumentDefaultsHelpFormatter, Namespace
from dataclasses import replace

from locust.argument_parser import LocustArgumentParser

from serve_app.capacity.clients.chat import DIALECTS, RequestTarget
from serve_app.capacity.results.slo import Slo
from serve_app.capacity.workload.load import LoadSpec, descriptions

_TARGET = {
    "model": ("smollm2:135m", "model of the requests"),
    "dialect": ("openai", "dialect of the API"),
    "stream": ("true", "whether answers are streamed"),
    "api_key": ("", "key of the service, if it needs one"),
    "timeout_s": (120.0, "seconds from a request's sending to its last byte"),
}
_CHOICES = {
    "dialect": list(DIALECTS),
    "stream": ["true", "false"],
    "load": ["open", "closed"],
}
_RESULTS = {
    "slo": (
        "ttft_p99=2s,itl_p99=200ms,error_rate=1%",
        "objectives, for goodput: bounds of ttft, itl, tpot, e2e at percentiles, and error_rate",
    ),
    "records": ("", "folder for one record per request; default: results/locust-TIME"),
}


def add_options(parser: LocustArgumentParser) -> None:
    """Add the options of `chat.py` to Locust's; BASE_URL is the default of `--host`."""
    _add(parser)
    parser.add_argument(
        "--chat-help",
        action=_ChatHelp,
        nargs=0,
        help="show the options of chat.py",
        include_in_web_ui=False,
    )
    parser.set_defaults(host=os.environ.get("BASE_URL", RequestTarget().base_url))


def chat_parser() -> LocustArgumentParser:
    """Make a parser of only the options of `chat.py`."""
    parser = LocustArgumentParser(
        prog="locust -f locustfiles/chat.py",
        description="Streaming chat users. `locust --help` shows Locust's own options.",
        formatter_class=ArgumentDefaultsHelpFormatter,
        default_config_files=[],
    )
    parser.add_argument(
        "--host",
        default=RequestTarget().base_url,
        env_var="BASE_URL",
        help="address of the service",
    )
    _add(parser)
    return parser


class _ChatHelp(Action):
    def __call__(self, parser: object, *_: object) -> None:
        chat_parser().parse_args(["--help"])


def _add(parser: LocustArgumentParser) -> None:
    for name, (default, text) in (_TARGET | descriptions() | _RESULTS).items():
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=type(default),
            default=default,
            env_var=name.upper(),
            help=text.replace("%", "%%"),
            choices=_CHOICES.get(name),
            is_secret=name == "api_key",
        )


def target_of(options: Namespace) -> RequestTarget:
    target = {name: getattr(options, name) for name in _TARGET}
    return replace(RequestTarget(**target), base_url=options.host, stream=options.stream == "true")


def spec_of(options: Namespace) -> LoadSpec:
    """Build the load. Raises WorkloadError."""
    return LoadSpec(**{name: getattr(options, name) for name in descriptions()})


def slo_of(options: Namespace) -> Slo:
    """Parse the SLO. Raises SloError."""
    return Slo.parse(options.slo)
