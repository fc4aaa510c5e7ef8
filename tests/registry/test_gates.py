"""Gates against models made up row by row."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from biasline.errors import BiaslineError
from biasline.evaluation import regress
from biasline.evaluation.classify import class_metrics
from biasline.metrics.texts import LOG_LIKELIHOOD
from biasline.params import Task
from biasline.registry.gates import Shown, judge, tenants_beside
from biasline.serving.traffic import Agreement


def task(kind="instruction", slices=(), **gates):
    return Task(kind=kind, base="b", data="d", evaluate={"slices": slices}, gates=gates)


def shown(right_rows, base=None, name="version 2 (bbbb)", **columns):
    """What an instruction model shows that got some of the rows right; the base none, unless said."""
    tuned = np.asarray(right_rows, dtype=bool)
    base = np.zeros(len(tuned), dtype=bool) if base is None else np.asarray(base, dtype=bool)
    texts = {"instruction": ["ask"] * len(tuned), "input": [""] * len(tuned)}
    rows = pl.DataFrame({**texts, "base_exact": base, "tuned_exact": tuned, **columns})
    metrics = {"base": {"exact_match": base.mean()}, "tuned": {"exact_match": tuned.mean()}}
    return Shown(name, metrics, rows, {"quarantine_rate": 0.01, "rows": 300}, {"model.bytes": 30_000.0})


def right(count, rows=100):
    return np.arange(rows) < count


def passes(verdict):
    return {gate.name: gate.passed for gate in verdict.gates}


def named(verdict, name):
    [gate] = [gate for gate in verdict.gates if gate.name == name]
    return gate


def test_without_a_champion_floor_and_base_decide():
    verdict = judge(task(), shown(right(90)))
    assert verdict.passed and verdict.standing == ""
    assert list(passes(verdict)) == [
        "floor",
        "better than the untuned base",
        "size",
        "latency",
        "quarantine",
        "code and parameters in a commit",
    ]
    assert not named(judge(task(floor=0.95), shown(right(90))), "floor").passed


@pytest.mark.parametrize(("base", "tuned", "passed"), [(60, 61, False), (90, 60, False), (60, 75, True)])
def test_better_than_the_base_must_be_more_than_chance(base, tuned, passed):
    candidate = shown(right(tuned), right(base))
    assert named(judge(task(), candidate), "better than the untuned base").passed is passed
    assert judge(task(better_than_base=False), candidate).passed


def of_shops(right_by_shop, rows=20, name="version 2 (bbbb)"):
    """What a fleet shows that got so many of the rows of each shop right."""
    owners = [shop for shop in right_by_shop for _ in range(rows)]
    one = shown(np.concatenate([right(count, rows) for count in right_by_shop.values()]), name=name, shop=owners)
    return replace(one, metrics={**one.metrics, "tenants": {"own": 9}}, costs={"model.bytes": 900_000.0})


def test_tenants_that_are_worse_off_are_named_and_counted():
    fleet = Task(base="b", data="d", tenants={"column": "shop"}, gates={"max_bytes": 100_000, "slice_drop": 1.0})
    before = {f"shop {number}": 10 for number in range(10)}
    champion = of_shops(before, name="version 1 (aaaa)")
    verdict = judge(fleet, of_shops({**before, "shop 3": 20, "shop 4": 20, "shop 5": 11}), champion)
    gate = named(verdict, "tenants not worse off")
    assert gate.passed and gate.numbers == {"tenants": 10, "better": 2, "worse": 0, "allowed": 0.05}
    worse = of_shops({**before, "shop 3": 20, "shop 4": 20, "shop 7": 0})
    gate = named(judge(fleet, worse, champion), "tenants not worse off")
    assert (
        not gate.passed
        and "2 are better off, 1 worse ('shop 7'), 7 have the same answers, 0 are undecided" in gate.told
    )
    allowing = fleet.model_copy(update={"gates": fleet.gates.model_copy(update={"tenants_worse": 0.1})})
    assert named(judge(allowing, worse, champion), "tenants not worse off").passed
    size = named(verdict, "size")
    assert size.passed and "10 deltas of 90,000 bytes, 900,000 in all" in size.told
    assert "tenants not worse off" not in passes(judge(fleet, worse))


def test_a_tenant_that_the_champion_serves_and_the_candidate_does_not_is_named():
    fleet = Task(base="b", data="d", tenants={"column": "shop"}, gates={"max_bytes": 100_000, "slice_drop": 1.0})
    before = {f"shop {number}": 10 for number in range(10)}
    champion = replace(of_shops(before, name="version 1 (aaaa)"), tenants=frozenset({"shop 1", "gone"}))
    candidate = replace(of_shops(before), tenants=frozenset({"shop 1", "new"}))
    gate = named(judge(fleet, candidate, champion), "tenants served")
    assert gate.warning and gate.told == "1 that the champion serves are not in it: 'gone'; 1 are new"
    whole = named(judge(fleet, replace(candidate, tenants=champion.tenants), champion), "tenants served")
    assert not whole.warning and whole.told == "all that the champion serves; 0 are new"


def test_rounding_makes_nobody_worse_off():
    fleet = Task(base="b", data="d", tenants={"column": "shop"}, gates={"max_bytes": 100_000, "slice_drop": 1.0})
    before = {f"shop {number}": 10 for number in range(10)}
    champion, candidate = of_shops(before, name="version 1 (aaaa)"), of_shops({**before, "shop 3": 20})
    metric = fleet.declared("exact_match")
    exact = candidate.predictions["tuned_exact"].cast(pl.Float64)
    less = replace(candidate, predictions=candidate.predictions.with_columns(tuned_exact=exact - 1e-7))
    found = tenants_beside(fleet, metric, less, champion)
    assert found["shop 3"].verdict == "better"
    assert {one.verdict for name, one in found.items() if name != "shop 3"} == {"undecided"}
    assert all(one.alike for name, one in found.items() if name != "shop 3")


def test_a_fall_that_is_not_shown_is_told_with_its_rows():
    fleet = Task(base="b", data="d", tenants={"column": "shop"}, gates={"max_bytes": 100_000, "slice_drop": 1.0})
    before = {f"shop {number}": 10 for number in range(10)}
    verdict = judge(fleet, of_shops({**before, "shop 5": 9}), of_shops(before, name="version 1 (aaaa)"))
    gate = named(verdict, "tenants not worse off")
    assert gate.passed and "the largest fall that is not shown: 'shop 5', -" in gate.told


def headed(tuned, alone, rows=400):
    """A classifier beside a majority class that is right on half of the rows, and a head alone."""
    label = ["a", "b"] * (rows // 2)

    def said(correct):
        return [one if good else "ab"[one == "a"] for one, good in zip(label, right(correct, rows), strict=True)]

    frame = pl.DataFrame({"text": [f"case {number}" for number in range(rows)], "text_pair": "", "label": label})
    metrics = {}
    for who, given in {"base": ["a"] * rows, "probe": said(alone), "tuned": said(tuned)}.items():
        exact = [one == other for one, other in zip(given, label, strict=True)]
        frame = frame.with_columns(pl.Series(who, given), pl.Series(f"{who}_exact", exact))
        metrics[who] = class_metrics("classification", label, given, ["a", "b"])
    return Shown("v", metrics | {"positive_label": "b"}, frame, {"quarantine_rate": 0.0, "rows": rows})


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro", "mcc"])
@pytest.mark.parametrize(
    ("tuned", "alone", "margin", "passed"),
    [(360, 330, 0.0, True), (332, 330, 0.0, False), (330, 340, 0.0, False), (330, 330, 0.05, True)],
)
def test_what_has_a_head_must_be_better_than_a_head_alone(metric, tuned, alone, margin, passed):
    verdict = judge(task("classification", metric=metric, head_margin=margin), headed(tuned, alone))
    gate = named(verdict, "better than a head alone")
    assert gate.passed is passed and (metric != "accuracy" or f"head alone {alone / 400:.4f}" in gate.told)
    assert ("not shown to be better than a head alone" in gate.told) == (tuned - alone <= 2)
    assert named(verdict, "better than the untuned base").passed


def test_a_head_alone_and_earlier_evaluations_are_not_held_against_one():
    alone = Task(kind="classification", base="b", data="d", train={"method": "head"})
    assert "better than a head alone" not in passes(judge(alone, headed(330, 330)))
    earlier = headed(330, 330)
    earlier = replace(earlier, predictions=earlier.predictions.drop("probe", "probe_exact"))
    assert "better than a head alone" not in passes(judge(task("classification"), earlier))
    off = task("classification", better_than_base=False)
    assert "better than a head alone" not in passes(judge(off, headed(330, 330)))


def test_a_verdict_shows_its_numbers():
    verdict = judge(task(floor=0.95), shown(right(90), right(10)))
    page = verdict.as_markdown()
    assert "| floor | FAILED | 0.9000 < 0.9500 |" in page
    assert "base 0.1000, tuned 0.9000; difference +0.8000" in page
    told = verdict.as_data()
    assert told["gates"][1]["numbers"]["mean"] == 0.8 and told["gates"][1]["numbers"]["rows"] == 100


def flipped(correct, gained, lost):
    """Other answers: so many wrong rows right, so many right rows wrong."""
    found = np.array(correct)
    found[np.flatnonzero(~found)[:gained]] = True
    found[np.flatnonzero(correct)[:lost]] = False
    return found


@pytest.mark.parametrize(
    ("gained", "lost", "standing"),
    [(40, 5, "better"), (10, 10, "not worse"), (0, 0, "not worse"), (5, 40, "worse"), (40, 40, "worse")],
)
def test_the_standing_beside_the_champion(gained, lost, standing):
    """Of 1,000 rows; as many gained as lost, when many, tells nothing: the interval reaches below the margin."""
    champion = right(800, 1000)
    rival = shown(champion, name="version 1 (aaaa)")
    verdict = judge(task(margin=0.015), shown(flipped(champion, gained, lost)), rival)
    assert verdict.standing == standing
    gate = named(verdict, "not worse than the champion")
    assert gate.passed is (standing != "worse") and gate.told.startswith(f"{standing} than version 1 (aaaa)")
    assert ("Not shown to be worse either" in gate.told) is (gained == lost == 40)


def test_few_rows_that_agree_show_nothing():
    """Twenty equal answers: differences of 16 points would look the same."""
    verdict = judge(task(), shown(right(15, 20)), shown(right(15, 20)))
    assert verdict.standing == "worse" and "±0.161 apart; more test rows" in verdict.as_markdown()


def test_margins_do_not_creep():
    """Each a little worse than the one before, as the margin allows; so the best so far counts too."""
    best = right(950, 1000)
    champion, candidate = flipped(best, 0, 20), flipped(best, 0, 40)
    beside = shown(candidate), shown(champion, name="version 8"), shown(best, name="version 3")
    verdict = judge(task(margin=0.035), *beside)
    assert passes(verdict)["not worse than the champion"]
    assert not passes(verdict)["not worse than the best champion so far"] and not verdict.passed
    assert "worse than version 3" in verdict.as_markdown()


def test_a_slice_that_falls_is_refused_though_the_mean_rises():
    skill = np.array(["sum"] * 900 + ["rare"] * 100)
    champion = flipped(right(1000, 1000), 0, 300)
    better = champion | (skill == "sum")
    better[skill == "rare"] = np.arange(100) < 60
    sides = shown(better, skill=skill), shown(champion, skill=skill)
    verdict = judge(task(slices=["skill"]), *sides)
    assert verdict.standing == "better" and not verdict.passed
    gate = named(verdict, "no slice fell")
    assert not gate.passed and gate.told.startswith("skill = rare: -0.4000 [")
    assert gate.numbers["fallen"] == 1
    assert judge(task(slices=["skill"], slice_drop=0.5), *sides).passed


def test_chance_in_many_small_slices_is_no_fall():
    generator = np.random.default_rng(0)
    skill = generator.integers(0, 40, 800).astype(str)
    refused = 0
    for _ in range(20):
        one, other = generator.random((2, 800)) < 0.9
        verdict = judge(task(slices=["skill"], margin=1), shown(one, skill=skill), shown(other, skill=skill))
        refused += not named(verdict, "no slice fell").passed
    assert refused <= 2


@pytest.mark.parametrize("values", [[None, "a"], [1, 2], [0.5, None], [True, False], [["a"], ["a", "b"]]])
def test_slices_may_be_of_any_type(values):
    column = [values[0]] * 60 + [values[1]] * 40
    better = np.arange(100) >= 60
    verdict = judge(task(slices=["s"], margin=1), shown(better, s=column), shown(~better, s=column))
    gate = named(verdict, "no slice fell")
    assert not gate.passed and f"s = {column[0]}: -1.0000 [" in gate.told and "over 60 rows" in gate.told


def test_a_slice_that_the_candidate_has_not_is_told():
    with pytest.raises(BiaslineError, match="no column 'skill' → mend evaluate.slices"):
        judge(task(slices=["skill"]), shown(right(90)), shown(right(90)))


def test_what_a_model_costs():
    dear = Shown("v", *_parts(), {"quarantine_rate": 0.3, "rows": 10}, {"model.bytes": 2e9} | times(10.0, 30.0))
    verdict = judge(task(), dear)
    assert [name for name, passed in passes(verdict).items() if not passed] == ["size", "latency", "quarantine"]
    assert named(verdict, "latency").told == "30.0 ms a row, the base 10.0 ms: 3.00 times, at most 2"
    assert judge(task(max_bytes=10**10, max_latency=4, max_quarantine=0.5), dear).passed


def times(base, tuned):
    return {"base.latency_ms": base, "tuned.latency_ms": tuned}


def _parts():
    candidate = shown(right(90))
    return candidate.metrics, candidate.predictions


def test_what_was_never_measured_is_a_warning():
    gate = named(judge(task(), Shown("v", *_parts())), "latency")
    assert gate.passed and gate.warning and gate.word == "warning"


@pytest.mark.parametrize(("rule", "word"), [("allow", None), ("warn", "warning"), ("deny", "FAILED")])
def test_code_that_no_commit_has(rule, word):
    loose = Shown("v", *_parts(), uncommitted="src/biasline/params.py")
    for candidate, changed in ((loose, ()), (shown(right(90)), ["params.yaml"])):
        found = judge(task(uncommitted=rule), candidate, changed=changed).gates
        assert [gate.word for gate in found if gate.name.startswith("code and")] == ([word] if word else [])
    assert "no commit: src/biasline/params.py" in judge(task(), loose).as_markdown()
    assert named(judge(task(uncommitted="deny"), shown(right(90))), "code and parameters in a commit").passed


OWN = """
def no_empty_answer(candidate, champion):
    \"\"\"answers are never empty\"\"\"
    empty = (candidate["predictions"]["tuned"] == "").sum()
    return empty == 0, f"{empty} are"


