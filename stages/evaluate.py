"""evaluate: base and tuned model on the same test rows → metrics, predictions, plots, card."""

from stages import run_stage


def evaluate(name: str) -> str:
    import time

    from biasline.evaluation import evaluate as stage
    from biasline.jsonfile import load_json
    from biasline.layout import TaskPlace, checkpoints
    from biasline.params import read_task
    from biasline.tracking.live import publish_or_warn
    from biasline.tracking.record import record_of_workspace
    from biasline.training.runtime.checkpoint import Checkpoints

    place = TaskPlace(name)
    # DVC has what training made, or it would not have come to this stage.
    fingerprint = load_json(place.train_report, f"dvc repro train@{name}")["fingerprint"]
    Checkpoints(checkpoints() / fingerprint, fingerprint).clear()
    start = time.monotonic()
    found = stage.evaluate(read_task(place.resolved), place)
    record = record_of_workspace(name)
    assert record is not None, "evaluate has just read the model"
    record.observe(**{"evaluate.seconds": round(time.monotonic() - start, 1), **found.observed})
    publish_or_warn(record)
    return found.told


if __name__ == "__main__":
    run_stage(evaluate)
