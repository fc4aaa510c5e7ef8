"""Gates: what a candidate must show, each with its numbers."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from biasline.custom import own_functions
from biasline.errors import BiaslineError, first_line, shown
from biasline.evaluation.measure import (
    CHEAPER,
    in_own_units,
    in_place_of_base,
    measured_rows,
    paired_statistic,
    paired_values,
)
from biasline.evaluation.scoring import LENGTH, with_lengths
from biasline.evaluation.statistics import CONFIDENCE, paired_interval, sign_flip_p
from biasline.evaluation.tenants import FALSE_DISCOVERIES, called
from biasline.kinds.answering import find_answering
from biasline.metrics.metric import Metric
from biasline.params import FLOOR, Task, method_spec
from biasline.registry.signing import Standing
from biasline.serving.traffic import Agreement

# A column beside those of the data, whatever they are called.
_PLACE = "place among the rows"
# The largest share of rows without a value of the metric.
_UNMEASURED = 0.1
_NAMED = 5
# Two answers of one delta in different batches differ by less.
_ROUNDING = 1e-4
BETTER, NOT_WORSE, WORSE = "better", "not worse", "worse"


@dataclass(frozen=True)
class Shown:
    """What a model showed on a test set, and what it costs.

    Attributes:
        name: what people call it: `version 3 (1a2b3c4d)`.
        metrics: its metrics.json.
        predictions: the test rows with its answers, as evaluation leaves them.
        quality: the quality.json of its data.
        costs: `model.bytes`, `base.latency_ms` and `tuned.latency_ms`, as far as they are known.
        uncommitted: what was in no commit when it was made.
        tenants: of a fleet, those that it knows.
        carried: tenants of a fleet that keep the champion's delta.
        foretold: whether that is not done yet.
        not_carried: why those that are worse off do not keep it.
        agreement: with the champion, on what users asked; None where it was asked nothing beside it.
        signature: how it stands by the key of `gates.require_signature`; None where none is asked for.
    """

    name: str
    metrics: dict[str, Any]
    predictions: pl.DataFrame
    quality: dict[str, Any] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    uncommitted: str = ""
    tenants: frozenset[str] = frozenset()
    carried: Sequence[str] = ()
    foretold: bool = False
    not_carried: str = ""
    agreement: Agreement | None = None
    signature: Standing | None = None


@dataclass(frozen=True)
class Gate:
    """One demand, whether it is met, and the numbers that say so.

    Attributes:
        told: the numbers in words.
        warning: it lets the candidate pass, but someone should look.
    """

    name: str
    passed: bool
    told: str
    numbers: dict[str, float] = field(default_factory=dict)
    warning: bool = False

    @property
    def word(self) -> str:
        """The outcome in a word."""
        return gate_word(asdict(self))


def gate_word(gate: Mapping[str, Any]) -> str:
    """The outcome of a gate in a word, as the ledger has it; the first ledgers knew no warnings."""
    return "FAILED" if not gate["passed"] else "warning" if gate.get("warning") else "passed"


@dataclass(frozen=True)
class Verdict:
    """All gates of one candidate.

    Attributes:
        metric: the one that decides.
        standing: beside the champion: better, not worse, or worse; empty where there is none.
    """

    metric: str
    standing: str
    gates: tuple[Gate, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate was passed."""
        return all(gate.passed for gate in self.gates)

    def as_data(self) -> dict[str, Any]:
        """As plain data, for the ledger and for `--json`."""
        return {"passed": self.passed, **asdict(self)}

    def as_markdown(self) -> str:
        """A table that a pull request shows."""
        lines = [f"| gate on {self.metric} | | numbers |", "|---|---|---|"]
        cells = ([gate.name, gate.word, gate.told] for gate in self.gates)
        return "\n".join(lines + [f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in cells])


