"""evaluate: base and tuned model on the same test rows → metrics, predictions, plots, card."""

from stages import run_stage


def evaluate(name: str) -> str:
    import time

    from biasline.layout import TaskPlace, checkpoints
    from biasline.params import read_task
    from biasline.tracking.reporter import report_evaluation
    from biasline.tracking.reuse import evaluation_work

    place = TaskPlace(name)
    task = read_task(place.resolved)
    work = evaluation_work(task, place)
    if (checkpoints() / work.record.fingerprint).exists():
        from biasline.training.runtime.checkpoint import clear_checkpoints

        clear_checkpoints(place)
    if done := work.reuse():
        return done
    from biasline.evaluation import evaluate as stage

    start = time.monotonic()
    found = stage.evaluate(task, place)
    report_evaluation(work, time.monotonic() - start, found.observed)
    return found.told


if __name__ == "__main__":
    run_stage(evaluate)
