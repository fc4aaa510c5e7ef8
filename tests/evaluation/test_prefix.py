"""What rows begin with, read once: answers and likelihoods are those of whole rows, whatever the architecture."""

import numpy as np
import pytest
import torch

from biasline.bitfit.asked import asked
from biasline.evaluation.generate import Drawing, generate
from biasline.evaluation.prefix import shared_prefix, shared_prompt
from biasline.evaluation.scoring import score_likelihood
from tests.bitfit.zoo import WORDS, ZOO, build

GENERATOR = torch.Generator().manual_seed(1)
FIRST = torch.randint(3, WORDS, (18,), generator=GENERATOR).tolist()
REST = [torch.randint(3, WORDS, (length,), generator=GENERATOR).tolist() for length in (4, 2, 6, 3)]
PROMPTS = [FIRST + rest for rest in REST]
COLUMNS = {
    "row": list(range(4)),
    "input_ids": PROMPTS,
    "labels": [[-100] * (len(prompt) - 1) + prompt[-1:] for prompt in PROMPTS],
}
WRITERS = [name for name in ZOO if "LM" in type(build(name)).__name__ and not build(name).config.is_encoder_decoder]


class Words:
    """A tokenizer as far as answers need one."""

    def batch_decode(self, rows, skip_special_tokens):
        return [" ".join(map(str, row)) for row in rows]


@pytest.mark.parametrize("name", [name for name in WRITERS if build(name).can_generate()])
def test_it_changes_nothing(name):
    model = build(name)
    model.config.pad_token_id = 0
    plain = generate(model, Words(), PROMPTS, Drawing(5), 3, [2])
    likely = score_likelihood(model, COLUMNS, 0, 3)
    prefix = shared_prefix(model, PROMPTS)
    if prefix is None:
        assert name in {"gemma2", "gemma3", "gemma3_text"}  # windows that slide
        return
    assert prefix.ids == FIRST
    for _ in range(2):  # what a batch writes behind it does not stay
        assert generate(model, Words(), PROMPTS, Drawing(5), 3, [2], prefix=prefix) == plain
    found = score_likelihood(model, COLUMNS, 0, 3, prefix=shared_prompt(model, COLUMNS))
    assert np.allclose(found[0], likely[0], rtol=1e-5, atol=1e-5)
    assert (found[1] == likely[1]).all() and (found[2] == likely[2]).all()


def test_something_is_left_of_each_row_and_before_what_is_supervised():
    model = build("llama")
    assert shared_prefix(model, [FIRST, [*FIRST, 5]]).ids == FIRST[:-1]
    supervised = [-100] * 16 + FIRST[16:]
    columns = {"input_ids": [FIRST, FIRST], "labels": [supervised, [-100] * 17 + FIRST[17:]]}
    assert shared_prompt(model, columns) is None  # fifteen tokens
    columns["labels"] = [[-100] * 17 + FIRST[17:]] * 2
    assert shared_prompt(model, columns).ids == FIRST[:16]


def test_there_is_none_of_few_tokens_of_one_row_or_of_tenants():
    model = build("llama")
    assert shared_prefix(model, [FIRST[:10] + rest for rest in REST]) is None
    assert shared_prefix(model, PROMPTS[:1]) is None
    with asked(None, ["one", "two"]):
        assert shared_prefix(model, PROMPTS) is None
