"""validate: raw data → clean splits, quarantine, quality report."""

from stages import run_stage


def validate(name: str) -> str:
    from biasline.data import validate as stage
    from biasline.layout import TaskPlace
    from biasline.params import read_task

    place = TaskPlace(name)
    return stage.validate(read_task(place.resolved), place)


if __name__ == "__main__":
    run_stage(validate)
