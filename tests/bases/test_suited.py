"""What a task on a base says beside the defaults."""

import json

import pytest
from typer.testing import CliRunner

from biasline.bases.create import create_pin
from biasline.bases.pin import read_pin
from biasline.bases.suited import suited
from biasline.cli import app
from biasline.params import read_params
from tests.bases.ggufs import small_llama, write_gguf


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    file = write_gguf(tmp_path / "small.gguf", small_llama())
    path = tmp_path / "small.json"
    path.write_text(create_pin(str(file), path).dumps())
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "rows.json").write_text("[]")
    (tmp_path / "params.yaml").write_text("tasks:\n  old: {base: small.json, data: rows.json}\n")
    return tmp_path


def test_a_base_without_biases_has_them_added_and_answers_by_its_own_template(project):
    told = CliRunner().invoke(app, ["task", "add", "new", "--base", "small.json", "--data", "rows.json"])
    assert told.exit_code == 0 and "note: train.inject: attention+mlp: llama has no such biases" in told.stdout
    task = read_params(project / "params.yaml").tasks["new"]
    assert task.train.inject == "attention+mlp" and task.tokens.template == "chat"
    given = ["--base", "small.json", "--data", "rows.json", "--kind", "classification"]
    assert CliRunner().invoke(app, ["task", "add", "labels", *given]).exit_code == 0
    task = read_params(project / "params.yaml").tasks["labels"]
    assert task.train.inject == "attention+mlp" and task.tokens.template == "human-assistant"


@pytest.mark.parametrize("name", ["tiny-bloom", "minilm"])
def test_a_base_with_biases_takes_the_defaults(root, name):
    path = root / f"data/bases/{name}.json"
    assert suited(read_pin(path), path, writes=name == "tiny-bloom") == ({}, [])


def test_a_template_in_the_tokenizers_config_is_one_too(project):
    path = project / "small.json"
    pin = read_pin(path)
    pin = pin.model_copy(update={"files": {one: sha for one, sha in pin.files.items() if not one.endswith("jinja")}})
    assert "tokens" not in suited(pin, path, writes=True)[0]
    from biasline.bases.pin import locate

    config = locate(pin, path) / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": "x"}))
    assert suited(pin, path, writes=True)[0]["tokens"] == {"template": "chat"}
