import sys
import time

import numpy as np

from biasline.tracking.meter import Meter, peak_memory_mb


def test_tokens_per_second_are_those_since_the_last_call():
    meter = Meter()
    time.sleep(0.05)
    assert 0 < meter.read(100)["tokens_per_second"] <= 100 / 0.05
    time.sleep(0.05)
    assert meter.read(100)["tokens_per_second"] == 0.0
    assert 0 < meter.observed()["train.mean_tokens_per_second"] <= 100 / 0.1


def test_what_an_earlier_process_did_is_part_of_the_whole_and_not_of_the_rate():
    began = time.monotonic()
    meter = Meter()
    meter.skip(1000, 100.0)
    time.sleep(0.05)
    assert meter.read(1001)["tokens_per_second"] <= 1 / 0.05
    observed = meter.observed()
    least, most = 100.0, 100.0 + time.monotonic() - began
    assert least <= observed["train.seconds"] <= round(most, 3) + 0.1
    assert 1001 / most - 0.1 <= observed["train.mean_tokens_per_second"] <= 1001 / least + 0.1


def test_memory_that_was_freed_still_counts_for_the_peak(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # an accelerator's memory is another
    before = peak_memory_mb()
    block = np.ones(int((before + 64) * 2**20) // 8)
    assert block[0] == 1.0
    del block
    assert peak_memory_mb() >= before + 64
