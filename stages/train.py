"""train: token sets and base → delta, reported live to the run that its fingerprint names."""

from stages import run_stage


def train(name: str) -> str:
    from biasline.layout import TaskPlace, checkpoints
    from biasline.params import read_task
    from biasline.tracking.record import champion_files
    from biasline.tracking.reporter import TrainingReporter
    from biasline.tracking.reuse import training_work

    place = TaskPlace(name)
    task = read_task(place.resolved)
    shared = champion_files(name) if task.tenants.keeps_shared else None
    work = training_work(task, place, shared)
    if told := work.reuse():
        return told
    if task.run.processes > 1 or task.run.launch:
        from biasline.training.runtime.launch import started_elsewhere

        if started_elsewhere(task.run, __spec__.name, name):
            return ""
    with TrainingReporter(place, work) as reporter:
        if shared is not None:
            from biasline.training.kept_shared import train_from

            told = train_from(task, place, reporter.begin, shared)
        else:
            from biasline.training import train as stage

            told = stage.train(task, place, reporter.begin, checkpoints())
    reporter.publish()
    return told


if __name__ == "__main__":
    run_stage(train)
