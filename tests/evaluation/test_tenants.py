"""A fleet's test rows tenant by tenant: means, verdicts, the page."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from biasline.evaluation.statistics import sign_flip_p
from biasline.evaluation.tenants import (
    FALSE_DISCOVERIES,
    Values,
    means_told,
    tenant_numbers,
    tenant_table,
    tenants_page,
)


@given(st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0]), min_size=2, max_size=7))
@settings(max_examples=25)
def test_all_signs_are_tried_of_few_differences(differences):
    values = np.array(differences)
    expected = permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    ).pvalue
    assert sign_flip_p(values) == pytest.approx(min(1.0, expected)) or not values.any()


def test_many_differences_are_told_by_draws():
    rng = np.random.default_rng(0)
    assert sign_flip_p(rng.normal(1.0, 1.0, 100)) < 0.001
    noise = [sign_flip_p(rng.normal(0.0, 1.0, 30), seed) for seed in range(100)]
    assert 0.0 < np.mean(np.array(noise) < 0.1) < 0.25
    assert sign_flip_p(np.zeros(5)) == 1.0


def trained(**serves):
    rows = [{"tenant": name, "train": 30, "serves": what, "why": "because"} for name, what in serves.items()]
    return pl.DataFrame(rows)


def made(gains, rows=12, seed=0):
    """Tenants with an own delta, each better by so much in each row, but for noise; one that shares; one untested."""
    rng = np.random.default_rng(seed)
    owners, base, shared, tuned = [], [], [], []
    for name, gain in gains.items():
        owners += [name] * rows
        given_shared = rng.normal(2.0, 1.0, rows)
        shared += given_shared.tolist()
        tuned += (given_shared + gain + rng.normal(0.0, 0.1, rows)).tolist()
        base += [0.0] * rows
    owners += ["sharing"] * 2
    base, shared, tuned = [*base, 0.0, 0.0], [*shared, 1.0, 3.0], [*tuned, 1.0, 3.0]
    report = trained(**dict.fromkeys(gains, "own"), sharing="shared", untested="shared")
    return tenant_table(owners, Values(*map(np.array, (base, shared, tuned))), report)


def test_each_tenant_has_means_and_a_verdict():
    table = made({"up": 1.0, "down": -1.0, "level": 0.0})
    by_name = {row["tenant"]: row for row in table.iter_rows(named=True)}
    assert [row["verdict"] for row in by_name.values()] == ["better", "worse", "undecided", "", ""]
    up = by_name["up"]
    assert up["gain"] == pytest.approx(up["tuned"] - up["shared"]) and up["low"] < up["gain"] < up["high"]
    assert by_name["sharing"]["shared"] == by_name["sharing"]["tuned"] == 2.0 and by_name["sharing"]["p"] is None
    assert by_name["untested"]["rows"] == 0 and by_name["untested"]["tuned"] is None
    numbers = tenant_numbers(table)
    assert (numbers["count"], numbers["tested"], numbers["own"]) == (5, 4, 3)
    assert (numbers["better"], numbers["worse"], numbers["undecided"]) == (1, 1, 1)
    means = [row["tuned"] for row in by_name.values() if row["rows"]]
    assert numbers["macro"]["tuned"] == pytest.approx(np.mean(means), abs=1e-6)


def test_of_those_that_differ_by_chance_few_are_called_so():
    called = 0
    for seed in range(5):
        table = made({f"t{number}": 0.0 for number in range(40)}, seed=seed)
        called += table["verdict"].is_in(["better", "worse"]).sum()
    assert called <= 200 * FALSE_DISCOVERIES


def test_where_less_is_better_means_stay_what_they_are():
    few = np.array([1.0, 1.5, 1.0, 1.2, 1.1, 0.9, 1.0, 1.3])
    table = tenant_table(["a"] * 8, Values(few + 5, few + 1, few, -1.0), trained(a="own"))
    [row] = table.iter_rows(named=True)
    assert row["base"] > row["shared"] > row["tuned"] > 0 and row["gain"] == pytest.approx(1.0)
    assert row["verdict"] == "better"


def test_right_and_wrong_answers_are_values():
    right = np.array([True, False, True])
    table = tenant_table(["a", "a", "a"], Values(~right, right, right | True), trained(a="own"))
    assert table.select("base", "shared", "tuned").row(0) == pytest.approx((1 / 3, 2 / 3, 1.0))


def test_gains_that_differ_by_rounding_alone_have_a_page():
    owners, nothing = ["a", "a", "a", "b", "b"], np.zeros(5)
    table = tenant_table(
        owners, Values(nothing, nothing, np.array([0.1, 0.2, 0.3, 0.2, 0.2])), trained(a="own", b="own")
    )
    assert "| +0" in tenants_page(table, tenant_numbers(table), "ROUGE-L")


def test_values_that_are_not_finite_decide_nothing():
    assert sign_flip_p(np.array([np.inf, -np.inf, 1.0])) == 1.0


def test_where_nothing_was_measured_nothing_is_told():
    nothing = np.full(2, np.nan)
    numbers = tenant_numbers(tenant_table(["a", "a"], Values(nothing, nothing, nothing), trained(a="own")))
    assert numbers["macro"] == {} and means_told(numbers) == "not measured"


def test_rows_without_a_value_are_in_no_mean():
    values = np.array([1.0, np.nan, 3.0])
    table = tenant_table(["a", "a", "a"], Values(values * 0, values, values), trained(a="own"))
    assert table["rows"].to_list() == [2] and table["shared"].to_list() == [2.0]


def test_the_page_names_what_is_in_no_mean_and_shows_the_ends():
    table = made({f"t{number:02}": number / 10 for number in range(-10, 50)})
    page = tenants_page(table, tenant_numbers(table), "accuracy")
    assert "test rows of 61 tenants." in page and "60 of 62 tenants" in page
    assert "1 tenants have no test row and are in no mean: untested." in page
    first = page.index("## Largest gains"), page.index("## Smallest gains and losses")
    assert "| t49 |" in page[first[0] : first[1]] and "| t-9 |" in page[first[1] :] and "| t20 |" not in page
    assert page.count("█") > 10 and "false discovery rate 0.1" in page
