"""The engine without the pipeline: the code in docs/bitfit.md, run as it stands there."""

import re

import pytest
import torch
from datasets import Dataset

from biasline.bitfit import BiasDelta, tune_biases
from biasline.errors import BiaslineError
from tests.bitfit.zoo import ids

pytestmark = pytest.mark.e2e  # whole runs of other libraries' trainers


@pytest.fixture(scope="session")
def blocks(root):
    """Code blocks of the page, by what they begin with."""
    text = (root / "docs" / "bitfit.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def bert(tmp_path, monkeypatch):
    """Folder of a tiny BERT without a classification head, and the current folder to write to."""
    from transformers import BertConfig, BertModel

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 24}
    BertModel(BertConfig(vocab_size=40, **sizes)).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before, after):
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def test_ten_lines_with_plain_transformers(blocks, bert):
    batches = [{"input_ids": ids(), "labels": torch.tensor([0, 1, 1])} for _ in range(3)]
    names = {"BASE": str(bert), "batches": batches}
    exec(blocks[0], names)
    exec(blocks[1], names)
    assert names["answer"].shape == (3,)
    delta = names["delta"]
    assert {entry.role for entry in delta.manifest.tensors.values()} == {"query", "mlp_in", "head"}
    assert delta.manifest.head == ["classifier.weight", "classifier.bias"]
    trained, base = names["model"].eval(), names["base"]
    with torch.no_grad(), delta.applied(base):
        assert torch.equal(base(**batches[0]).logits, trained(**batches[0]).logits)
        expected = base(**batches[0]).logits.argmax(-1)
    exec(blocks[2].replace("[0, 1]", "[1, 0, 1]"), names)
    assert torch.equal(names["answers"][[0, 2]], expected[[0, 2]])
    assert torch.equal(names["answers"][1], base(**batches[0]).logits.argmax(-1)[1])


def rows(count, columns):
    return Dataset.from_list([columns(number) for number in range(count)])


def test_with_the_trainer_of_transformers(blocks, bert):
    """One role of a fused bias, and a head; the numerics are held in `test_tuning`, against a loop written by hand."""
    from transformers import BloomConfig, BloomForSequenceClassification

    torch.manual_seed(0)
    config = BloomConfig(vocab_size=40, hidden_size=16, n_layer=2, n_head=4, pad_token_id=0, num_labels=2)
    model = BloomForSequenceClassification(config)
    dataset = rows(32, lambda n: {"input_ids": ids(1)[0].tolist(), "labels": n % 2})
    before = state(model)
    block = blocks[3].replace('tune_biases(model, "all")', 'tune_biases(model, "value", head="train")')
    block = block.replace("report_to=", 'use_cpu=True, disable_tqdm=True, save_strategy="no", report_to=')
    assert block.count("use_cpu") == 1 and 'head="train"' in block
    names = {"model": model, "dataset": dataset, "tune_biases": tune_biases, "BiasDelta": BiasDelta}
    exec(block, names)
    after = state(model)
    fused = {f"transformer.h.{layer}.self_attention.query_key_value.bias" for layer in (0, 1)}
    assert changed(before, after) == {*fused, "score.weight"}
    for name in fused:
        heads = (after[name] != before[name]).view(4, 3, 4)
        assert heads[:, 2].any() and not heads[:, :2].any()
    fresh = BloomForSequenceClassification(config)
    fresh.load_state_dict(before)
    BiasDelta.load("delta.safetensors").apply(fresh)
    assert changed(state(fresh), after) == set()


@pytest.mark.slow
def test_with_the_sft_trainer_of_trl(blocks, bert, demo_tokenizer):
    pytest.importorskip("trl", reason="TRL is not installed (extra `dev`)")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=len(demo_tokenizer), intermediate_size=24, **sizes)
    model = LlamaForCausalLM(config)
    before = state(model)
    dataset = rows(16, lambda n: {"prompt": f"say {n}", "completion": f" {n}"})
    block = blocks[4].replace("report_to=", 'use_cpu=True, disable_tqdm=True, save_strategy="no", report_to=')
    names = {"model": model, "dataset": dataset, "tokenizer": demo_tokenizer, "tune_biases": tune_biases}
    exec(block, names | {"BiasDelta": BiasDelta})
    after = state(model)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    injected = set(after) - set(before)
    assert len(injected) == 2 * 7 and all(after[name].any() for name in injected)
    fresh = LlamaForCausalLM(config).eval()
    fresh.load_state_dict(before)
    with torch.no_grad(), BiasDelta.load("delta.safetensors").applied(fresh):
        assert torch.equal(fresh(ids()).logits, model.eval()(ids()).logits)


