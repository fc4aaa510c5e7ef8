"""Where a new head begins: at the best linear reading of the frozen base."""

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from sklearn.linear_model import LogisticRegression
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BloomConfig,
    BloomForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from biasline.params import Task
from biasline.tokens.saved import IGNORED
from biasline.training import head_start, train
from biasline.training.head_start import SMALL, last_linear, start_head
from biasline.training.loop import Sets
from biasline.training.loss import ClassLabels, LabelSets, Scores, WordTags

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def bert(labels, kind=BertForSequenceClassification):
    torch.manual_seed(0)
    return kind(BertConfig(**SIZES, num_labels=labels, pad_token_id=0)).eval()


def rows(count, target, seed=0):
    """Rows whose target goes by their first token."""
    generator = np.random.default_rng(seed)
    ids = [generator.integers(4, 40, generator.integers(2, 7)).tolist() for _ in range(count)]
    return datasets.Dataset.from_list(
        [{"row": place, "input_ids": one, "labels": target(one)} for place, one in enumerate(ids)]
    )


def sets(objective, target, valid=40):
    return Sets(rows(200, target), rows(valid, target, 1), objective, 0)


def head_of(model):
    return [name for name, _ in model.named_parameters() if not name.startswith(model.base_model_prefix)]


def put(model, values):
    for name, value in values.items():
        model.get_parameter(name).data.copy_(value)
    return model


def loss(model, part, objective):
    with torch.no_grad():
        return objective.losses(model, objective.collate(part.to_list(), 0)).mean().item()


def by_first(ids):
    return ids[0] % 3


def test_it_is_the_regression_that_scikit_learn_fits(monkeypatch):
    monkeypatch.setattr(head_start, "_PENALTIES", (1e-2,))
    monkeypatch.setattr(head_start, "_STEPS", 500)
    model, data = bert(3), sets(ClassLabels(), by_first)
    values = start_head(model, head_of(model), data)
    layer, model.classifier = model.classifier, torch.nn.Identity()
    with torch.no_grad():
        read = model(**ClassLabels().collate(data.train.to_list(), 0).inputs).logits.double().numpy()
    model.classifier = layer
    scaled = (read - read.mean(0)) / read.std(0, ddof=1)
    # Scikit-learn's penalty is on the sum over rows.
    found = LogisticRegression(C=1 / (1e-2 * len(read)), max_iter=5000, tol=1e-8).fit(scaled, data.train["labels"])
    expected = found.predict_log_proba(scaled)
    with torch.no_grad():
        given = put(model, values)(**ClassLabels().collate(data.train.to_list(), 0).inputs).logits.log_softmax(-1)
    assert np.abs(given.numpy() - expected).max() < 5e-3


@pytest.mark.parametrize(
    ("objective", "labels", "target"),
    [
        (ClassLabels(), 3, by_first),
        (ClassLabels(torch.tensor([2.0, 0.5, 0.5])), 3, by_first),
        (LabelSets(), 2, lambda ids: [ids[0] % 2, int(ids[0] % 3 == 0)]),
        (Scores(20.0, 10.0), 1, lambda ids: float(ids[0])),
    ],
)
def test_a_head_begins_better_than_at_random(objective, labels, target):
    model, data = bert(labels), sets(objective, target)
    before = loss(model, data.valid, objective)
    values = start_head(model, head_of(model), data)
    assert set(values) == {"classifier.weight", "classifier.bias"}
    assert loss(put(model, values), data.valid, objective) < 0.95 * before


@pytest.mark.parametrize(
    ("method", "objective", "target", "share"),
    [
        ("bitfit", ClassLabels(), by_first, SMALL),
        ("full", ClassLabels(), by_first, SMALL),
        ("head", ClassLabels(), by_first, 1.0),
        ("bitfit", LabelSets(), lambda ids: [ids[0] % 2, ids[0] % 3, 0], 1.0),
    ],
)
def test_outputs_begin_small_where_more_than_the_head_learns_labels(method, objective, target, share):
    model, data = bert(3), sets(objective, target)
    task = Task(kind="classification", base="b", data="d", train={"method": method})
    loaded = train.Loaded(None, {}, model, head_of(model), data, "", Path())
    values = train.head_values(task, loaded, Accelerator(cpu=True))
    whole = start_head(model, head_of(model), data)
    assert all(torch.equal(values[name], share * whole[name]) for name in whole)


def test_tags_of_words_are_read_token_by_token():
    def target(ids):
        return [IGNORED if token % 4 == 0 else token % 2 for token in ids]

    model, data = bert(2, BertForTokenClassification), sets(WordTags(), target)
    before = loss(model, data.valid, WordTags())
    assert loss(put(model, start_head(model, head_of(model), data)), data.valid, WordTags()) < 0.5 * before


def test_the_model_is_left_as_it_was_and_the_values_come_again():
    model, data = bert(3), sets(ClassLabels(), by_first)
    before = {name: part.clone() for name, part in model.state_dict().items()}
    one, other = (start_head(model, head_of(model), data) for _ in range(2))
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("valid", [0, 5])
def test_without_validation_rows_some_of_training_choose(valid):
    model, data = bert(3), sets(ClassLabels(), by_first, valid=valid or 1)
    data = Sets(data.train, data.valid.select(range(valid)), data.objective, data.pad)
    before = loss(model, data.train, ClassLabels())
    assert loss(put(model, start_head(model, head_of(model), data)), data.train, ClassLabels()) < before


def test_one_label_that_no_row_has_and_rows_that_are_few():
    model = bert(3)
    data = Sets(rows(2, lambda ids: 0), rows(0, by_first).select([]), ClassLabels(), 0)
    values = start_head(model, head_of(model), data)
    assert all(torch.isfinite(value).all() for value in values.values())


def test_the_last_layer_of_heads_of_several_kinds():
    tiny = RobertaForSequenceClassification(RobertaConfig(**SIZES, num_labels=3))
    assert last_linear(tiny, head_of(tiny))[1:] == ("out_proj", tiny.classifier.out_proj)
    bloom = BloomForSequenceClassification(
        BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2, num_labels=3)
    )
    bloom.config.pad_token_id = 0
    assert last_linear(bloom, head_of(bloom))[1:] == ("score", bloom.score)
    values = start_head(bloom, head_of(bloom), sets(ClassLabels(), by_first))
    assert list(values) == ["score.weight"]
    # A head that stays frozen is none of its business.
    assert last_linear(bloom, []) is None and start_head(bloom, [], sets(ClassLabels(), by_first)) == {}


@pytest.mark.parametrize(
    ("changed", "started"),
    [({}, True), ({"head": "new"}, True), ({"head": "train"}, False), ({"head_start": "random"}, False)],
)
def test_a_head_that_the_base_brings_is_never_replaced_by_a_fitted_one(changed, started):
    """`train.head: train` goes on from the base's own head, where it has one."""
    model, data = bert(3), sets(ClassLabels(), by_first)
    task = Task(kind="classification", base="b", data="d", train=changed)
    loaded = train.Loaded(None, {}, model, head_of(model), data, "", Path())
    assert bool(train.head_values(task, loaded, Accelerator(cpu=True))) is started
