import torch

from condgan.classifier.network import ResNet18


def test_stem_follows_the_size():
    assert ResNet18((3, 64, 64), 2).backbone.conv1.kernel_size == (7, 7)
    small = ResNet18((1, 32, 48), 3)
    assert small.backbone.conv1.kernel_size == (3, 3)
    assert isinstance(small.backbone.maxpool, torch.nn.Identity)
    assert small(torch.zeros(2, 1, 32, 48)).shape == (2, 3)


def test_logits_are_float32_under_autocast():
    network = ResNet18((1, 16, 16), 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.zeros(2, 1, 16, 16)).dtype == torch.float32
