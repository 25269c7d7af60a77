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
        "Compare experiments in one report.",
    ),
    "k6": ("serve_app.capacity.commands.k6", "Run k6 and keep a record of every request."),
    "sweep": ("serve_app.capacity.commands.sweep", "Find the limits of one replica."),
    "plan": (
        "serve_app.capacity.commands.plan",
        "Compute the settings of a pool from measurements.",
    ),
    "simulate": (
        "serve_app.capacity.commands.simulate",
        "Simulate a load in virtual time; compare settings and policies.",
    ),
    "tune": (
        "serve_app.capacity.commands.tune",
        "Find the cheapest settings that meet the SLO.",
    ),
}


class Lazy(click.Group):
    """A group of commands that imports the module of a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        try:
            command: click.Command = getattr(import_module(_COMMANDS[name][0]), name)
        except ModuleNotFoundError as exc:
            raise click.ClickException(
                f"{exc.name} is not installed: run pip install '.[capacity,load]'"
            ) from exc
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


@click.group(
    cls=Lazy,
    epilog="COMMAND --help describes the options with their units. Exit codes: 0 for a positive "
    "result, 1 for a negative one (an SLO is missed, a plan is refused, …), 2 for a failure; "
    "`experiment` and `compare` also exit with 3 (the load generator's figures are invalid) and "
    "130 (interrupted).",
)
def capacity() -> None:
    """Measure the service, then size it from the measurements."""
