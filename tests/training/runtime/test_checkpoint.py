"""A training that is stopped, killed, or finds its checkpoints damaged ends with the bytes of one that was not."""

import errno
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from biasline.bitfit import BiasDelta, tune_biases
from biasline.errors import BiaslineError
from biasline.params import Train
from biasline.training.batches import Plan
from biasline.training.loop import Sets, fit
from biasline.training.loss import ResponseTokens
from biasline.training.runtime.checkpoint import Checkpoints, clear_checkpoints
from biasline.training.runtime.signals import noted_signals
from tests.training.test_loop import token_set, without_seconds

STEPS = 24


class Crash(Exception):
    pass


@pytest.fixture(autouse=True)
def _signals_as_on_a_terminal():
    """Whoever runs the tests may ignore some, as a shell does for what it starts in the background."""
    kinds = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, kind) for number, kind in kinds.items()}
    yield
    for number, kind in before.items():
        signal.signal(number, kind)


def training(folder, report=lambda *_: None, every=0.0, name="abc", **more):
    """Train from a checkpoint if there is one.

    Returns: the delta's bytes and the history. Dropout draws, so that a step's draws must not depend on what process
    makes it.
    """
    torch.manual_seed(0)
    config = BloomConfig(
        vocab_size=100, hidden_size=32, n_layer=2, n_head=4, hidden_dropout=0.1, attention_dropout=0.1, pad_token_id=3
    )
    model = BloomForCausalLM(config).eval()
    tuning = tune_biases(model)
    params = Train(learning_rate=1e-2, batch_size=8, epochs=1, min_steps=STEPS, evaluate_every=5)
    rows = token_set()
    sets = Sets(rows, token_set(8, seed=1), ResponseTokens(), 3)
    checkpoints = Checkpoints(folder / name, name, every)
    history = fit(model, tuning, Plan.of(len(rows), params), sets, params, report, checkpoints=checkpoints, **more)
    BiasDelta.of(tuning).save(folder / "delta")
    return (folder / "delta").read_bytes(), without_seconds(history)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return training(tmp_path_factory.mktemp("whole"))


def crashed(folder, at, **more):
    """A training whose process dies when it reports step `at` or a later one."""

    def report(step, values, earlier):
        if step >= at and not earlier:
            raise Crash

    with pytest.raises(Crash):
        training(folder, report, **more)


@pytest.mark.parametrize("at", [5, 10, 15, 20, 24])
def test_it_goes_on_where_it_was(tmp_path, whole, capsys, at):
    crashed(tmp_path, at)
    steps = []
    assert training(tmp_path, lambda step, row, earlier: steps.append((step, earlier)) if row else None) == whole
    assert f"resumed from step {at - 1}\n" in capsys.readouterr().out
    assert [step for step, _ in steps] == [5, 10, 15, 20, 24]
    assert [earlier for _, earlier in steps] == [step < at for step, _ in steps]


def test_a_finished_one_is_not_trained_again(tmp_path, whole, capsys):
    training(tmp_path)
    assert training(tmp_path) == whole
    assert f"resumed from step {STEPS}, the last one: delete its checkpoint" in capsys.readouterr().out
    # It stays until DVC has what training made, and while someone makes it again.
    kept = Checkpoints(tmp_path / "abc", "abc")
    with kept.locked():
        Checkpoints(tmp_path / "abc", "abc").clear()
    assert (tmp_path / "abc").is_dir()
    kept.clear()
    kept.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["delta"]


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(tmp_path, whole, capsys):
    crashed(tmp_path, 20)
    newest = tmp_path / "abc" / "step-00000019.safetensors"
    data = newest.read_bytes()
    draw = random.Random(0)
    for _ in range(60):
        place, bit = draw.randrange(len(data)), 1 << draw.randrange(8)
        newest.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
        assert Checkpoints(tmp_path / "abc", "abc", 0).newest({}).step == 18, (place, bit)
        assert (newest.with_suffix(".set-aside")).is_file()
    assert training(tmp_path) == whole
    told = capsys.readouterr()
    assert "resumed from step 18\n" in told.out
    assert (
        "step-00000019.safetensors: not gone on from (it is damaged); set aside as step-00000019.set-aside" in told.err
    )


