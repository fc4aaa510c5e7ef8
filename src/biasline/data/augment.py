"""The augment stage: further training rows made out of the training rows, each naming its parent; none by default."""

import random
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from biasline.data.clean import read_split
from biasline.data.eda import OPERATIONS, SYNONYMOUS, changed, read_synonyms
from biasline.data.nearness import near_duplicates
from biasline.data.split import content_key, prompts
from biasline.errors import BiaslineError
from biasline.kinds.columns import Columns
from biasline.kinds.learning import columns_of
from biasline.layout import SPLITS, TaskPlace, replacing, write_parquet
from biasline.params import Augment, Task

EDA, BACK_TRANSLATION = "eda", "back_translation"
# What an augmented row has besides its parent's columns.
_OWN = {"parent": pl.Int64, "method": pl.String}


def augment(task: Task, place: TaskPlace) -> str:
    """Run the stage; its out has the columns of the training rows, `parent` (their row) and `method`.

    Rows that the contract would refuse, that repeat another row or that are near to a held-out one are left out.

    Returns:
        one line that tells what happened.
    """
    train = read_split(place, "train")
    kind, settings = columns_of(task.kind), task.augment
    made = [train.clear().with_columns(pl.lit(None, dtype).alias(name) for name, dtype in _OWN.items())]
    if settings.eda:
        made.append(_by_eda(train, settings, _columns(settings, kind)))
    if settings.translate:
        made.append(_by_translation(train, task, _columns(settings, kind)))
    rows = pl.concat(made)
    first = 1 + max(int(read_split(place, name)["row"].to_numpy().max(initial=0)) for name in (*SPLITS, "quarantine"))
    rows = rows.with_columns(pl.int_range(first, first + rows.height, dtype=pl.Int64).alias("row"))
    kept = _worthy(rows, train, task, place) if rows.height else rows
    with replacing(place.augmented) as draft:
        write_parquet(kept, draft)
    if len(made) == 1:
        return f"{place.augmented}: no rows, augment.eda and augment.translate are off"
    counts = {name: int((kept["method"] == name).sum()) for name in (EDA, BACK_TRANSLATION)}
    told = ", ".join(f"{count:,} by {name}" for name, count in counts.items() if count)
    return (
        f"{train.height:,} training rows, and {told or 'none'} made out of them; {rows.height - kept.height:,} left out"
    )


def _columns(settings: Augment, kind: Columns) -> Sequence[str]:
    if unknown := [name for name in settings.columns if name not in kind.prompt]:
        raise BiaslineError(
            f"augment.columns: {unknown[0]!r} is none of {', '.join(kind.prompt)}",
            "answers and labels stay as they are",
        )
    if not kind.augmented:
        raise BiaslineError(
            f"augment: {', '.join(kind.prompt)} must stay as they are: an answer is of single words of them",
            "leave augment.eda and augment.translate out",
        )
    return settings.columns or kind.augmented


def _by_eda(train: pl.DataFrame, settings: Augment, columns: Sequence[str]) -> pl.DataFrame:
    synonyms = read_synonyms(Path(settings.synonyms)) if settings.synonyms else {}
    operations = [name for name in settings.operations or OPERATIONS if synonyms or name not in SYNONYMOUS]
    if settings.operations and len(operations) < len(settings.operations):
        raise BiaslineError(
            f"augment.operations: {', '.join(SYNONYMOUS)} need synonyms",
            "name a file in augment.synonyms, or take them out",
        )
    places, texts = [], []
    for place, row in enumerate(train.select(columns).iter_rows()):
        # Its own words deal a row's copies, so that rows which are added later leave them as they are.
        chance = random.Random(f"{settings.seed}\x1f{content_key(*row)}")
        for _ in range(settings.eda):
            found = [changed(text, settings.share, operations, synonyms, chance) for text in row]
            if any(found):
                places.append(place)
                texts.append([new or old for new, old in zip(found, row, strict=True)])
    return _copies(train, places, texts, columns, EDA)


def _by_translation(train: pl.DataFrame, task: Task, columns: Sequence[str]) -> pl.DataFrame:
    from biasline.data.translate import back_translated

    settings = task.augment
    found = {
        name: back_translated(train[name].to_list(), settings.translate, task.load, task.train.threads)
        for name in columns
    }
    rows = list(zip(*found.values(), strict=True))
    old = train.select(columns).rows()
    places = [place for place, row in enumerate(rows) if any(row)]
    texts = [[new or was for new, was in zip(rows[place], old[place], strict=True)] for place in places]
    return _copies(train, places, texts, columns, BACK_TRANSLATION)


def _copies(
    train: pl.DataFrame, places: list[int], texts: list[list[str]], columns: Sequence[str], method: str
) -> pl.DataFrame:
    """Training rows with other texts in some columns."""
    new = pl.DataFrame(texts, schema=dict.fromkeys(columns, pl.String), orient="row")
    rows = train.select(pl.all().gather(places)).with_columns(new.get_columns())
    return rows.with_columns(pl.Series("parent", train["row"].gather(places)), pl.lit(method).alias("method"))


def _worthy(rows: pl.DataFrame, train: pl.DataFrame, task: Task, place: TaskPlace) -> pl.DataFrame:
    """Rows that meet the contract, repeat no other and are near to no held-out one."""
    from biasline.data.contract import check_examples
    from biasline.data.dialogues import PROBLEM
    from biasline.data.raw import FIXED_SPLIT, NOT_TEXT_SUFFIX
    from biasline.data.rules import own_rules

    kind = columns_of(task.kind)
    companions = [pl.lit(False).alias(name + NOT_TEXT_SUFFIX) for name in kind.columns]
    empty = [pl.lit(None, pl.String).alias(name) for name in (FIXED_SPLIT, PROBLEM)]
    frame = rows.with_columns(*companions, *empty)
    own = own_rules(Path(task.quality.checks)) if task.quality.checks else []
    good = check_examples(frame, task.kind, task.quality, task.source.labels, own, task.tenants.column).good.drop(
        FIXED_SPLIT
    )
    owner = [task.tenants.column] if task.tenants.many else []
    known = {content_key(*row) for row in train.select(*owner, *kind.given).iter_rows()}
    fresh = []
    for row in good.select(*owner, *kind.given).iter_rows():
        key = content_key(*row)
        fresh.append(key not in known)
        known.add(key)
    good = good.filter(pl.Series(fresh, dtype=pl.Boolean)).select(rows.columns)
    compared = [*(read_split(place, name) for name in ("test", "valid")), good]
    texts = pl.concat([prompts(part, kind) for part in compared])
    owners = pl.concat([part[task.tenants.column] for part in compared]) if owner else None
    before = len(texts) - good.height
    part = pl.int_range(len(texts), eager=True).ge(before).cast(pl.Int64)
    near = [index - before for index in near_duplicates(texts, task.quality.near_duplicate, part, owners)]
    return good.filter(~pl.int_range(good.height, eager=True).is_in(near))
