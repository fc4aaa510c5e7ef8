from pathlib import Path

import pytest

from biasline.bases.load import load_causal_lm
from biasline.bases.pin import verified_folder
from biasline.bitfit import BiasDelta
from biasline.evaluation.compared import bias_change


def test_how_far_biases_moved_is_read_from_the_delta(trained):
    task, place = trained
    pin, folder = verified_folder(Path(task.base))
    model = load_causal_lm(pin, folder, task.load)
    moved = bias_change(task, place, model)
    first = next((bias, change) for bias, change in BiasDelta.load(place.delta).change(model) if bias.role == "mlp_in")
    layer, role = first[0].layer, first[0].role
    [value] = [value for one, other, value in moved.rows() if (one, other) == (layer, role)]
    assert value == pytest.approx(first[1].square().mean().sqrt().item())
    lora = task.model_copy(update={"train": task.train.model_copy(update={"method": "lora"})})
    nothing = bias_change(lora, place, model)
    assert nothing.height == 0 and nothing.columns == moved.columns
