"""Train the small Vision Mamba that hf_mambalrp ships: ``python train.py --data FOLDER --output OUTPUT``.

FOLDER holds the four files of Fashion-MNIST (Debian's package dataset-fashion-mnist puts them into
/usr/share/datasets/fashion-mnist). The model names every garment of a scene: each class has a sigmoid of its own, so
two garments are both near 1 and the evidence for one need not speak against the other.

The schedule follows the clock: learning rate, clutter, placement and variation depend on the share of ``--seconds``
that has gone. Garments lie on the patch grid at first, on an empty ground. A run that was cut goes on from its last
checkpoint when the same command is given again; more ``--seconds`` then lengthen it.

Choices were made on garments kept from the training split; the test split is read once, at the end.
"""

import argparse
import copy
import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from fast_forward import Scan, logits, scan_plain
from scenes import CLASSES, SIZE, Garments, draw_labels, draw_scenes, load_garments
from torch import Generator, Tensor
from torch.nn import functional as F

from hf_mambalrp import VimConfig, VimForImageClassification
from hf_mambalrp.models.vim.processor import image_processor

MEAN = STD = 0.5
"""Of each channel, as the image processor that is saved with the model has them."""


@dataclass(frozen=True)
class Settings:
    """Everything that was tuned. Sizes keep the float32 file under 4 MB."""

    hidden_size: int = 128
    num_hidden_layers: int = 7
    state_size: int = 8
    patch_size: int = 8
    stride: int = 8
    batch_size: int = 512
    two_garments: float = 0.5
    lr: float = 2e-3
    warm_up: float = 0.03
    weight_decay: float = 0.05
    max_norm: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0


class Progress(NamedTuple):
    """What changes over a run; ``share`` of it has gone."""

    lr: float
    clutter: float
    aligned: float
    variation: float

    @classmethod
    def at(cls, share: float, settings: Settings) -> "Progress":
        """Cosine after a linear start; scenes as they are tested from 0.9 on."""
        rise = min(1.0, share / settings.warm_up)
        ramp = min(1.0, max(0.0, (share - 0.04) / 0.26))
        return cls(
            lr=settings.lr * rise * max(0.01, 0.5 + 0.5 * math.cos(math.pi * min(share, 1.0))),
            clutter=ramp,
            aligned=1 - ramp,
            variation=ramp * min(1.0, max(0.0, (0.9 - share) / 0.1)),
        )


def build_model(settings: Settings) -> VimForImageClassification:
    return VimForImageClassification(
        VimConfig(
            image_size=SIZE,
            patch_size=settings.patch_size,
            stride=settings.stride,
            hidden_size=settings.hidden_size,
            num_hidden_layers=settings.num_hidden_layers,
            state_size=settings.state_size,
            id2label=dict(enumerate(CLASSES)),
            label2id={name: label for label, name in enumerate(CLASSES)},
            problem_type="multi_label_classification",
        )
    )


def processor_of(config: VimConfig) -> Any:
    """Larger pictures become a scene's size; ``pixel_values`` does the rest of the same on tensors."""
    return image_processor(config, size={"shortest_edge": SIZE}, image_mean=[MEAN] * 3, image_std=[STD] * 3)


def pixel_values(images: Tensor) -> Tensor:
    """What the image processor makes of (B, 3, S, S) uint8."""
    return (images.float() / 255 - MEAN) / STD


def named(labels: Tensor) -> Tensor:
    """1 for each class in a scene, else 0. (B, G) -> (B, classes)."""
    return F.one_hot(labels + 1, len(CLASSES) + 1).amax(1)[:, 1:].float()


def build_optimizer(model: VimForImageClassification, settings: Settings, device: str) -> torch.optim.Optimizer:
    """AdamW; decay rates, positions, norms and biases keep their size."""
    kept = ("A_log", "A_b_log", "cls_token", "pos_embed")
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups[parameter.dim() > 1 and not name.endswith(kept)].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": groups[True], "weight_decay": settings.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=settings.lr,
        fused=device == "cuda",
    )


