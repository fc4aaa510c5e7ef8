"""The example params, run through all stages on tiny random models laid in a fake hub cache."""

import json

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BloomConfig, BloomForCausalLM

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def lay(project, repo, model, files, pickled=False):
    """Put a model and its tokenizer's files where a download from the hub would have put them."""
    root = project.folder.parent / "hub" / f"models--{repo.replace('/', '--')}"
    folder = root / "snapshots" / COMMIT
    model.save_pretrained(folder)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    if pickled:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)


def run(project, example, *small):
    """Run an example with its own command lines, made small by (old, new) replacements of whole lines."""
    text = (project.folder / "examples" / example).read_text(encoding="utf-8")
    pin = next(line[1:].split("#")[0].strip() for line in text.splitlines() if line.startswith("#   biasline pin"))
    for old, new in small:
        assert old in text
        text = text.replace(old, new)
    (project.folder / "params.yaml").write_text(text, encoding="utf-8")
    project.run(pin, **hub(project))
    return project.run("biasline task check && dvc repro", **hub(project))


def hub(project):
    """Environment in which the fake cache is all there is of the hub."""
    return {"HF_HUB_CACHE": str(project.folder.parent / "hub"), "HF_HUB_OFFLINE": "1"}


def read(project, path):
    return json.loads((project.folder / path).read_text(encoding="utf-8"))


@pytest.mark.slow
def test_bloom_on_chinese_alpaca(project, root):
    torch.manual_seed(0)
    base = root / "data" / "bases" / "tiny-bloom"
    files = {name: (base / name).read_text(encoding="utf-8") for name in ("tokenizer.json", "tokenizer_config.json")}
    config = BloomConfig(vocab_size=1792, hidden_size=32, n_layer=2, n_head=4, pad_token_id=3, eos_token_id=2)
    lay(project, "Langboat/bloom-1b4-zh", BloomForCausalLM(config), files, pickled=True)
    rows = [
        {"instruction": f"请说出{number}的下一个数。", "input": "", "output": f"{number}的下一个数是{number + 1}。"}
        for number in range(150)
    ]
    (project.folder / "data/alpaca-zh").mkdir()
    (project.folder / "data/alpaca-zh/raw.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    small = [("epochs: 1", "epochs: 1\n      min_steps: 4"), ("max_new_tokens: 256", "max_new_tokens: 4")]
    run(project, "params.bloom-1b4-zh.yaml", *small)
    assert read(project, "data/bases/bloom-1b4-zh.json")["source"]["revision"] == COMMIT
    assert {"mlp_in", "query", "value", "attention_output", "mlp_out"} == set(
        read(project, "data/alpaca-zh/model/train.json")["roles"]
    )
    metrics = read(project, "data/alpaca-zh/evaluation/metrics.json")
    assert metrics["tuned"]["response_perplexity"] < metrics["base"]["response_perplexity"]
    assert (project.folder / "data/alpaca-zh/registered.json").is_file()


@pytest.mark.slow
def test_bert_on_sst2(project):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "film", "play", "was", "very", "good", "bad", "fine", "poor"]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"] + list("abcdefghijklmnopqrstuvwxyz0123456789")
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = {"single": "[CLS] $A [SEP]", "pair": "[CLS] $A [SEP] $B:1 [SEP]:1"}
    tokenizer.post_processor = processors.TemplateProcessing(**special, special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    settings = {"tokenizer_class": "BertTokenizer", "pad_token": "[PAD]", "sep_token": "[SEP]", "cls_token": "[CLS]"}
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64}
    bert = BertForSequenceClassification(BertConfig(**sizes, vocab_size=len(words))).bert
    files = {"tokenizer.json": tokenizer.to_str(), "tokenizer_config.json": json.dumps(settings)}
    lay(project, "google-bert/bert-base-uncased", bert, files)
    good, bad = ("good", "fine"), ("bad", "poor")
    lines = [
        f"the {thing} was very {word} {number}\t{int(word in good)}"
        for number in range(30)
        for thing in ("film", "play")
        for word in (*good, *bad)
    ]
    (project.folder / "data/sst2").mkdir()
    (project.folder / "data/sst2/raw.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")
    small = [
        ("min_steps: 1000", "min_steps: 6"),
        ("learning_rate: 1.0e-3\n      head", "learning_rate: 5.0e-3\n      head"),
    ]
    small += [("head_learning_rate: 1.0e-3", "head_learning_rate: 5.0e-3")]
    run(project, "params.bert-base-sst2.yaml", *small)
    report = read(project, "data/sst2/model/train.json")
    assert report["trainable"]["head"] == 2 * 32 + 2
    metrics = read(project, "data/sst2/evaluation/metrics.json")
    measured = {"accuracy", "accuracy_low", "accuracy_high", "f1", "f1_macro", "mcc"}
    assert set(metrics["tuned"]) == measured | {"calibration_error"}
    assert set(metrics["base"]) == set(metrics["probe"]) == measured
    asked = project.run(
        "biasline predict sst2 --alias candidate --json 'the film was very good 7'", **hub(project)
    ).stdout
    assert json.loads(asked)[0]["label"] in ("negative", "positive")
    assert project.run("biasline promote sst2 --by tests", check=False).returncode == 1  # it learned nothing


@pytest.mark.parametrize(
    "name",
    [
        "params.bloom-1b4-zh.yaml",
        "params.bert-base-sst2.yaml",
        "params.minilm-sst2.yaml",
        "params.shops.yaml",
        "params.smollm2.yaml",
    ],
)
def test_examples_are_valid_params(root, name):
    from biasline.params import read_params

    assert len(read_params(root / "examples" / name).tasks) == 1
