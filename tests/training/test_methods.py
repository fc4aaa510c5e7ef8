"""Methods through one door: each trains what it says, stores it, and gives the same answers when it is loaded anew."""

import hashlib
import json

import polars as pl
import pytest
import torch

from biasline.bases.load import load_causal_lm, load_classifier
from biasline.bases.pin import verified_folder
from biasline.errors import BiaslineError
from biasline.evaluation.evaluate import evaluate
from biasline.params import Load, Train
from biasline.tokens.sets import tokenize
from biasline.training.methods import Provenance, WholeTuning, apply_tuned, get_method, prepare_model
from biasline.training.rates import resolve_learning_rates, unusual_learning_rates
from biasline.training.train import train

pytestmark = pytest.mark.e2e  # processes, or whole runs of stages

LABELS = ["no", "yes"]


def no_report(start):
    return lambda *_: None


def with_method(task, method, **more):
    return task.model_copy(update={"train": task.train.model_copy(update={"method": method, **more})})


@pytest.fixture
def base(workspace):
    return verified_folder(workspace / "data/bases/tiny-bloom.json")


def classifier(base, seed=0):
    pin, folder = base
    return load_classifier(pin, folder, Load(), LABELS, seed)


def hashes(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "files"),
    [
        ("lora", {"adapter/adapter_config.json"}),
        ("prefix", {"adapter/adapter_config.json"}),
        ("full", {"weights.safetensors"}),
    ],
)
def test_each_method_goes_through_the_stages_and_twice_gives_the_same_bytes(trained, method, files):
    task, place = trained
    # A random prefix disturbs the base first, and has to make up for it.
    more = {"min_steps": 40} if method == "prefix" else {}
    asked = with_method(task, method, learning_rate=1e-3 if method != "prefix" else None, **more)
    seen = []
    for _ in range(2):
        train(asked, place, no_report)
        evaluate(asked, place)
        seen.append(hashes(place.model) | hashes(place.evaluation))
    assert seen[0] == seen[1]
    assert files <= set(hashes(place.model)) and "delta.safetensors" not in hashes(place.model)
    report, metrics = json.loads(place.train_report.read_text()), json.loads(place.metrics.read_text())
    assert report["method"] == method and report["trainable"]["biases"] == 0 and report["trainable"]["total"] > 0
    assert metrics["tuned"]["response_perplexity"] < metrics["base"]["response_perplexity"]
    card = place.card.read_text(encoding="utf-8")
    assert "only deltas are registered" in card and "load_model(" not in card
    told = "".join(path.read_text(errors="ignore") for path in place.model.rglob("*") if path.is_file())
    assert str(place.model.parents[2].resolve()) not in told  # nothing of this machine
    if method == "lora":  # sets come in another order in each process
        targets = json.loads((place.model / "adapter" / "adapter_config.json").read_text())["target_modules"]
        assert len(targets) == 16 and targets == sorted(targets)


@pytest.mark.slow
def test_each_method_has_a_fingerprint_of_its_own(trained):
    task, place = trained
    names = {
        train(with_method(task, method), place, no_report) and json.loads(place.train_report.read_text())["fingerprint"]
        for method in ("bitfit", "lora", "prefix", "full")
    }
    assert len(names) == 4


def test_a_head_alone_leaves_the_rest_as_it_is(base):
    model, head = classifier(base)
    before = {name: part.clone() for name, part in model.named_parameters()}
    prepared = prepare_model(model, head, Train(method="head"))
    assert prepared.trainable["biases"] == 0 and prepared.trainable["share"] == 0
    assert prepared.trainable["head"] == prepared.trainable["total"] == sum(before[name].numel() for name in head)
    with torch.no_grad():
        for master in prepared.tuning.masters:
            master.add_(1.0)
    prepared.tuning.write()
    for name, part in model.named_parameters():
        assert torch.equal(part, before[name] + 1 if name in head else before[name]), name


def test_a_head_alone_where_there_is_none_is_refused(base):
    pin, folder = base
    with pytest.raises(BiaslineError, match="no head to train alone"):
        prepare_model(load_causal_lm(pin, folder, Load()), [], Train(method="head"))


