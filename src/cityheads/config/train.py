"""Section ``train``: the optimisation."""

from __future__ import annotations

from typing import Literal

from cityheads.config.base import Flag, Integer, Number, Section, field

__all__ = ["TrainConfig"]


class TrainConfig(Section):
    """The optimisation; the same for every run."""

    epochs: Integer = field(30, "Epochs of every run: all take the same number of optimizer steps.", ge=1)
    batch_size: Integer = field(16, "Chips a step.", ge=1)
    lr: Number = field(0.0001, "Peak learning rate (AdamW).", gt=0)
    weight_decay: Number = field(0.01, "Weight decay (AdamW).", ge=0)
    warmup_fraction: Number = field(
        0.1,
        "Share of the steps in which the learning rate rises linearly; then it falls along a cosine.",
        ge=0,
        le=1,
    )
    checkpoint: Literal["last", "best"] = field(
        "last",
        "Which epoch's weights are kept: the last one's, so that nothing is chosen, or those of the best validation "
        "score, which favours runs of one head: a run of several heads keeps one epoch for all of them.",
    )
    augment: Literal["none", "d4"] = field(
        "d4", "d4 applies one of the eight flips and quarter turns to all modalities and masks of a chip."
    )
    jitter: Number = field(
        0.0,
        "Standard deviation of a random shift of each band of a training chip, in units of the band's pretraining "
        "standard deviation.",
        ge=0,
    )
    balance: Literal["fixed", "uncertainty", "pcgrad"] = field(
        "fixed",
        "How the heads are balanced: by their weights, by learnt variances on top of them, or by projecting "
        "conflicting gradients.",
    )
    layer_decay: Number = field(
        1.0,
        "Factor on the learning rate from each block of the encoder to the one before it.",
        gt=0,
        le=1,
    )
    auxiliary_weight: Number = field(
        0.0,
        "Weight of a further loss of each head (deep supervision): a linear classifier on the encoder's last map is to "
        "give the share of each class per patch. It makes an encoder learn that starts from random weights below a "
        "decoder that sees the image; 0 leaves it out.",
        ge=0,
    )
    accumulate: Integer = field(1, "Batches whose gradients make one step.", ge=1)
    gradient_checkpointing: Flag = field(
        False,
        "Compute the encoder's activations twice in place of keeping them; takes less memory and more time.",
    )
    compile: Flag = field(False, "Compile the model with torch.compile.")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = field("32-true", "Arithmetic of the training.")
    accelerator: Literal["cpu", "cuda", "auto"] = field("auto", "Where to train.")
    threads: Integer = field(2, "CPU threads of one training; part of the recipe since sums depend on it.", ge=1)
    workers: Integer = field(0, "Loader processes of one training.", affects="nothing", ge=0)
