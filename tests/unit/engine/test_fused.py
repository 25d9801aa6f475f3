"""A GPU's net with Relu in the kernel of its convolution, which is played here: its maps are those of two kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, List, Tuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.support.cases import batch, write_operators
from tests.support.nets import checked
from worker.engine.manifest import Manifest, read_manifest
from worker.engine.netdef import NetPair, read_pair
from worker.engine.passes import optimise, pad_channels
from worker.engine.torch_fused import ConvRelu
from worker.engine.torch_graph import build_graph

RANDOM = np.random.default_rng(21)


class _Kernel:
    """Stands for cuDNN's. It notes what it makes; while `refuses` says something, it makes nothing."""

    def __init__(self) -> None:
        self.made: List[Tuple[int, ...]] = []
        self.asked = 0
        self.refuses = ""

    def __call__(
        self,
        x: Any,
        weight: Any,
        z: Any,
        alpha: float,
        bias: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
    ) -> Any:
        self.asked += 1
        if self.refuses:
            raise RuntimeError(self.refuses)
        made = F.conv2d(x, weight, None, stride, padding, dilation, groups)
        assert z.shape == made.shape  # as cuDNN wants it
        assert z.isfinite().all()
        self.made.append(tuple(made.shape))
        return F.relu(made + alpha * z + (0 if bias is None else bias.view(1, -1, 1, 1)))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> _Kernel:
    kernel = _Kernel()
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", kernel, raising=False)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False, raising=False)
    return kernel


