"""What a trained head gives to the validation rows, for whatever is chosen on them once training is over."""

import numpy as np
import torch

from biasline.bitfit.pretrained import PretrainedModel
from biasline.params import Train
from biasline.training.batches import Rows, cut, pass_tokens
from biasline.training.loss import Objective


def outputs_and_labels(
    model: PretrainedModel, rows: Rows, objective: Objective, train: Train
) -> tuple[np.ndarray, np.ndarray]:
    """The head's outputs, (rows, outputs), fp64, and the labels as the objective has them; the shortest row first.

    Args:
        model: in eval mode.
        rows: of a token set, one at least.
        objective: collates them.
        train: parameters of training, for the size of a forward pass.
    """
    device = next(model.parameters()).device
    order = rows.by_length(range(len(rows)))
    pieces = cut([int(rows.lengths[place]) for place in order], pass_tokens(train, device), device)
    given, labels = [], []
    for piece in pieces:
        batch = objective.collate([rows[place] for place in order[piece]], model.config.pad_token_id)
        with torch.no_grad():
            given.append(model(**batch.to(device).inputs).logits.float().cpu().double().numpy())
        labels.append(batch.labels.numpy())
    return np.concatenate(given), np.concatenate(labels)
