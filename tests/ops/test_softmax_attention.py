"""Softmax attention of every backend against loops over positions, heads and rows, with all gradients of every rule."""

import math
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_mambalrp.errors import BackendError
from hf_mambalrp.ops.attention import Scores, attention, sdpa
from hf_mambalrp.rules import MAMBALRP, NO_RULES
from hf_mambalrp.rules.biases import BiasLedger

BACKENDS = ["reference", "auto"]
RULES = {"cp": MAMBALRP, "attnlrp": replace(MAMBALRP, attention="attnlrp"), "gradient": NO_RULES}
NAMES = ("q", "k", "v", "k_past", "v_past")
HOLES = torch.tensor([[1, 0, 1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 1, 0, 1, 0]])
"""Of 8 keys; also where padding is before the tokens, between them and behind."""
SCORES = {
    "plain": Scores(0.4),
    "window": Scores(0.4, window=3),
    "window of one": Scores(0.4, window=1),
    "wide window": Scores(0.4, window=100),
    "softcap": Scores(0.4, softcap=0.7),
    "holes": Scores(0.4, mask=HOLES),
    "all": Scores(0.4, window=4, softcap=0.7, mask=HOLES),
}


def inputs(before, keys_heads, dtype=torch.float64, batch=2, length=8, heads=4, width=3):
    """q, k, v of the last positions of 8, and k and v of those before."""
    generator = torch.Generator().manual_seed(before)
    new = length - before
    shapes = [(new, heads), *[(new, keys_heads)] * 2, *[(before, keys_heads)] * 2]
    return [
        torch.randn(batch, rows, count, width, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for rows, count in shapes[: 5 if before else 3]
    ]


def loop(arguments, scores, capped):
    """o_i = sum_j exp(s_ij) v_j / sum_j exp(s_ij), s = c capped(scale q_i . k_j / c), j of those that are read."""
    q, k, v = arguments[:3]
    if len(arguments) > 3:
        k, v = torch.cat([arguments[3], k], 1), torch.cat([arguments[4], v], 1)
    before, found = k.shape[1] - q.shape[1], []
    for b in range(len(q)):
        for i in range(before, k.shape[1]):
            for h in range(q.shape[2]):
                g = h * k.shape[2] // q.shape[2]
                terms = []
                for j in range(i + 1):
                    hidden = scores.mask is not None and scores.mask[b, j] == 0
                    if i != j and (hidden or (scores.window is not None and i - j >= scores.window)):
                        continue
                    s = scores.scale * (q[b, i - before, h] @ k[b, j, g])
                    terms.append((s if scores.softcap is None else capped(s, scores.softcap), v[b, j, g]))
                A = torch.stack([s for s, _ in terms]).exp()
                found.append((A / A.sum()) @ torch.stack([value for _, value in terms]))
    return torch.stack(found).view(q.shape)


def plainly(s, c):
    return c * torch.tanh(s / c)


def by_identity(s, c):
    return s * (c * torch.tanh(s / c) / s).detach()


def computed(arguments, scores, rule, backend):
    """o, and gradients of o . g by the arguments, 0 where there is none, and of what the softmax absorbed."""
    ledger = BiasLedger(len(arguments[0]))
    past = tuple(arguments[3:]) or None
    o = attention(*arguments[:3], past, scores, rules=RULES[rule], ledger=ledger, backend=backend)
    g = torch.linspace(-1, 1, o.numel(), dtype=torch.float64).view(o.shape).to(o)
    leaves = [*arguments, *ledger.entries]
    return o, g, torch.autograd.grad(o, leaves, g, allow_unused=True, materialize_grads=True), ledger


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize(("before", "keys_heads"), [(0, 4), (0, 2), (5, 1), (1, 2), (7, 4)])
def test_values_and_gradients_equal_the_loop(backend, rule, kind, before, keys_heads, monkeypatch):
    monkeypatch.setattr(sdpa, "BLOCK_ELEMENTS", 100)  # blocks of a few queries, uneven
    scores, arguments = SCORES[kind], inputs(before, keys_heads)
    o, g, gradients, ledger = computed(arguments, scores, rule, backend)
    expected = loop(arguments, scores, plainly if rule == "gradient" else by_identity)
    torch.testing.assert_close(o, expected, rtol=1e-10, atol=1e-10)
    plain = torch.autograd.grad(expected, arguments, g)
    shares = {"cp": (0, 0, 1, 0, 1), "attnlrp": (0.25, 0.25, 0.5, 0.25, 0.5), "gradient": (1,) * 5}[rule]
    for name, found, share, gradient in zip(NAMES, gradients, shares, plain, strict=False):
        torch.testing.assert_close(found, share * gradient, rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    assert len(ledger.of_softmax) == len(ledger.entries) == (rule == "attnlrp")
    if rule == "attnlrp":  # whatever is not passed on was absorbed
        passed = sum((x * gradient).sum((1, 2, 3)) for x, gradient in zip(arguments, gradients, strict=False))
        torch.testing.assert_close(gradients[-1][:, 0, 0], (o * g).sum((1, 2, 3)) - passed, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)], ids=str)
