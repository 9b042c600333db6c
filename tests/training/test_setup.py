import pytest
import torch

from condgan.training.setup import fastest_convolutions


@pytest.fixture(autouse=True)
def flags_are_put_back(monkeypatch):
    for name in ("benchmark", "deterministic"):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))


@pytest.mark.parametrize("before", [True, False])
def test_cudnn_searches_while_a_trainer_updates_on_cuda(before):
    torch.backends.cudnn.benchmark = before
    with fastest_convolutions(torch.device("cuda")):
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark is before
    with fastest_convolutions(torch.device("cpu")):
        assert torch.backends.cudnn.benchmark is before


@pytest.mark.parametrize("how", ["flag", "algorithms"])
def test_cudnn_does_not_search_where_determinism_is_asked_for(how):
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = how == "flag"
    torch.use_deterministic_algorithms(how == "algorithms")
    try:
        with fastest_convolutions(torch.device("cuda")):
            assert not torch.backends.cudnn.benchmark
    finally:
        torch.use_deterministic_algorithms(False)
