import pytest
import torch
from accelerate import Accelerator

from biasline.training.loss import Batch, ClassLabels
from biasline.training.validation import Keeper, Look, look_at


def labelled(*hits):
    """A look at as many rows of equal weight, of which some are right."""
    credit = torch.tensor(hits, dtype=torch.float64) / len(hits)
    return Look(1.0, float(credit.sum()), credit)


def unlabelled(loss):
    return Look(loss, None, torch.zeros(0, dtype=torch.float64))


def kept(looks, always=False):
    keeper = Keeper(always)
    return [keeper.keeps(look) for look in looks], keeper.waited


def test_of_answers_the_lowest_loss_is_kept():
    assert kept([unlabelled(loss) for loss in (1.0, 0.5, 0.5, 0.51, 0.4)]) == ([True, True, False, False, True], 0)
    assert kept([unlabelled(loss) for loss in (1.0, 2.0, 3.0)]) == ([True, False, False], 2)
    assert kept([unlabelled(loss) for loss in (1.0, 2.0)], always=True)[0] == [True, True]


def test_of_labels_a_later_step_is_kept_unless_it_is_clearly_worse():
    best = labelled(1, 1, 1, 1, 1, 1, 0, 0)
    # Four rows lost and none won: worse by 4/8, and that is twice the square root of 4 over 8.
    assert kept([best, labelled(1, 1, 0, 0, 0, 0, 0, 0)])[0] == [True, True]
    # Five lost: 5/8 against twice the square root of 5 over 8.
    assert kept([best, labelled(1, 0, 0, 0, 0, 0, 0, 0)])[0] == [True, False]
    # Six lost and two won: 4/8 against twice the square root of 8 over 8.
    assert kept([best, labelled(0, 0, 0, 0, 0, 0, 1, 1)])[0] == [True, True]
    # As good is as good, but nothing better has been seen since.
    assert kept([best, best, best]) == ([True, True, True], 2)


def test_a_step_is_held_against_the_best_and_not_against_the_one_that_is_kept():
    """Or small losses, each within its error, would add up."""
    rows = 100
    looks = [labelled(*[1] * right, *[0] * (rows - right)) for right in (90, 88, 86, 84, 82)]
    assert kept(looks)[0] == [True, True, True, False, False]


class Rare(torch.nn.Module):
    """Gives every row the first label."""

    def forward(self, input_ids, attention_mask):
        scores = torch.zeros(len(input_ids), 2)
        scores[:, 0] = 1.0
        return type("Output", (), {"logits": scores})


@pytest.mark.parametrize(("weights", "accuracy"), [(None, 0.75), (torch.tensor([0.5, 4.0]), 1.5 / 5.5)])
def test_accuracy_is_a_share_whatever_the_weights(weights, accuracy):
    objective = ClassLabels(weights)
    inputs = {"input_ids": torch.ones(4, 2, dtype=torch.int64), "attention_mask": torch.ones(4, 2, dtype=torch.int64)}
    batches = [Batch(inputs, torch.tensor(labels), (1, 2, 3, 4)) for labels in ([0, 0, 0, 1], [0, 0, 0, 1])]
    look = look_at(Rare(), objective, batches, Accelerator())
    assert look.accuracy == pytest.approx(accuracy)
    assert float(look.credit.sum()) == pytest.approx(accuracy) and len(look.credit) == 8