def champion_is_known(candidate, champion):
    return champion is None or champion["costs"]["model.bytes"] > 0
"""


def test_a_gate_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gates.py").write_text(OWN)
    good, bad = (shown(right(90), tuned=[answer] * 100) for answer in ("yes", ""))
    verdict = judge(task(own="gates.py"), bad, good)
    assert not verdict.passed and passes(verdict)["champion_is_known"]
    assert named(verdict, "no_empty_answer").told == "answers are never empty. 100 are"
    assert judge(task(own="gates.py"), good).passed


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return None", "None is no answer → return True or False"),
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("return 1.0", "1.0 is no answer"),
    ],
)
def test_a_gate_of_ones_own_that_does_not_run(tmp_path, monkeypatch, body, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gates.py").write_text(f"def mine(candidate, champion):\n    {body}\n")
    with pytest.raises(BiaslineError, match=f"gates.py: mine: {told}"):
        judge(task(own="gates.py"), shown(right(90)))


def test_a_docstring_of_a_gate_of_ones_own_may_be_blank_or_long(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bodies = {"blank": '"""  """', "long": '"""First line.\n\n    More.\n    """'}
    text = "".join(f"def {name}(candidate, champion):\n    {doc}\n    return True\n" for name, doc in bodies.items())
    (tmp_path / "gates.py").write_text(text)
    verdict = judge(task(own="gates.py"), shown(right(90)))
    assert (named(verdict, "blank").told, named(verdict, "long").told) == ("no words", "First line.")


def test_token_accuracy_is_compared_row_by_row_where_it_is_known():
    columns = {"tokens": [4, 2], "base_hits": [1, 0], "tuned_hits": [4, 1]}
    frame = pl.DataFrame({name: values * 10 + [None] for name, values in columns.items()})
    metrics = {"base": {"token_accuracy": 0.2}, "tuned": {"token_accuracy": 0.8}}
    verdict = judge(task(metric="token_accuracy", floor=0.5), Shown("v", metrics, frame))
    assert named(verdict, "better than the untuned base").passed
    assert "difference +0.6250" in verdict.gates[1].told
    assert "over 20 rows; 1 rows have no value" in verdict.gates[1].told


def labelled(right, rows=200):
    """A test set of one rare label in ten, a base that always gives the other, a model right on so many of the rare."""
    rare = rows // 10
    label = ["rare"] * rare + ["often"] * (rows - rare)
    tuned = ["rare"] * right + ["often"] * (rows - right)
    texts = {"text": ["a"] * rows, "text_pair": [""] * rows}
    frame = pl.DataFrame({**texts, "label": label, "base": ["often"] * rows, "tuned": tuned})
    frame = frame.with_columns((pl.col(who) == pl.col("label")).alias(f"{who}_exact") for who in ("base", "tuned"))
    values = {"base": class_metrics("classification", label, ["often"] * rows, ["often", "rare"])}
    values["tuned"] = class_metrics("classification", label, tuned, ["often", "rare"])
    return {**values, "positive_label": "rare"}, frame


@pytest.mark.parametrize("metric", ["mcc", *(pytest.param(one, marks=pytest.mark.slow) for one in ("f1", "f1_macro"))])
def test_a_benchmarks_own_metric_is_compared_on_the_same_rows(metric):
    good = judge(task("classification", metric=metric, floor=0.1), Shown("v", *labelled(right=15)))
    assert good.passed
    gain = labelled(15)[0]["tuned"][metric] - labelled(15)[0]["base"][metric]
    assert f"difference {gain:+.4f}" in good.gates[1].told and "over 200 rows" in good.gates[1].told
    assert not judge(task("classification", metric=metric, floor=0.0), Shown("v", *labelled(right=0))).passed
    rival = Shown("w", *labelled(right=9))
    assert judge(task("classification", metric=metric, floor=0.1), Shown("v", *labelled(right=15)), rival).passed
    assert not judge(task("classification", metric=metric, floor=0.1), rival, Shown("v", *labelled(right=15))).passed


@pytest.mark.parametrize(("scale", "passed"), [(1.0, True), (0.002, False)])
def test_scores_that_hardly_differ_are_refused_however_well_they_correlate(scale, passed):
    generator = np.random.default_rng(0)
    score = generator.normal(3.0, 1.0, 200)
    mean = float(score.mean()) + 0.05
    given = mean + scale * (score - score.mean()) + 0.1 * scale * generator.normal(size=200) + 0.06 * (scale < 1)
    frame = regress.predictions(pl.DataFrame({"score": [str(value) for value in score]}), given, mean)
    metrics = {who: regress.score_metrics("regression", score, frame[who].to_numpy()) for who in ("base", "tuned")}
    verdict = judge(task("regression"), Shown("v", metrics, frame))
    assert passes(verdict)["better than the untuned base"] and verdict.passed is passed
    assert verdict.gates[2].name == "nearer than the training rows' mean" and verdict.gates[2].passed is passed


@pytest.mark.slow
def test_a_regression_must_stay_as_near_as_the_champion():
    """The same order, other units: the correlation says that nothing has changed."""
    generator = np.random.default_rng(0)
    score = generator.normal(3.0, 1.0, 300)
    given = score + 0.3 * generator.normal(size=300)
    sides = []
    for answers in (given + 2.0, given):
        texts = pl.DataFrame({"text": ["a"] * 300, "text_pair": [""] * 300, "score": [str(value) for value in score]})
        frame = regress.predictions(texts, answers, float(score.mean()))
        metrics = {who: regress.score_metrics("regression", score, frame[who].to_numpy()) for who in ("base", "tuned")}
        sides.append(Shown("v", metrics, frame))
    verdict = judge(task("regression"), *sides)
    assert passes(verdict)["not worse than the champion"] and not passes(verdict)["as near as the champion"]
    assert judge(task("regression"), sides[1], sides[1]).passed


def open_answers(tuned, base, name="version 1", missing=()):
    """A model on open answers: the negative log-likelihood of each reference, of ten tokens each."""
    tuned, base = (np.asarray(values, dtype=np.float64) for values in (tuned, base))
    rows = len(tuned)
    absent = np.isin(np.arange(rows), missing)
    columns = {
        f"{who}_nll": pl.Series(values).set(pl.Series(absent), None)
        for who, values in (("tuned", tuned), ("base", base))
    }
    found = shown(right(0, rows), name=name, tokens=pl.Series([10] * rows).set(pl.Series(absent), None), **columns)
    values = {
        who: {"exact_match": 0.0, LOG_LIKELIHOOD: -values.mean() / 10}
        for who, values in (("tuned", tuned), ("base", base))
    }
    return replace(found, metrics={**values, "metric": LOG_LIKELIHOOD})


def test_open_answers_are_compared_by_likelihood_row_by_row():
    noise = np.random.default_rng(0).normal(20, 5, 100)
    candidate = open_answers(noise - 2, noise)
    verdict = judge(task(), candidate)
    assert verdict.passed and verdict.metric == LOG_LIKELIHOOD
    assert named(verdict, "floor").passed  # exact match is 0 and the default floor 0.5
    assert named(verdict, "better than the untuned base").numbers["mean"] == pytest.approx(0.2)
    assert not judge(task(), open_answers(noise + 2, noise)).passed
    # A champion that was judged by exact match once has the likelihood of each row all the same.
    before = replace(open_answers(noise - 2.1, noise), metrics={"base": {}, "tuned": {"exact_match": 0.0}})
    assert judge(task(), candidate, before).standing == "not worse"
    assert judge(task(), candidate, open_answers(noise - 9, noise)).standing == "worse"
    assert judge(task(), candidate, open_answers(noise + 1, noise)).standing == "better"


def test_rows_that_either_model_has_no_likelihood_of_are_left_out_of_the_comparison():
    noise = np.random.default_rng(0).normal(20, 5, 100)
    candidate = open_answers(noise - 2, noise, missing=[1, 2])
    told = named(judge(task(), candidate), "better than the untuned base").told
    assert "over 98 rows; 2 rows have no value: their references are over tokens.max_length" in told
    verdict = judge(task(), candidate, open_answers(noise - 2, noise, missing=[2, 3, 4]))
    assert named(verdict, "better than the untuned base").numbers["rows"] == 98
    assert named(verdict, "not worse than the champion").numbers["rows"] == 96
    assert named(verdict, "no slice fell").numbers["lowest"] == pytest.approx(0)


def test_a_model_is_not_judged_by_the_few_rows_that_it_can_hold():
    noise = np.random.default_rng(0).normal(20, 5, 26)
    candidate = open_answers(noise - 9, noise, missing=range(2, 26))
    champion = open_answers(noise, noise)
    verdict = judge(task(better_than_base=True), candidate, champion)
    assert not named(verdict, "not worse than the champion").passed
    assert not named(verdict, "better than the untuned base").passed
    assert "too many to judge by" in named(verdict, "not worse than the champion").told
    with pytest.raises(BiaslineError, match="no test row has a value of response_log_likelihood of both models"):
        judge(task(), candidate, open_answers(noise, noise, missing=[0, 1]))


def test_a_slice_of_few_rows_is_not_shown_to_have_fallen():
    """Models that do not differ but by chance: of forty slices of three rows some are lower in each row."""
    noise = np.random.default_rng(1).normal(20, 3, (2, 120))
    slices = [f"{place // 3}" for place in range(120)]
    candidate, champion = (
        replace(one, predictions=one.predictions.with_columns(pl.Series("part", slices)))
        for one in (open_answers(values, values + 5) for values in noise)
    )
    verdict = judge(task(slices=("part",)), candidate, champion)
    assert named(verdict, "no slice fell").passed
    worse = open_answers(noise[0] + np.where(np.arange(120) < 60, 30, 0), noise[0] + 40)
    halves = pl.Series("part", ["first"] * 60 + ["second"] * 60)
    worse, champion = (replace(one, predictions=one.predictions.with_columns(halves)) for one in (worse, champion))
    assert not named(judge(task(slices=("part",)), worse, champion), "no slice fell").passed


def test_only_a_negative_floor_is_one_of_a_log_likelihood():
    noise = np.random.default_rng(0).normal(20, 1, 100)
    candidate = open_answers(noise - 2, noise)  # about -1.8 nats a token
    assert named(judge(task(metric=LOG_LIKELIHOOD, floor=-2.5), candidate), "floor").passed
    assert not named(judge(task(metric=LOG_LIKELIHOOD, floor=-1.0), candidate), "floor").passed


@pytest.mark.parametrize(("agreed", "passed"), [(990, True), (955, False), (0, False)])
def test_a_candidate_must_tell_users_what_the_champion_tells_them(agreed, passed):
    asked = task(shadow_agreement=0.95, traffic="traffic")
    candidate = replace(shown(right(90)), agreement=Agreement("f1", "f2", 1000, agreed))
    name = "agreement with the champion on users' rows"
    gate = named(judge(asked, candidate, shown(right(90))), name)
    assert gate.passed is passed and "of 1,000 rows of users" in gate.told
    assert name not in passes(judge(asked, candidate)) and name not in passes(judge(task(), candidate, candidate))


def test_no_rows_of_users_are_no_agreement():
    gate = named(
        judge(task(shadow_agreement=0.5, traffic="there"), shown(right(90)), shown(right(90))),
        "agreement with the champion on users' rows",
    )
    assert not gate.passed and "no row in there that both answered" in gate.told
    with pytest.raises(ValueError, match=r"shadow_agreement wants gates\.traffic"):
        task(shadow_agreement=0.5)