class _Difference(NamedTuple):
    """What a candidate is better by than another model on the same rows, with its interval at `CONFIDENCE`.

    Of a metric where lower is better that is the other's value less the candidate's, and `word` says so.
    """

    mean: float
    low: float
    high: float
    rows: int
    unmeasured: int = 0
    word: str = "difference"

    @property
    def is_enough(self) -> bool:
        """Whether nearly all rows have a value: those that lack it are the longest, and no sample of all."""
        return self.unmeasured <= _UNMEASURED * (self.rows + self.unmeasured)

    @property
    def told(self) -> str:
        lacking = f"; {self.unmeasured} rows have no value: their references are over tokens.max_length"
        return (
            f"{self.word} {self.mean:+.4f}, {CONFIDENCE:.0%} paired interval [{self.low:+.4f}, {self.high:+.4f}] over "
            f"{self.rows} rows{lacking if self.unmeasured else ''}{'' if self.is_enough else ', too many to judge by'}"
        )

    @property
    def numbers(self) -> dict[str, float]:
        values = {name: value for name, value in self._asdict().items() if name != "word"}
        found = {name: round(value, 6) for name, value in values.items() if np.isfinite(value)}
        return found if self.unmeasured else {name: value for name, value in found.items() if name != "unmeasured"}


def judge(
    task: Task,
    candidate: Shown,
    champion: Shown | None = None,
    best: Shown | None = None,
    changed: Sequence[str] = (),
) -> Verdict:
    """Hold a candidate against the gates.

    Args:
        task: thresholds, the metric that decides, and the slices.
        candidate: what is judged.
        champion: what is in use, on the candidate's test rows.
        best: the best champion so far, on the same rows, where that is another.
        changed: code and parameters that are in no commit now.

    Raises:
        BiaslineError: where the candidate was not evaluated by the metric or has no column of a slice, and where a gate
            of the project's own does not run.
    """
    metrics = candidate.metrics
    name = task.decided_by(metrics)
    if name not in metrics["tuned"]:
        raise BiaslineError(
            f"the candidate was not evaluated by {name}; it has: {', '.join(metrics['tuned'])}",
            "mend gates.metric, or run the pipeline again",
        )
    metric = task.declared(name, metrics["tuned"])
    gates, standing = [_floor(task, metric, candidate)], ""
    if task.gates.better_than_base:
        gates += _better_than_base(task, metric, candidate)
    if champion is not None:
        standing, found = _not_worse(task, metric, candidate, champion, "champion")
        gates += found
        if best is not None:
            gates += _not_worse(task, metric, candidate, best, "best champion so far")[1]
        gates.append(_slices(task, metric, candidate, champion))
        if "tenants" in candidate.metrics and task.tenants.column in candidate.predictions.columns:
            gates.append(_tenants(task, metric, candidate, champion))
            if champion.tenants:
                gates.append(_served(candidate, champion))
        if task.gates.shadow_agreement:
            gates.append(_agreement(task, candidate))
    gates += [_size(task, candidate), _latency(task, candidate), _quarantine(task, candidate)]
    if task.gates.uncommitted != "allow":
        gates.append(_committed(task, candidate, changed))
    if task.gates.require_signature:
        gates.append(_signature(task, candidate))
    if task.gates.own:
        gates += _own(Path(task.gates.own), candidate, champion)
    return Verdict(name, standing, tuple(gates))


def _floor(task: Task, metric: Metric, candidate: Shown) -> Gate:
    value, floor = candidate.metrics["tuned"][metric.name], task.gates.floor
    low, high = metric.bounds
    if metric.no_floor and not (low < floor < high and floor != FLOOR):  # such as a share's floor
        return Gate("floor", True, f"{value:.4f}{_unit(metric)}: {metric.no_floor}", {"value": value})
    passed = not metric.is_better(floor, value)
    sign = ("≥" if passed else "<") if metric.higher_is_better else ("≤" if passed else ">")
    return Gate("floor", passed, f"{value:.4f} {sign} {floor:.4f}", {"value": value, "floor": floor})


