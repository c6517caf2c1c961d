"""The schema and the documentation say what the code says, and a configuration is checked in one line."""

from pathlib import Path

import pytest
import yaml

from sigad.errors import ConfigurationError
from sigad.study import reference
from sigad.study.configuration import overridden, validate

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "config" / "schemas"


@pytest.mark.parametrize("name", reference.FILES)
def test_what_is_generated_is_up_to_date(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    new = reference.replaced(text, reference.FILES[name]())
    assert new == text, "run python -m sigad.study.reference"


@pytest.fixture
def config():
    files = ("config.yaml", "datasets.yaml")
    return {k: v for name in files for k, v in yaml.safe_load((ROOT / "config" / name).read_text()).items()}


def test_the_configurations_that_ship_are_valid(config):
    validate(config, SCHEMAS)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["repetitons"], 5, "there is no key 'repetitons'; did you mean 'repetitions'?"),
        (["alpha"], "0.05", "alpha must be a number, not the text '0.05'"),
        (["alpha"], 1, "alpha must be less than 1, not 1"),
        (["repetitions"], 0, "repetitions must be at least 1, not 0"),
        (
            ["experiments", "fig04_type1_tabular", "mesure"],
            "power",
            "experiment 'fig04_type1_tabular': there is no key",
        ),
        (["experiments", "fig04_type1_tabul"], {"repetitions": 5}, "missing; did you mean 'fig04_type1_tabular'?"),
        (
            ["experiments", "uniformity", "measure"],
            "pwer",
            "measure must be one of type1, power, not 'pwer'; did you mean",
        ),
        (["experiments", "uniformity", "kind"], "knn_synth", "not 'knn_synth'; did you mean 'knn_synthetic'?"),
        (["experiments", "uniformity", "settings"], {"quantil": 0.9}, "no key 'quantil'; did you mean 'quantile'?"),
        (["experiments", "uniformity", "settings"], {"quantile": "0.9"}, "quantile must be a number, not the text"),
        (
            ["experiments", "uniformity", "settings"],
            {"d": -1},
            "experiment 'uniformity': settings: d must be at least 1",
        ),
        (["experiments", "uniformity", "settings"], {"clusters": 0}, "clusters must be at least 1, not 0"),
        (["experiments", "uniformity", "settings"], {"k": "a-b"}, "k must be"),
        (["experiments", "uniformity", "grid"], {"n": [5, 0]}, "grid: n: 1 must be at least 1, not 0"),
        (
            ["experiments", "uniformity", "plot", "type"],
            "rate",
            "must be one of rates, uniformity, cost, not 'rate'; did",
        ),
        (["tabular", "cancer", "lable"], "target", "tabular: cancer: there is no key 'lable'; did you mean 'label'?"),
        (["tabular", "cancer", "source"], "packge", "not 'packge'; did you mean 'package'?"),
    ],
)
def test_a_mistake_is_one_line(config, path, value, message):
    at = config
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises(ConfigurationError) as error:
        validate(config, SCHEMAS)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_values_of_the_command_line_that_experiments_override(config):
    (line,) = overridden(["repetitions", "seed"], config)
    assert "repetitions" in line and "fig10_robustness" in line and "fig02_type1_over_n" not in line
