from benchmarks import bank, engine


def test_the_benchmark_measures_what_it_tells(monkeypatch, capsys):
    monkeypatch.setattr(bank, "CASES", {"tiny": lambda: engine.bloom(16, 1, 2, 50).transformer})
    monkeypatch.setattr(bank, "ROUNDS", 3)
    monkeypatch.setattr(bank, "TENANTS", (1, 40))
    found = bank.measure()["cases"]["tiny"]
    assert found["entries"] == (2 + 1 + 5) * 16  # one layer: query and value, attention output, 4 + 1 for the MLP
    assert set(found["forward"]) == set(found["backward"]) == {"noise", "1", "40"}
    assert all(0.02 < ratio < 50 for part in ("forward", "backward") for ratio in found[part].values())
    assert "tiny: 128 entries" in capsys.readouterr().out


def test_slots_are_spread_over_the_bank_and_none_is_the_base():
    for tenants in bank.TENANTS:
        slots = bank._slots(tenants)
        assert len(slots) == bank.ROWS and len(set(slots)) == min(tenants, bank.ROWS)
        assert min(slots) >= 1 and max(slots) <= tenants
