"""evaluate: base and tuned model on the same test rows → metrics, predictions, plots, card."""

from stages import run_stage


def evaluate(name: str) -> str:
    import time

    from biasline.evaluation import evaluate as stage
    from biasline.layout import TaskPlace
    from biasline.params import read_task
    from biasline.tracking.reporter import report_evaluation
    from biasline.training.checkpoint import clear_checkpoints

    place = TaskPlace(name)
    clear_checkpoints(place)
    start = time.monotonic()
    found = stage.evaluate(read_task(place.resolved), place)
    report_evaluation(name, time.monotonic() - start, found.observed)
    return found.told


if __name__ == "__main__":
    run_stage(evaluate)
