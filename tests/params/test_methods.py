"""What a method declares of itself, without torch."""

import ast
import subprocess
import sys

import pytest
from pydantic import Field

from biasline.layout import DELTA_FILE
from biasline.params import METHOD_SPECS, Train
from biasline.params.group import Group
from biasline.params.method_spec import LEARNING_RATES, MethodSpec, NoParameters
from biasline.params.task import method_groups


class Tokens(Group):
    count: int = Field(4, ge=1, description="virtual tokens")


def declared(**changes):
    fields = {
        "name": "prompt",
        "order": 5,
        "trains": "a prompt",
        "parameters": Tokens,
        "artifact": "prompt",
        "registrable": False,
        "freezes_base": True,
        "card_title": "A prompt before",
        "card_training": lambda chosen, roles: f"A prompt of {chosen.count} tokens ({roles})",
        "tuned_part": lambda chosen: f"{chosen.count} tokens",
        "run_params": lambda chosen: {"prompt_tokens": chosen.count},
    }
    return MethodSpec(**{**fields, **changes})


def test_what_parameters_know_of_methods_loads_no_torch():
    script = "import sys, biasline.params; assert not {'torch', 'peft', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_everything_that_is_said_of_a_method_must_be_declared():
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'card_training'"):
        MethodSpec(
            name="x", order=1, trains="x", parameters=NoParameters, artifact="x", registrable=False, freezes_base=True,
            card_title="x", tuned_part=str, run_params=dict,
        )  # fmt: skip


def test_only_a_delta_can_be_registrable():
    with pytest.raises(ValueError, match="method prompt: only a delta can be registered, and its artifact is prompt"):
        declared(registrable=True)
    assert declared(registrable=True, artifact=DELTA_FILE).makes_delta


@pytest.mark.parametrize("rates", [(), ("rate",)])
def test_a_method_uses_rates_that_there_are(rates):
    with pytest.raises(ValueError, match="method prompt: its learning rates must be some of learning_rate, head_learn"):
        declared(learning_rates=rates)


def test_a_methods_parameters_are_a_group_of_train():
    spec = declared()
    groups = method_groups([*METHOD_SPECS.values(), spec])
    assert list(groups.model_fields) == ["lora", "prefix", "prompt"]
    found = groups(prompt={"count": 2})
    assert spec.settings(found) == Tokens(count=2)
    assert spec.card_training(spec.settings(found), "prompt 8") == "A prompt of 2 tokens (prompt 8)"
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        groups(prompt={"count": 0})


def test_each_parameter_belongs_to_one_method_at_most():
    names = [name for spec in METHOD_SPECS.values() for name in spec.parameter_names]
    assert len(names) == len(set(names)) and set(names) <= set(Train.model_fields)


@pytest.mark.parametrize(
    ("method", "unused"),
    [
        ("bitfit", {"lora", "prefix"}),
        (
            "head",
            {
                "biases",
                "layers",
                "pattern",
                "inject",
                "target",
                "scale_learning_rate",
                "lora",
                "prefix",
                "learning_rate",
            },
        ),
        ("lora", {"biases", "layers", "pattern", "inject", "target", "scale_learning_rate", "prefix"}),
    ],
)
def test_what_a_method_does_not_use(method, unused):
    assert Train(method=method).unused == unused


def test_runs_are_compared_by_columns_that_no_two_methods_share():
    columns = [name for spec in METHOD_SPECS.values() for name in spec.run_params(spec.settings(Train()))]
    assert len(columns) == len(set(columns))


def test_every_method_is_declared_in_its_own_files_alone(root):
    """No other module compares with a method's name or lists several."""
    package = root / "src" / "biasline"
    own = (package / "params" / "methods", package / "training" / "methods")
    names = set(METHOD_SPECS)
    for path in package.rglob("*.py"):
        if any(path.is_relative_to(folder) for folder in own):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                sides = [ast.unparse(side) for side in (node.left, *node.comparators)]
                assert not (any("method" in side for side in sides) and names & _texts(node)), f"{path}:{node.lineno}"
            if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
                assert len(names & _texts(node)) < 2, f"{path}:{node.lineno}"


def _texts(node):
    return {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def test_learning_rates_are_parameters_of_training():
    assert set(LEARNING_RATES) <= set(Train.model_fields)
