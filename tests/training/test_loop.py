import copy

import pytest
import torch
from datasets import Dataset

from biasline.bitfit import BiasDelta, tune_biases
from biasline.errors import BiaslineError
from biasline.params import Train
from biasline.tokens.saved import IGNORED
from biasline.training.batches import Plan
from biasline.training.loop import Sets, fit
from biasline.training.loss import ResponseTokens
from biasline.training.methods import WholeTuning


def token_set(rows=24, seed=0):
    """Rows whose last three tokens repeat their first: something biases can learn a little of."""
    generator = torch.Generator().manual_seed(seed)
    columns = {"row": list(range(1, rows + 1)), "input_ids": [], "labels": []}
    for number in range(rows):
        prompt = torch.randint(4, 100, (3 + number % 5,), generator=generator).tolist()
        answer = [10 + number % 3, 50, 2]
        columns["input_ids"].append(prompt + answer)
        columns["labels"].append([IGNORED] * len(prompt) + answer)
    return Dataset.from_dict(columns)


def without_seconds(history):
    """The rows of a history, but for what varies from run to run."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history.rows]


def run(model, report=lambda *_: None, valid=None, **params):
    settings = Train(**{"learning_rate": 1e-2, "batch_size": 8, "epochs": 1, "min_steps": 12, **params})
    tuning = tune_biases(model, settings.biases)
    rows = token_set()
    valid = token_set(8, seed=1) if valid is None else valid
    return tuning, fit(
        model, tuning, Plan.of(len(rows), settings), Sets(rows, valid, ResponseTokens(), 3), settings, report
    )


def test_the_loss_falls_and_weights_stay(bloom):
    before = {name: value.clone() for name, value in bloom.state_dict().items()}
    tuning, history = run(bloom, min_steps=60)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"] - 0.1
    trained = {bias.name for bias in tuning.selection.biases}
    for name, value in bloom.state_dict().items():
        if name not in trained:
            assert torch.equal(value, before[name]), name


def test_two_runs_give_the_same_bytes(bloom, tmp_path):
    files = []
    for name in ("one", "two"):
        tuning, _ = run(bloom)
        delta = BiasDelta.of(tuning)
        delta.save(tmp_path / name)
        delta.revert(bloom)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("whole", [False, True])
def test_passes_of_a_bf16_base_are_added_up_in_fp32(bloom, whole):
    """Gradients of row by row are as far from those of fp32 as one pass's are, and not as a sum in bf16 would be."""
    rows = token_set(64)
    far = {}
    for name, dtype, micro in (
        ("fp32", torch.float32, 0),
        ("one", torch.bfloat16, 10_000),
        ("many", torch.bfloat16, 1),
    ):
        model = copy.deepcopy(bloom).to(dtype)
        tuning = WholeTuning({"weights": list(model.parameters())}) if whole else tune_biases(model)
        params = Train(
            learning_rate=1e-9, batch_size=64, min_steps=1, epochs=1, micro_batch_tokens=micro, max_grad_norm=1e9
        )
        fit(model, tuning, Plan.of(64, params), Sets(rows, token_set(0), ResponseTokens(), 3), params, lambda *_: None)
        far[name] = torch.cat([master.grad.flatten() for master in tuning.masters])
    one, many = ((far[name] - far["fp32"]).norm() / far["fp32"].norm() for name in ("one", "many"))
    assert many < 1.2 * one < 0.05


@pytest.mark.parametrize("micro", [1, 16, 40])
def test_micro_batches_equal_one_big_batch(bloom, micro):
    """Prompts and answers of different lengths: the loss is divided by the tokens of the whole step."""
    state = {name: value.clone() for name, value in bloom.state_dict().items()}
    big, _ = run(bloom, min_steps=3)
    bloom.load_state_dict(state)
    small, _ = run(bloom, min_steps=3, micro_batch_tokens=micro)
    assert torch.allclose(big.master, small.master, rtol=0, atol=1e-5)


def test_a_partial_last_step_counts_by_its_own_tokens(bloom):
    _, history = run(bloom, batch_size=7, min_steps=1, epochs=1, evaluate_every=1)
    assert [row["step"] for row in history.rows] == [1, 2, 3, 4]
    assert history.targets == 24 * 3


def test_the_best_step_is_kept(bloom):
    _, history = run(bloom, min_steps=30, evaluate_every=5, learning_rate=0.5)
    looks = {row["step"]: row["valid_loss"] for row in history.rows if row["valid_loss"] is not None}
    assert history.best_loss == min(looks.values()) == looks[history.best_step]


def test_without_validation_rows_the_last_step_is_kept(bloom):
    _, history = run(bloom, valid=token_set(0))
    assert (history.best_step, history.best_loss) == (12, None)
    assert all(row["valid_loss"] is None for row in history.rows)


def test_progress_is_reported_with_gradient_norms_per_role(bloom):
    seen = []
    run(bloom, report=lambda step, values, _: seen.append((step, values)))
    assert [step for step, _ in seen] == list(range(1, 13))
    assert [step for step, values in seen if values] == [10, 12]
    assert {"loss", "learning_rate", "grad_norm", "grad_norm.query", "grad_norm.mlp_in"} <= set(seen[9][1])
    assert 0 < seen[9][1]["seconds"] < seen[11][1]["seconds"]