def gradients(model: VimForImageClassification, scan: Scan, images: Tensor, targets: Tensor) -> Tensor:
    """Fill the gradients of one batch; return its loss, binary cross-entropy summed over the classes."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda, cache_enabled=False):
        found = logits(model, pixel_values(images), scan)
    loss = F.binary_cross_entropy_with_logits(found.float(), targets, reduction="none").sum(1).mean()
    loss.backward()
    return loss.detach()


def recorded(
    compute: Callable[..., Tensor], model: VimForImageClassification, *example: Tensor
) -> Callable[..., Tensor]:
    """``compute`` as a CUDA graph: a forward and backward are a thousand launches, and a replay is one."""
    inputs = [value.clone() for value in example]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # kernels are compiled and libraries choose theirs before anything is recorded
            model.zero_grad(set_to_none=True)
            compute(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    model.zero_grad(set_to_none=True)  # the recording then writes gradients, where it would have added to them
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = compute(*inputs)

    def replay(*batch: Tensor) -> Tensor:
        for buffer, value in zip(inputs, batch, strict=True):
            buffer.copy_(value)
        graph.replay()
        return loss

    return replay


@torch.no_grad()
def accuracies(
    predict: Callable[[Tensor], Tensor], garments: Garments, samples: int, *, seed: int, batch_size: int = 500
) -> dict[str, Any]:
    """Accuracies on scenes as they ship: the garment first (one), both garments before all others (two)."""
    generator = Generator(garments.photos.device).manual_seed(seed)
    right: dict[str, list[Tensor]] = {"one": [], "two": []}
    by_class = torch.zeros(2, len(CLASSES))
    sure = []
    for kind, two in (("one", 0.0), ("two", 1.0)):
        for start in range(0, samples, batch_size):
            labels = draw_labels(min(batch_size, samples - start), two, generator)
            found = predict(draw_scenes(garments, labels, generator).images)
            target = named(labels)
            best = named(found.topk(2 if two else 1).indices)
            hit = (best == target).all(1).cpu()
            right[kind].append(hit)
            sure.append(found.sigmoid()[target > 0].cpu())
            if not two:
                by_class += torch.stack([hit.float() @ target.cpu(), target.cpu().sum(0)])
    return {
        **{kind: round(torch.cat(hits).float().mean().item(), 4) for kind, hits in right.items()},
        "probability of what is there": round(torch.cat(sure).mean().item(), 4),
        "one, by class": {
            name: round(value, 3) for name, value in zip(CLASSES, (by_class[0] / by_class[1]).tolist(), strict=True)
        },
    }


class Run:
    """A model in training, its average, and what a checkpoint holds."""

    def __init__(
        self, settings: Settings, garments: dict[str, Garments], *, device: str, scan: Scan, graph: bool
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.garments, self.device, self.scan, self.graph = settings, garments, device, scan, graph
        self.model = build_model(settings).to(device).train()
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.optimizer = build_optimizer(self.model, settings, device)
        self.generator = Generator(device).manual_seed(settings.seed)
        self.steps, self.seconds, self.curve = 0, 0.0, []  # type: ignore[var-annotated]

    def save(self, path: Path) -> None:
        """Write a checkpoint that is whole at every moment."""
        state = {name: getattr(self, name).state_dict() for name in ("model", "average", "optimizer")}
        state |= {name: getattr(self, name) for name in ("steps", "seconds", "curve")}
        state |= {"generator": self.generator.get_state(), "settings": asdict(self.settings)}
        torch.save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["settings"] != asdict(self.settings):
            raise SystemExit(f"{path} was trained with {state['settings']}; give the same settings or another --output")
        for name in ("model", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.steps, self.seconds, self.curve = state["steps"], state["seconds"], state["curve"]
        self.generator.set_state(state["generator"].cpu())

    def draw(self, progress: Progress) -> tuple[Tensor, Tensor]:
        """A batch of images and which classes are in them."""
        labels = draw_labels(self.settings.batch_size, self.settings.two_garments, self.generator)
        scenes = draw_scenes(
            self.garments["train"],
            labels,
            self.generator,
            clutter=progress.clutter,
            aligned=progress.aligned,
            variation=progress.variation,
        )
        return scenes.images, named(labels)

    def validate(self, loss: float, samples: int) -> None:
        """Add a point to the curve and print it."""
        found = accuracies(
            lambda images: logits(self.average, pixel_values(images), self.scan),
            self.garments["validation"],
            samples,
            seed=1,
        )
        point = {"seconds": round(self.seconds, 1), "steps": self.steps, "loss": round(loss, 4)} | found
        self.curve.append({name: value for name, value in point.items() if not isinstance(value, dict)})
        print(json.dumps(self.curve[-1]), flush=True)

    def fit(self, seconds: float, checkpoint: Path, *, samples: int, points: int = 25) -> None:
        """Train until ``seconds`` of training have gone; a checkpoint at every point of the curve."""
        model, settings = self.model, self.settings
        weights, averages = list(model.parameters()), list(self.average.parameters())

        def compute(images: Tensor, targets: Tensor) -> Tensor:
            return gradients(model, self.scan, images, targets)

        if self.graph:
            step = recorded(compute, model, *self.draw(Progress.at(0, settings)))
        before, started, due = self.seconds, time.perf_counter(), self.seconds + seconds / points
        while self.seconds < seconds:
            progress = Progress.at(self.seconds / seconds, settings)
            batch = self.draw(progress)
            if self.graph:
                loss = step(*batch)
            else:
                model.zero_grad(set_to_none=True)
                loss = compute(*batch)
            torch.nn.utils.clip_grad_norm_(weights, settings.max_norm)
            for group in self.optimizer.param_groups:
                group["lr"] = progress.lr
            self.optimizer.step()
            self.steps += 1
            decay = min(settings.ema_decay, self.steps / (self.steps + 10))
            with torch.no_grad():
                torch._foreach_lerp_(averages, weights, 1 - decay)
            # Reading the loss waits for the GPU: the clock is the work's, not the queue's.
            if self.steps % 20 == 0 and not math.isfinite(loss.item()):
                raise SystemExit(f"the loss is {loss.item()} after {self.steps} steps; lower --lr")
            self.seconds = before + time.perf_counter() - started
            if self.seconds >= min(due, seconds):
                due = self.seconds + seconds / points
                self.validate(loss.item(), samples)
                self.save(checkpoint)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of Fashion-MNIST's four files")
    parser.add_argument("--output", type=Path, required=True, help="where model/, training.json and checkpoint.pt go")
    parser.add_argument("--seconds", type=float, default=400, help="of training; start and tests take about 40 more")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--scan", choices=["auto", "plain", "triton"], default="auto", help="auto: triton on a GPU")
    parser.add_argument(
        "--eager", action="store_true", help="launch every kernel; a GPU replays a CUDA graph otherwise"
    )
    parser.add_argument("--samples", type=int, default=2000, help="scenes of each kind in a point of the curve")
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    arguments = parser.parse_args(argv)
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    scan = scan_plain
    if arguments.scan == "triton" or (arguments.scan == "auto" and device == "cuda"):
        from scan_triton import scan_triton as scan
    settings = Settings(**{name: getattr(arguments, name) for name in asdict(Settings())})

    arguments.output.mkdir(parents=True, exist_ok=True)
    checkpoint = arguments.output / "checkpoint.pt"
    garments = load_garments(arguments.data, "train", device)
    run = Run(settings, garments, device=device, scan=scan, graph=device == "cuda" and not arguments.eager)
    if checkpoint.exists():
        run.load(checkpoint)
    run.fit(arguments.seconds, checkpoint, samples=arguments.samples)

    folder = arguments.output / "model"
    run.average.save_pretrained(folder)
    processor_of(run.average.config).save_pretrained(folder)
    # The test reads what was saved and runs the package's own forward in float32, as a user does.
    model = VimForImageClassification.from_pretrained(folder).to(device).eval()
    report = {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "settings": asdict(settings),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": round(run.seconds),
        "steps": run.steps,
        "scenes": run.steps * settings.batch_size,
        "test": accuracies(
            lambda images: model(pixel_values(images)).logits,
            load_garments(arguments.data, "test", device)["test"],
            2 * arguments.samples,
            seed=2,
        ),
        "validation": run.curve,
    }
    text = json.dumps(report, indent=2)
    (arguments.output / "training.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