def test_half_a_checkpoint_and_an_empty_one_are_set_aside(tmp_path, whole):
    crashed(tmp_path, 20)
    for path, keep in zip(sorted((tmp_path / "abc").iterdir()), (0, 3000), strict=True):
        path.write_bytes(path.read_bytes()[:keep])
    assert training(tmp_path) == whole


def test_a_checkpoint_of_another_training_is_set_aside(tmp_path, whole, capsys):
    crashed(tmp_path, 20, name="another")
    (tmp_path / "another").rename(tmp_path / "abc")
    assert training(tmp_path) == whole
    told = capsys.readouterr()
    assert "it is of the training another" in told.err and "resumed" not in told.out


def test_another_shape_is_set_aside(tmp_path, capsys):
    crashed(tmp_path, 20)
    assert Checkpoints(tmp_path / "abc", "abc", 0).newest({"master.0": torch.zeros(3)}) is None
    assert "master.0 has the shape" in capsys.readouterr().err


def test_a_full_disk_is_told_once_and_training_goes_on(tmp_path, whole, capsys, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("biasline.training.runtime.checkpoint.os.fsync", full)
    assert training(tmp_path) == whole
    assert capsys.readouterr().err.count("no checkpoint written (No space left on device)") == 1
    assert not list((tmp_path / "abc").iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_it_finishes_the_step_and_writes_a_checkpoint(tmp_path, whole, capsys, number):
    def report(step, values, earlier):
        if step == 10 and not earlier:
            os.kill(os.getpid(), number)

    with pytest.raises(SystemExit) as ended, noted_signals() as stopping:
        training(tmp_path, report, every=1e9, stopping=stopping)
    assert ended.value.code == 128 + number
    assert training(tmp_path) == whole
    # The signal came when step 10 was made and the question already asked.
    assert "resumed from step 11\n" in capsys.readouterr().out


def test_a_request_that_is_passed_on_is_one_request(tmp_path, whole, monkeypatch):
    """A machine that goes down asks every process, and the launcher asks its own once more."""
    monkeypatch.setattr("biasline.training.runtime.signals._ONE_REQUEST_S", 1e9)

    def report(step, values, earlier):
        if step == 10 and not earlier:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)), noted_signals() as stopping:
        training(tmp_path, report, every=1e9, stopping=stopping)
    assert training(tmp_path) == whole


def test_a_later_one_is_another(tmp_path, monkeypatch):
    monkeypatch.setattr("biasline.training.runtime.signals._ONE_REQUEST_S", 0.0)
    ends = signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    try:
        with pytest.raises(KeyboardInterrupt), noted_signals() as stopping:
            training(tmp_path, lambda *_: [os.kill(os.getpid(), signal.SIGTERM) for _ in "ab"], stopping=stopping)
    finally:
        signal.signal(signal.SIGTERM, ends)


def test_what_is_ignored_stays_so(tmp_path, whole):
    """As SIGHUP under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with noted_signals() as stopping:
            assert training(tmp_path, lambda *_: os.kill(os.getpid(), signal.SIGHUP), stopping=stopping) == whole
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_seconds_count_what_an_earlier_process_took(tmp_path):
    def slow(step, values, earlier):
        if step == 1:
            time.sleep(0.5)
        if step == 15:
            raise Crash

    began = time.monotonic()
    with pytest.raises(Crash):
        training(tmp_path, slow)
    seen = {}
    training(tmp_path, lambda step, row, earlier: seen.setdefault(earlier, []).append(row.get("seconds", 0.0)))
    assert 0.5 < seen[True][-1] < seen[False][-1] < time.monotonic() - began


def test_where_its_launcher_is_gone_it_ends_with_a_checkpoint(tmp_path, whole):
    asked = []
    with (
        pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)),
        noted_signals(lambda: asked.append(1) or len(asked) == 7) as stopping,
    ):
        training(tmp_path, every=1e9, stopping=stopping)
    assert [path.stem for path in (tmp_path / "abc").iterdir()] == ["step-00000006"]
    assert training(tmp_path) == whole


def test_a_second_signal_ends_at_once(tmp_path):
    def report(step, values, earlier):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), noted_signals() as stopping:
        training(tmp_path, report, stopping=stopping)


def test_checkpoints_hold_biases_and_nothing_of_the_base(tmp_path, whole):
    training(tmp_path)
    files = sorted((tmp_path / "abc").iterdir())
    assert [path.name for path in files] == ["step-00000024.safetensors"]
    # Values, kept values, two moments; and the history.
    assert files[-1].stat().st_size < 5 * len(whole[0]) + 10_000


def _told(folder, begun):
    torch.set_num_threads(1)
    begun.set()
    training(Path(folder))


def _last_step(folder):
    return max((int(path.stem.removeprefix("step-")) for path in folder.glob("abc/step-*.safetensors")), default=0)


@pytest.mark.slow
def test_killed_at_twenty_random_moments(tmp_path):
    """SIGKILL, whatever it is doing: computing, writing a checkpoint, looking at validation rows.

    The moment is some time after a step of its own, and not after its start: on a busy machine nothing might be done.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])

    def process(folder):
        begun = processes.Event()
        started = processes.Process(target=_told, args=(str(folder), begun))
        started.start()
        assert begun.wait(600)
        return started

    def finished(folder):
        last = process(folder)
        last.join(600)
        assert last.exitcode == 0
        return (folder / "delta").read_bytes()

    (tmp_path / "whole").mkdir()
    expected = finished(tmp_path / "whole")
    draw, resumed = random.Random(0), 0
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        victim, after = process(folder), draw.randrange(STEPS)
        while victim.is_alive() and not any(folder.glob("delta")) and after > _last_step(folder):
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.02))
        victim.kill()
        victim.join()
        resumed += bool(list(folder.glob("abc/step-*")))
        (folder / "delta").unlink(missing_ok=True)
        assert finished(folder) == expected, number
    assert resumed >= 10


