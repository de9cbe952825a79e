"""MedicalNet's ResNet-50 against one written from scratch, and its file of weights."""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from monai.networks.nets.resnet import resnet50
from torch import Tensor, nn

from metrics.extractors.medicalnet import (
    MedicalNetExtractor,
    Preprocessing,
    load_medicalnet,
    medicalnet_resnet50,
)
from metrics.extractors.weights import HUB_FILE, HUB_REPOSITORY, WEIGHTS_VARIABLE, find_weights

State = dict[str, Tensor]


class Bottleneck(nn.Module):
    """1, 3 (dilated) and 1 wide convolutions around a shortcut (He et al., arXiv 1512.03385)."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv3d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(
            width, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outputs)
        self.downsample: nn.Module | None = None
        if inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class DilatedResNet50(nn.Module):
    """MedicalNet's geometry: strides 2, 2 (pooling), 1, 2, 1, 1 and dilations 1, 1, 2, 4."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(1, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.maxpool = nn.MaxPool3d(3, stride=2, padding=1)
        inputs = 64
        for index, (blocks, width, stride, dilation) in enumerate(
            [(3, 64, 1, 1), (4, 128, 2, 1), (6, 256, 1, 2), (3, 512, 1, 4)], start=1
        ):
            layer = nn.Sequential()
            for block in range(blocks):
                layer.append(Bottleneck(inputs, width, stride if block == 0 else 1, dilation))
                inputs = 4 * width
            self.add_module(f"layer{index}", layer)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for index in range(1, 5):
            x = self.get_submodule(f"layer{index}")(x)
        return x.mean(dim=(2, 3, 4))


