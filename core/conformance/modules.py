"""What every part of a decoder keeps to as a torch module: gradients, dtype, state dict, meta device, repeatability."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lamina.core.conformance.case import Case, gap, randn, tokens
from lamina.core.conformance.checks import Wrong, check, shorten
from lamina.core.conformance.texts import run, same
from lamina.core.dryrun import dry_run
from lamina.core.errors import GenerationError, LaminaError

MODULES = ("attention", "position", "ffn", "norm", "activation", "residual", "router", "rope_scaling")
LENGTH = 6


@check(*MODULES, name="repeatable")
@torch.no_grad()
def the_same_again(case: Case) -> None:
    """The same seed builds the same weights, and the same tokens give the same bits."""
    decoder, twin = case.decoder(), case.decoder()
    for name, tensor in decoder.tensors().items():
        if not torch.equal(tensor, twin.tensors()[name]):
            raise Wrong("the same seed to give the same weights", f"another '{name}'")
    ids = tokens(2, LENGTH)
    want = decoder(ids)
    for _ in range(2):
        if not torch.equal(decoder(ids), want):
            raise Wrong("the same bits every time in evaluation", "others", length=LENGTH)
    same(twin(ids), want, "no call to leave anything behind for the next", length=LENGTH)


@check(*MODULES, name="state dict")
@torch.no_grad()
def the_state_dict_holds_everything(case: Case) -> None:
    """Weights loaded into a decoder of another seed give the same logits."""
    decoder, twin = case.decoder(seed=0), case.decoder(seed=1)
    state = decoder.state_dict()
    strange = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise Wrong("a state dict of tensors, which a checkpoint can hold", f"'{strange[0]}' of another type")
    try:
        twin.load_state_dict(state)
    except RuntimeError as error:
        raise Wrong("a state dict that loads into a decoder of the same spec", str(error)) from error
    ids = tokens(2, LENGTH)
    same(
        twin(ids),
        decoder(ids),
        "all that the output follows from to be in the state dict, or to follow from the options",
        length=LENGTH,
    )


@check(*MODULES, name="meta device")
@torch.no_grad()
def it_can_be_built_without_memory(case: Case) -> None:
    """It builds and runs on the meta device, with the weights it has elsewhere, and can be filled with them later."""
    real = case.decoder()
    try:
        decoder = case.decoder(device="meta")
        dry_run(case.spec)
    except LaminaError as error:
        if isinstance(error.__cause__, GenerationError):
            raise error.__cause__ from None
        raise Wrong("to be built and run on the meta device", error.message) from error
    there = [*decoder.named_parameters(), *decoder.named_buffers()]
    if placed := [name for name, tensor in there if not tensor.is_meta]:
        raise Wrong(
            "every weight to be made on the device in force", f"'{placed[0]}' on {dict(there)[placed[0]].device}"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in real.tensors().items()}
    found = {name: tuple(tensor.shape) for name, tensor in decoder.tensors().items()}
    if shapes != found:
        unlike = [
            f"{n} {found.get(n)}, not {shapes.get(n)}" for n in {**shapes, **found} if shapes.get(n) != found.get(n)
        ]
        raise Wrong("the same weights as on the CPU", shorten(unlike, 3))
    decoder.to_empty(device="cpu").load_state_dict(real.state_dict())
    ids = tokens(2, LENGTH)
    why = "a decoder made on the meta device, then loaded, to give the same logits"
    try:
        same(decoder(ids), real(ids), why, length=LENGTH)
    except RuntimeError as error:  # tensors that are still on the meta device
        hint = "; a tensor that follows from the options is a DeviceConstant"
        raise Wrong(why, str(error).splitlines()[0] + hint) from error


@check(*MODULES, name="dtype")
@torch.no_grad()
def dtype_is_kept(case: Case) -> None:
    """In bfloat16, float32 and float64 what comes out has the dtype and device of what went in."""
    ids = tokens(2, LENGTH)
    exact = case.decoder()
    want = exact(ids)
    for dtype, most in ((torch.float32, 1e-2), (torch.bfloat16, None)):
        decoder = case.decoder(dtype=dtype)
        decoder.load_state_dict(exact.state_dict())
        seen = _watch_dtype(case, decoder)
        failed: RuntimeError | None = None
        try:
            logits = decoder(ids)
        except RuntimeError as error:
            failed = error
        if seen and seen[0][0] != seen[0][1]:
            raise Wrong(f"{seen[0][0]} in and out", f"{seen[0][1]} out")
        if failed is not None:
            raise failed
        if logits.dtype != dtype or logits.device != ids.device:
            raise Wrong(f"logits in {dtype} on {ids.device}", f"{logits.dtype} on {logits.device}")
        if not logits.isfinite().all():
            raise Wrong(f"finite logits in {dtype}", "others", length=LENGTH)
        if most is not None and (off := gap(logits, want)) > most:
            raise Wrong(f"the float64 logits to within {most:g} in {dtype}", f"a difference of {off:.2g}")
        cached = run(decoder, ids, (3, 2, 1))
        if cached.dtype != dtype:
            raise Wrong(f"logits in {dtype} with a cache", f"{cached.dtype}")


def _watch_dtype(case: Case, decoder: nn.Module) -> list[tuple[torch.dtype, torch.dtype]]:
    """(dtype in, dtype out) of every call of the component, those that differ first."""
    seen: list[tuple[torch.dtype, torch.dtype]] = []

    def note(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if isinstance(out, Tensor) and args and isinstance(args[0], Tensor):
            seen.insert(0 if out.dtype != args[0].dtype else len(seen), (args[0].dtype, out.dtype))

    for module in case.own(decoder):
        module.register_forward_hook(note)
    return seen


@check(*MODULES, name="autocast")
def trains_under_autocast(case: Case) -> None:
    """A training step with bfloat16 products over float32 weights gives finite gradients."""
    decoder = case.decoder(dtype=torch.float32).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = decoder(tokens(2, LENGTH)).float().square().mean()
    loss.backward()
    for name, parameter in decoder.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            raise Wrong("finite gradients under autocast", f"'{name}' has others", length=LENGTH)


@check(*MODULES, name="every weight learns")
def every_weight_takes_part(case: Case) -> None:
    """In training every parameter gets a gradient, if only of zeros: processes that train together rely on it."""
    decoder = case.decoder(dtype=torch.float32).train()
    decoder(tokens(2, LENGTH)).square().mean().backward()
    for name, parameter in decoder.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            raise Wrong("every parameter to take part in the output", f"'{name}' has no gradient", length=LENGTH)


@check(*MODULES, name="gradients")
def gradients_are_right(case: Case) -> None:
    """Gradients in float64 agree with finite differences, for every parameter by itself."""
    decoder = case.decoder()
    ids = tokens(2, LENGTH)
    weight = randn(*decoder(ids).shape, seed=3)

    def loss() -> Tensor:
        total: Tensor = (decoder(ids) * weight).sum()
        return total

    loss().backward()  # type: ignore[no-untyped-call]
    parameters = [(name, p) for name, p in decoder.named_parameters() if p.requires_grad]
    with torch.no_grad():
        for number, (name, parameter) in enumerate(parameters):
            if parameter.grad is None:  # an expert that no token went to
                continue
            generator = torch.Generator().manual_seed(number)
            direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
            want = float((parameter.grad * direction).sum())
            if not _agrees(loss, parameter, direction, want):
                found = _slope(loss, parameter, direction, 1e-5)
                raise Wrong(
                    f"the gradient of '{name}' to agree with finite differences",
                    f"{want:.6g} along a random direction, where the function rises by {found:.6g}",
                    length=LENGTH,
                )


def _agrees(loss: Any, parameter: Tensor, direction: Tensor, want: float) -> bool:
    # The wider step is for components that take some steps in float32.
    return any(
        abs(_slope(loss, parameter, direction, step) - want) <= tolerance * max(1.0, abs(want))
        for step, tolerance in ((1e-5, 1e-4), (1e-7, 1e-4), (1e-4, 1e-3), (1e-3, 1e-2))
    )


def _slope(loss: Any, parameter: Tensor, direction: Tensor, step: float) -> float:
    kept = parameter.clone()
    ends = []
    for sign in (1, -1):
        parameter.copy_(kept + sign * step * direction)
        ends.append(float(loss().detach()))
    parameter.copy_(kept)
    return (ends[0] - ends[1]) / (2 * step)
