from benchmarks import promotion


def test_the_gates_err_about_as_often_as_they_say(monkeypatch):
    monkeypatch.setattr(promotion, "PAIRS", 2_000)
    assert 0.01 < promotion.promoted(343, 0.1, -promotion.MARGIN, seed=0) < 0.04
    refused = 1 - promotion.promoted(1_000, 0.1, 0.0, seed=1)
    assert abs(refused - promotion.nominal_refusal(1_000, 0.1)) < 0.05
    assert promotion.fallen(4, 85, 0.1, 0.0, seed=0) < 0.025 < promotion.fallen(4, 85, 0.3, -0.3, seed=0)
    assert 0.0 <= promotion.graded(50, -promotion.MARGIN, seed=0, pairs=20) <= 0.3


def test_the_page_that_is_committed_has_a_line_for_each_cell():
    page = promotion.OUT.read_text()
    for rows in promotion.SIZES:
        assert page.count(f"\n| {rows:,} | ") >= len(promotion.DISAGREEMENTS)
