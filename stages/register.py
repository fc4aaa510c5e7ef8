"""register: the delta, packaged with its pin and code → a version in the registry."""

from stages import run_stage


def register(name: str) -> str:
    from biasline.layout import TaskPlace
    from biasline.registry.sync import register_workspace

    return register_workspace(TaskPlace(name))


if __name__ == "__main__":
    run_stage(register)
