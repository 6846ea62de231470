"""Kernels that a CPU build of torch lacks: attention as attention.h chooses it, and products with sums in fp32."""

from typing import Any


def install(torch: Any) -> None:
    """Register them."""
    register = torch.library.Library("aten", "IMPL", "CUDA")
    torch._gpu_standin_kernels = register  # torch forgets them when it goes
    _Attention(torch).install(register)
    _PackedAttention(torch).install(register)
    _Products(torch).install(register)


class _Attention:
    """Flash and memory-efficient attention over the CPU's flash kernel; shapes (rows, heads, tokens, head size)."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.to_cpu, self.to_card = torch.ops.gpu_standin.to_cpu, torch.ops.gpu_standin.to_card

    def install(self, register: Any) -> None:
        register.impl("_scaled_dot_product_flash_attention", self.flash)
        register.impl("_scaled_dot_product_flash_attention_backward", self.flash_backward)
        register.impl("_scaled_dot_product_efficient_attention", self.efficient)
        register.impl("_scaled_dot_product_efficient_attention_backward", self.efficient_backward)

    def _spread(self, q: Any, k: Any, v: Any) -> tuple[Any, Any, int]:
        """Keys and values once for each head, where several heads share them."""
        shared_by = q.shape[1] // k.shape[1]
        if shared_by == 1:
            return k, v, 1
        return k.repeat_interleave(shared_by, 1), v.repeat_interleave(shared_by, 1), shared_by

    def _forward(self, q: Any, k: Any, v: Any, mask: Any, dropout: float, causal: bool, scale: Any) -> tuple[Any, Any]:
        if dropout:
            raise NotImplementedError("the stand-in's attention has no dropout")
        q, k, v = self.to_cpu(q), self.to_cpu(k), self.to_cpu(v)
        k, v, _ = self._spread(q, k, v)
        mask = None if mask is None else self.to_cpu(mask)
        run = self.torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, logsumexp = run(q, k, v, 0.0, causal, attn_mask=mask, scale=scale)
        return self.to_card(out), self.to_card(logsumexp)

    def _backward(self, saved: tuple[Any, ...], mask: Any, causal: bool, scale: Any) -> list[Any]:
        grad, q, k, v, out, logsumexp = (self.to_cpu(each) for each in saved)
        wide_k, wide_v, shared_by = self._spread(q, k, v)
        mask = None if mask is None else self.to_cpu(mask)
        run = self.torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        of_q, of_k, of_v = run(grad, q, wide_k, wide_v, out, logsumexp, 0.0, causal, attn_mask=mask, scale=scale)
        if shared_by > 1:
            of_k, of_v = (each.unflatten(1, (-1, shared_by)).sum(2) for each in (of_k, of_v))
        return [self.to_card(each.contiguous()) for each in (of_q, of_k, of_v)]

    def _numbers(self, *shape: int) -> Any:
        return self.torch.empty(shape, dtype=self.torch.long, device="cuda")

    def flash(self, q, k, v, dropout=0.0, causal=False, debug=False, *, scale=None):  # type: ignore[no-untyped-def]
        out, logsumexp = self._forward(q, k, v, None, dropout, causal, scale)
        none = self.torch.empty(0, device="cuda")
        return out, logsumexp, None, None, q.shape[2], k.shape[2], self._numbers(2), self._numbers(0), none

    def flash_backward(  # type: ignore[no-untyped-def]
        self, grad, q, k, v, out, logsumexp, cum_q, cum_k, max_q, max_k, dropout, causal, seed, offset, *, scale=None
    ):
        return self._backward((grad, q, k, v, out, logsumexp), None, causal, scale)

    def efficient(  # type: ignore[no-untyped-def]
        self, q, k, v, bias, keeps_logsumexp, dropout=0.0, causal=False, *, scale=None
    ):
        out, logsumexp = self._forward(q, k, v, bias, dropout, causal, scale)
        # As CUDA lays them out (torch 2.13, native/transformers/cuda/attention.cu, `_efficient_attention_forward`):
        # heads within tokens, whatever the query's layout; and numbers of 32 tokens at a time.
        out = out.transpose(1, 2).contiguous().transpose(1, 2)
        whole = self.torch.nn.functional.pad(logsumexp, (0, -logsumexp.shape[-1] % 32), value=float("inf"))
        kept = whole if keeps_logsumexp else self.torch.empty(0, device="cuda")
        return out, kept, self._numbers(), self._numbers()

    def efficient_backward(  # type: ignore[no-untyped-def]
        self, grad, q, k, v, bias, out, logsumexp, seed, offset, dropout, mask, causal=False, *, scale=None
    ):
        of_tokens = logsumexp[..., : q.shape[2]].contiguous()
        return (*self._backward((grad, q, k, v, out, of_tokens), bias, causal, scale), None)


class _PackedAttention(_Attention):
    """FlashAttention over sequences laid end to end, as `varlen_attn` calls it; shapes (tokens, heads, size)."""

    def install(self, register: Any) -> None:
        register.impl("_flash_attention_forward", self.packed)
        register.impl("_flash_attention_backward", self.packed_backward)
        self.torch.backends.cuda.is_flash_attention_available = lambda: True

    def _sequences(self, starts: Any, left: int | None, *tensors: Any) -> Any:
        """Of each sequence its place, its part of each of `tensors` as (1, heads, tokens, size), and its window."""
        if self.torch.cuda.get_device_capability() < (8, 0):
            raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")
        ends = self.to_cpu(starts).tolist()
        for start, end in zip(ends, ends[1:], strict=False):
            parts = [self.to_cpu(each)[start:end].transpose(0, 1)[None] for each in tensors]
            mask = None
            if left is not None and left >= 0:
                back = self.torch.arange(end - start)[:, None] - self.torch.arange(end - start)
                mask = self.torch.zeros(back.shape).masked_fill((back < 0) | (back > left), float("-inf"))
                mask = mask.to(parts[0].dtype)
            yield slice(start, end), parts, mask

    def packed(  # type: ignore[no-untyped-def]
        self,
        q,
        k,
        v,
        cum_q,
        cum_k,
        max_q,
        max_k,
        dropout,
        causal,
        debug=False,
        *,
        scale=None,
        window_size_left=None,
        **_,
    ):
        run = self.torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        outs, sums = [], []
        for _place, (q1, k1, v1), mask in self._sequences(cum_q, window_size_left, q, k, v):
            wide_k, wide_v, _ = self._spread(q1, k1, v1)
            out, logsumexp = run(q1, wide_k, wide_v, 0.0, mask is None, attn_mask=mask, scale=scale)
            outs.append(out[0].transpose(0, 1))
            sums.append(logsumexp[0])
        none, cat = self.torch.empty(0, device="cuda"), self.torch.cat
        return (
            self.to_card(cat(outs)),
            self.to_card(cat(sums, -1).contiguous()),
            self._numbers(2),
            self._numbers(0),
            none,
        )

    def packed_backward(  # type: ignore[no-untyped-def]
        self, grad, q, k, v, out, logsumexp, cum_q, cum_k, max_q, max_k, dropout, causal, seed, unused,
        *, scale=None, window_size_left=None, window_size_right=None
    ):  # fmt: skip
        run = self.torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        found: list[list[Any]] = [[], [], []]
        sums = self.to_cpu(logsumexp)
        for place, (grad1, q1, k1, v1, out1), mask in self._sequences(cum_q, window_size_left, grad, q, k, v, out):
            wide_k, wide_v, shared_by = self._spread(q1, k1, v1)
            sum1 = sums[:, place][None].contiguous()
            parts = list(run(grad1, q1, wide_k, wide_v, out1, sum1, 0.0, mask is None, attn_mask=mask, scale=scale))
            if shared_by > 1:
                parts[1:] = [each.unflatten(1, (-1, shared_by)).sum(2) for each in parts[1:]]
            for list_of, each in zip(found, parts, strict=True):
                list_of.append(each[0].transpose(0, 1))
        return tuple(self.to_card(self.torch.cat(each)) for each in found)


class _Products:
    """Products of halves whose sums are kept in fp32 (`out_dtype`)."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.to_cpu, self.to_card = torch.ops.gpu_standin.to_cpu, torch.ops.gpu_standin.to_card

    def install(self, register: Any) -> None:
        register.impl("mm.dtype", self.mm)
        register.impl("bmm.dtype", self.mm)
        register.impl("addmm.dtype", self.addmm)
        register.impl("mm.dtype_out", self.mm_out)
        register.impl("addmm.dtype_out", self.addmm_out)

    def _wide(self, *tensors: Any) -> list[Any]:
        return [self.to_cpu(each).float() for each in tensors]

    def mm(self, a: Any, b: Any, out_dtype: Any) -> Any:
        a, b = self._wide(a, b)
        return self.to_card((a @ b).to(out_dtype))

    def mm_out(self, a: Any, b: Any, out_dtype: Any, *, out: Any) -> Any:
        return out.copy_(self.mm(a, b, out_dtype))

    def addmm(self, c: Any, a: Any, b: Any, out_dtype: Any, *, beta: float = 1, alpha: float = 1) -> Any:
        c, a, b = self._wide(c, a, b)
        return self.to_card(self.torch.addmm(c, a, b, beta=beta, alpha=alpha).to(out_dtype))

    def addmm_out(  # type: ignore[no-untyped-def]
        self, c, a, b, out_dtype, *, out, beta=1, alpha=1
    ):
        return out.copy_(self.addmm(c, a, b, out_dtype, beta=beta, alpha=alpha))
