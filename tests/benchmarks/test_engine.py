from benchmarks import engine


def test_the_benchmark_measures_what_it_tells(monkeypatch, capsys):
    monkeypatch.setattr(engine, "CASES", {"tiny": (lambda: engine.bloom(16, 1, 2, 50), {"roles": "all"}, True)})
    monkeypatch.setattr(engine, "PAIRS", 3)
    monkeypatch.setattr(engine, "SWAPS", 2)
    found = engine.measure()
    case = found["cases"]["tiny"]
    # one layer without idle keys: two norms, query and value, attention output, 4 + 1 for the MLP; two norms outside
    assert case["biases"] == (2 + 2 + 1 + 5 + 2) * 16
    assert case["apply_ms"] > 0 and 0.1 < case["ratio"] < 10
    assert found["machine"]["cores"] >= 1
    assert "tiny: 192 of" in capsys.readouterr().out
