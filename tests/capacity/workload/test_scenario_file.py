"""What an experiment is asked for."""

from pathlib import Path

import pytest

from serve_app.capacity.experiment.generators import TOOLS, GeneratorError, LoadOptions
from serve_app.capacity.workload.scenario import SCENARIO, Scenario, ScenarioError, scenario_names


@pytest.mark.parametrize("name", scenario_names())
def test_scenarios_of_the_project_can_run(name: str) -> None:
    """Settings of the service and options of the load are all known, the SLO can be read."""
    scenario = Scenario.read(name)
    LoadOptions(scenario.load, scenario.slo, "http://127.0.0.1:1").spec()
    assert scenario.title
    assert scenario.pool.autoscaling.max_replicas >= 1


def test_changes_are_by_dotted_name() -> None:
    """Of whatever is in the scenario, and of what is not yet."""
    changes = {"service.autoscaling.max_replicas": 3, "load.seed": 7, "settle_s": 1}
    scenario = Scenario.read("one-to-six", changes)
    assert scenario.pool.autoscaling.max_replicas == 3
    assert (scenario.load["seed"], scenario.settle_s) == (7, 1)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"service.autoscaling.max_replicas": 0}, "max_replicas"),
        ({"service.engin": {}}, "engin"),
        ({"slo": "fast"}, "not a bound"),
        ({"lod": {}}, "lod"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(change: dict[str, object], word: str) -> None:
    """Before anything is started."""
    with pytest.raises(ScenarioError, match=word):
        Scenario.read("one-to-six", change)


def test_a_number_can_stand_where_text_is_meant() -> None:
    """As YAML reads `answer_tokens: 20`."""
    load = LoadOptions({"answer_tokens": 20, "seed": 3}, "ttft_p99=1s", "http://127.0.0.1:1")
    assert (load.spec().answer_tokens, load.spec().seed) == ("20", 3)


def test_a_key_is_no_option() -> None:
    """Options are written into the report; the key comes from the environment."""
    with pytest.raises(GeneratorError, match="api_key"):
        LoadOptions({"api_key": "secret"}, "ttft_p99=1s", "http://127.0.0.1:1")


def test_an_unknown_option_of_the_load_is_refused() -> None:
    """A mistyped name must not be left out in silence."""
    with pytest.raises(GeneratorError, match="sead"):
        LoadOptions({"sead": 1}, "ttft_p99=1s", "http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("option", "value"),
    [("load", "closed"), ("burstiness", 1), ("turns", 2), ("trace", "azure.csv")],
)
def test_k6_refuses_what_it_would_do_otherwise(option: str, value: object) -> None:
    """By name: left out, it would be another load."""
    options = {"shape": "constant:level=1,hold=1s", option: value}
    with pytest.raises(GeneratorError, match=f"k6 does not support {option}:"):
        TOOLS["k6"].command(LoadOptions(options, "ttft_p99=1s", "http://127.0.0.1:1"), Path())


def test_k6_takes_what_it_does_anyway() -> None:
    """Even arrivals, in their own time, of single questions."""
    options = {"shape": "constant:level=1,hold=9s", "load": "open", "burstiness": 0, "turns": 1}
    command = TOOLS["k6"].command(LoadOptions(options, "ttft_p99=1s", "http://127.0.0.1:1"), Path())
    assert command.env["SHAPE"] == "points:0s=1,9s=1"


def test_an_unknown_scenario_lists_those_that_there_are() -> None:
    """By name."""
    with pytest.raises(ScenarioError, match="one-to-six"):
        Scenario.read("one-to-seven")


def test_inputs_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    """A folder tells how it was made."""
    scenario = Scenario.read("one-to-six")
    scenario.write(tmp_path)
    assert Scenario.read(str(tmp_path / SCENARIO)) == scenario
