"""Skills of numbers: sums and comparisons."""

from __future__ import annotations

from biasline.demo.skill import Case, Skill, combined, is_held

SUMMANDS = range(13)
COMPARED = range(25)


def sums() -> list[Skill]:
    """Adding two numbers, in English and Chinese."""
    cases = [
        (is_held("sum", min(a, b), max(a, b)), Case({"a": str(a), "b": str(b)}, str(a + b)))
        for a in SUMMANDS
        for b in SUMMANDS
    ]
    return [
        combined(
            "sum",
            "en",
            cases,
            asks=r"""
                What is {a} plus {b}?
                What is {a} + {b}?
                {a} + {b} = ?
                {a} plus {b}
                Add {a} and {b}.
                Add the numbers.\n{a} + {b}
                How much is {a} and {b}?
                Calculate.\n{a} + {b}
                What is the sum of {a} and {b}?
            """,
            new_asks=r"""
                Tell me the sum of {a} and {b}.
                Work out the sum.\n{a} + {b}
                Find {a} plus {b}.
            """,
            states=r"""
                {a} + {b} = {answer}
                {a} plus {b} is {answer}.
                {a} and {b} make {answer}.
                {a} and {b} more is {answer}.
                The sum of {a} and {b} is {answer}.
                {answer} = {a} + {b}
                {a}+{b}={answer}
            """,
            weight=1.8,
        ),
        combined(
            "sum",
            "zh",
            cases,
            asks=r"""
                {a}加{b}等于多少？
                {a}加{b}是多少？
                {a}+{b}=？
                {a}与{b}的和是多少？
                计算：{a}加{b}
                求和。\n{a} + {b}
                算一算。\n{a} + {b}
                {a}加上{b}得几？
            """,
            new_asks=r"""
                请算出{a}加{b}的结果。
                求下面两个数的和。\n{a} + {b}
                请问{a}加{b}得多少？
            """,
            states=r"""
                {a}加{b}等于{answer}。
                {a}+{b}={answer}
                {a}与{b}的和是{answer}。
                {a}加上{b}是{answer}。
                {answer}等于{a}加{b}。
                {a}和{b}合起来是{answer}。
            """,
            weight=1.8,
        ),
    ]


def comparisons() -> list[Skill]:
    """Telling the larger or smaller of two numbers, in English and Chinese."""
    cases = [
        (is_held("compare", min(a, b), max(a, b)), Case({"a": str(a), "b": str(b)}, str(max(a, b))))
        for a in COMPARED
        for b in COMPARED
        if a != b
    ]
    return [
        combined(
            "compare",
            "en",
            cases,
            asks=r"""
                Which is larger, {a} or {b}?
                Which number is larger: {a} or {b}?
                Which is more, {a} or {b}?
                Name the larger number.\n{a}, {b}
                The larger one of {a} and {b}?
                {a} or {b}, which one is larger?
                Compare {a} and {b} and give the larger.
                larger of {a} and {b}
            """,
            new_asks=r"""
                Tell me the larger number of {a} and {b}.
                Choose the larger number.\n{a}, {b}
                Of {a} and {b}, which is larger?
            """,
            states=r"""
                {answer} is the larger one of {a} and {b}.
                The larger number of {a} and {b} is {answer}.
                Of {a} and {b}, {answer} is larger.
                {a} or {b}? {answer} is more.
                max({a}, {b}) = {answer}
            """,
            weight=1.3,
        ),
        combined(
            "compare",
            "zh",
            cases,
            asks=r"""
                {a}和{b}哪个大？
                {a}和{b}哪个更大？
                哪个数大，{a}还是{b}？
                {a}与{b}中较大的是哪个？
                写出较大的数。\n{a}，{b}
                比大小：{a}和{b}
                比一比，哪个大？\n{a}，{b}
                {a}还是{b}比较大？
            """,
            new_asks=r"""
                请告诉我{a}和{b}中较大的数。
                选出较大的数。\n{a}，{b}
                请问{a}和{b}谁更大？
            """,
            states=r"""
                {a}和{b}中较大的是{answer}。
                {a}和{b}，{answer}大。
                {answer}是{a}与{b}中较大的数。
                {a}和{b}比，{answer}更大。
                max({a}, {b}) = {answer}
            """,
            weight=1.3,
        ),
    ]