def _better_than_base(task: Task, metric: Metric, candidate: Shown) -> Iterator[Gate]:
    base, tuned = (candidate.metrics[who][metric.name] for who in ("base", "tuned"))
    frame = candidate.predictions
    found = _difference(task, metric, frame, candidate.metrics)
    told = f"base {base:.4f}, tuned {tuned:.4f}; {found.told}"
    yield Gate("better than the untuned base", found.low > 0 and found.is_enough, told, found.numbers)
    near = _nearness(task, frame)
    if near is not None:
        # A correlation says nothing about being near: answers that hardly differ may have a high one.
        yield Gate("nearer than the training rows' mean", near.low > 0, f"R² {near.told}", near.numbers)
    if CHEAPER in frame.columns and not method_spec(task.train.method).needs_head:
        yield _better_than_cheaper(task, metric, candidate)


def _better_than_cheaper(task: Task, metric: Metric, candidate: Shown) -> Gate:
    """That what was trained is worth it."""
    cheaper = find_answering(task.kind).cheaper
    alone, tuned = (candidate.metrics[who][metric.name] for who in (CHEAPER, "tuned"))
    frame, margin = in_place_of_base(candidate.predictions, candidate.predictions, CHEAPER), task.gates.head_margin
    found = _difference(task, metric, frame, candidate.metrics)
    passed = found.low > -margin and found.is_enough
    told = f"{cheaper.label} {alone:.4f}, tuned {tuned:.4f}; {found.told}"
    if margin:
        told += f"; margin {margin:g}{_unit(metric)}"
    if found.low <= 0:
        told += f"; not shown to be better than {cheaper.told}"
    return Gate(f"better than {cheaper.told}", passed, told, {**found.numbers, "margin": margin})


def _not_worse(task: Task, metric: Metric, candidate: Shown, other: Shown, who: str) -> tuple[str, list[Gate]]:
    """Standing beside another model, and the gates that hold the two against each other."""
    margin, frame = task.gates.margin, _beside(task, metric, candidate, other)
    found = _difference(task, metric, frame, candidate.metrics)
    standing = BETTER if found.low > 0 else NOT_WORSE if found.low > -margin else WORSE
    told = f"{standing} than {other.name}: {found.told}; margin {margin:g}{_unit(metric)}"
    if standing == WORSE and found.high >= 0:
        told += (
            f". Not shown to be worse either: these rows tell differences of about ±{(found.high - found.low) / 2:.3f} "
            "apart; more test rows, or a wider margin"
        )
    if (before := other.metrics.get("metric", metric.name)) != metric.name:
        told += f". That was judged by {before}: gates.metric fixes the metric"
    passed = standing != WORSE and found.is_enough
    gates = [Gate(f"not worse than the {who}", passed, told, {**found.numbers, "margin": margin})]
    near = _nearness(task, frame)
    if near is not None:
        told = f"R² {near.told}; margin {margin:g}"
        gates.append(Gate(f"as near as the {who}", near.low > -margin, told, {**near.numbers, "margin": margin}))
    return standing, gates


