"""Continuous batching: a sequence has the tokens that it has alone, whoever joins and leaves meanwhile."""

import queue
import random
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from biasline.bitfit import BiasDelta, tune_biases
from biasline.errors import BiaslineError
from biasline.evaluation.generate import Drawing
from biasline.serving.engine.decoding import Decoding, DecodingLane, Generation, _chosen
from biasline.serving.engine.engine import BankedModel, Engine, EngineFailed, EngineStopped

STOPS = frozenset({2})
PROMPTS = [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16, 17], [20, 21]]


def config_of(name):
    import transformers

    sizes = {"vocab_size": 64, "pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2}
    usual = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    return {
        "bloom": lambda: transformers.BloomConfig(hidden_size=32, n_layer=2, n_head=4, **sizes),
        "gpt2": lambda: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **sizes),
        "llama": lambda: transformers.LlamaConfig(**usual, num_key_value_heads=2, **sizes),
        "mistral": lambda: transformers.MistralConfig(**usual, num_key_value_heads=2, sliding_window=6, **sizes),
        "qwen2": lambda: transformers.Qwen2Config(**usual, num_key_value_heads=2, **sizes),
        "gemma3": lambda: transformers.Gemma3TextConfig(
            **usual, num_key_value_heads=2, head_dim=8, sliding_window=6, sliding_window_pattern=2, **sizes
        ),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**usual, **sizes),
        "opt": lambda: transformers.OPTConfig(
            hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32, **sizes
        ),
    }[name]()


def model_of(name):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(name)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # or all tokens are about as likely
    return model


def delta_of(model, seed):
    bare = model.config.model_type in ("llama", "mistral", "gemma3_text")
    tuning = tune_biases(model, "attention+mlp" if bare else "all", inject="all" if bare else "")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for master in tuning.masters:
            master.add_(torch.randn(master.shape, generator=generator) * 0.3)
    delta = BiasDelta.of(tuning)
    delta.revert(model)
    return delta


@pytest.fixture
def lane(request):
    """A lane with three deltas on a model of a type; and these deltas."""
    name, decoding = request.param if isinstance(request.param, tuple) else (request.param, Decoding())
    model = model_of(name)
    deltas = [delta_of(model, seed) for seed in (1, 2, 3)]
    banked = BankedModel(model, 1)
    for delta in deltas:
        banked.put(delta)
    engine = Engine(name)
    found = DecodingLane(engine, banked, decoding)
    engine.add(found)
    yield found, {0: None, **dict(enumerate(deltas, 1))}
    engine.close()


def written(lane, asked):
    """Tokens of sequences that are asked at once: (prompt, slot, drawing) each."""
    told = queue.SimpleQueue()
    for number, (prompt, slot, drawing) in enumerate(asked):

        def tell(token, last, number=number):
            told.put((number, token, last))

        lane.ask(str(slot), Generation(prompt, slot, drawing, STOPS, tell))
    found, left = [[] for _ in asked], len(asked)
    while left:
        number, token, last = told.get(timeout=60)
        if isinstance(token, BaseException):
            raise token
        found[number].append(token)
        left -= last
    return found


def alone(model, delta, prompt, longest):
    """What Transformers' own generation writes of one prompt with a delta applied."""
    config = GenerationConfig(max_new_tokens=longest, do_sample=False, eos_token_id=[*STOPS], pad_token_id=3)
    model.generation_config = GenerationConfig()
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        if delta is None:
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        else:
            with delta.applied(model):
                out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return out[0, len(prompt) :].tolist()


ALL = ["bloom", "gpt2", "llama", "mistral", "qwen2", "gemma3", "gpt_neox", "opt"]


@pytest.mark.parametrize("lane", ALL, indirect=True)
def test_sequences_of_all_deltas_have_the_tokens_that_each_has_alone(lane):
    lane, deltas = lane
    draw = random.Random(4)
    asked = [(draw.choice(PROMPTS), draw.choice(list(deltas)), Drawing(draw.choice([1, 3, 9, 14]))) for _ in range(24)]
    found = written(lane, asked)
    lane.engine.close()  # or the model would be asked by two
    wanted = [alone(lane.model, deltas[slot], prompt, drawing.max_new_tokens) for prompt, slot, drawing in asked]
    assert found == wanted
    assert len({tuple(one) for one in wanted}) > 6
    assert lane.rows > 2 * lane.passes and lane.load == 0


@pytest.mark.parametrize(
    "lane",
    [("llama", Decoding(sequences=2)), ("bloom", Decoding(cached_tokens=40)), ("gpt2", Decoding(prompt_tokens=4))],
    indirect=True,
    ids=["two at once", "a small cache", "short passes over prompts"],
)
def test_limits_change_no_token(lane):
    lane, deltas = lane
    asked = [(prompt, slot, Drawing(12)) for slot in deltas for prompt in PROMPTS]
    found = written(lane, asked)
    lane.engine.close()
    assert found == [alone(lane.model, deltas[slot], prompt, 12) for prompt, slot, _ in asked]


@pytest.mark.parametrize("lane", ["llama"], indirect=True)
def test_drawn_tokens_are_a_sequences_own(lane):
    """By its seed, whoever is drawn beside it."""
    lane, deltas = lane
    drawn = [(PROMPTS[0], slot, Drawing(12, 1.5, 0.9, seed)) for slot in deltas for seed in (0, 1, 2)]
    others = [(prompt, 1, Drawing(7, 2.0, 1.0, 9)) for prompt in PROMPTS]
    by_itself = [written(lane, [one])[0] for one in drawn]
    assert written(lane, [*others, *drawn])[len(others) :] == by_itself
    assert len({tuple(one) for one in by_itself}) > 6


