"""The functions of bitsandbytes' CUDA library, computed by its CPU kernels, so that its real CUDA backend runs.

Their names and arguments are those that bitsandbytes 0.50 calls (backends/cuda/ops.py, functional.py). Pointers come in
as numbers; what they point to is read and written where it lies.
"""

import ctypes
import os
import re
from collections.abc import Callable
from typing import Any

import torch

from tests.gpu_standin.install import library

DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "32": torch.float32,
    "16": torch.float16,
}
SECOND_BLOCKS = 256  # scales of scales: elements a block
INT8_SCALE = 1 / (127.0 * 127.0)
READS, WRITES = False, True


def install() -> None:
    """Give bitsandbytes this library wherever it would load the one for CUDA."""
    load = ctypes.cdll.LoadLibrary

    def load_library(path: str) -> Any:
        if "libbitsandbytes_cuda" not in str(path):
            return load(path)
        return Library(load(re.sub(r"_cuda\d+", "_cpu", str(path))))

    ctypes.cdll.LoadLibrary = load_library  # type: ignore[method-assign]
    library().standin_tell_when_host_waits(_show_managed_memory)


# What kernels have written to managed memory, and where to. The host sees it when it has waited for the card.
_unseen: list[tuple[torch.Tensor, torch.Tensor]] = []


@ctypes.CFUNCTYPE(None)
def _show_managed_memory() -> None:
    while _unseen:
        place, written = _unseen.pop(0)
        place.copy_(written)