def test_gradient_norms_are_those_before_the_clip(bloom):
    state = {name: value.clone() for name, value in bloom.state_dict().items()}
    _, free = run(bloom, min_steps=1, epochs=0.1, max_grad_norm=1e9)
    bloom.load_state_dict(state)
    _, clipped = run(bloom, min_steps=1, epochs=0.1, max_grad_norm=1e-3)
    norms = {name: value for name, value in free.rows[0].items() if name.startswith("grad_norm")}
    assert norms["grad_norm"] > 1e-3
    assert {name: clipped.rows[0][name] for name in norms} == pytest.approx(norms, rel=1e-4)
    roles = [value for name, value in norms.items() if "." in name]
    assert sum(value**2 for value in roles) ** 0.5 == pytest.approx(norms["grad_norm"], rel=1e-4)


def test_a_loss_that_is_not_finite_stops_with_the_rows(bloom):
    with torch.no_grad():
        bloom.transformer.ln_f.weight.fill_(float("nan"))
    tuning = tune_biases(bloom)
    rows, params = token_set(), Train(batch_size=2, min_steps=1)
    with pytest.raises(BiaslineError, match=r"step 1: the loss is nan on the rows \d+, \d+"):
        sets = Sets(rows, token_set(0), ResponseTokens(), 3)
        fit(bloom, tuning, Plan.of(len(rows), params), sets, params, lambda *_: None)


def test_patience_ends_training_and_the_best_is_kept(bloom):
    """Validation rows that contradict the training rows: every step of learning makes them worse."""
    contrary = token_set(8, seed=1).map(
        lambda row: {"labels": [label if label == IGNORED else 99 - label for label in row["labels"]]}
    )
    _, whole = run(bloom, valid=contrary, min_steps=40, evaluate_every=2)
    assert whole.rows[-1]["step"] == 40
    _, stopped = run(bloom, valid=contrary, min_steps=8, epochs=14, evaluate_every=2, patience=3)
    looks = [row["valid_loss"] for row in stopped.rows if row["valid_loss"] is not None]
    last = stopped.rows[-1]["step"]
    assert 8 <= last < 42
    assert stopped.best_loss == min(looks) and last >= stopped.best_step + 6
    assert len(looks) == last // 2
    assert stopped.notes == [f"stopped at step {last} of 42: 3 looks without a better one"]


def test_patience_without_validation_rows_is_told(bloom, capsys):
    _, history = run(bloom, valid=token_set(0), patience=2)
    assert "no validation rows" in history.notes[0] and history.rows[-1]["step"] == 12
    assert f"note: {history.notes[0]}" in capsys.readouterr().out


def test_a_gradient_that_is_not_finite_stops_with_the_rows_of_its_pass(bloom):
    """The loss is fine; what comes back of one row is not."""
    tuning, rows, params = tune_biases(bloom), token_set(), Train(batch_size=24, min_steps=1, micro_batch_tokens=1)
    before = tuning.master.detach().clone()

    class Overflow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, hidden):
            return hidden.clone()

        @staticmethod
        def backward(ctx, given):
            return given * float("inf")

    chosen = [row["row"] for row in rows if 57 in row["input_ids"]]
    assert 1 <= len(chosen) < 12
    seen = {}
    bloom.register_forward_pre_hook(lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True)
    bloom.transformer.ln_f.register_forward_hook(
        lambda _, args, output: Overflow.apply(output) if 57 in seen["input_ids"] else output
    )
    sets = Sets(rows, token_set(0), ResponseTokens(), 3)
    with pytest.raises(BiaslineError, match="step 1: the gradient is not finite on the rows") as told:
        fit(bloom, tuning, Plan.of(len(rows), params), sets, params, lambda *_: None)
    named = str(told.value).partition("rows ")[2].partition(" →")[0]
    assert sorted(map(int, named.split(", "))) == sorted(chosen)
    assert torch.equal(tuning.master.detach(), before)


def test_a_validation_loss_that_is_not_finite_names_the_rows(bloom):
    """Those of the passes that it came from."""
    valid = token_set(8, seed=1)
    place = valid[3]["input_ids"][0]
    bloom.transformer.word_embeddings.register_forward_hook(
        lambda _, args, output: (
            output if bloom.training else output.masked_fill((args[0] == place)[..., None], torch.nan)
        )
    )
    with pytest.raises(BiaslineError, match=r"step 12: the validation loss is nan, on the validation rows .*4"):
        run(bloom, valid=valid)


def test_rows_of_a_loss_that_is_not_finite_are_told_one_by_one(bloom):
    rows = token_set()
    place = rows[3]["input_ids"][0]
    chosen = [row["row"] for row in rows if place in row["input_ids"]]
    bloom.transformer.word_embeddings.register_forward_hook(
        lambda _, args, output: (
            output.masked_fill((args[0] == place)[..., None], torch.nan) if bloom.training else output
        )
    )
    tuning, params = tune_biases(bloom), Train(batch_size=24, min_steps=1, micro_batch_tokens=10_000)
    with pytest.raises(BiaslineError, match="step 1: the loss is nan on the rows") as told:
        fit(bloom, tuning, Plan.of(24, params), Sets(rows, token_set(0), ResponseTokens(), 3), params, lambda *_: None)
    named = str(told.value).partition(" on the rows ")[2].partition(" →")[0]
    assert sorted(map(int, named.split(", "))) == chosen and len(chosen) < 12