def test_drawing_has_the_shares_that_it_should():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0, -9.0]]).repeat(4000, 1)
    drawing = Drawing(1, 1.3, 0.8, 0)
    rows = [Generation([1], 0, replace(drawing, seed=seed), STOPS, lambda *_: None) for seed in range(4000)]
    found = torch.bincount(torch.tensor(_chosen(rows, logits)), minlength=5) / 4000
    shares = (logits[0] / 1.3).softmax(-1)
    shares = torch.where(shares.cumsum(-1) - shares < 0.8, shares, 0.0)
    torch.testing.assert_close(found, shares / shares.sum(), atol=0.03, rtol=0)
    assert found[3:].sum() == 0


@pytest.mark.parametrize("lane", ["bloom"], indirect=True)
def test_a_cancelled_sequence_leaves_and_the_others_go_on(lane):
    lane, deltas = lane
    told = queue.SimpleQueue()
    long = Generation(PROMPTS[0], 1, Drawing(20_000), frozenset(), lambda *one: told.put(one))
    lane.ask("long", long)
    told.get(timeout=60)
    found = written(lane, [(PROMPTS[2], 2, Drawing(9))])
    long.cancelled = True
    while not told.get(timeout=60)[1]:
        pass
    assert written(lane, [(PROMPTS[2], 2, Drawing(9))]) == found
    lane.engine.close(5)
    assert lane.load == 0
    assert found == [alone(lane.model, deltas[2], PROMPTS[2], 9)]


@pytest.mark.parametrize("lane", ["bloom"], indirect=True)
def test_a_slot_that_is_filled_anew_changes_only_what_comes_after(lane):
    """Sequences under way end with the delta that they began with only where it keeps its slot: so it does."""
    lane, deltas = lane
    told = queue.SimpleQueue()
    lane.ask("a", Generation(PROMPTS[0], 1, Drawing(40), frozenset(), lambda *one: told.put(one)))
    first = told.get(timeout=60)
    slot = lane.banked.put(deltas[3])
    other = written(lane, [(PROMPTS[0], slot, Drawing(12))])[0]
    tokens = [first[0]]
    while not (one := told.get(timeout=60))[1]:
        tokens.append(one[0])
    lane.engine.close()
    assert other == alone(lane.model, deltas[3], PROMPTS[0], 12)
    config = GenerationConfig(max_new_tokens=40, do_sample=False, pad_token_id=3)
    with deltas[1].applied(lane.model), torch.inference_mode():
        whole = lane.model.generate(input_ids=torch.tensor([PROMPTS[0]]), generation_config=config)[0, 3:].tolist()
    assert [*tokens, one[0]] == whole


@pytest.mark.parametrize("lane", ["bloom"], indirect=True)
def test_an_empty_slot_is_an_error_and_nothing_of_the_base(lane):
    lane, _ = lane
    with pytest.raises(BiaslineError, match="slot 4: "):
        written(lane, [(PROMPTS[0], 4, Drawing(3))])
    found = written(lane, [(PROMPTS[0], 1, Drawing(3))])
    assert len(found[0]) == 3


@pytest.mark.parametrize("lane", ["bloom"], indirect=True)
def test_a_slot_is_emptied_under_cancelled_sequences_and_the_others_go_on(lane):
    """Whoever gave up may have been asked until now: nothing of that reaches those beside it."""
    lane, deltas = lane
    told, gone = queue.SimpleQueue(), queue.SimpleQueue()
    kept = Generation(PROMPTS[0], 1, Drawing(60), frozenset(), lambda *one: told.put(one))
    left = Generation(PROMPTS[2], 2, Drawing(20_000), frozenset(), lambda *one: gone.put(one))
    lane.ask("a", kept)
    lane.ask("b", left)
    gone.get(timeout=60)
    left.cancelled = True
    lane.engine.free(lane, [2])
    third = written(lane, [(PROMPTS[3], 3, Drawing(9))])  # joins, so that the block is left and entered anew
    tokens = [told.get(timeout=60)]
    while not tokens[-1][1]:
        tokens.append(told.get(timeout=60))
    assert lane.bank.filled == (1, 3)
    lane.engine.close()
    config = GenerationConfig(max_new_tokens=60, do_sample=False, pad_token_id=3)
    with deltas[1].applied(lane.model), torch.inference_mode():
        whole = lane.model.generate(input_ids=torch.tensor([PROMPTS[0]]), generation_config=config)[0, 3:].tolist()
    assert [token for token, _ in tokens] == whole
    assert third == [alone(lane.model, deltas[3], PROMPTS[3], 9)]


@pytest.mark.parametrize("lane", ["bloom"], indirect=True)
def test_who_cannot_be_told_is_given_up_and_the_engine_lives(lane):
    lane, _ = lane

    def closed(*_):
        raise RuntimeError("Event loop is closed")

    lane.ask("a", Generation(PROMPTS[0], 1, Drawing(20_000), frozenset(), closed))
    assert len(written(lane, [(PROMPTS[3], 2, Drawing(5))])[0]) <= 5
    lane.engine.close(5)
    assert lane.load == 0


@pytest.mark.parametrize("lane", ["bloom"], indirect=True)
def test_what_fails_behind_the_pass_is_told_to_those_who_joined(lane, monkeypatch):
    lane, _ = lane
    monkeypatch.setattr("biasline.serving.engine.decoding._select", lambda *_: 1 / 0)
    with pytest.raises(EngineFailed, match="division by zero"):
        written(lane, [(PROMPTS[0], 1, Drawing(9))])
    monkeypatch.undo()
    assert written(lane, [(PROMPTS[0], 1, Drawing(9))])[0]


def test_a_thread_that_died_takes_no_work():
    engine = Engine("x")
    engine.close()
    with pytest.raises(EngineStopped):
        engine.between(lambda: 1)
