"""train: token sets and base → delta, reported live to the run that its fingerprint names."""

from stages import run_stage


def train(name: str) -> str:
    from contextlib import ExitStack

    from biasline.layout import TaskPlace, checkpoints
    from biasline.params import read_task
    from biasline.progress import progress
    from biasline.tracking.live import LiveRun, ended_honestly, publish_or_warn
    from biasline.tracking.meter import Meter
    from biasline.tracking.record import Record

    place = TaskPlace(name)
    task = read_task(place.resolved)
    if task.run.processes > 1 or task.run.launch:
        from biasline.training.ranks import started_elsewhere

        if started_elsewhere(task.run, __spec__.name, name):
            return ""
    from biasline.training import train as stage
    from biasline.training.loop import Report

    begun: list[tuple[Record, Meter]] = []
    with ExitStack() as stack:

        def started(start: stage.Start) -> Report:
            record = Record(name, start.fingerprint)
            record.begin(place)
            live = LiveRun(record)
            stack.enter_context(ended_honestly(live))
            shown, meter = stack.enter_context(progress("step", start.steps)), Meter()
            begun.append((record, meter))
            last: dict[str, float] = {}

            def report(step: int, values: dict[str, float], earlier: bool) -> None:
                if values:
                    seconds = values.pop("seconds")
                    if earlier:
                        meter.skip(values["tokens"], seconds)
                        shown.skip(step)
                    measured = {} if earlier else meter.read(values["tokens"])
                    live.log(step, values | measured)
                    last.update(values | measured)  # the last look at the validation rows stays in sight
                if not earlier:
                    names = [name for name in ("loss", "valid_loss", "valid_accuracy") if name in last]
                    told = [f"{name.replace('_', ' ')} {last[name]:.4f}" for name in names]
                    if "tokens_per_second" in last:
                        told.append(f"{last['tokens_per_second']:,.0f} tokens/s")
                    shown.at(step, ", ".join(told))

            return report

        told = stage.train(task, place, started, checkpoints())
    if not begun:  # not the first of several processes
        return told
    record, meter = begun[0]
    record.take(place)
    record.observe(**meter.observed())
    publish_or_warn(record)
    return told


if __name__ == "__main__":
    run_stage(train)