@pytest.fixture(scope="module")
def state() -> State:
    """Random weights and running statistics that keep activations in range."""
    torch.manual_seed(0)
    network = DilatedResNet50()
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.3, 0.7)
            nn.init.normal_(module.bias, std=0.1)
    state: State = dict(network.state_dict())
    for key, value in state.items():
        if key.endswith("running_mean"):
            value.normal_(std=0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif key.endswith("num_batches_tracked"):
            value.fill_(7)
    return state


@pytest.fixture(scope="module")
def ours(state: State) -> nn.Module:
    network = medicalnet_resnet50()
    network.load_state_dict(state, strict=True)
    return network


@pytest.fixture(scope="module")
def small_state(state: State) -> State:
    """Every tensor one number, its own, expanded: files of kilobytes instead of 185 MB."""
    return {
        key: torch.tensor(index, dtype=value.dtype).expand(value.shape)
        for index, (key, value) in enumerate(state.items())
    }


@pytest.fixture(scope="module")
def weights(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as published: {"state_dict": {"module.<key>": tensor}}."""
    path = tmp_path_factory.mktemp("weights") / HUB_FILE
    wrapped = OrderedDict((f"module.{key}", value) for key, value in state.items())
    torch.save({"state_dict": wrapped}, path)
    return path


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


@pytest.mark.parametrize("size", [pytest.param((64, 64, 64), marks=pytest.mark.slow), (29, 40, 32)])
def test_every_layer_equals_the_network_written_from_scratch(
    state: State, ours: nn.Module, size: tuple[int, int, int]
) -> None:
    independent = DilatedResNet50().eval()
    independent.load_state_dict(state, strict=True)
    image = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(1))
    expected, found = record(independent, image), record(ours, image)
    for name, tensor in expected.items():
        assert tensor.std() > 1e-3, name
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    assert found["layer4"].shape == (1, 2048, *(-(-side // 8) for side in size))
    assert found["features"].shape == (1, 2048)


def test_monais_own_geometry_would_differ(state: State, ours: nn.Module) -> None:
    """The same weights load strictly into MONAI's network: no error would tell them apart."""
    theirs = resnet50(
        pretrained=False,
        n_input_channels=1,
        feed_forward=False,
        bias_downsample=False,
        conv1_t_stride=2,
    ).eval()
    theirs.load_state_dict(state, strict=True)
    image = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        features = ours(image)
        assert (theirs(image) - features).norm() > 0.05 * features.norm()


def test_318_keys_with_the_shapes_of_the_network_written_from_scratch(
    state: State, ours: nn.Module
) -> None:
    assert not ours.training
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    shapes = {key: value.shape for key, value in ours.state_dict().items()}
    assert len(shapes) == 318
    assert shapes == {key: value.shape for key, value in state.items()}


@pytest.mark.parametrize(
    ("prefix", "wrap", "zipped"),
    [("module.", True, False), ("module.", False, True), ("", True, True), ("", False, False)],
)
def test_every_form_of_the_file_loads(
    small_state: State, tmp_path: Path, prefix: str, wrap: bool, zipped: bool
) -> None:
    content: dict[str, Any] = {prefix + key: value for key, value in small_state.items()}
    path = tmp_path / "weights.pth"
    torch.save(
        {"state_dict": content, "epoch": 3} if wrap else content,
        path,
        _use_new_zipfile_serialization=zipped,
    )
    network, digest = load_medicalnet(path)
    for key, value in network.state_dict().items():
        assert torch.equal(value, small_state[key]), key
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_checksum_can_be_demanded(small_state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(small_state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_medicalnet(path, digest.upper())[1] == digest
    with pytest.raises(ValueError, match=f"sha256 {digest}, expected 0000"):
        load_medicalnet(path, "0" * 64)


def broken_states(state: State) -> Iterator[tuple[str, State, str]]:
    without = {key: value for key, value in state.items() if "layer3.4" not in key}
    yield "missing", without, r"18 of 318 keys missing \(first: layer3.4.conv1.weight\)"
    more = state | {"fc.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}
    yield "more", more, r"0 of 318 keys missing, 2 unexpected \(first: fc.weight\)"
    wide = state | {"conv1.weight": torch.zeros(64, 3, 7, 7, 7)}
    yield "wide", wide, r"conv1.weight is \(64, 3, 7, 7, 7\) instead of \(64, 1, 7, 7, 7\)"
    yield "empty", {}, "318 of 318 keys missing"


def test_files_of_another_network_are_refused_in_one_sentence(
    small_state: State, tmp_path: Path
) -> None:
    for name, content, message in broken_states(small_state):
        path = tmp_path / f"{name}.pth"
        torch.save({"state_dict": content}, path)
        with pytest.raises(ValueError, match=message) as caught:
            load_medicalnet(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [[1, 2], {"state_dict": {"conv1.weight": 3}}, {1: torch.ones(1)}]
)
def test_files_that_hold_no_tensors_by_name_are_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth' holds no dict of tensors"):
        load_medicalnet(tmp_path / "other.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_refused(small_state: State, tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "damaged.pth"
    torch.save({"state_dict": small_state}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for size in (0, 1, 100, len(content) // 2, len(content) - 100):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="not a readable file of weights"):
            load_medicalnet(path)
    path.write_bytes(b"<html>404</html>" * 50)
    with pytest.raises(ValueError, match="not a readable file of weights"):
        load_medicalnet(path)
    with pytest.raises(ValueError, match="do not exist"):
        load_medicalnet(tmp_path / "none.pth")


class Payload:
    """Unpickled without care, it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.target, "ran")


@pytest.mark.parametrize("plain", [True, False])
def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path, plain: bool) -> None:
    path, target = tmp_path / "code.pth", tmp_path / "ran"
    content = {"state_dict": {"conv1.weight": Payload(target)}}
    if plain:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match="pickle with code"):
        load_medicalnet(path)
    assert not target.exists()


def test_features_depend_on_neither_the_batch_nor_its_size(weights: Path) -> None:
    volumes = np.random.default_rng(0).random((5, 16, 24, 16)).astype(np.float16)
    one = MedicalNetExtractor(weights, batch_size=1)
    three = MedicalNetExtractor(weights, batch_size=3)
    features = one(volumes)
    assert features.shape == (5, one.dim) == (5, 2048)
    assert features.dtype == np.float32
    tolerance = {"rtol": 1e-5, "atol": 1e-5 * np.abs(features).max()}
    np.testing.assert_allclose(three(volumes), features, **tolerance)
    np.testing.assert_allclose(three(volumes[::-1])[::-1], features, **tolerance)
    np.testing.assert_array_equal(one(volumes), features)
    exact = volumes[:2].astype(np.float32)  # read as it is: a reversed view has negative strides
    np.testing.assert_array_equal(one(exact[::-1])[::-1], features[:2])
    assert one.name == "medicalnet-resnet50"
    assert one.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()


@pytest.mark.parametrize("preprocess", ["foreground-zscore", "volume-zscore", "symmetric"])
def test_preprocessing(weights: Path, ours: nn.Module, preprocess: Preprocessing) -> None:
    """The network on images preprocessed with NumPy gives the extractor's features."""
    volumes = np.random.default_rng(1).random((2, 16, 16, 24)).astype(np.float32)
    volumes[:, :5] = 0.004  # background of a generator, not exactly black
    if preprocess == "foreground-zscore":
        images = np.zeros_like(volumes)
        for image, volume in zip(images, volumes, strict=True):
            inside = volume > 0.01
            image[inside] = (volume[inside] - volume[inside].mean()) / volume[inside].std()
    elif preprocess == "volume-zscore":
        images = np.stack([(volume - volume.mean()) / volume.std() for volume in volumes])
    else:
        images = volumes * 2 - 1
    with torch.inference_mode():
        expected = ours(torch.from_numpy(images)[:, None]).numpy()
    features = MedicalNetExtractor(weights, preprocess=preprocess)(volumes)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_flat_volumes_have_the_features_of_zeros(weights: Path, ours: nn.Module) -> None:
    with torch.inference_mode():
        expected = ours(torch.zeros(3, 1, 16, 16, 16)).numpy()
    flat = np.multiply.outer([0.0, 0.3, 1.0], np.ones((16, 16, 16)))
    features = MedicalNetExtractor(weights)(flat)
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)


def test_the_extractor_refuses(weights: Path) -> None:
    with pytest.raises(ValueError, match="Preprocessing 'minmax' is unknown"):
        MedicalNetExtractor(weights, preprocess="minmax")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"needs a file of weights; give MedicalNet's {HUB_FILE}"):
        MedicalNetExtractor(None)
    assert MedicalNetExtractor(weights).preprocess == "foreground-zscore"
    with pytest.raises(ValueError, match=r"shape \(16, 16, 16\)"):
        MedicalNetExtractor(weights)(np.zeros((16, 16, 16)))


def test_weights_are_found_in_order_and_never_replaced_silently(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given, named, cached = (tmp_path / name for name in ("given.pth", "named.pth", "cached.pth"))
    for path in (given, named, cached):
        path.touch()
    hub: dict[str, Any] = {"cache": None}
    asked: list[tuple[str, str]] = []

    def from_hub(repository: str, file: str) -> str:
        asked.append((repository, file))
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: hub["cache"])
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", from_hub)
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)

    assert find_weights() is None
    with pytest.raises(ValueError, match=r"Downloading .* failed \(OSError\)"):
        find_weights(allow_download=True)
    assert asked == [(HUB_REPOSITORY, HUB_FILE)]
    hub["cache"] = object()  # the hub's mark of a file known not to exist
    assert find_weights() is None
    hub["cache"] = str(cached)
    assert find_weights(allow_download=True) == cached
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(named))
    assert find_weights() == named
    assert find_weights(given) == given
    with pytest.raises(ValueError, match="from the configuration do not exist"):
        find_weights(tmp_path / "none.pth")
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "none.pth"))
    with pytest.raises(ValueError, match=f"variable {WEIGHTS_VARIABLE} do not exist"):
        find_weights()
    assert len(asked) == 1