def _slices(task: Task, metric: Metric, candidate: Shown, champion: Shown) -> Gate:
    """Whether a slice fell: beyond chance, however many slices are looked at (Bonferroni), and by more than allowed."""
    answering, allowed = find_answering(task.kind), task.gates.slice_drop
    frame = with_lengths(_beside(task, metric, candidate, champion), answering.learning.columns.prompt)
    names = tuple(dict.fromkeys((*task.evaluate.slices, LENGTH)))
    if absent := [name for name in names if name not in frame.columns]:
        raise BiaslineError(
            f"evaluate.slices: the candidate's test rows have no column {absent[0]!r}",
            "mend evaluate.slices, or run the pipeline again",
        )
    frame = measured_rows(frame, metric)
    tuned, other = answering.slice_values(frame, metric)
    parts = {
        f"{name} = {value}": part[_PLACE].to_numpy()
        for name in names
        for (value,), part in frame.with_row_index(_PLACE).group_by(name, maintain_order=True)
    }
    confidence = 1 - (1 - CONFIDENCE) / len(parts)
    falls = []
    for name, rows in parts.items():
        mean, low, high = paired_interval(tuned[rows], other[rows], confidence=confidence)
        falls.append((mean, high, f"{name}: {mean:+.4f} [{low:+.4f}, {high:+.4f}] over {len(rows)} rows"))
    fallen = sorted(fall for fall in falls if fall[1] < 0 and fall[0] < -allowed)
    worst = min(falls)
    told = "; ".join(fall[2] for fall in fallen) if fallen else f"lowest of {len(falls)}: {worst[2]}"
    numbers = {"slices": len(falls), "fallen": len(fallen), "lowest": round(worst[0], 6), "allowed": allowed}
    return Gate("no slice fell", not fallen, f"{told}; allowed {-allowed:+g}{_unit(metric)}", numbers)


def _tenants(task: Task, metric: Metric, candidate: Shown, champion: Shown) -> Gate:
    """Whether tenants are shown to be worse off than with the champion, at a rate of false discoveries."""
    beside, allowed = tenants_beside(task, metric, candidate, champion), task.gates.tenants_worse
    kept = set(candidate.carried)
    judged = {name: one for name, one in beside.items() if name not in kept}
    worse = [name for name, one in judged.items() if one.verdict == "worse"]
    counts = Counter(one.verdict for one in judged.values())
    told = ""
    numbers: dict[str, float] = {"tenants": len(beside)}
    if kept:
        told = (
            f"{len(kept)} {'would ' * candidate.foretold}keep the champion's delta, since they are worse off without: "
        )
        told += f"{named(candidate.carried)}; "
        numbers["carried"] = len(kept)
    alike = sum(one.alike for one in judged.values())
    told += (
        f"of {len(judged)}{' other' * bool(kept)} tenants {counts['better']} are better off, "
        f"{len(worse)} worse{f' ({named(worse)})' if worse else ''}, {alike} have the same answers, "
        f"{counts['undecided'] - alike} are undecided (false discovery rate {FALSE_DISCOVERIES:g}); "
        f"{allowed:.0%} may be worse"
    )
    numbers |= {"better": counts["better"], "worse": len(worse), "allowed": allowed}
    open_ = [(one.mean, name, one.rows) for name, one in judged.items() if one.verdict == "undecided" and not one.alike]
    if open_ and min(open_)[0] < 0:
        mean, name, rows = min(open_)
        told += f"; the largest fall that is not shown: {name!r}, {mean:+.4f} over {rows} rows"
    if candidate.not_carried:
        told += f"; the champion's deltas are not carried over: {candidate.not_carried}"
    return Gate("tenants not worse off", len(worse) <= allowed * len(beside), told, numbers)


def _served(candidate: Shown, champion: Shown) -> Gate:
    """Whether every tenant that the champion serves is known to the candidate; one may have left for good."""
    lost = sorted(champion.tenants - candidate.tenants)
    told = (
        f"{len(lost)} that the champion serves are not in it: {named(lost)}" if lost else "all that the champion serves"
    )
    new = len(candidate.tenants - champion.tenants)
    return Gate("tenants served", True, f"{told}; {new} are new", {"lost": len(lost), "new": new}, warning=bool(lost))


def _agreement(task: Task, candidate: Shown) -> Gate:
    """That users would be told the same."""
    name, wanted, found = "agreement with the champion on users' rows", task.gates.shadow_agreement, candidate.agreement
    if found is None:
        told = (
            f"no row in {task.gates.traffic} that both answered and where it can be told whether they say the same "
            "(of numbers alone it cannot); `biasline serve --shadow` asks both"
        )
        return Gate(name, False, told, {"wanted": wanted})
    low, _ = found.interval
    sign = "≥" if low >= wanted else "<"
    numbers = {"share": found.share, "low": low, "rows": found.rows, "wanted": wanted}
    return Gate(name, low >= wanted, f"{found.told}; lower end {sign} {wanted:.4f}", numbers)


