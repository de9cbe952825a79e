"""The 2D ResNet-50 against one written from scratch in torchvision's layout, and its weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metrics.extractors.resnet2d import ResNet2DExtractor, load_resnet2d, torchvision_resnet50

State = dict[str, Tensor]


class Bottleneck(nn.Module):
    """1, 3 and 1 wide convolutions around a shortcut; the middle one has the stride."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    """As torchvision's, its classifier included."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = 64
        for index, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], start=1):
            layer = nn.Sequential()
            for block in range(blocks):
                layer.append(Bottleneck(inputs, width, 2 if block == 0 and index > 1 else 1))
                inputs = 4 * width
            self.add_module(f"layer{index}", layer)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Features, not classes."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for index in range(1, 5):
            x = self.get_submodule(f"layer{index}")(x)
        return self.avgpool(x).flatten(1)


@pytest.fixture(scope="module")
def theirs() -> ResNet50:
    """Random weights and running statistics that keep activations in range."""
    torch.manual_seed(0)
    network = ResNet50(classes=7)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.7)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def weights(theirs: ResNet50, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(theirs.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def small(theirs: ResNet50) -> State:
    """Every tensor one number, its own, expanded: files of kilobytes instead of 95 MB."""
    return {
        key: torch.tensor(index, dtype=value.dtype).expand(value.shape)
        for index, (key, value) in enumerate(theirs.state_dict().items())
    }


def record(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Outputs of the blocks and layers, in order, and of the network."""
    names = ["conv1", "maxpool", *(f"layer{i}" for i in range(1, 5))]
    names += [f"layer{i}.{b}" for i, n in enumerate((3, 4, 6, 3), start=1) for b in range(n)]
    outputs: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: outputs.__setitem__(name, output.clone())
        )
        for name in names
    ]
    with torch.inference_mode():
        outputs["features"] = network(image)
    for handle in handles:
        handle.remove()
    return outputs


@pytest.mark.parametrize("size", [(64, 64), (33, 50)])
def test_every_layer_equals_the_network_written_from_scratch(
    theirs: ResNet50, weights: Path, size: tuple[int, int]
) -> None:
    ours, _ = load_resnet2d(weights)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    expected, found = record(theirs, image), record(ours, image)
    for name, tensor in expected.items():
        assert tensor.std() > 1e-3, name
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    assert found["layer4"].shape == (1, 2048, *(-(-side // 32) for side in size))


def test_the_keys_are_torchvisions(small: State) -> None:
    """267 of them and the 53 counters of the batch norms; two more belong to the classifier."""
    ours = {key: value.shape for key, value in torchvision_resnet50().state_dict().items()}
    assert ours == {key: v.shape for key, v in small.items() if not key.startswith("fc.")}
    assert len(ours) == 318


def radimagenet(state: State) -> State:
    """As published: the first nine children of torchvision's network in one sequence."""

    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(*list(ResNet50().children())[:9])

    names = Backbone().state_dict()
    values = [value for key, value in state.items() if not key.startswith("fc.")]
    return dict(zip(names, values, strict=True))


def forms(state: State) -> dict[str, object]:
    return {
        "full": state,
        "wrapped": {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 1},
        "headless": {k: v for k, v in state.items() if not k.startswith("fc.")},
        "old": {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
        "radimagenet": radimagenet(state),
    }


@pytest.mark.parametrize("form", ["full", "wrapped", "headless", "old", "radimagenet"])
def test_every_form_of_the_file_loads(small: State, tmp_path: Path, form: str) -> None:
    content = forms(small)[form]
    if form == "radimagenet":
        assert {"backbone.0.weight", "backbone.4.0.conv1.weight"} <= set(content)  # type: ignore[call-overload]
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    network, digest = load_resnet2d(path)
    for key, value in network.state_dict().items():
        if not (form == "old" and key.endswith("num_batches_tracked")):
            assert torch.equal(value, small[key]), key
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_files_of_another_network_are_refused_in_one_sentence(small: State, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    for change, message in (
        ({"conv1.weight": torch.zeros(64, 1, 7, 7)}, r"conv1.weight is \(64, 1, 7, 7\)"),
        ({"layer5.0.conv1.weight": torch.zeros(1)}, r"1 unexpected \(first: layer5"),
        ({"bn1.running_mean": None}, r"1 of 318 keys missing \(first: bn1.running_mean\)"),
    ):
        torch.save({k: v for k, v in {**small, **change}.items() if v is not None}, path)
        with pytest.raises(ValueError, match=message) as caught:
            load_resnet2d(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    path.write_bytes(b"<html>404</html>" * 50)
    with pytest.raises(ValueError, match="not a readable file of weights"):
        load_resnet2d(path)
    torch.save(small, path)
    with pytest.raises(ValueError, match="expected 0000"):
        load_resnet2d(path, "0" * 64)


@pytest.mark.parametrize(
    "preprocess", ["", "imagenet", "symmetric", "imagenet-224", "symmetric-224"]
)
def test_preprocessing(theirs: ResNet50, weights: Path, preprocess: str) -> None:
    """The network on images preprocessed with NumPy gives the extractor's features."""
    slices = np.random.default_rng(1).random((2, 24, 32)).astype(np.float32)
    images = np.repeat(slices[:, None], 3, axis=1)
    if preprocess.endswith("-224"):  # enlarging needs no filter against aliasing
        images = nn.functional.interpolate(
            torch.from_numpy(images), (224, 224), mode="bilinear", align_corners=False
        ).numpy()
    if preprocess.startswith("symmetric"):
        images = images * 2 - 1
    else:
        mean, deviation = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
        images = (images - mean[:, None, None]) / deviation[:, None, None]
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(images.astype(np.float32))).numpy()
    extractor = ResNet2DExtractor(weights, preprocess=preprocess)
    np.testing.assert_allclose(
        extractor(slices), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
    )
    assert extractor.preprocess == (preprocess or "imagenet")


def test_features_depend_on_neither_the_batch_nor_the_order(weights: Path) -> None:
    slices = np.random.default_rng(2).random((5, 32, 24)).astype(np.float16)
    one = ResNet2DExtractor(weights, batch_size=1)
    three = ResNet2DExtractor(weights, batch_size=3)
    features = one(slices)
    assert features.shape == (5, one.dim) == (5, 2048)
    tolerance = {"rtol": 1e-5, "atol": 1e-5 * np.abs(features).max()}
    np.testing.assert_allclose(three(slices), features, **tolerance)
    np.testing.assert_allclose(three(slices[::-1])[::-1], features, **tolerance)
    assert one.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (one.name, one.protocol, one.needs_weights) == ("resnet50-2d", "2.5d", True)


def test_the_extractor_refuses(weights: Path) -> None:
    with pytest.raises(ValueError, match="Preprocessing 'minmax' is unknown"):
        ResNet2DExtractor(weights, preprocess="minmax")
    with pytest.raises(ValueError, match="needs a file of weights"):
        ResNet2DExtractor(None)
    with pytest.raises(ValueError, match=r"shape \(2, 8, 8, 8\)"):
        ResNet2DExtractor(weights)(np.zeros((2, 8, 8, 8)))
