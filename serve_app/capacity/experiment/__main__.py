"""The experiment by itself; it is also a command of `python -m serve_app.capacity`."""

from serve_app.capacity.experiment.command import experiment

experiment()