class BesideChampion(NamedTuple):
    """What a tenant's test rows say of candidate and champion.

    Attributes:
        verdict: `better`, `worse` or `undecided`.
        mean: what the candidate is better by.
        rows: how many there are.
        alike: whether both answer all of them alike, but for rounding.
    """

    verdict: str
    mean: float
    rows: int
    alike: bool


def tenants_beside(task: Task, metric: Metric, candidate: Shown, champion: Shown) -> dict[str, BesideChampion]:
    """Whether each tenant is shown to be better or worse off than with the champion, worst first.

    Arguments as `judge`; tenants that no test row has a value of are left out. Those that keep the champion's delta
    differ by rounding alone.
    """
    frame = measured_rows(_beside(task, metric, candidate, champion), metric)
    tuned, other = find_answering(task.kind).slice_values(frame, metric)
    parts = frame.with_row_index(_PLACE).group_by(task.tenants.column, maintain_order=True).agg(_PLACE)
    gain = tuned.astype(float) - other
    gains = [gain[rows] for rows in parts[_PLACE].to_list()]
    means = [float(gain.mean()) for gain in gains]
    names, kept = parts[task.tenants.column].to_list(), set(candidate.carried)
    alike = [name in kept or bool((np.abs(gain) < _ROUNDING).all()) for name, gain in zip(names, gains, strict=True)]
    # Rounding has signs too: where nothing but that differs, nothing is shown.
    p_values = [1.0 if same else sign_flip_p(gain) for same, gain in zip(alike, gains, strict=True)]
    found = map(BesideChampion, called(means, p_values), means, map(len, gains), alike)
    return dict(sorted(zip(names, found, strict=True), key=lambda one: (one[1].mean, one[0])))


def named(tenants: Sequence[str]) -> str:
    """The first of some tenants by name, and how many more there are."""
    more = len(tenants) - _NAMED
    return ", ".join(map(repr, tenants[:_NAMED])) + f" and {more} more" * (more > 0)


def _unit(metric: Metric) -> str:
    return f" {metric.unit}" if metric.unit else ""


def _size(task: Task, candidate: Shown) -> Gate:
    limit = task.gates.max_bytes
    size = candidate.costs.get("model.bytes")
    if size is None:
        return Gate("size", True, "not known", warning=True)
    if tenants := candidate.metrics.get("tenants"):
        each = size / (tenants["own"] + 1)
        told = f"{tenants['own'] + 1} deltas of {each:,.0f} bytes, {size:,.0f} in all, at most {limit:,} each"
        return Gate("size", each <= limit, told, {"bytes": each, "limit": limit})
    return Gate("size", size <= limit, f"{size:,.0f} bytes, at most {limit:,}", {"bytes": size, "limit": limit})


def _latency(task: Task, candidate: Shown) -> Gate:
    limit = task.gates.max_latency
    base, tuned = (candidate.costs.get(f"{who}.latency_ms") for who in ("base", "tuned"))
    if not base or tuned is None:
        return Gate("latency", True, "not measured on any machine that reports here", warning=True)
    told = f"{tuned:.1f} ms a row, the base {base:.1f} ms: {tuned / base:.2f} times, at most {limit:g}"
    return Gate("latency", tuned <= limit * base, told, {"base_ms": base, "tuned_ms": tuned, "limit": limit})


def _quarantine(task: Task, candidate: Shown) -> Gate:
    limit = task.gates.max_quarantine
    rate = candidate.quality.get("quarantine_rate")
    if rate is None:
        return Gate("quarantine", True, "not known", warning=True)
    told = f"{rate:.2%} of {candidate.quality['rows']:,} rows, at most {limit:.0%}"
    return Gate("quarantine", rate <= limit, told, {"rate": rate, "limit": limit})


