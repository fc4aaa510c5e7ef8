"""What a version holds, read from its files."""

import json
import shutil

import pytest

from biasline.errors import BiaslineError
from biasline.params import Task
from biasline.serving.package import Package
from biasline.serving.packaging import packaged_modules, signature
from tests.serving.packages import PIN, ROWS


def test_a_delta_of_another_base_is_not_packaged(packages, workspace):
    one = packages["answers"]
    files = {name: workspace / name for name in ("delta", "task", "pin")}
    one.delta.save(files["delta"])
    files["task"].write_text(one.task.model_dump_json())
    files["pin"].write_text(one.pin.model_copy(update={"files": {"config.json": "0" * 64}}).dumps())
    with pytest.raises(BiaslineError, match="the delta was trained on the base tiny-bloom"):
        Package.read(files, one.pin_path)
    shutil.copy(workspace / PIN, files["pin"])
    assert Package.read(files, one.pin_path).predictor()(ROWS["answers"])


def test_a_package_has_the_code_of_answers_and_not_of_all_that_kinds_do():
    """Each change of what is packaged makes another package, whose models are registered and checked anew."""
    found = packaged_modules()
    assert {"serving.predictor", "kinds.answering.instruction", "tokens.template"} <= found.keys()
    rooms = {name.partition(".")[0] for name in found}
    assert not rooms & {"cli", "custom", "figures", "registry", "tracking"}
    other = {
        "data.rules",
        "data.sources",
        "tokens.sets",
        "training.loop",
        "evaluation.evaluate",
        "evaluation.references",
    }
    assert not other & found.keys()


@pytest.mark.parametrize(
    ("kind", "given", "answered"),
    [
        ("instruction", {"instruction": True, "input": False, "history": False}, {None: "string"}),
        ("classification", {"text": True, "text_pair": False}, {"label": "string", "probability": "double"}),
        ("regression", {"text": True, "text_pair": False}, {"score": "double"}),
    ],
)
def test_a_signature_names_what_a_kind_is_given_and_answers(kind, given, answered):
    found = signature(Task(kind=kind, base="b", data="d", evaluate={"max_new_tokens": 6})).to_dict()
    columns = json.loads(found["inputs"])
    assert columns == [{"type": "any", "name": name, "required": required} for name, required in given.items()]
    named = [{"name": name} if name else {} for name in answered]
    types = [{"type": of, "required": True} for of in answered.values()]
    assert json.loads(found["outputs"]) == [one | other for one, other in zip(types, named, strict=True)]
    settings = ["max_new_tokens", "temperature", "top_p", "seed"] if kind == "instruction" else []
    assert [one["name"] for one in json.loads(found["params"] or "[]")] == settings
