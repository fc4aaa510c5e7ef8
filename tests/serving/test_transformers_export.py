"""Merged folders: loaded by plain Transformers in a process that has never heard of this package."""

import json
import re
import subprocess
import sys

import polars as pl
import pytest
from typer.testing import CliRunner

from biasline.bitfit import BiasDelta
from biasline.cli import app
from biasline.errors import BiaslineError
from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.registry.export import export_version
from biasline.registry.sync import register
from biasline.serving import transformers_export as room
from biasline.tracking.record import record_of_workspace
from biasline.tracking.store import connect
from tests.conftest import run_other, run_stages


@pytest.fixture
def registered(registered_small):
    return registered_small[0]


def fresh(script, folder):
    """Standard output of a script in a process that finds no biasline; `folder` is where it runs."""
    hidden = "import sys\nsys.modules['biasline'] = None\n"
    command = [sys.executable, "-c", hidden + script]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def merge(client, task, which, out, **more):
    """Lines that tell what was written."""
    return export_version(client, task, which, out, to="hf", **more)


def shown_code(folder):
    """The Python that the folder's README shows."""
    return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S).group(1)


@pytest.mark.slow
def test_the_card_shows_code_that_gives_the_evaluations_answer(registered, workspace, trained):
    out = workspace / "out"
    [told, *notes] = merge(registered, "small", "candidate", out)
    assert int(re.search(r"the same outputs on (\d+) test rows", told).group(1)) > 10
    assert notes and all(note.startswith("note: not for ") for note in notes)  # bloom is vLLM's alone
    assert {path.name for path in out.iterdir()} >= {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "README.md",
    }
    predictions = pl.read_parquet(trained[1].predictions)
    assert fresh(shown_code(out), out).strip() == predictions["tuned"][0]
    assert "Human: " in (out / "README.md").read_text() and "## Limits" in (out / "README.md").read_text()
    settings = json.loads((out / "generation_config.json").read_text())
    assert settings["max_new_tokens"] == 4 and settings["do_sample"] is False
    assert str(workspace) not in "".join(path.read_text(errors="replace") for path in out.iterdir())


ANSWERS = """
import json
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("out")
model = AutoModelForCausalLM.from_pretrained("out")
for row in json.load(open("asked.json")):
    content = f"{row['instruction']}\\n{row['input']}".rstrip()
    messages = [{"role": "user", "content": content}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
    answer = model.generate(**inputs)[0, inputs["input_ids"].shape[1]:]
    print(json.dumps(tokenizer.decode(answer, skip_special_tokens=True).strip()))
"""


@pytest.mark.slow
def test_every_test_row_is_answered_as_evaluated(registered, workspace, trained):
    merge(registered, "small", "candidate", workspace / "out")
    predictions = pl.read_parquet(trained[1].predictions)
    (workspace / "asked.json").write_text(json.dumps(predictions.select("instruction", "input").to_dicts()))
    answers = [json.loads(line) for line in fresh(ANSWERS, workspace).splitlines()]
    assert answers == predictions["tuned"].to_list()


DIALOGUES = [
    {
        "messages": [
            {"role": "user", "content": f"Say {number}."},
            {"role": "assistant", "content": str(number)},
            {"role": "user", "content": f"And {number + 1}?"},
            {"role": "assistant", "content": str(number + 1)},
        ]
    }
    for number in range(40)
]


@pytest.mark.slow
@pytest.mark.parametrize("template", ["alpaca", "human-assistant"])
def test_dialogues_are_worded_by_the_tasks_template(workspace, template):
    (workspace / "talk.json").write_text(json.dumps(DIALOGUES))
    task = Task(
        base="data/bases/tiny-bloom.json",
        data="talk.json",
        quality={"near_duplicate": 1.0, "off": ["leak"]},
        tokens={"template": template},
        train={"min_steps": 2, "epochs": 0.1, "batch_size": 4},
        evaluate={"max_new_tokens": 3},
    )
    place = TaskPlace("talk")
    run_stages(task, place)
    client = connect()
    register(client, record_of_workspace("talk"))
    assert not any("otherwise" in line for line in merge(client, "talk", "candidate", workspace / "out"))
    answer = pl.read_parquet(place.predictions)["tuned"][0]
    assert fresh(shown_code(workspace / "out"), workspace / "out").strip() == answer


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_labels_and_scores_come_out_of_the_shown_code(workspace, kind):
    _, place = run_other(workspace, kind)
    client = connect()
    register(client, record_of_workspace("other"))
    assert not any("otherwise" in line for line in merge(client, "other", "candidate", workspace / "out"))
    modes = {path.stat().st_mode & 0o777 for path in (workspace / "out").iterdir() if path.is_file()}
    assert len(modes) == 1  # whoever reads the config reads the weights
    said = fresh(shown_code(workspace / "out"), workspace / "out").strip()
    expected = pl.read_parquet(place.predictions)["tuned"][0]
    assert said == expected if kind == "classification" else float(said) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_scales_travel_with_the_biases_and_end_in_the_weights(workspace):
    """Trained, evaluated, packaged, asked, and merged into a folder that stock Transformers loads."""
    task, place = run_other(workspace, "classification", biases="attention+mlp+scale", scale_learning_rate=0.05)
    report = json.loads(place.train_report.read_text())
    assert report["trainable"]["scale"] == sum(
        count for role, count in report["roles"].items() if role.endswith("_scale")
    )
    assert any("no longer BitFit proper" in note for note in report["notes"])
    assert "query_scale" in pl.read_csv(place.bias_change)["role"].to_list()
    assert place.card.read_text(encoding="utf-8").startswith(
        "# biasline-other\n\nA delta of biases and scales on `tiny-bloom` for the task `other`: 5,120 of"
    )
    client = connect()
    register(client, record_of_workspace("other"))
    (workspace / "params.yaml").write_text(json.dumps({"tasks": {"other": task.model_dump(mode="json")}}))
    rows = pl.read_parquet(place.predictions)
    asked = CliRunner().invoke(app, ["predict", "other", rows["text"][0], "--alias", "candidate", "--json"])
    [told] = json.loads(asked.stdout)
    assert told["label"] == rows["tuned"][0]
    assert told["probability"] == pytest.approx(rows["probability"][0], abs=1e-5)
    merge(client, "other", "candidate", workspace / "out")
    assert fresh(shown_code(workspace / "out"), workspace / "out").strip() == rows["tuned"][0]