class _Function:
    """As ctypes shows a C function."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run = run
        self.argtypes: Any = None
        self.restype: Any = None

    def __call__(self, *arguments: Any) -> Any:
        _show_managed_memory()  # kernels of one stream see what those before them have written
        return self._run(*(getattr(each, "value", each) for each in arguments))


class Library:
    """What bitsandbytes finds in its CUDA library. A function that is missing here says so when it is called."""

    def __init__(self, cpu: Any) -> None:
        self._cpu = cpu
        self._found: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name not in self._found:
            self._found[name] = self._function(name)
        return self._found[name]

    def _function(self, name: str) -> Any:
        for pattern, make in FUNCTIONS.items():
            match = re.fullmatch(pattern, name)
            if match:
                return _Function(make(*match.groups()))
        if not name.startswith("c") or "_cpu" in name:
            return getattr(self._cpu, name)
        return _Function(_missing(name))


def _missing(name: str) -> Callable[..., Any]:
    def call(*_: Any) -> Any:
        raise NotImplementedError(f"the stand-in for bitsandbytes' CUDA library has no {name}")

    return call


def _at(address: int | None, dtype: torch.dtype, *shape: int, use: bool = READS) -> torch.Tensor | None:
    """What lies at `address`, as a tensor of the CPU over the same bytes; None for a null pointer."""
    if not address:
        return None
    elements = int(torch.Size(shape).numel())
    if not elements:
        return torch.empty(shape, dtype=dtype)
    library().standin_use(ctypes.c_void_p(address), use)
    memory = (ctypes.c_char * (elements * dtype.itemsize)).from_address(address)
    found = torch.frombuffer(memory, dtype=dtype, count=elements).view(shape)
    if use == WRITES and library().standin_is_managed(ctypes.c_void_p(address)):
        _unseen.append((found, found.clone()))
        return _unseen[-1][1]
    return found


def _read(address: int | None, dtype: torch.dtype, *shape: int) -> Any:
    return _at(address, dtype, *shape)


def _write(address: int, dtype: torch.dtype, found: torch.Tensor) -> None:
    target = _at(address, dtype, found.numel(), use=WRITES)
    if target is not None:
        target.copy_(found.reshape(-1))


def _blocks(elements: int, block: int) -> int:
    return -(-elements // block)


def _quantize(dtype: str, kind: str | None) -> Callable[..., None]:
    def run(code: int, tensor: int, scales: int, out: int, block: int, n: int) -> None:
        values = _read(tensor, DTYPES[dtype], n)
        if kind:
            packed, of_blocks = torch.ops.bitsandbytes.quantize_4bit(values, block, kind, torch.uint8)
        else:
            table = _read(code, torch.float32, 256)
            packed, of_blocks = torch.ops.bitsandbytes.quantize_blockwise(values, table, block)
        _write(out, torch.uint8, packed)
        _write(scales, torch.float32, of_blocks)

    return run


def _unpack(
    packed: int, scales: torch.Tensor, block: int, kind: str, shape: list[int], dtype: torch.dtype
) -> torch.Tensor:
    elements = int(torch.Size(shape).numel())
    halves = _read(packed, torch.uint8, (elements + 1) // 2, 1)
    return torch.ops.bitsandbytes.dequantize_4bit(halves, scales, block, kind, shape, dtype)


def _dequantize(dtype: str, kind: str | None) -> Callable[..., None]:
    def run(code: int, tensor: int, scales: int, out: int, block: int, n: int, stream: int) -> None:
        of_blocks = _read(scales, torch.float32, _blocks(n, block))
        if kind:
            found = _unpack(tensor, of_blocks, block, kind, [n], DTYPES[dtype])
        else:
            table, values = _read(code, torch.float32, 256), _read(tensor, torch.uint8, n)
            found = torch.ops.bitsandbytes.dequantize_blockwise(values, of_blocks, table, block, DTYPES[dtype])
        _write(out, DTYPES[dtype], found)

    return run


def _vector_product(dtype: str) -> Callable[..., None]:
    def run(  # type: ignore[no-untyped-def]
        m, n, k, vector, packed, scales, code, out, lda, ldb, ldc, block, stream
    ) -> None:
        of_blocks = _read(scales, torch.float32, _blocks(m * k, block))
        weight = _unpack(packed, of_blocks, block, "nf4", [m, k], DTYPES[dtype])
        _write(out, DTYPES[dtype], weight @ _read(vector, DTYPES[dtype], k))

    return run


def _product(dtype: str) -> Callable[..., None]:
    def run(  # type: ignore[no-untyped-def]
        rows, packed, scales, scales8, code, offset, out, bias, m, n, k, block, kind, stream
    ) -> None:
        blocks = _blocks(n * k, block)
        if scales8:  # double quantisation
            outer, table = _read(scales, torch.float32, _blocks(blocks, SECOND_BLOCKS)), _read(code, torch.float32, 256)
            inner = _read(scales8, torch.uint8, blocks)
            dequantize = torch.ops.bitsandbytes.dequantize_blockwise
            of_blocks = dequantize(inner, outer, table, SECOND_BLOCKS, torch.float32) + _read(offset, torch.float32, 1)
        else:
            of_blocks = _read(scales, torch.float32, blocks)
        weight = _unpack(packed, of_blocks, block, "fp4" if kind == 1 else "nf4", [n, k], DTYPES[dtype])
        found = torch.nn.functional.linear(_read(rows, DTYPES[dtype], m, k), weight, _read(bias, DTYPES[dtype], n))
        _write(out, DTYPES[dtype], found)

    return run


def _int8_product() -> Callable[..., int]:
    def run(context, m, n, k, weight, rows, out, scales, lda, ldb, ldc, stream) -> int:  # type: ignore[no-untyped-def]
        # as cuBLAS counts, column by column: m is what is summed over
        product = _read(rows, torch.int8, n, m).float() @ _read(weight, torch.int8, k, m).float().t()
        _write(out, torch.int32, product.to(torch.int32))
        return 0

    return run


def _int8_dequantize() -> Callable[..., None]:
    def run(sums, of_rows, of_columns, out, bias, rows, columns, stream) -> None:  # type: ignore[no-untyped-def]
        scales = _read(of_rows, torch.float32, rows)[:, None] * _read(of_columns, torch.float32, columns)[None]
        found = _read(sums, torch.int32, rows, columns) * scales * INT8_SCALE
        if bias:
            found = found + _read(bias, torch.float16, columns)
        _write(out, torch.float16, found.to(torch.float16))

    return run


def _int8_quantize() -> Callable[..., None]:
    def run(tensor, out, scales, threshold, rows, columns, stream) -> None:  # type: ignore[no-untyped-def]
        values = _read(tensor, torch.float16, rows, columns).float()
        if threshold > 0:
            values = values.masked_fill(values.abs() >= threshold, 0)
        largest = values.abs().amax(1)
        _write(scales, torch.float32, largest)
        tiny = torch.finfo(torch.float32).tiny
        _write(out, torch.int8, torch.round(values * (127.0 / largest[:, None].clamp(min=tiny))).to(torch.int8))

    return run


def _step_32_bits(optimizer: str, dtype: str) -> Callable[..., None]:
    def run(grad, parameter, state1, state2, norms, *rest) -> None:  # type: ignore[no-untyped-def]
        *figures, n = rest
        states = [_at(each, torch.float32, n, use=WRITES) for each in (state1, state2)]
        target = _at(parameter, DTYPES[dtype], n, use=WRITES)
        norm = _read(norms, torch.float32, 1)
        gradient = _read(grad, DTYPES[dtype], n)
        torch.ops.bitsandbytes.optimizer_update_32bit(optimizer, gradient, target, *states, norm, *figures)

    return run


def _step_8_bits(optimizer: str, dtype: str) -> Callable[..., None]:
    def run(  # type: ignore[no-untyped-def]
        parameter, grad, state1, state2, beta1, beta2, beta3, alpha, eps, step, rate, table1, table2, scales1, scales2,
        decay, gradient_scale, skips_zeros, n,
    ) -> None:  # fmt: skip
        tables = [_read(each, torch.float32, 256) for each in (table1, table2)]
        scales = [_at(each, torch.float32, _blocks(n, 256), use=WRITES) for each in (scales1, scales2)]
        states = [_at(each, torch.uint8, n, use=WRITES) for each in (state1, state2)]
        target = _at(parameter, DTYPES[dtype], n, use=WRITES)
        torch.ops.bitsandbytes.optimizer_update_8bit_blockwise(
            optimizer, _read(grad, DTYPES[dtype], n), target, *states, beta1, beta2, beta3, alpha, eps, step, rate,
            *tables, *scales, decay, gradient_scale, skips_zeros,
        )  # fmt: skip

    return run


def _managed(size: int) -> int:
    """As the real library: where CUDA refuses, it says so and ends the process."""
    address = library().standin_managed_memory(size)
    if address:
        return int(address)
    os.write(2, b"Error operation not supported at line 557 in file /src/csrc/pythonInterface.cpp\n")
    os._exit(1)


def _fill(dtype: torch.dtype) -> Callable[..., None]:
    def run(tensor: int, other: int, value: float, n: int) -> None:
        target = _at(tensor, dtype, n, use=WRITES)
        if target is not None:
            target.fill_(value)

    return run


# By what their names match; the groups are handed on.
FUNCTIONS: dict[str, Callable[..., Callable[..., Any]]] = {
    "get_context": lambda: lambda: 1,
    "cget_managed_ptr": lambda: _managed,
    "cprefetch": lambda: lambda address, size, device: None,
    "cfill_fp32": lambda: _fill(torch.float32),
    "cfill_uint8": lambda: _fill(torch.uint8),
    r"cquantize_blockwise_(fp32|fp16|bf16)(?:_(nf4|fp4))?": _quantize,
    r"cdequantize_blockwise_(fp32|fp16|bf16)(?:_(nf4|fp4))?": _dequantize,
    r"cgemm_4bit_inference_naive_(fp32|fp16|bf16)": _vector_product,
    r"cgemm_4bit_(fp32|fp16|bf16)": _product,
    "cigemmlt_32": _int8_product,
    "cdequant_mm_int32_fp16": _int8_dequantize,
    "cint8_vector_quant": _int8_quantize,
    r"c([a-z]+)32bit_grad_(fp32|fp16|bf16|32|16)": _step_32_bits,
    r"c([a-z]+)_8bit_blockwise_grad_(fp32|fp16|bf16)": _step_8_bits,
}