def _run(module: Callable[[torch.Tensor], Any], x: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        given = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
        return np.concatenate([made.numpy().ravel() for made in module(given)])


def _same(net: NetPair, x: np.ndarray, **options: Any) -> None:
    expected = _run(build_graph(net), x)
    assert np.abs(_run(build_graph(net, fuse=True), x) - expected).max() <= 1e-5 * np.ptp(expected)


def _convolutions(module: torch.nn.Module) -> int:
    return sum(isinstance(one, ConvRelu) for one in module.modules())


@pytest.mark.parametrize("size", [(40, 56), (24, 104)])
def test_nets_compute_the_same(
    size: Tuple[int, int], kernel: _Kernel, thin_net: Path, random_net: Callable[[str], Path], tmp_path: Path
) -> None:
    for folder, least in ((thin_net, 10), (random_net("cmu_coco"), 70), (write_operators(tmp_path / "operators"), 1)):
        manifest: Manifest = read_manifest(folder)
        net = pad_channels(optimise(read_pair(manifest)))
        kernel.made.clear()
        _same(net, batch(size, 1, manifest))
        assert len(kernel.made) >= least


#: Arguments of a convolution of 6 channels to 8, or of as many as it reads, which then is given as z.
WINDOWS = [
    {"kernel": 3, "pad": 1},
    {"kernel": 3, "stride": 2},
    {"kernel": 3, "stride": 2, "pad_t": 0, "pad_l": 0, "pad_b": 1, "pad_r": 1},  # as TensorFlow pads
    {"kernel": 3, "pads": [2, 1, 2, 3], "dilations": [2, 2]},
    {"kernel_h": 1, "kernel_w": 5, "pad_l": 2, "pad_r": 2},
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("made", [6, 8])
@pytest.mark.parametrize("window", WINDOWS)
def test_every_window(window: Any, made: int, bias: bool, kernel: _Kernel) -> None:
    weights = {"w": RANDOM.standard_normal((made, 6, *_kernel(window))), "b": RANDOM.standard_normal(made)}
    net = checked(
        [("Conv", ["x", "w", "b"][: 2 + bias], ["c"], window), ("Relu", ["c"], ["y"], {})],
        {blob: values.astype(np.float32) for blob, values in weights.items()},
    )
    _same(net, RANDOM.standard_normal((2, 6, 11, 12)).astype(np.float32))
    assert len(kernel.made) == 1


def _kernel(window: Any) -> Tuple[int, int]:
    return window.get("kernel_h", window.get("kernel")), window.get("kernel_w", window.get("kernel"))


W = RANDOM.standard_normal((6, 6, 3, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("layers", "fused"),
    [
        ([("Conv", ["x", "w"], ["c"], {"kernel": 3}), ("Relu", ["c"], ["y"], {})], 1),
        # Somebody else reads what the convolution makes.
        (
            [
                ("Conv", ["x", "w"], ["c"], {"kernel": 3}),
                ("Relu", ["c"], ["r"], {}),
                ("Sum", ["c", "r"], ["y"], {}),
            ],
            0,
        ),
        ([("Conv", ["x", "w"], ["c"], {"kernel": 3}), ("Sigmoid", ["c"], ["y"], {})], 0),
        # cuDNN has none for each channel by itself.
        ([("Conv", ["x", "d"], ["c"], {"kernel": 3, "group": 6}), ("Relu", ["c"], ["y"], {})], 0),
    ],
)
def test_what_becomes_one_kernel(layers: Any, fused: int) -> None:
    net = checked(layers, {"w": W, "d": W[:, :1]})
    assert _convolutions(build_graph(net, fuse=True)) == fused
    assert _convolutions(build_graph(net)) == 0


@pytest.fixture
def two() -> NetPair:
    """Two convolutions with Relu."""
    layers = []
    for number, (given, made) in enumerate((("x", "a"), ("a", "y"))):
        layers += [("Conv", [given, "w"], [f"c{number}"], {"kernel": 3}), ("Relu", [f"c{number}"], [made], {})]
    return checked(layers, {"w": W})


X = RANDOM.standard_normal((1, 6, 11, 12)).astype(np.float32)


def test_where_cudnn_has_no_such_kernel_two_compute_the_same_and_the_log_says_it_once(
    two: NetPair, kernel: _Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    kernel.refuses = "GET was unable to find an engine to execute this computation\nafter trying 12 plans"
    fused, expected = build_graph(two, fuse=True), _run(build_graph(two), X)
    for _ in range(3):
        np.testing.assert_array_equal(_run(fused, X), expected)
    assert kernel.asked == 2  # each convolution is asked once
    assert caplog.messages == [
        "cuDNN does not make blob a and its Relu in one kernel (GET was unable to find an engine to execute this "
        "computation)."
    ]


def test_one_that_is_refused_leaves_the_other_as_it_is(two: NetPair, kernel: _Kernel) -> None:
    fused, expected = build_graph(two, fuse=True), _run(build_graph(two), X)
    kernel.refuses = "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"
    first, *_ = (one for one in fused.modules() if isinstance(one, ConvRelu))
    first(torch.from_numpy(X), torch.from_numpy(W))
    kernel.refuses = ""
    assert np.abs(_run(fused, X) - expected).max() <= 1e-5 * np.ptp(expected)
    assert len(kernel.made) == 1


@pytest.mark.parametrize(("said", "capturing"), [("CUDA out of memory. Tried to allocate 2 MiB.", False), ("no", True)])
def test_nothing_is_decided_where_memory_is_short_or_a_graph_is_recorded(
    said: str, capturing: bool, two: NetPair, kernel: _Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing, raising=False)
    fused = build_graph(two, fuse=True)
    kernel.refuses = said
    with pytest.raises(RuntimeError, match=said):
        _run(fused, X)
    kernel.refuses = ""
    _run(fused, X)
    assert len(kernel.made) == 2


def test_a_device_that_does_not_work_is_not_taken_for_a_refusal(
    two: NetPair, kernel: _Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the separate kernels say then counts, and the log is not misled."""
    kernel.refuses = "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"
    fused = build_graph(two, fuse=True)
    with monkeypatch.context() as broken:

        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        broken.setattr(F, "conv2d", fail)
        with pytest.raises(RuntimeError, match="illegal memory access"):
            _run(fused, X)
    kernel.refuses = ""
    _run(fused, X)
    assert len(kernel.made) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-3), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("made", [64, 128])
def test_a_gpu_makes_the_same_and_reads_nothing_that_nobody_has_written(
    dtype: str, tolerance: float, made: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the allocator's memory is full of NaNs. In the precision that is the default, cuDNN does not refuse."""
    caplog.set_level("INFO")
    layers = [("Conv", ["x", "w", "b"], ["c"], {"kernel": 7, "pad": 3}), ("Relu", ["c"], ["y"], {})]
    weights = {"w": RANDOM.standard_normal((made, 64, 7, 7)) / 50, "b": RANDOM.standard_normal(made)}
    net = checked(layers, {blob: values.astype(np.float32) for blob, values in weights.items()})
    kind = getattr(torch, dtype)
    given = torch.from_numpy(RANDOM.standard_normal((2, 64, 46, 62)).astype(np.float32)).to("cuda:0", kind)
    given = given.contiguous(memory_format=torch.channels_last)
    torch.backends.cudnn.allow_tf32 = False
    with torch.inference_mode():
        (expected,) = build_graph(net).to("cuda:0", kind)(given)
        fused = build_graph(net, fuse=True).to("cuda:0", kind)
        for _ in range(3):
            spoilt = [torch.full((1 << 22,), float("nan"), device="cuda:0", dtype=kind) for _ in range(8)]
            del spoilt
            (found,) = fused(given)
            assert (found - expected).abs().max() <= tolerance * expected.max()
    assert dtype != "float16" or not caplog.messages
