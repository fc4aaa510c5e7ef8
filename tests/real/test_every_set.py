"""Every real data set through validation, augmentation (off) and tokenization, with params only."""

import json
import shutil

import pytest

from biasline.bases.create import create_pin
from biasline.data.augment import augment
from biasline.data.validate import validate
from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.tokens.saved import IGNORED, read_summary, read_token_set
from biasline.tokens.sets import tokenize

BERT = {"kind": "classification", "base": "data/bases/bert.json", "tokens": {"max_length": 128}}
GPT2 = {"base": "data/bases/gpt2.json", "tokens": {"max_length": 1024}}
# params, rows of the file or folder, rows of a given test file, labels
SETS = {
    "sst2": (BERT, 67_349 + 872, 872, ["0", "1"]),
    "glue/CoLA": (BERT | {"source": {"preset": "cola"}}, 8_551 + 1_043, 1_043, ["unacceptable", "acceptable"]),
    "glue/RTE": (BERT, 2_490 + 277, 277, ["entailment", "not_entailment"]),
    "chnsenticorp": (BERT | {"quality": {"language": "zh"}}, 9_600 + 1_200, 1_200, ["negative", "positive"]),
    "alpaca_zh/alpaca_zh.json": (GPT2 | {"quality": {"language": "zh"}}, 24_542, None, None),
    "alpaca_en/alpaca_data.json": (GPT2, 52_002, None, None),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Pins of models of no weights to speak of, with real tokenizers."""
    import transformers as hf

    from tests.conftest import SHARED

    if not SHARED.is_dir():
        pytest.skip("no ../shared with real data beside this checkout")
    folder = tmp_path_factory.mktemp("bases")
    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    models = {
        "bert": (hf.BertModel(hf.BertConfig(**tiny)), "bert-base-uncased"),
        "gpt2": (hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=1024)), "gpt2"),
    }
    for name, (model, tokenizer) in models.items():
        model.save_pretrained(folder / name)
        for file in (SHARED / "tokenizers" / tokenizer).iterdir():
            if file.name != "config.json":
                shutil.copyfile(file, folder / name / file.name)
        pin = folder / f"{name}.json"
        pin.write_text(create_pin(str(folder / name), pin).dumps())
    return folder


_LARGE = ("alpaca_en/alpaca_data.json", "alpaca_zh/alpaca_zh.json", "sst2", "chnsenticorp")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in _LARGE else []) for name in SETS]
)
def test_goes_through_with_params_only(name, bases, tmp_path, monkeypatch, shared):
    params, rows, given_test, labels = SETS[name]
    shutil.copytree(bases, tmp_path / "data/bases")
    monkeypatch.chdir(tmp_path)
    task, place = Task(**params, data=str(shared / "data" / name)), TaskPlace("real")
    validate(task, place)
    augment(task, place)
    tokenize(task, place)
    quality, summary = json.loads(place.quality.read_text()), read_summary(place)
    assert quality["rows"] == rows
    assert sum(quality["splits"].values()) + quality["quarantined"] == rows
    assert quality["quarantine_rate"] < 0.2
    if given_test is not None:
        assert 0.95 * given_test <= quality["splits"]["test"] <= given_test
        assert summary["labels"] == labels
    for split, count in quality["splits"].items():
        found = read_token_set(place, split)
        assert len(found) + len(summary["splits"][split]["rejected_rows"]) == count
        assert summary["splits"][split]["longest"] <= task.tokens.max_length
        for example in found.select(range(0, len(found), max(1, len(found) // 200))):
            if labels:
                assert example["input_ids"][0] == 101 and example["input_ids"][-1] == 102
                pair = "RTE" in name
                assert set(example["token_type_ids"]) == ({0, 1} if pair else {0})
                assert example["input_ids"].count(102) == 1 + pair
            else:
                supervised = [label for label in example["labels"] if label != IGNORED]
                assert supervised[-1] == 50256 and supervised == example["input_ids"][-len(supervised) :]
