"""augment: training rows → further training rows; none unless params ask for them."""

from stages import run_stage


def augment(name: str) -> str:
    from biasline.data import augment as stage
    from biasline.layout import TaskPlace
    from biasline.params import read_task

    place = TaskPlace(name)
    return stage.augment(read_task(place.resolved), place)


if __name__ == "__main__":
    run_stage(augment)
