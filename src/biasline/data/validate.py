"""The validate stage: raw file → clean splits, quarantine and report."""

import hashlib
from pathlib import Path

from biasline.data.contract import check_examples
from biasline.data.kinds import KINDS
from biasline.data.report import quality_numbers, quality_page
from biasline.data.sources import read_examples
from biasline.data.split import split_examples
from biasline.jsonfile import dump_json
from biasline.layout import TaskPlace, replacing, write_text
from biasline.params import Task


def validate(task: Task, place: TaskPlace) -> str:
    """Run the stage; nothing is written unless all of it succeeds.

    Returns: one line that tells what happened.
    """
    data, kind = Path(task.data), KINDS[task.kind]
    frame, taken = read_examples(data, kind, task.source.columns)
    checked = check_examples(frame, task.kind, task.quality)
    splits = split_examples(checked.good, kind, task.split)
    numbers = quality_numbers(checked, splits, hashlib.sha256(data.read_bytes()).hexdigest())

    with replacing(place.clean) as draft:
        draft.mkdir()
        for name, part in {**splits, "quarantine": checked.quarantine}.items():
            part.write_parquet(draft / place.split(name).name)
    write_text(place.quality, dump_json(numbers))
    write_text(place.quality_page, quality_page(data, kind, taken, numbers, checked))
    parts = ", ".join(f"{name} {count:,}" for name, count in numbers["splits"].items())
    guessed = ", ".join(f"{ours} from {theirs!r}" for ours, theirs in taken.items() if ours != theirs)
    return (
        f"{numbers['rows']:,} rows: {parts}, quarantined {numbers['quarantined']:,}"
        + (f"; columns taken: {guessed}" if guessed else "")
        + f"; see {place.quality_page}"
    )
