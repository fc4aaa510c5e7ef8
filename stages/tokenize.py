"""tokenize: clean splits → token sets with exact masks, and a preview."""

from stages import run_stage


def tokenize(name: str) -> str:
    from biasline.layout import TaskPlace
    from biasline.params import read_task
    from biasline.tokens import sets

    place = TaskPlace(name)
    return sets.tokenize(read_task(place.resolved), place)


if __name__ == "__main__":
    run_stage(tokenize)
