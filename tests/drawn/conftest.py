import numpy as np
import pytest

from partcraft_kedro.drawn.worlds import WORLDS


@pytest.fixture(params=WORLDS)
def world(request):
    return WORLDS[request.param]


@pytest.fixture
def rng():
    return np.random.default_rng(0)
