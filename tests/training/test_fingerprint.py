import pytest

from biasline.bases.pin import read_pin
from biasline.data.augment import augment
from biasline.data.validate import validate
from biasline.layout import TaskPlace
from biasline.params import Lora, read_params
from biasline.tokens.sets import tokenize
from biasline.training.fingerprint import fingerprint, folder_sha256, training_modules


@pytest.fixture
def made(workspace):
    task, place = read_params(workspace / "params.yaml").tasks["small"], TaskPlace("small")
    validate(task, place)
    augment(task, place)
    tokenize(task, place)
    return task, read_pin(workspace / task.base), place


def changed(task, group, **values):
    return task.model_copy(update={group: getattr(task, group).model_copy(update=values)})


def test_it_names_what_training_depends_on(made):
    task, pin, place = made
    name = fingerprint(task, pin, place)
    assert fingerprint(task, pin, place) == name
    assert len(name) == 16
    assert fingerprint(changed(task, "train", learning_rate=0.5), pin, place) != name
    assert fingerprint(changed(task, "load", dtype="bfloat16"), pin, place) != name
    assert fingerprint(task, pin.model_copy(update={"files": {"a": "b"}}), place) != name
    assert fingerprint(changed(task, "evaluate", max_new_tokens=9), pin, place) == name


def test_parameters_that_a_method_does_not_use_are_no_part_of_it(made):
    task, pin, place = made
    lora = changed(task, "train", method="lora")
    name = fingerprint(lora, pin, place)
    assert fingerprint(changed(lora, "train", biases="value", layers="0"), pin, place) == name
    assert fingerprint(changed(lora, "train", lora=Lora(rank=2)), pin, place) != name
    assert fingerprint(changed(task, "train", lora=Lora(rank=2)), pin, place) == fingerprint(task, pin, place)


def test_other_tokens_give_another_name(made):
    task, pin, place = made
    name = fingerprint(task, pin, place)
    tokenize(changed(task, "tokens", max_length=24), place)
    assert fingerprint(task, pin, place) != name


def test_a_folder_hash_sees_names_and_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    one = folder_sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    two = folder_sha256(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({one, two, folder_sha256(tmp_path)}) == 3


def test_the_code_that_decides_numbers_is_part_of_it_and_no_other():
    found = set(training_modules("bitfit", "instruction"))
    assert {"bases.load", "bitfit.tuning", "training.loop", "training.loss", "training.batches"} <= found
    assert not found & {"errors", "params", "progress", "bases.create", "tokens.sets", "training.runtime.checkpoint"}
    assert not [name for name in found if name.startswith(("bitfit.bank", "bitfit.rowwise"))]
    assert "training.methods.bitfit" in found and "training.methods.lora" not in found
    assert "training.methods.lora" in training_modules("lora", "instruction")
    assert "kinds.learning.instruction" in found and "kinds.learning.regression" not in found
    assert not any(name.startswith(("kinds.answering", "data", "metrics", "evaluation")) for name in found)
    assert all(name.split(".")[0] in ("", "bases", "bitfit", "kinds", "tokens", "training") for name in found)
