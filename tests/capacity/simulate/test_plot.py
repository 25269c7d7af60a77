"""Pictures of simulations."""

from serve_app.capacity.simulate import plot
from serve_app.capacity.simulate.compare import Score
from serve_app.capacity.simulate.intervals import Interval


def score(family: str, hours: float) -> Score:
    attained, paid = Interval(0.99, 0.99, 0.99), Interval(hours, hours, hours)
    return Score(family, family, attained, paid, 1.0, 0.1, 1.0, 4)


def test_tuned_settings_are_a_star_and_nothing_covers_them() -> None:
    """Among lines of many points; the legend stands outside of the axes."""
    scores = [score("static", 1.0), score("static", 2.0), score("tuned", 1.5)]
    figure = plot.curve_figure(scores, "SLO")
    figure.draw_without_rendering()
    (axes,), (legend,) = figure.axes, figure.legends
    markers = {container.get_label(): container[0] for container in axes.containers}
    assert markers["tuned"].get_marker() == "*"
    assert markers["static"].get_linestyle() == "-"
    assert legend.get_window_extent().x0 >= axes.bbox.x1
