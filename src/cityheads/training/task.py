"""One training step for several heads, and the metrics that choose the best epoch; usable from TerraTorch's CLI."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from terratorch.registry import MODEL_FACTORY_REGISTRY
from terratorch.tasks.base_task import TerraTorchTask
from terratorch.tasks.tiled_inference import tiled_inference
from torch import Tensor, nn

from cityheads.core.classes import IGNORE
from cityheads.core.confusion import HeadMetric
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import write_bytes
from cityheads.model.backbones.base import blocks, fine_tuned
from cityheads.model.backbones.tuning import merged_state
from cityheads.model.factory import MultiHeadModelFactory
from cityheads.model.losses import HeadLoss, RegressionLoss, fraction_loss
from cityheads.model.seeds import mix, seeded
from cityheads.training.balancing import BALANCES, balanced, gradient_cosine, projected_backward
from cityheads.training.meters import Confusion, Residuals

__all__ = ["MultiHeadTask", "schedule"]


def schedule(step: int, *, steps: int, warmup_fraction: float) -> float:
    """Give the factor on the learning rate: a linear rise over the warm-up, then half a cosine to 0.

    Args:
        step: Steps taken so far, from 0.
        steps: Steps of the whole training.
        warmup_fraction: Share of the steps in which the rate rises.
    """
    warmup = round(steps * warmup_fraction)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


class MultiHeadTask(TerraTorchTask):
    """The balanced sum of the heads' losses; ``val/score`` is the mean of the heads' metrics.

    From Python it takes a model that is built already. From TerraTorch's command line
    (``class_path: cityheads.MultiHeadTask``) it builds one with ``MultiHeadModelFactory``; batches are
    ``{"image": {modality: tensor}, "mask": {head: tensor}}``, a head without labels being 255
    (its ``ignore_index``) throughout.

    Args:
        heads: Name -> ``classes`` (their number, their names, or mappings with ``id`` and ``name``), ``loss``,
            ``weight``, ``metric`` (``miou``, or ``iou`` of the ``positive_class``: its name, or its id where the
            classes are only counted), ``class_weights``, ``lr``, ``target`` (``segmentation`` or ``regression``),
            ``ignore_index`` (label that does not count, 255), ``mask`` (key of its labels where it is not the head's
            name), and for the factory ``decoder``, ``decoder_args`` and ``neck``.
        model: A built model; None builds one from ``model_args``.
        model_args: Arguments of the factory.
        model_factory: Name in TerraTorch's registry of model factories.
        lr: Peak learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        warmup_fraction: Share of the steps in which the learning rate rises.
        balance: ``fixed``, ``uncertainty`` or ``pcgrad``; see ``cityheads.training.balancing``.
        layer_decay: Factor on the learning rate from each block of the encoder to the one before it.
        interference_every: Steps between two measurements of the cosine between the heads' gradients.
        freeze_backbone: Train necks, decoders and heads only.
        freeze_decoder: Do not train necks and decoders.
        freeze_head: Do not train the classifiers.
        tiled_inference_parameters: Arguments of TerraTorch's ``tiled_inference``, for predictions.
        tiled_inference_on_testing: Tile in tests too.
        tiled_inference_on_validation: Tile in validation too.
        auxiliary_weight: Weight of a further loss on each segmentation head's last map of the encoder: a linear
            classifier is to give the share of each class in every cell (`fraction_loss`). It sees that the encoder
            learns what the head needs, which a decoder that looks at the image itself would not ask of it. The
            classifiers belong to the training and not to the model. 0 leaves them out.
        seed: Seed of PCGrad's order, and of the auxiliary classifiers.
    """

    ignore = ("weights", "model")
    monitor = "val/loss"
    model: Any

    def __init__(
        self,
        heads: dict[str, Any],
        model: nn.Module | None = None,
        model_args: dict[str, Any] | None = None,
        # the registry knows the factory by this name, because importing it above has registered it
        model_factory: str = MultiHeadModelFactory.__name__,
        lr: float = 1e-4,
        weight_decay: float = 0.01,
        warmup_fraction: float = 0.1,
        balance: str = "fixed",
        layer_decay: float = 1.0,
        interference_every: int = 50,
        freeze_backbone: bool = False,
        freeze_decoder: bool = False,
        freeze_head: bool = False,
        tiled_inference_parameters: dict[str, Any] | None = None,
        tiled_inference_on_testing: bool = False,
        tiled_inference_on_validation: bool = False,
        auxiliary_weight: float = 0.0,
        seed: int = 0,
    ) -> None:
        if balance not in BALANCES:
            raise ValueError(f"balance '{balance}' is none of {', '.join(BALANCES)}")
        # the base class builds the model in its own constructor, from what it finds here
        self._given = [model]
        self.factory_name = model_factory
        self.head_specs = {name: dict(head) for name, head in heads.items()}
        self.model_args = dict(model_args or {})
        self.aux_heads = None
        self.tiled_inference_parameters = tiled_inference_parameters
        self.weights = {name: float(head.get("weight", 1.0)) for name, head in heads.items()}
        self.lr = lr
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.balance = balance
        self.layer_decay = layer_decay
        self.interference_every = interference_every
        self.auxiliary_weight = auxiliary_weight
        self.seed = seed
        super().__init__(
            task="multihead",
            tiled_inference_on_testing=tiled_inference_on_testing,
            tiled_inference_on_validation=tiled_inference_on_validation,
        )
        self.metrics = {name: str(self._meter(name).metric) for name in heads}
        self._step_losses: dict[str, Tensor] = {}

    def configure_models(self) -> None:
        """Take the given model or build one, and freeze what is to be frozen."""
        (given,) = self._given
        if given is not None:
            self.model = given
        else:
            factory = MODEL_FACTORY_REGISTRY.build(self.factory_name)
            self.model = factory.build_model(self.task, heads=self.head_specs, aux_decoders=None, **self.model_args)
        for wanted, method in (("backbone", "encoder"), ("decoder", "decoder"), ("head", "head")):
            if self.hparams[f"freeze_{wanted}"]:
                getattr(self.model, f"freeze_{method}")()
        classifiers: dict[str, nn.Module] = {}
        # an encoder that does not train has nothing to learn from them
        if self.auxiliary_weight and any(p.requires_grad for p in self.model.encoder.parameters()):
            for name, head in self.head_specs.items():
                if head.get("target", "segmentation") == "segmentation":
                    with seeded(self.seed, f"auxiliary/{name}"):
                        classifiers[name] = nn.Conv2d(self.model.map_channels, self._outputs(head), 1)
        self.auxiliary = nn.ModuleDict(classifiers)

    def configure_losses(self) -> None:
        """Build the losses, and the log variances that uncertainty weighting learns."""
        losses: dict[str, nn.Module] = {}
        for name, head in self.head_specs.items():
            if head.get("target", "segmentation") == "regression":
                losses[name] = RegressionLoss(head.get("loss", "huber"))
            else:
                losses[name] = HeadLoss(head.get("loss", "dice"), head.get("class_weights"), self._unlabelled(name))
        self.losses = nn.ModuleDict(losses)
        learnt = self.head_specs if self.balance == "uncertainty" else ()
        self.log_variance = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in learnt})

    def configure_metrics(self) -> None:
        """Build one meter per head."""
        meters: dict[str, nn.Module] = {}
        for name, head in self.head_specs.items():
            if head.get("target", "segmentation") == "regression":
                meters[name] = Residuals()
            else:
                meters[name] = Confusion(_score(name, head), self._unlabelled(name))
        self.meters = nn.ModuleDict(meters)

    def _unlabelled(self, name: str) -> int:
        return int(self.head_specs[name].get("ignore_index", IGNORE))

    def _meter(self, name: str) -> Confusion | Residuals:
        meter = self.meters[name]
        assert isinstance(meter, Confusion | Residuals)
        return meter

    @staticmethod
    def _located(batch: Mapping[str, Any]) -> dict[str, Any]:
        return {key: batch[key] for key in ("temporal_coords", "location_coords") if key in batch}

    @staticmethod
    def _outputs(head: Mapping[str, Any]) -> int:
        return head["classes"] if isinstance(head["classes"], int) else len(head["classes"])

    def _logits(self, batch: Mapping[str, Any], *, tiled: bool = False) -> dict[str, Tensor]:
        extra = self._located(batch)
        if tiled:
            if not self.tiled_inference_parameters:
                raise ValueError("tiled inference needs tiled_inference_parameters")
            widths = [self._width(name) for name in self.head_specs]
            joined = tiled_inference(
                lambda x, **kw: torch.cat(list(_tensors(self(x, **kw)).values()), dim=1),
                batch["image"], **self.tiled_inference_parameters, **extra,
            )  # fmt: skip
            return dict(zip(self.head_specs, joined.split(widths, dim=1), strict=True))
        return _tensors(self(batch["image"], **extra))

    def _with_auxiliary(
        self, batch: Mapping[str, Any], masks: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Give the logits, and the auxiliary loss of each head that has one."""
        if not self.auxiliary:
            return self._logits(batch), {}
        output, maps = self(batch["image"], with_maps=True, **self._located(batch))
        losses = {
            name: fraction_loss(classifier(maps[name]), masks[name], ignore_index=self._unlabelled(name))
            for name, classifier in self.auxiliary.items()
        }
        return _tensors(output), losses

    def _width(self, name: str) -> int:
        meter = self._meter(name)
        return meter.classes if isinstance(meter, Confusion) else 1

    def _masks(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        masks = batch["mask"]
        if isinstance(masks, Tensor):
            return dict.fromkeys(self.head_specs, masks)
        return {name: masks[head.get("mask", name)] for name, head in self.head_specs.items()}

    def _losses(self, logits: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: loss(logits[name], masks[name]) for name, loss in self.losses.items()}

    def _log_losses(self, stage: str, losses: Mapping[str, Tensor], total: Tensor, size: int) -> None:
        values = {f"{stage}/loss": total} | {f"{stage}/{name}/loss": loss for name, loss in losses.items()}
        detached = {name: value.detach() for name, value in values.items()}
        self.log_dict(detached, on_step=False, on_epoch=True, batch_size=size)

    def training_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Tensor | None:
        """Give the balanced sum of the losses, or None (no step) where no head has a label."""
        masks = self._masks(batch)
        logits, auxiliary = self._with_auxiliary(batch, masks)
        losses = self._losses(logits, masks)
        asked = {name: loss + self.auxiliary_weight * auxiliary.get(name, 0.0) for name, loss in losses.items()}
        shares = balanced(asked, self.weights, self.log_variance)
        total = torch.stack(list(shares.values())).sum()
        size = next(iter(masks.values())).shape[0]
        self._log_losses("train", losses, total, size)
        further = {f"train/{name}/auxiliary": loss.detach() for name, loss in auxiliary.items()}
        self.log_dict(further, on_step=False, on_epoch=True, batch_size=size)
        counts = {f"train/{name}/chips": _labelled(masks[name], self._unlabelled(name)) for name in self.head_specs}
        self.log_dict(counts, on_step=False, on_epoch=True, reduce_fx="sum", batch_size=size)
        self._step_losses = {name: share for name, share in shares.items() if share.requires_grad}
        if batch_idx % self.interference_every == 0:
            # an absent encoder has no blocks
            last = [p for block in blocks(self.model.encoder)[-1:] for p in block.parameters() if p.requires_grad]
            cosine = gradient_cosine(self._step_losses, last)
            if cosine is not None:
                self.log("train/gradient_cosine", cosine, on_step=False, on_epoch=True, batch_size=1)
        return total if total.requires_grad else None

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Run the backward pass; under ``pcgrad`` head by head, with the shared part's gradients projected."""
        if self.balance != "pcgrad" or len(self._step_losses) < 2:
            super().backward(loss, *args, **kwargs)
            return
        # what the precision plugin and gradient accumulation have multiplied the loss with
        scale = (loss / torch.stack(list(self._step_losses.values())).sum()).detach()
        own = {name: [p for p in self.model.heads[name].parameters() if p.requires_grad] for name in self._step_losses}
        for name, classifier in self.auxiliary.items():
            own.get(name, []).extend(classifier.parameters())
        of_heads = {id(p) for p in self.model.heads.parameters()}
        shared = [p for p in self.model.parameters() if p.requires_grad and id(p) not in of_heads]
        projected_backward(self._step_losses, scale, own, shared, random.Random(mix(self.seed, self.global_step)))

    def _start(self) -> None:
        for name in self.head_specs:
            self._meter(name).reset()

    def _evaluate(self, stage: str, batch: dict[str, Any], *, tiled: bool) -> None:
        logits, masks = self._logits(batch, tiled=tiled), self._masks(batch)
        losses = self._losses(logits, masks)
        total = torch.stack(list(balanced(losses, self.weights, self.log_variance).values())).sum()
        self._log_losses(stage, losses, total, next(iter(masks.values())).shape[0])
        for name in self.head_specs:
            self._meter(name).update(logits[name], masks[name])

    def _finish(self, stage: str) -> None:
        values = {name: self._meter(name).compute() for name in self.head_specs}
        defined = [value for value in values.values() if not math.isnan(value)]
        score = sum(defined) / len(defined) if defined else math.nan
        logged = {f"{stage}/{name}/{self.metrics[name]}": value for name, value in values.items()}
        logged[f"{stage}/score"] = score
        self.log_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in logged.items()})

    def on_validation_epoch_start(self) -> None:
        """Empty the meters."""
        self._start()

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the meters and log its losses."""
        self._evaluate("val", batch, tiled=self.tiled_inference_on_validation)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the epoch; what is undefined (NaN) does not enter the score."""
        self._finish("val")

    def on_train_epoch_end(self) -> None:
        """Do nothing: the training metrics are the losses, which are logged step by step."""

    def on_test_epoch_start(self) -> None:
        """Empty the meters."""
        self._start()

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the meters and log its losses."""
        self._evaluate("test", batch, tiled=self.tiled_inference_on_testing)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test."""
        self._finish("test")

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Give ``([(map, head), ...], filenames)``, what TerraTorch's writer takes: class ids, or values."""
        logits = self._logits(batch, tiled=bool(self.tiled_inference_parameters))
        maps = [
            (out.argmax(dim=1) if isinstance(self._meter(name), Confusion) else out[:, 0], name)
            for name, out in logits.items()
        ]
        return maps, batch.get("filename", batch.get("chip_id"))

    def configure_optimizers(self) -> Any:
        """Give AdamW over the trainable parameters, with warm-up and cosine by step."""
        optimizer = torch.optim.AdamW(self._groups(), lr=self.lr, weight_decay=self.weight_decay, fused=True)
        steps = int(self.trainer.estimated_stepping_batches)

        def factor(step: int) -> float:
            return schedule(step, steps=steps, warmup_fraction=self.warmup_fraction)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def export(self, path: str | Path) -> None:
        """Write the model's weights as safetensors, under the names of the plain model: low-rank updates are merged.

        A model that the factory builds from the same ``model_args`` without ``lora`` loads them strictly. Of a
        checkpoint: ``MultiHeadTask.load_from_checkpoint("last.ckpt").export("model.safetensors")``.

        Args:
            path: File to write.

        Raises:
            CityHeadsError: The encoder was built with ``peft_config``, whose updates only PEFT itself can merge.
        """
        from safetensors.torch import save

        if any(hasattr(module, "merge_and_unload") for module in self.model.modules()):
            raise CityHeadsError(
                "model_args: weights trained with peft_config are not exported here; train with lora, or take "
                "task.model.encoder.merge_and_unload()"
            )
        state = merged_state(self.model)
        write_bytes(Path(path), save({name: value.cpu().contiguous() for name, value in state.items()}))

    def _groups(self) -> list[dict[str, Any]]:
        """Give the parameters by learning rate: blocks of the encoder under decay, heads with a rate of their own."""
        rates: dict[int, float] = {}
        if self.layer_decay != 1.0:
            stack = blocks(self.model.encoder)
            for parameter in self.model.encoder.parameters():
                # embeddings come before the first block; what comes after the last one is set right below
                rates[id(parameter)] = self.lr * self.layer_decay ** (len(stack) + 1)
            for index, block in enumerate(stack):
                for parameter in block.parameters():
                    rates[id(parameter)] = self.lr * self.layer_decay ** (len(stack) - index)
            for name, parameter in fine_tuned(self.model.encoder).named_parameters():
                if name.startswith(("encoder_norm.", "norm.")):
                    rates[id(parameter)] = self.lr
        for name, head in self.head_specs.items():
            if head.get("lr") is not None:
                rates |= {id(parameter): float(head["lr"]) for parameter in self.model.heads[name].parameters()}
        groups: dict[float, list[nn.Parameter]] = {}
        for parameter in self.parameters():
            if parameter.requires_grad:
                groups.setdefault(rates.get(id(parameter), self.lr), []).append(parameter)
        # the plain rate first: it is the one that is logged
        return [{"params": groups[rate], "lr": rate} for rate in sorted(groups, key=lambda rate: rate != self.lr)]


def _score(name: str, head: Mapping[str, Any]) -> HeadMetric:
    """Give the metric of a head, on the names of its classes, or on their ids where it has no names."""
    classes = range(head["classes"]) if isinstance(head["classes"], int) else head["classes"]
    names = [str(item["name"] if isinstance(item, Mapping) else item) for item in classes]
    positive = head.get("positive_class")
    try:
        return HeadMetric.of(head.get("metric", "miou"), names, None if positive is None else str(positive))
    except ValueError as error:
        raise CityHeadsError(f"heads.{name}: {error}") from None


def _tensors(output: Any) -> dict[str, Tensor]:
    return {name: value if isinstance(value, Tensor) else value.output for name, value in output.items()}


def _labelled(mask: Tensor, unlabelled: int) -> Tensor:
    """Count the chips of a batch with a label."""
    known = mask.isfinite() if mask.is_floating_point() else mask != unlabelled
    return known.flatten(1).any(dim=1).sum().float()
