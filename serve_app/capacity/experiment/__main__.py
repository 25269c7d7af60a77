"""`experiment` and `compare` by themselves; both are commands of `python -m serve_app.capacity`."""

import click

from serve_app.capacity.experiment.command import compare, experiment

click.Group("experiment", {"experiment": experiment, "compare": compare})()
