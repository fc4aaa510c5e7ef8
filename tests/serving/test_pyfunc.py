"""What the packaged model refuses to load: another base, a flipped bit of the delta, a changed tokenizer, pin or task.

In each case the message names the file that differs.
"""

import hashlib
import json
import shutil
from contextlib import contextmanager

import mlflow
import pytest
import torch
from safetensors.torch import load_file, save_file

from biasline.bases.create import create_pin
from biasline.bases.pin import file_sha256
from biasline.errors import BiaslineError
from biasline.registry.aliases import CANDIDATE
from biasline.registry.ask import ask
from biasline.serving.package import Package
from biasline.serving.registered import aliased, package_files

BASE = "data/bases/tiny-bloom"


@pytest.fixture
def packaged(registered_small):
    """What the registered version holds, in its place in the store, see `package_files`."""
    client, _ = registered_small
    return package_files(aliased(client, "small", CANDIDATE))


def load():
    return mlflow.pyfunc.load_model("models:/biasline-small@candidate")


@contextmanager
def changed(path, content):
    """A file with other content (none: without the file) inside the block, and as it was after it."""
    was = path.read_bytes() if path.exists() else None
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if was is not None:
            path.write_bytes(was)


def flipped(content, bit):
    """The bytes with one bit the other way round."""
    found = bytearray(content)
    found[bit // 8] ^= 1 << bit % 8
    return bytes(found)


def another_base(folder):
    """A base in `folder` whose tensors have the demo base's names, shapes and dtypes, and other values."""
    if not folder.exists():
        shutil.copytree(BASE, folder)
    weights = folder / "model.safetensors"
    was = load_file(weights)
    generator = torch.Generator().manual_seed(1)
    tensors = {name: value + 0.01 * torch.randn(value.shape, generator=generator) for name, value in was.items()}
    save_file(tensors, weights, {"format": "pt"})
    return folder


def test_a_base_of_the_same_shapes_is_refused_though_its_own_pin_is_valid(packaged, workspace):
    load()
    folder = another_base(workspace / BASE)
    pin = create_pin(str(folder), folder.with_suffix(".json"))
    folder.with_suffix(".json").write_text(pin.dumps())
    with pytest.raises(BiaslineError, match=r"base tiny-bloom: data/bases/tiny-bloom/model\.safetensors has changed"):
        load()


def test_a_base_in_biasline_bases_is_held_against_the_pin_too(packaged, workspace, monkeypatch):
    folder = another_base(workspace / "elsewhere" / "tiny-bloom")
    (folder.with_suffix(".json")).write_text(create_pin(str(folder), folder.with_suffix(".json")).dumps())
    monkeypatch.setenv("BIASLINE_BASES", str(folder.parent))
    with pytest.raises(BiaslineError, match=r"elsewhere/tiny-bloom/model\.safetensors has changed since it was pinned"):
        load()
    shutil.rmtree(folder)
    shutil.copytree(BASE, folder)
    load()


def test_one_flipped_bit_anywhere_in_the_delta_is_refused(packaged):
    """In the header's length, in its JSON and padding, in the first, middle and last of the values."""
    path, content = packaged[0]["delta"], packaged[0]["delta"].read_bytes()
    header, bits = 8 + int.from_bytes(content[:8], "little"), 8 * len(content)
    inside = range(0, bits, bits // 150)
    edges = (0, 1, 63, 64, 8 * header // 2, 8 * header - 1, 8 * header, 8 * header + 30, bits // 2, bits - 1)
    for bit in (*inside, *edges):
        with changed(path, flipped(content, bit)), pytest.raises(BiaslineError) as told:
            Package.read(*packaged)
        expected, found = (hashlib.sha256(one).hexdigest()[:16] for one in (content, flipped(content, bit)))
        assert f"delta.safetensors: the packaged delta has sha256 {found}, packaged was {expected}" in str(told.value)
    for bit in edges:
        with (
            changed(path, flipped(content, bit)),
            pytest.raises(
                BiaslineError, match=r"delta\.safetensors: the packaged delta has sha256 \w{16}, packaged was"
            ),
        ):
            load()
    load()


def test_a_delta_that_is_cut_or_gone_is_refused(packaged):
    path, content = packaged[0]["delta"], packaged[0]["delta"].read_bytes()
    for other in (content[:-1], content + b"\0", b""):
        with changed(path, other), pytest.raises(BiaslineError, match=r"delta\.safetensors: the packaged delta has"):
            load()
    with changed(path, None), pytest.raises(BiaslineError, match=r"delta\.safetensors: the packaged delta is missing"):
        load()


def without_a_merge(tokenizer):
    tokenizer["model"]["merges"].pop()


def with_another_entry(tokenizer):
    vocabulary = tokenizer["model"]["vocab"]
    one, two = list(vocabulary)[-2:]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]


def with_another_special_token(tokenizer):
    tokenizer["added_tokens"][-1]["content"] += "!"


@pytest.mark.parametrize("change", [without_a_merge, with_another_entry, with_another_special_token])
def test_a_changed_tokenizer_is_refused(packaged, workspace, change):
    path = workspace / BASE / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    change(tokenizer)
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(BiaslineError, match=r"data/bases/tiny-bloom/tokenizer\.json has changed since it was pinned"):
        load()


def test_files_that_came_to_the_base_later_are_refused(packaged, workspace):
    """Each would be read: a template or tokens beside the pinned ones, or the weights of quite another base."""
    for name in ("chat_template.jinja", "special_tokens_map.json", "added_tokens.json", "adapter_config.json"):
        path = workspace / BASE / name
        with changed(path, b"{}"), pytest.raises(BiaslineError, match=f"{name} was not there when the base was pinned"):
            load()
    for name in ("tokenizer_config.json", "config.json"):
        path = workspace / BASE / name
        settings = json.loads(path.read_text()) | {"chat_template": "{{ messages }}"}
        with (
            changed(path, json.dumps(settings).encode()),
            pytest.raises(BiaslineError, match=f"{name} has changed since it was pinned"),
        ):
            load()
        with changed(path, None), pytest.raises(BiaslineError):
            load()
    load()


def test_a_changed_packaged_pin_or_task_is_refused(packaged, workspace):
    """Even a task that is valid: with another template the delta would be asked what it never learned."""
    files = packaged[0]
    task = json.loads(files["task"].read_text())
    task["tokens"]["template"] = "alpaca"
    folder = another_base(workspace / "other" / "tiny-bloom")
    pins = [create_pin(str(folder), folder.with_suffix(".json")).dumps(), files["pin"].read_text() + " "]
    for name, text in (("task", json.dumps(task)), ("task", ""), *(("pin", pin) for pin in pins)):
        told = rf"{files[name].name}: the packaged {name} has sha256 \w+, packaged was {file_sha256(files[name])[:16]}"
        with changed(files[name], text.encode()), pytest.raises(BiaslineError, match=told):
            load()
    load()


ENTRY_OF_BEFORE = """
from pathlib import Path

import mlflow
from mlflow.pyfunc import PythonModel


class BiaslineModel(PythonModel):
    _skip_type_hint_validation = True

    def load_context(self, context):
        from biasline.evaluation.serving import Package

        artifacts = {name: Path(path) for name, path in context.artifacts.items()}
        noted = context.model_config or {}
        self.predictor = Package.read(artifacts, Path(noted.get("pin_path", "")), *HASHES).predictor()

    def predict(self, context, model_input, params=None):
        return self.predictor(model_input.to_dict("records"), params)


mlflow.models.set_model(BiaslineModel())
"""


@pytest.mark.parametrize("hashes", ["[noted.get('sha256')]", "[]"])
def test_a_version_packaged_before_the_room_serving_still_loads(packaged, hashes):
    """Its entry point has another name and meets this code in a process that has it loaded, as `predict` is one.

    The oldest ones name no hashes of the files.
    """
    files, _, sha256 = packaged
    assert set(sha256) == set(files) == {"delta", "pin", "task"}
    rows = [{"instruction": "Count to three."}]
    wanted = load().predict(rows)
    folder = files["task"].parent.parent
    described = (folder / "MLmodel").read_text()
    (folder / "pyfunc.py").unlink()
    (folder / "model.py").write_text(ENTRY_OF_BEFORE.replace("HASHES", hashes))
    (folder / "MLmodel").write_text(described.replace("biasline/serving/pyfunc.py", "biasline/registry/model.py"))
    assert load().predict(rows) == wanted
    told = dict(ask({"small": rows}, CANDIDATE, shared=False, told=print))
    assert told == {"small": wanted} == dict(ask({"small": rows}, CANDIDATE, shared=True, told=print))