def test_where_no_checkpoint_can_lie_training_goes_on(tmp_path, whole, capsys):
    (tmp_path / "abc").write_text("a file in the folder's place")
    assert training(tmp_path) == whole
    assert capsys.readouterr().err.count("no checkpoint written") == 1


def test_one_fingerprint_is_trained_once_at_a_time_whatever_the_task(tmp_path, monkeypatch):
    monkeypatch.setattr("biasline.training.runtime.checkpoint._PATIENCE_S", 0.1)
    first, second = (Checkpoints(tmp_path / "abc", "abc", 0) for _ in range(2))
    with (
        first.locked(),
        pytest.raises(BiaslineError, match="another process is training this very model"),
        second.locked(),
    ):
        pass
    with second.locked(), Checkpoints(tmp_path / "abd", "abd", 0).locked():
        pass
    (tmp_path / "file").write_text("")
    with Checkpoints(tmp_path / "file" / "abc", "abc", 0).locked():  # nothing can be written there
        pass


def test_how_logits_are_made_is_chosen_once(tmp_path, monkeypatch):
    seen = []
    check = ResponseTokens.check
    monkeypatch.setattr(ResponseTokens, "check", lambda *args: seen.append(1) or check(*args) or "chosen")
    crashed(tmp_path, 10)
    said = []
    monkeypatch.setattr(ResponseTokens, "check", lambda *_: said.append(1))
    training(tmp_path)
    assert (seen, said) == ([1], [])


def test_asked_to_end_while_it_looks_it_makes_no_further_step(tmp_path, whole, monkeypatch):
    import biasline.training.loop as loop

    asked, look = [], loop.look_at
    monkeypatch.setattr(loop, "look_at", lambda *args: asked.append(signal.SIGTERM) or look(*args))
    with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
        training(tmp_path, every=1e9, stopping=lambda: asked[0] if asked else 0)
    monkeypatch.undo()
    assert [path.stem for path in (tmp_path / "abc").iterdir()] == ["step-00000005"]
    assert training(tmp_path) == whole


def test_the_stage_after_training_clears_its_checkpoints_and_no_others(workspace):
    from biasline.layout import TaskPlace, checkpoints

    place = TaskPlace("small")
    with pytest.raises(BiaslineError, match="dvc repro train@small"):
        clear_checkpoints(place)
    place.train_report.parent.mkdir(parents=True)
    place.train_report.write_text('{"fingerprint": "abc"}')
    clear_checkpoints(place)  # of a training that came out of DVC's cache
    for name in ("abc", "def"):
        (checkpoints() / name).mkdir(parents=True)
        (checkpoints() / name / "step-00000001.safetensors").touch()
    clear_checkpoints(place)
    assert [path.name for path in checkpoints().iterdir()] == ["def"]
