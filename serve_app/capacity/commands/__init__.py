"""The command line. Commands are imported when they are called: help needs no Ray, no plots."""

from importlib import import_module

import click

# Name: module and summary.
_COMMANDS = {
    "experiment": (
        "serve_app.capacity.commands.experiment",
        "Drive a load, watch Ray Serve scale, and write a report.",
    ),
    "compare": (
        "serve_app.capacity.commands.experiment",
        "Put experiments side by side in one report.",
    ),
    "k6": ("serve_app.capacity.commands.k6", "Run k6 and keep a record of every request."),
    "sweep": ("serve_app.capacity.commands.sweep", "Find the limits of one replica."),
    "plan": ("serve_app.capacity.commands.plan", "From measurements to the settings of a pool."),
    "simulate": (
        "serve_app.capacity.commands.simulate",
        "Play a load in virtual time; compare settings and policies.",
    ),
    "tune": (
        "serve_app.capacity.commands.tune",
        "Search the cheapest settings that meet the SLO.",
    ),
}


class Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(_COMMANDS[name][0]), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


@click.group(
    cls=Lazy,
    epilog="Each command has --help with units. Exit codes: 0 yes, 1 no (an SLO is missed, a plan "
    "is refused, …), 2 the command could not do its work; of experiment and compare also 3 (the "
    "load generator's figures are invalid) and 130 (ended early).",
)
def capacity() -> None:
    """Measure the service, then size it from the measurements."""