def test_a_loaded_head_stays_frozen_unless_asked(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 24}
    BertForSequenceClassification(BertConfig(vocab_size=40, **sizes)).save_pretrained(tmp_path)

    def load():
        return BertForSequenceClassification.from_pretrained(tmp_path)

    assert tune_biases(load()).head == ()
    assert tune_biases(load(), head="keep").head == ()
    tuning = tune_biases(load(), head="train")
    assert [entry.name for entry in tuning.head] == ["classifier.weight", "classifier.bias"]
    delta = BiasDelta.of(tuning)
    assert delta.manifest.tensors["classifier.weight"].base, "an existing head's own values are known"


def test_a_random_head_never_stays_frozen(bert):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(bert)
    with pytest.raises(BiaslineError, match=r"classifier\.weight is not in the base's files.*head='auto'"):
        tune_biases(model, head="keep")
    unknown = type(model)(model.config)
    with pytest.raises(BiaslineError, match=r"has a head \(classifier\.weight, …\).*head='train'"):
        tune_biases(unknown)
    assert tune_biases(unknown, head="train").head_count == 2 * 16 + 2


def test_whatever_the_files_lack_outside_the_body_is_trained(tmp_path):
    from transformers import BertForMaskedLM, BertModel, ModernBertForSequenceClassification, ModernBertModel

    from tests.bitfit.zoo import ZOO, build

    body = build("modernbert").model
    assert isinstance(body, ModernBertModel)
    body.save_pretrained(tmp_path / "modern")
    model = ModernBertForSequenceClassification.from_pretrained(tmp_path / "modern")
    tuning = tune_biases(model, "attention", inject="attention")
    assert {entry.name.split(".")[0] for entry in tuning.head} == {"head", "classifier"}

    BertModel(ZOO["bert"].make().config).save_pretrained(tmp_path / "bert")
    model = BertForMaskedLM.from_pretrained(tmp_path / "bert")
    trained = {entry.name for entry in tune_biases(model, "value").head}
    assert {"cls.predictions.transform.dense.weight", "cls.predictions.transform.LayerNorm.weight"} <= trained
    with pytest.raises(BiaslineError, match=r"cls\.predictions\..* is not in the base's files either"):
        tune_biases(BertForMaskedLM.from_pretrained(tmp_path / "bert"), "value", head=["cls.predictions.bias"])


@pytest.mark.slow
def test_the_trainer_resumes_where_it_was(tmp_path, monkeypatch):
    """Two times ten steps with a checkpoint between them end as twenty do."""
    from transformers import BloomConfig, BloomForSequenceClassification, Trainer, TrainingArguments

    monkeypatch.chdir(tmp_path)
    config = BloomConfig(vocab_size=40, hidden_size=16, n_layer=2, n_head=4, pad_token_id=0, num_labels=2)
    dataset = rows(32, lambda n: {"input_ids": ids(1)[0].tolist(), "labels": n % 2})
    ended = []
    for steps in ([12], [6, 12]):
        for last in steps:
            torch.manual_seed(0)
            model = BloomForSequenceClassification(config)
            tuning = tune_biases(model, "value", head="train")
            arguments = TrainingArguments(
                output_dir=f"runs{len(steps)}", max_steps=last, save_steps=6, use_cpu=True, disable_tqdm=True,
                report_to="none", lr_scheduler_type="constant",
            )  # fmt: skip
            trainer = Trainer(
                model=model,
                args=arguments,
                train_dataset=dataset,
                optimizers=(tuning.optimizer(lr=1e-2), None),
            )
            trainer.train(resume_from_checkpoint=last != steps[0])
        ended.append(BiasDelta.of(tuning).tensors)
    assert all(torch.allclose(ended[0][key], ended[1][key], rtol=1e-5, atol=1e-7) for key in ended[0])