def test_lora_trains_adapters_on_the_layers_asked_for_and_a_new_head(base):
    model, head = classifier(base)
    prepared = prepare_model(model, head, Train(method="lora", lora={"layers": "mlp", "rank": 2}))
    trained = [name for name, part in prepared.model.named_parameters() if part.requires_grad]
    adapters = [name for name in trained if "lora_" in name]
    assert adapters and all(".mlp.dense_" in name for name in adapters)
    assert [name for name in trained if name not in adapters] == [
        "base_model.model.score.modules_to_save.default.weight"
    ]
    width = model.config.hidden_size
    assert prepared.trainable["adapter"] == len(adapters) // 4 * 2 * 2 * (width + 4 * width)
    assert prepared.trainable["share"] == prepared.trainable["adapter"] / prepared.total


def test_a_prefix_trains_keys_and_values_of_each_layer_and_a_new_head(base):
    model, head = classifier(base)
    prepared = prepare_model(model, head, Train(method="prefix", prefix={"tokens": 4}))
    config = model.config
    # 4 virtual tokens, each a key and a value of the model's width in every layer.
    assert prepared.trainable["adapter"] == 4 * 2 * config.n_layer * config.hidden_size
    assert prepared.trainable["head"] == len(LABELS) * config.hidden_size
    assert "a prefix of 4 virtual tokens" in prepared.what


def test_a_prefix_answers_alike_in_a_batch_and_alone(base):
    pin, folder = base
    model = prepare_model(load_causal_lm(pin, folder, Load()), [], Train(method="prefix")).model.eval()
    rows = [[5, 6, 7, 8, 9], [10, 11, 12]]
    width = max(map(len, rows))
    ids = torch.tensor([[3] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    asked = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    together = model.generate(input_ids=ids, attention_mask=mask, **asked)[:, width:]
    for row, found in zip(rows, together, strict=True):
        alone = model.generate(input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row)).long(), **asked)
        assert torch.equal(alone[0, len(row) :], found)


def test_a_prefix_beside_a_heads_frozen_weights_is_refused():
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 32}
    model = BertForSequenceClassification(BertConfig(**sizes, vocab_size=50))
    with pytest.raises(BiaslineError, match="PEFT trains the base's own head as well"):
        prepare_model(model, [], Train(method="prefix"))


def test_rows_and_a_prefix_beyond_the_base_s_positions_are_refused(trained):
    from biasline.bases.limits import Limits
    from biasline.training.train import _check_positions

    limits = Limits(vocabulary=100, positions=64, pad=None)
    summary = {"splits": {"train": {"longest": 50}, "test": {"longest": 40}}}
    task, _ = trained
    with pytest.raises(BiaslineError, match="rows of 50 tokens, a prefix of 16: the base has 64 positions"):
        _check_positions(with_method(task, "prefix"), limits, summary)
    _check_positions(with_method(task, "lora"), limits, summary)
    with pytest.raises(BiaslineError, match=r"rows of 65 tokens: the base has 64 positions → lower tokens\.max_length"):
        _check_positions(task, limits, {"splits": {"train": {"longest": 65}}})
    _check_positions(with_method(task, "prefix"), Limits(100, None, None), {"splits": {"train": {"longest": 9999}}})


def test_lora_on_a_head_is_refused(base):
    with pytest.raises(BiaslineError, match="head takes no adapter"):
        prepare_model(*classifier(base), Train(method="lora", lora={"layers": "mlp+head"}))


def test_lora_of_an_unknown_role_is_refused(base):
    with pytest.raises(BiaslineError, match="'queries' is no role"):
        prepare_model(*classifier(base), Train(method="lora", lora={"layers": "queries"}))


@pytest.mark.parametrize("method", ["bitfit", "head", "lora", "prefix", "full"])
def test_what_is_stored_gives_the_same_logits(base, trained, method):
    pin, _ = base
    place = trained[1]
    model, head = classifier(base)
    prepared = prepare_model(model, head, Train(method=method))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for master in prepared.tuning.masters:
            master.add_(torch.randn(master.shape, generator=generator) * 0.05)
    prepared.tuning.write()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = prepared.model.eval()(input_ids=ids).logits
    for path in place.model.iterdir():
        path.unlink()
    prepared.save(place.model / get_method(method).spec.artifact, Provenance(pin, LABELS, {}, {}))

    fresh, _ = classifier(base, seed=7)  # another random head, which what is stored must replace
    with torch.no_grad():
        assert not torch.equal(fresh(input_ids=ids).logits, expected)
        assert torch.equal(apply_tuned(method, fresh, place)(input_ids=ids).logits, expected)