def test_fewer_bits(rule, kind, dtype, tolerance):
    arguments = inputs(3, 2, dtype)
    wide = [x.detach().double().requires_grad_() for x in arguments]
    for backend in BACKENDS:
        o, _, gradients, _ = computed(arguments, SCORES[kind], rule, backend)
        assert o.dtype == dtype
        expected, _, of_wide, _ = computed(wide, SCORES[kind], rule, "reference")
        for found, other in zip([o, *gradients], [expected, *of_wide], strict=True):
            assert (found.double() - other).norm() <= tolerance * max(1.0, float(other.norm()))


def test_a_text_in_chunks_is_the_text():
    """What is appended to the past, at every cut: outputs, and by it the adjoints of keys and values."""
    arguments = inputs(0, 2)
    for rule, rules in RULES.items():
        for kind in ("plain", "window", "all"):
            o, g, gradients, _ = computed(arguments, SCORES[kind], rule, "auto")
            for cut in range(1, 8):
                _, k, v = arguments
                found = []
                for start, stop in ((0, cut), (cut, 8)):
                    past = (k[:, :start], v[:, :start]) if start else None
                    scores = SCORES[kind]
                    scores = scores if scores.mask is None else scores._replace(mask=scores.mask[:, :stop])
                    new = [x[:, start:stop] for x in arguments]
                    found.append(attention(*new, past, scores, rules=rules, ledger=BiasLedger(2)))
                together = torch.cat(found, 1)
                torch.testing.assert_close(together, o, rtol=1e-10, atol=1e-10)
                again = torch.autograd.grad(together, arguments, g, allow_unused=True, materialize_grads=True)
                for one, other in zip(again, gradients, strict=False):
                    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("before", "keys_heads"), [(5, 1), (1, 2), (7, 4)])
def test_all_queries_behind_the_past_at_once_are_those_in_blocks(rule, before, keys_heads, monkeypatch):
    """As a GPU computes them in half precision; on a CPU torch makes the mask that the kernel knows by itself."""
    expected = computed(inputs(before, keys_heads), SCORES["plain"], rule, "auto")
    monkeypatch.setattr(sdpa, "_flash", lambda *_: True)
    monkeypatch.setattr(sdpa, "_block", None)
    found = computed(inputs(before, keys_heads), SCORES["plain"], rule, "auto")
    for one, other in zip([found[0], *found[2]], [expected[0], *expected[2]], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["plain", "past", "window", "holes"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)], ids=str)
def test_heads_that_share_keys_on_a_gpu_are_the_cpus_without_a_matrix(rule, kind, dtype, tolerance):
    length = 2048
    arguments = inputs(512 if kind == "past" else 0, 2, dtype, batch=1, length=length, heads=8, width=16)
    mask = torch.ones(1, length)
    mask[:, 100:120] = 0
    scores = Scores(0.4, **{"window": {"window": 200}, "holes": {"mask": mask}}.get(kind, {}))
    wide = [x.detach().double().requires_grad_() for x in arguments]
    expected, _, of_wide, _ = computed(wide, scores, rule, "auto")
    on_gpu = [x.detach().cuda().requires_grad_() for x in arguments]
    if scores.mask is not None:
        scores = scores._replace(mask=scores.mask.cuda())
    g = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view(expected.shape)
    ledger, past = BiasLedger(1), tuple(on_gpu[3:]) or None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    o = attention(*on_gpu[:3], past, scores, rules=RULES[rule], ledger=ledger)
    gradients = torch.autograd.grad(o, [*on_gpu, *ledger.entries], g.to(o), allow_unused=True, materialize_grads=True)
    matrix = 8 * length**2 * o.element_size()
    assert torch.cuda.max_memory_allocated() - before < matrix / 2
    if dtype == torch.bfloat16:  # what is absorbed is a small rest of large sums
        gradients, of_wide = gradients[: len(on_gpu)], of_wide[: len(on_gpu)]
    for found, other in zip([o, *gradients], [expected, *of_wide], strict=True):
        assert (found.cpu().double() - other).norm() <= tolerance * max(1.0, float(other.norm()))


