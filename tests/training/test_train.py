import json
import shutil

import pytest
import torch
from datasets import Dataset

from biasline.bases.load import load_causal_lm
from biasline.bases.pin import verified_folder
from biasline.bitfit import BiasDelta
from biasline.errors import BiaslineError
from biasline.layout import TaskPlace
from biasline.params import Load, read_params
from biasline.tokens.saved import read_token_set
from biasline.training.train import train
from tests.conftest import run_other, run_stages


def no_report(start):
    return lambda *_: None


def test_the_report_says_what_was_trained(trained):
    task, place = trained
    report = json.loads(place.train_report.read_text())
    assert report["trainable"]["head"] == 0
    assert report["trainable"]["total"] == report["trainable"]["biases"] == sum(report["roles"].values())
    assert report["trainable"]["share"] == report["trainable"]["total"] / report["base"]["parameters"] < 0.01
    assert report["steps"] == 4
    assert "key biases left out" in report["notes"][0]


def test_the_delta_is_small_names_its_origin_and_fits_the_base(trained, workspace):
    task, place = trained
    report = json.loads(place.train_report.read_text())
    assert place.delta.stat().st_size <= 4 * report["trainable"]["total"] + 16 * 1024
    delta = BiasDelta.load(place.delta)
    assert delta.manifest.about["fingerprint"] == report["fingerprint"]
    assert delta.manifest.base["digest"] == report["base"]["digest"]
    pin, folder = verified_folder(workspace / task.base)
    with delta.applied(load_causal_lm(pin, folder, Load())):
        pass


def test_the_history_has_a_row_per_logged_step(trained):
    lines = trained[1].history.read_text().splitlines()
    assert lines[0].startswith("step,epoch,tokens,targets,loss,valid_loss,learning_rate,grad_norm,grad_norm.")
    assert lines[1].startswith("4,")


def test_training_again_gives_the_same_bytes(trained):
    task, place = trained

    def outs():
        return [path.read_bytes() for path in (place.delta, place.train_report, place.history)]

    before = outs()
    train(task, place, no_report)
    assert outs() == before


def test_tokens_of_another_tokenizer_are_refused(trained):
    task, place = trained
    path = place.tokens / "summary.json"
    path.write_text(path.read_text().replace('"tokenizer_sha256": "', '"tokenizer_sha256": "0'))
    with pytest.raises(BiaslineError, match="made with the tokenizer of tiny-bloom"):
        train(task, place, no_report)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_token_that_the_base_has_no_embedding_for_is_refused(trained, split):
    """And is no index error in the middle of training."""
    from datasets import load_from_disk

    task, place = trained
    rows = load_from_disk(str(place.tokens / split)).to_list()
    rows[3]["input_ids"][2] = 1792
    Dataset.from_list(rows).save_to_disk(str(place.tokens / f"{split}-new"))
    shutil.rmtree(place.tokens / split)
    (place.tokens / f"{split}-new").rename(place.tokens / split)
    with pytest.raises(BiaslineError, match=f"the {split} split has a token with id 1792, base tiny-bloom has emb"):
        train(task, place, no_report)


def test_what_the_method_does_not_use_is_told(trained, capsys):
    task, place = trained
    changed = task.train.model_copy(update={"method": "lora", "layers": "0"})
    train(task.model_copy(update={"train": changed}), place, no_report)
    assert "note: train.layers counts for nothing here: method lora does not use it" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["instruction", pytest.param("classification", marks=pytest.mark.slow)])
def test_without_validation_rows(workspace, capsys, kind):
    if kind == "classification":
        task, place = run_other(workspace, kind)
        tokens = ["token_type_ids"] if "token_type_ids" in read_token_set(place, "train").column_names else []
    else:
        task, place, tokens = read_params(workspace / "params.yaml").tasks["small"], TaskPlace("small"), []
    task = task.model_copy(update={"split": task.split.model_copy(update={"valid": 0.0})})
    run_stages(task, place)
    empty = read_token_set(place, "valid")
    assert len(empty) == 0 and set(empty.column_names) == {"row", "input_ids", "labels", *tokens}
    assert "(validation loss not measured)" in train(task, place, no_report)


def test_processes_that_would_train_different_models_are_refused(trained, monkeypatch):
    """As where another machine's checkout has other tokens."""
    task, place = trained
    monkeypatch.setattr("biasline.training.train.of_all", lambda _, found: [*found, "0123456789abcdef"])
    with pytest.raises(BiaslineError, match=r"not train the same model in the same way: \w{16}, 0123456789abcdef → "):
        train(task, place, no_report)
    monkeypatch.setattr("biasline.training.train.of_all", lambda _, found: [*found, f"{found[0]} with run.shard"])
    with pytest.raises(BiaslineError, match=r"in the same way: (\w{16}), \1 with run.shard → "):
        train(task, place, no_report)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_where_memory_runs_out_it_says_what_to_do(trained, monkeypatch, error):
    def fit(*_, **__):
        raise error

    monkeypatch.setattr("biasline.training.train.fit", fit)
    with pytest.raises(BiaslineError, match="ran out of memory on cpu → lower train.micro_batch_tokens"):
        train(*trained, no_report)


def test_another_error_of_torch_is_not_taken_for_that(trained, monkeypatch):
    monkeypatch.setattr("biasline.training.train.fit", lambda *_, **__: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        train(*trained, no_report)
