from biasline.evaluation.intervals import format_interval


def test_an_interval_stands_behind_its_number():
    assert f"0.500{format_interval(0.4121, 0.5879)}" == "0.500 [0.412, 0.588]"
    assert format_interval(-0.1, 0.2, "+.2f") == " [-0.10, +0.20]"


def test_without_both_ends_there_is_none():
    assert format_interval(None, 0.5) == format_interval(0.5, None) == format_interval(None, None) == ""