def _committed(task: Task, candidate: Shown, changed: Sequence[str]) -> Gate:
    told = []
    if candidate.uncommitted:
        told.append(f"made with changes that were in no commit: {candidate.uncommitted}")
    if changed:
        told.append(f"in no commit now: {', '.join(changed)}")
    passed = not told or task.gates.uncommitted == "warn"
    return Gate("code and parameters in a commit", passed, "; ".join(told) or "all", warning=bool(told))


def _signature(task: Task, candidate: Shown) -> Gate:
    """Whether someone who holds the private half of a key vouches for the candidate."""
    found = candidate.signature or Standing(False, False, "nobody looked for one")
    told = f"{found.told}; by {task.gates.require_signature}"
    if candidate.carried:
        told += ". That is the candidate's own: the version with the champion's deltas for some tenants has none yet"
    return Gate("signature", found.holds, told)


def _own(path: Path, candidate: Shown, champion: Shown | None) -> Iterator[Gate]:
    """The project's own gates; each is asked whether the candidate passes."""
    given = [None if one is None else dict(vars(one)) for one in (candidate, champion)]
    for name, function in own_functions(path, "gates.own").items():
        where = f"{shown(path)}: {name}"
        try:
            answer = function(*given)
        except Exception as error:  # whatever the user's code raises
            raise BiaslineError(f"{where}: {type(error).__name__}: {first_line(error)}", "mend the function") from None
        passed, told = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, "")
        if not isinstance(passed, (bool, np.bool_)) or not isinstance(told, str):
            raise BiaslineError(f"{where}: {answer!r} is no answer", "return True or False, or that and a text")
        demand = (function.__doc__ or "").strip().partition("\n")[0][:300]
        yield Gate(name, bool(passed), ". ".join(part for part in (demand, told) if part) or "no words")


def gain_over(task: Task, metric: Metric, candidate: Shown, other: Shown) -> tuple[float, float, float]:
    """What a model is better by than another on the same test rows: mean, low, high, as the gates have it."""
    found = _difference(task, metric, _beside(task, metric, candidate, other), candidate.metrics)
    return found.mean, found.low, found.high


def _beside(task: Task, metric: Metric, candidate: Shown, other: Shown) -> pl.DataFrame:
    """The candidate's predictions with the other model's in the place of the base's; both are of the same rows.

    Likelihoods of both are then in units of the candidate's tokens, though the other's base may have other tokens.
    """
    mine, theirs = (in_own_units(one.predictions, metric, task.kind) for one in (candidate, other))
    return in_place_of_base(mine, theirs, "tuned")


def _difference(task: Task, metric: Metric, frame: pl.DataFrame, metrics: dict[str, Any]) -> _Difference:
    """Of the columns `tuned…` beside `base…`."""
    word = "difference" if metric.higher_is_better else "decrease"
    if metric.row_values is None:
        found = paired_statistic(frame, metric, task.kind, metrics.get("positive_label", ""))
        return _Difference(*found, frame.height, word=word)
    measured = measured_rows(frame, metric)
    if measured.is_empty():
        raise BiaslineError(
            f"no test row has a value of {metric.name} of both models: the references are over their tokens.max_length",
            "raise it and run the pipeline again, or let another gates.metric decide",
        )
    interval = paired_interval(*paired_values(measured, metric, task.kind))
    return _Difference(*interval, measured.height, frame.height - measured.height, word)


def _nearness(task: Task, frame: pl.DataFrame) -> _Difference | None:
    """How much more of the answers' variance is explained, R² of `tuned` less that of `base`; None for other kinds."""
    values = find_answering(task.kind).nearness(frame)
    return None if values is None else _Difference(*paired_interval(*values), frame.height)
