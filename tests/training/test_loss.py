from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from biasline.tokens.saved import IGNORED
from biasline.training.loss import (
    ClassLabels,
    LabelSets,
    ResponseTokens,
    Way,
    WordTags,
    plain_logits,
    supervised_logits,
    target_losses,
)

ROWS = [
    {"row": 1, "input_ids": [5, 6, 7, 8, 9], "labels": [IGNORED, IGNORED, 7, 8, 9]},
    {"row": 2, "input_ids": [10, 11, 12], "labels": [IGNORED, IGNORED, 12]},
]


def test_rows_are_padded_on_the_right():
    batch = ResponseTokens().collate(ROWS, 3)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8, 9], [10, 11, 12, 3, 3]]
    assert batch.inputs["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert batch.labels[1].tolist() == [IGNORED, IGNORED, 12, IGNORED, IGNORED]
    assert batch.rows == (1, 2)


def test_logits_exist_at_supervised_positions_only(bloom):
    logits, targets = supervised_logits(bloom, ResponseTokens().collate(ROWS, 3))
    assert logits.shape == (4, 100)
    assert targets.tolist() == [7, 8, 9, 12]


def test_the_loss_is_the_plain_one(bloom):
    batch = ResponseTokens().collate(ROWS, 3)
    plain = bloom(**batch.inputs, labels=batch.labels).loss
    assert target_losses(*supervised_logits(bloom, batch)).mean().item() == pytest.approx(plain.item(), rel=1e-6)


def test_golden_loss(bloom):
    """Holds the numerics still while the code moves; their mean is the plain loss above."""
    losses = target_losses(*supervised_logits(bloom, ResponseTokens().collate(ROWS, 3)))
    assert losses.tolist() == pytest.approx([4.46018505, 4.69000053, 4.5484918, 4.45240116], rel=1e-5)


def test_padding_changes_nothing(bloom):
    alone = target_losses(*supervised_logits(bloom, ResponseTokens().collate(ROWS[1:], 3)))
    beside = target_losses(*supervised_logits(bloom, ResponseTokens().collate(ROWS, 3)))
    assert alone.item() == pytest.approx(beside[-1].item(), rel=1e-5)


def test_another_architecture_needs_no_code_of_its_own():
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, num_attention_heads=4, num_hidden_layers=1, intermediate_size=64, vocab_size=50
    )
    assert ResponseTokens().check(LlamaForCausalLM(config), ResponseTokens().collate(ROWS, 3)) == ""


def test_a_head_that_mixes_positions_gets_the_plain_logits(bloom):
    class Mixing(nn.Linear):
        def forward(self, hidden):
            return super().forward(hidden + 3 * hidden.mean(dim=-2, keepdim=True))

    head = Mixing(32, 100, bias=False)
    head.weight = bloom.lm_head.weight
    bloom.lm_head = head
    objective, batch = ResponseTokens(), ResponseTokens().collate(ROWS, 3)
    expected = target_losses(*plain_logits(bloom, batch))
    assert not torch.allclose(objective.losses(bloom, batch), expected, atol=1e-3)
    assert "those of BloomForCausalLM are others" in objective.check(bloom, batch)
    assert torch.equal(objective.losses(bloom, batch), expected)


def test_class_labels_keep_token_types_and_pad_them():
    rows = [
        {"row": 1, "input_ids": [5, 6, 7], "token_type_ids": [0, 1, 1], "labels": 1},
        {"row": 2, "input_ids": [8], "token_type_ids": [0], "labels": 0},
    ]
    batch = ClassLabels().collate(rows, 9)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch.inputs["token_type_ids"].tolist() == [[0, 1, 1], [0, 0, 0]]
    assert batch.labels.tolist() == [1, 0]


