"""train: token sets and base → delta, reported live to the run that its fingerprint names."""

from stages import run_stage


def train(name: str) -> str:
    import resource
    import time
    from contextlib import ExitStack

    from biasline.layout import TaskPlace
    from biasline.params import read_task
    from biasline.progress import progress
    from biasline.tracking.live import LiveRun, ended_honestly, publish_or_warn
    from biasline.tracking.record import Record
    from biasline.training import train as stage

    place = TaskPlace(name)
    task = read_task(place.resolved)
    begun: list[tuple[Record, float]] = []
    with ExitStack() as stack:

        def started(start: stage.Start) -> stage.Report:
            record = Record(name, start.fingerprint)
            record.begin(place)
            begun.append((record, time.monotonic()))
            live = LiveRun(record)
            stack.enter_context(ended_honestly(live))
            shown = stack.enter_context(progress("step", start.steps))

            def report(step: int, values: dict[str, float]) -> None:
                live.log(step, values)
                names = [name for name in ("loss", "valid_loss", "valid_accuracy") if name in values]
                told = [f"{name.replace('_', ' ')} {values[name]:.4f}" for name in names]
                shown.at(step, ", ".join(told))

            return report

        told = stage.train(task, place, started)
    record, start_time = begun[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    record.take(place)
    record.observe(**{"train.seconds": round(time.monotonic() - start_time, 1), "train.peak_memory_mb": round(peak)})
    publish_or_warn(record)
    return told


if __name__ == "__main__":
    run_stage(train)