@pytest.mark.slow
def test_stock_peft_loads_the_adapter(trained, base):
    from peft import PeftModel

    task, place = trained
    asked = with_method(task, "lora")
    train(asked, place, no_report)
    pin, folder = base
    ours = apply_tuned("lora", load_causal_lm(pin, folder, Load()), place)
    stock = PeftModel.from_pretrained(load_causal_lm(pin, folder, Load()), str(place.model / "adapter"))
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(ours(input_ids=ids).logits, stock.eval()(input_ids=ids).logits)


def test_masters_of_a_bf16_model_keep_small_steps():
    part = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    tuning = WholeTuning({"weights": [part]})
    (master,) = tuning.groups["tuned"]
    assert tuning.groups["head"] == [] and master.dtype == torch.float32
    for _ in range(100):
        (part.float() * 1.0).sum().backward()
        tuning.collect()
        assert part.grad is None and torch.equal(master.grad, torch.ones(4))
        with torch.no_grad():
            master.add_(1e-3 * master.grad)
        master.grad = None
        tuning.write()
    assert torch.equal(part, torch.tensor([1.1]).to(torch.bfloat16).expand(4))


def test_another_base_is_refused_whatever_the_method(trained):
    task, place = trained
    asked = with_method(task, "full")
    train(asked, place, no_report)
    report = json.loads(place.train_report.read_text())
    report["base"]["digest"] = "0" * 64
    place.train_report.write_text(json.dumps(report))
    with pytest.raises(BiaslineError, match="the model was trained on the base tiny-bloom"):
        evaluate(asked, place)


def test_a_missing_adapter_is_told(trained):
    task, place = trained
    with pytest.raises(BiaslineError, match=r"adapter: not there → dvc repro train@small"):
        evaluate(with_method(task, "lora"), place)


def test_methods_share_the_token_sets(trained):
    task, place = trained
    before = hashes(place.tokens)
    tokenize(with_method(task, "lora"), place)
    assert hashes(place.tokens) == before


@pytest.mark.parametrize(
    ("method", "rates"),
    [
        ("bitfit", (0.012, 0.0024)),
        ("head", (0.012, 0.012)),
        ("lora", (0.0024, 0.0024)),
        ("prefix", (0.024, 0.0024)),
        ("full", (0.00024, 0.0024)),
    ],
)
def test_a_rate_that_is_left_out_goes_by_method_and_width(base, method, rates):
    model, _ = classifier(base)
    assert model.config.hidden_size == 160
    chosen = resolve_learning_rates(Train(method=method), model)
    assert (chosen.learning_rate, chosen.head_learning_rate) == rates
    asked = resolve_learning_rates(Train(method=method, learning_rate=0.5), model)
    assert (asked.learning_rate, asked.head_learning_rate) == (rates[0] if method == "head" else 0.5, rates[1])
    model.config.hidden_size = 1600
    assert resolve_learning_rates(Train(method=method), model).learning_rate == pytest.approx(rates[0] / 10)


@pytest.mark.parametrize(
    ("method", "rates", "told"),
    [
        ("full", {"learning_rate": 1e-2}, "train.learning_rate is 0.01; full usually takes 0.00024"),
        ("head", {"head_learning_rate": 1e-3}, "train.head_learning_rate is 0.001; head usually takes 0.012"),
        ("lora", {"head_learning_rate": 1.0}, "train.head_learning_rate is 1; lora usually takes 0.0024"),
        ("head", {"learning_rate": 1.0}, ""),
        ("lora", {"learning_rate": 1e-2}, ""),
        ("full", {}, ""),
        ("bitfit", {"learning_rate": 1.0}, ""),
    ],
)
def test_a_rate_made_for_biases_is_told(base, method, rates, told):
    said = unusual_learning_rates(Train(method=method, **rates), classifier(base)[0])
    assert len(said) == bool(told) and all(line.startswith(told) for line in said)


def test_the_rate_that_was_taken_is_in_the_report(trained):
    task, place = trained
    train(with_method(task, "bitfit", learning_rate=None), place, no_report)
    report = json.loads(place.train_report.read_text())
    assert report["learning_rate"] == 0.012 and "head_learning_rate" not in report
    assert 0 < pl.read_csv(place.history)["learning_rate"][-1] <= 0.012
