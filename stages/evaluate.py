"""evaluate: base and tuned model on the same test rows → metrics, predictions, plots, card."""

from stages import run_stage


def evaluate(name: str) -> str:
    import time

    from biasline.layout import TaskPlace, checkpoints
    from biasline.params import read_task
    from biasline.tracking.live import publish_or_warn
    from biasline.tracking.record import record_of_workspace
    from biasline.tracking.reuse import evaluation_work

    place = TaskPlace(name)
    task = read_task(place.resolved)
    work = evaluation_work(task, place)
    if told := work.reuse():
        return told
    from biasline.evaluation import evaluate as stage
    from biasline.training.runtime.checkpoint import Checkpoints

    # DVC has what training made, or it would not have come to this stage.
    Checkpoints(checkpoints() / work.record.fingerprint, work.record.fingerprint).clear()
    start = time.monotonic()
    found = stage.evaluate(task, place)
    record = record_of_workspace(name)
    assert record is not None, "evaluate has just read the model"
    record.observe(**{"evaluate.seconds": round(time.monotonic() - start, 1), **found.observed})
    work.note()
    publish_or_warn(record)
    return found.told


if __name__ == "__main__":
    run_stage(evaluate)