def test_golden_loss_of_any_number_of_labels():
    """The mean over a row's labels of log(1 + exp(-logit)) where it has one, log(1 + exp(logit)) where not."""

    class Fixed(nn.Module):
        def forward(self, **_):
            return SimpleNamespace(logits=torch.tensor([[1.0, 0.0, -2.0], [0.5, -1.0, 3.0]]))

    rows = [
        {"row": 1, "input_ids": [5, 6], "labels": [1, 0, 0]},
        {"row": 2, "input_ids": [7], "labels": [0, 0, 0]},
    ]
    batch = LabelSets().collate(rows, 9)
    assert batch.inputs["input_ids"].tolist() == [[5, 6], [7, 9]] and batch.labels.dtype == torch.float32
    assert LabelSets().losses(Fixed(), batch).tolist() == pytest.approx([0.37778, 1.44531], abs=1e-5)
    assert LabelSets().targets(rows) == 2  # a row counts once, however many labels there are


def test_golden_loss_of_tags_at_their_own_places():
    """A language model's label is told one token before; a word's tag at the token itself."""

    class Fixed(nn.Module):
        def forward(self, **_):
            return SimpleNamespace(logits=torch.tensor([[[9.0, 9.0], [1.0, 0.0], [0.0, 2.0]], [[0.0, 2.0]] * 3]))

    rows = [
        {"row": 1, "input_ids": [5, 6, 7], "labels": [IGNORED, 0, 1]},
        {"row": 2, "input_ids": [8], "labels": [0]},
    ]
    batch = WordTags().collate(rows, 9)
    losses, right, weights = WordTags().judged(Fixed(), batch)
    assert losses.tolist() == pytest.approx([0.313262, 0.126928, 2.126928], abs=1e-5)
    assert (right.tolist(), weights.tolist()) == ([True, True, False], [1.0, 1.0, 1.0])
    assert WordTags().targets(rows) == 3


def test_balanced_labels_weigh_the_same_however_many_rows_they_have():
    objective = ClassLabels.balanced([0, 0, 0, 2], classes=3)
    assert objective.weights.tolist() == pytest.approx([4 / (2 * 3), 0.0, 4 / 2])
    weights = objective.weights[torch.tensor([0, 0, 0, 2])]
    assert weights.mean().item() == pytest.approx(1.0) and weights[:3].sum() == pytest.approx(weights[3].item())


def test_weights_multiply_the_losses():
    class Fixed(nn.Module):
        def forward(self, **_):
            return SimpleNamespace(logits=torch.tensor([[1.0, 0.0], [0.0, 2.0]]))

    batch = ClassLabels().collate(
        [{"row": 1, "input_ids": [1], "labels": 0}, {"row": 2, "input_ids": [1], "labels": 1}], 0
    )
    plain = ClassLabels().losses(Fixed(), batch)
    assert plain.tolist() == pytest.approx([0.313262, 0.126928], abs=1e-5)
    weighed = ClassLabels(torch.tensor([0.5, 2.0])).losses(Fixed(), batch)
    assert weighed.tolist() == pytest.approx([0.5 * 0.313262, 2 * 0.126928], abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_bounds_its_logits_is_noticed_however_small_or_sure_they_are(dtype):
    """The chunks would leave the bound out; losses of a model that is sure do not show it, nor do small logits."""
    torch.manual_seed(0)
    config = Gemma2Config(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=4, head_dim=8, num_hidden_layers=1,
        intermediate_size=64, vocab_size=50, final_logit_softcapping=30.0,
    )  # fmt: skip
    model, batch = Gemma2ForCausalLM(config).to(dtype).eval(), ResponseTokens().collate(ROWS, 3)
    for scale in (0.01, 1.0, 1000.0):
        with torch.no_grad():
            model.lm_head.weight.mul_(scale)
        objective = ResponseTokens()
        assert objective.check(model, batch) == ""
        assert objective.way is Way.SUPERVISED
    assert ResponseTokens().check(model, batch.part(slice(1))) == ""


def test_a_check_leaves_a_model_as_it_was(bloom):
    bloom.train()
    objective = ResponseTokens()
    assert objective.check(bloom, objective.collate(ROWS, 3)) == "" and objective.way is Way.FEW
    assert bloom.training and not bloom.lm_head._forward_hooks and not bloom.lm_head._forward_pre_hooks