@pytest.mark.slow
def test_the_same_bytes_each_time(registered, workspace):
    for name in ("one", "two"):
        merge(registered, "small", "candidate", workspace / name)
    for path in (workspace / "one").rglob("*"):
        assert path.read_bytes() == (workspace / "two" / path.name).read_bytes(), path.name


def test_what_is_there_is_not_overwritten(registered, workspace):
    (workspace / "out").mkdir()
    (workspace / "out" / "mine.txt").write_text("keep")
    done = CliRunner().invoke(app, ["merge", "small@candidate", "out"])
    assert done.exit_code == 1 and isinstance(done.exception, BiaslineError)
    assert "out: not empty → name a folder that is not there yet" in str(done.exception)
    (workspace / "out" / "mine.txt").unlink()
    done = CliRunner().invoke(app, ["merge", "small@candidate", "out"])
    assert done.exit_code == 0 and "the same outputs on 15 test rows" in done.output
    done = CliRunner().invoke(app, ["export", "small@candidate", "out"])
    assert done.exit_code == 1 and "out: not empty" in str(done.exception)
    done = CliRunner().invoke(app, ["export", "small@candidate", "small.gguf", "--to", "gguf"])
    assert done.exit_code == 1 and "pinned as a Transformers model, not as a GGUF file" in str(done.exception)
    assert not (workspace / "small.gguf").exists()


@pytest.mark.parametrize("hashed", [True, False])
def test_another_model_after_reloading_is_refused(registered, workspace, monkeypatch, hashed):
    def lossy(model, predictor, package, folder, save=room._save):
        model.get_parameter("transformer.ln_f.bias").data[0] += 0.25
        save(model, predictor, package, folder)

    monkeypatch.setattr(room, "_save", lossy)
    if not hashed:
        monkeypatch.setattr(room, "_digests", lambda model: {})
    told = (
        r"tensor transformer\.ln_f\.bias: reloaded, the merged model has another"
        if hashed
        else r"gives other outputs: by [0-9.e-]+ on test row 1 \('.*'\) → serve it"
    )
    with pytest.raises(BiaslineError, match=told):
        merge(registered, "small", "candidate", workspace / "out")
    assert not (workspace / "out").exists()


def test_a_bias_that_no_stock_model_has_a_place_for_is_refused(registered, workspace, monkeypatch):
    def homeless(self, model):
        raise BiaslineError(
            "tensor norm.bias: stock LlamaForCausalLM has no place for this bias", "keep the delta form"
        )

    monkeypatch.setattr(BiasDelta, "merge", homeless)
    with pytest.raises(
        BiaslineError, match="no place for this bias → serve it as it is packaged: `mlflow models serve`"
    ):
        merge(registered, "small", "candidate", workspace / "out")
    assert not (workspace / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "classification", "pooling": "mean"}, "its head reads the mean over the tokens"),
        ({"remote": True}, "its base runs code of its own"),
    ],
)
def test_what_stock_transformers_would_compute_otherwise_is_refused(registered, workspace, monkeypatch, change, told):
    read = room.Package.read

    def other(*packaged):
        package = read(*packaged)
        package.delta.manifest.about["pooling"] = change.get("pooling", "")
        load = package.task.load.model_copy(update={"trust_remote_code": change.get("remote", False)})
        task = package.task.model_copy(update={"kind": change.get("kind", package.task.kind), "load": load})
        return room.Package(task, package.delta, package.pin, package.pin_path)

    monkeypatch.setattr(room.Package, "read", other)
    with pytest.raises(BiaslineError, match=f"{told}.* → serve it as it is packaged"):
        merge(registered, "small", "candidate", workspace / "out")
