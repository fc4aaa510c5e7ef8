import pytest

from tests.serving.packages import four_packages


@pytest.fixture
def packages(workspace):
    return four_packages(workspace)
