from biasline.evaluation.fingerprint import evaluation_modules


def test_how_answers_are_served_and_drawn_decides_no_number():
    modules = {*evaluation_modules("instruction"), *evaluation_modules("regression")}
    assert {"kinds.answering", "evaluation.answers", "evaluation.headed", "metrics.table"} <= modules
    assert not [name for name in modules if name.partition(".")[0] in ("serving", "figures", "registry", "tracking")]
