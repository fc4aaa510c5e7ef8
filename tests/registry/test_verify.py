"""What verify finds when ledger, aliases and files part."""

import hashlib
import json

import pytest
from typer.testing import CliRunner

from biasline.cli import app
from biasline.params import Task
from biasline.registry.aliases import CHAMPION
from biasline.registry.promote import promote
from biasline.registry.verify import verify
from biasline.serving.packaging import hashes_of, packaged_modules
from tests.conftest import LENIENT_GATES

LENIENT = Task(base="b", data="d", gates=LENIENT_GATES)


@pytest.fixture
def promoted(registered_small):
    client, _ = registered_small
    promote(client, "small", LENIENT, "ann", "")
    return client


def packaged(workspace, name):
    [path] = (workspace / "mlartifacts").rglob(f"artifacts/{name}")
    return path


def flip_last_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_sound_registry_is_told_as_such(promoted):
    right, wrong = verify(promoted, "small")
    assert [line.partition(":")[0] for line in right] == ["champion", "candidate"] and wrong == []
    done = CliRunner().invoke(app, ["verify"])
    assert done.exit_code == 0 and "small: champion: version 1" in done.output


def test_one_flipped_bit_is_found(promoted, workspace):
    flip_last_bit(packaged(workspace, "delta.safetensors"))
    _, wrong = verify(promoted, "small")
    assert len(wrong) == 2 and all("its delta has sha256" in line for line in wrong)
    done = CliRunner().invoke(app, ["verify", "small"])
    assert done.exit_code == 1 and "small: WRONG: champion: version 1" in done.output


@pytest.mark.slow
def test_a_swapped_base_is_found(promoted, workspace):
    flip_last_bit(workspace / "data/bases/tiny-bloom/model.safetensors")
    _, wrong = verify(promoted, "small")
    assert all("model.safetensors has changed since it was pinned" in line for line in wrong) and len(wrong) == 2


def test_a_package_that_is_gone_is_found(promoted, workspace):
    packaged(workspace, "delta.safetensors").unlink()
    _, wrong = verify(promoted, "small")
    assert len(wrong) == 2 and all("cannot be had" in line for line in wrong)


def test_aliases_that_the_ledger_does_not_know_and_the_other_way_round(promoted, trained):
    promoted.delete_registered_model_alias("biasline-small", CHAMPION)
    assert verify(promoted, "small")[1][0].startswith("champion: missing; the ledger says")
    promoted.set_registered_model_alias("biasline-small", CHAMPION, "1")
    trained[1].ledger.unlink()
    wrong = verify(promoted, "small")[1]
    assert "another checkout moved the champion (promoted" in wrong[0] and "`git pull`" in wrong[0]
    assert "of which the ledger knows nothing" in wrong[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["predictor.py", "pyfunc.py"])
def test_code_that_was_changed_in_the_package_is_found(promoted, workspace, name):
    for path in (workspace / "mlartifacts").rglob(name):
        path.write_text(path.read_text() + "# harmless\n")
    assert verify(promoted, "small")[1] == [], "what code says of itself changes no answer"
    for path in (workspace / "mlartifacts").rglob(name):
        path.write_text(path.read_text() + "open\n")
    _, wrong = verify(promoted, "small")
    assert len(wrong) == 2 and all("the code beside them is not what was registered" in line for line in wrong)


@pytest.mark.slow
def test_code_that_is_broken_or_added_is_found(promoted, workspace):
    [path] = (workspace / "mlartifacts").rglob("predictor.py")
    before = path.read_text()
    for text in ("def broken(:\n", "# coding: rot13\n" + before):
        path.write_text(text)
        assert "the code beside them is not what was registered" in verify(promoted, "small")[1][0]
    path.write_text(before)
    assert verify(promoted, "small")[1] == []
    (path.parent / "more.py").write_text("")
    assert "the code beside them is not what was registered" in verify(promoted, "small")[1][0]


def test_a_package_has_the_code_that_it_runs_and_no_other(promoted, workspace):
    code = packaged(workspace, "delta.safetensors").parents[1] / "code" / "biasline"
    found = {path.relative_to(code).as_posix() for path in code.rglob("*") if path.is_file()}
    assert {"serving/predictor.py", "bitfit/delta.py", "tokens/mask.py", "params/task.py"} <= found
    assert len(found) == len(packaged_modules()) - 1, "the entry point lies beside"
    assert not {path.split("/")[0] for path in found} & {"tracking", "registry", "cli", "demo"}
    assert not found & {"training/loop.py", "data/sources.py", "bases/create.py"}


def test_nothing_decided_is_nothing_wrong(store):
    done = CliRunner().invoke(app, ["verify"])
    assert done.exit_code == 0 and "nothing registered or decided yet" in done.output


def test_the_hash_of_a_version_packaged_before_is_what_it_was(promoted, workspace):
    """It counts the entry point under the name that it had: `verify` must not call an older package changed."""
    folder = packaged(workspace, "delta.safetensors").parents[1]
    (folder / "pyfunc.py").rename(folder / "model.py")
    described = folder / "MLmodel"
    described.write_text(described.read_text().replace("biasline/serving/pyfunc.py", "biasline/registry/model.py"))
    names = {"delta": "delta.safetensors", "pin": "pin.json"}
    files = {key: folder / "artifacts" / name for key, name in names.items()} | {"model.py": folder / "model.py"}
    files |= {path.relative_to(folder).as_posix(): path for path in (folder / "code").rglob("*.py")}
    task = json.loads((folder / "artifacts/task.json").read_text())
    parts = {
        "task": {name: task[name] for name in ("kind", "load", "tokens", "evaluate")},
        "files": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()},
        "metrics": "of its evaluation",
    }
    noted = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    assert noted in hashes_of(folder, "of its evaluation")
    (folder / "model.py").write_text("# another\n")
    assert noted not in hashes_of(folder, "of its evaluation")


def test_parameters_that_came_later_change_no_package():
    """A package is known by a hash over its task.json: one of before lacks what has a default since."""
    from biasline.serving.packaging import _sha256_of

    before = json.loads(Task(base="b", data="d").model_dump_json())
    for name in ("shorten", "date"):
        del before["tokens"][name]
    said = {name: before[name] for name in ("kind", "load", "tokens", "evaluate")}
    parts = {"task": said, "files": {}, "metrics": ""}
    noted = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    assert _sha256_of(Task.model_validate(before), {}, "") == noted