class Largest(TorchDispatchMode):
    """The most numbers that a tensor has."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.element_size())
        return result


DTYPES = (torch.float32, torch.float64, torch.bfloat16)
PAIRS = [
    (rule, DTYPES[(r + k) % 3], kind)
    for r, rule in enumerate(RULES)
    for k, kind in enumerate(["plain", "past", "window", "holes", "softcap"])
]
"""Every rule with every kind, and each of both with every dtype."""


@pytest.mark.parametrize(("rule", "dtype", "kind"), PAIRS)
def test_nothing_of_the_length_squared(rule, dtype, kind, monkeypatch):
    """In forward and backward, kept or not; and what is kept for the backward is linear in the length."""
    length, block = 384, 2**13
    monkeypatch.setattr(sdpa, "BLOCK_ELEMENTS", block)
    arguments = inputs(256 if kind == "past" else 0, 2, dtype, batch=1, length=length, heads=4, width=4)
    mask = torch.ones(1, length)
    mask[:, 100:120] = 0
    settings = {"window": {"window": 20}, "holes": {"mask": mask}, "softcap": {"softcap": 0.7}}
    scores, kept = Scores(0.4, **settings.get(kind, {})), {}

    def keep(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() // x.element_size()
        return x

    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        computed(arguments, scores, rule, "auto")
    one = max(x.numel() for x in arguments)  # q, with as many numbers as o
    assert largest.elements <= max(2 * one, 2 * block) < length**2 / 8
    assert sum(kept.values()) <= 10 * one


def test_a_query_that_reads_nothing_else_reads_itself():
    q, k, v = inputs(0, 4)
    nothing = Scores(0.4, mask=torch.zeros(2, 8))
    for backend in BACKENDS:
        o = attention(q, k, v, None, nothing, rules=MAMBALRP, ledger=BiasLedger(2), backend=backend)
        torch.testing.assert_close(o, v)


def test_scores_that_are_far_from_0_overflow_nothing():
    """exp(1e4) is no number; a softmax is one all the same, and a softcap of 0 is 0."""
    for dtype in (torch.float32, torch.float64):
        q, k, v = (x.detach() for x in inputs(0, 4, dtype))
        for scores in (Scores(1e4), Scores(1e4, softcap=3.0)):
            o = attention(q, k, v, None, scores, rules=MAMBALRP, ledger=BiasLedger(2))
            assert o.isfinite().all()
        o = attention(0 * q, k, v, None, Scores(1.0, softcap=3.0), rules=MAMBALRP, ledger=BiasLedger(2))
        mean = v.cumsum(1) / torch.arange(1, 9)[:, None, None]
        torch.testing.assert_close(o, mean.to(dtype))


def test_an_unknown_backend_is_refused():
    with pytest.raises(BackendError, match="'flash'"):
        attention(*inputs(0, 4), None, Scores(1.0), rules=MAMBALRP, ledger=BiasLedger(2), backend="flash")


def test_the_scale_is_the_callers():
    q, k, v = inputs(0, 4)
    for backend in BACKENDS:
        one = attention(q, k, v, None, Scores(2.0), rules=MAMBALRP, ledger=BiasLedger(2), backend=backend)
        other = attention(
            q * math.sqrt(2), k * math.sqrt(2), v, None, Scores(1.0), rules=MAMBALRP, ledger=BiasLedger(2)
        )
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("before", "heads", "N", "P"), [(0, 2, 8, 8), (80, 1, 24, 16), (3, 4, 16, 40)])
def test_the_kernel_of_constant_weights_is_their_transpose(before, heads, N, P):
    """More keys than a block has, heads that share, and widths that are no powers of two."""
    pytest.importorskip("triton")
    from hf_mambalrp.ops.attention.triton import transposed_triton

    length, device = 70, "cuda" if torch.cuda.is_available() else "cpu"
    q, k, g = (
        torch.randn(2, rows, count, width, device=device)
        for rows, count, width in ((length, 4, N), (before + length, heads, N), (length, 4, P))
    )
    scores = 0.4 * torch.einsum("bihp,bjhp->bhij", q, k.repeat_interleave(4 // heads, 2))
    later = torch.arange(before + length) > torch.arange(before, before + length)[:, None]
    scores = scores.masked_fill(later.to(device), -torch.inf)
    expected = torch.einsum("bhij,bihp->bjhp", scores.softmax(-1), g).unflatten(2, (heads, -1)).sum(3)
    found = transposed_triton(q, k, scores.logsumexp(-1), g, 0.4)
    bound = 1e-6 if device == "cpu" else 1e-5  # of products in three parts of tf32
    assert (found - expected).norm() < bound * expected.norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("before", [0, 300])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
def test_constant_weights_on_a_gpu(dtype, tolerance, before):
    """By the logsumexp of the kernel that torch chooses, whichever that is."""
    generator = torch.Generator().manual_seed(before)
    shapes = [(500 - before, 8), *[(500 - before, 2)] * 2, *[(before, 2)] * 2][: 5 if before else 3]
    arguments = [
        torch.randn(2, rows, count, 64, generator=generator).to("cuda", dtype).requires_grad_()
        for rows, count in shapes
    ]
    wide = [x.detach().double().cpu().requires_grad_() for x in arguments]
    found, expected = (
        computed(signals, Scores(0.4), "cp", backend) for signals, backend in ((arguments, "auto"), (wide, "reference"))
    )
    for one, other in zip((found[0], *found[2]), (expected[0], *expected[2]), strict=True):
        assert (one.double().cpu() - other).norm() <= tolerance * max(1.0, float(other.norm()))
