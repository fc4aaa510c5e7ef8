"""What the data stages have written, as later stages read it."""

import polars as pl

from biasline.errors import BiaslineError, first_line
from biasline.layout import TaskPlace


def read_split(place: TaskPlace, name: str) -> pl.DataFrame:
    """A clean split as validate wrote it."""
    if not place.split(name).is_file():
        raise BiaslineError(f"{place.split(name)}: not there", f"dvc repro validate@{place.task}")
    try:
        return pl.read_parquet(place.split(name))
    except pl.exceptions.PolarsError as error:
        raise BiaslineError(
            f"{place.split(name)}: damaged: {first_line(error)}", f"dvc repro --force validate@{place.task}"
        ) from None


def read_augmented(place: TaskPlace) -> pl.DataFrame:
    """The augmented rows of a task."""
    if not place.augmented.is_file():
        raise BiaslineError(f"{place.augmented}: not there", f"dvc repro augment@{place.task}")
    return pl.read_parquet(place.augmented)
