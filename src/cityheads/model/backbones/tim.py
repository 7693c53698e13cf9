"""Thinking-in-Modalities (TiM): TerraMind generates modalities of its inputs, and looks at them beside these.

Jakubik et al. 2025, "TerraMind: Large-Scale Generative Multimodality for Earth Observation" (arXiv:2504.11171, section
on Thinking-in-Modalities). TerraTorch 1.2.11 has it as ``TerraMindTiM``. There the generator shares its patch
embeddings with the encoder, which freezes them; it draws its seed from Python's ``random`` and reseeds torch; it keeps
tokenizers that it never uses; it decodes everything in the first step whatever ``tim_decoding_steps`` says; and it
fails with some ways of merging. Here a plain encoder and a frozen generator are two modules, made of upstream's own
parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from terratorch.models.backbones.terramind.model.encoder_embeddings import ImageEncoderEmbedding
from terratorch.models.backbones.terramind.model.generate import (
    GenerationSampler,
    build_chained_generation_schedules,
    init_empty_target_modality,
    init_full_input_modality,
)
from terratorch.models.backbones.terramind.model.modality_info import MODALITY_INFO
from terratorch.models.backbones.terramind.model.terramind import TerraMind
from terratorch.models.backbones.terramind.model.tm_utils import LayerNorm
from terratorch.registry import BACKBONE_REGISTRY
from torch import Tensor, nn

from cityheads.core.errors import CityHeadsError
from cityheads.model.seeds import own_stream

__all__ = [
    "TARGETS",
    "Sampler",
    "TimEncoder",
    "build_generator",
    "build_tim",
    "full_image",
    "generate_tokens",
    "split_arguments",
]

#: What TerraMind v1 can generate as tokens of an image, and upstream's names of it (``modality_info.MODALITY_INFO``).
TARGETS = {
    "LULC": "tok_lulc@224",
    "NDVI": "tok_ndvi@224",
    "S1GRD": "tok_sen1grd@224",
    "S1RTC": "tok_sen1rtc@224",
    "S2L2A": "tok_sen2l2a@224",
    "DEM": "tok_dem@224",
}

_PLAIN = {"qkv_bias": True, "proj_bias": True, "mlp_bias": True, "act_layer": nn.GELU, "gated_mlp": False}
_GATED = {"qkv_bias": False, "proj_bias": False, "mlp_bias": False, "act_layer": nn.SiLU, "gated_mlp": True}

#: Sizes of TerraMind's encoder and decoder (TerraTorch 1.2.11, ``terramind_register.terramind_v1_*_tim``; its own
#: ``terramind_v1_{tiny,small}_encdec`` cannot be built).
_SIZES: dict[str, dict[str, Any]] = {
    "terramind_v1_tiny": {"dim": 192, "num_heads": 3, "encoder_depth": 12, "decoder_depth": 4, **_PLAIN},
    "terramind_v1_small": {"dim": 384, "num_heads": 6, "encoder_depth": 12, "decoder_depth": 6, **_PLAIN},
    "terramind_v1_base": {"dim": 768, "num_heads": 12, "encoder_depth": 12, "decoder_depth": 12, **_GATED},
    "terramind_v1_large": {"dim": 1024, "num_heads": 16, "encoder_depth": 24, "decoder_depth": 24, **_GATED},
}

#: Initial spread of embeddings, as upstream's ``TerraMind.init_std``.
_STD = 0.02


class Sampler(GenerationSampler):
    """Upstream's sampler with a choice of tokens that depends on the chip alone, not on its batch.

    Upstream draws row by row over the whole batch. Here every chip gets the same Gumbel noise, of which the largest
    sum with the scaled logits is a draw from the same distribution (Gumbel 1954; Maddison et al. 2014, "A* Sampling").
    """

    def sample_tokens_batched(
        self, logits: Tensor, temperature: float = 1.0, top_k: float = 0.0, top_p: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Choose a token per place.

        Args:
            logits: (B, N, V).
            temperature: 0 takes the most probable one.
            top_k: Choose among so many, 0 among all.
            top_p: Choose among those that hold this share of the probability, 0 among all.

        Returns:
            Tokens (B, N), and ones in place of their probabilities, which random-order decoding does not look at.
        """
        scores = logits
        if temperature > 1e-10:
            kept = self.top_k_top_p_filtering(logits.flatten(0, 1).clone(), top_k, top_p).view_as(logits)
            # never 0, whose logarithm would be infinite
            uniform = torch.rand(logits.shape[1:]).clamp_min(torch.finfo(torch.float32).tiny)
            scores = kept / temperature - torch.log(-torch.log(uniform)).to(kept)
        tokens = scores.argmax(dim=-1)
        return tokens, torch.ones_like(tokens, dtype=logits.dtype)


class TimEncoder(nn.Module):
    """A TerraMind encoder that gets, beside its inputs, the tokens of modalities that a frozen generator makes of them.

    Args:
        vit: The encoder that is fine-tuned, with embeddings of inputs and generated modalities.
        generator: TerraMind's encoder and decoder; frozen here.
        generated: Name of each generated modality -> upstream's key, in the order of generation.
        chained: Whether a generated modality is an input when the next one is generated.
        decoding_steps: Steps in which the tokens of one modality are decoded, in random order.
        temperature: Spread of the choice of a token; 0 takes the most probable one.
        top_p: Choose among the tokens that hold this share of the probability; 0 among all.
        top_k: Choose among so many tokens; 0 among all.
    """

    seed: Tensor

    def __init__(
        self,
        vit: nn.Module,
        generator: nn.Module,
        generated: Mapping[str, str],
        *,
        chained: bool,
        decoding_steps: int,
        temperature: float,
        top_p: float,
        top_k: int,
    ) -> None:
        super().__init__()
        self.vit = vit
        self.generator = generator.requires_grad_(False).eval()
        self.generated = dict(generated)
        self.chained = chained
        self.decoding_steps = decoding_steps
        self.temperature = temperature
        self.top_p = top_p
        self.top_k = top_k
        inner: Any = vit
        self.keys = {name: key for name, key in inner.mod_name_mapping.items() if name not in generated}
        # drawn once, from the stream that the weights come from, and saved with them: a chip gives the same tokens
        # in training, in evaluation and in a model that was loaded
        self.register_buffer("seed", torch.randint(2**31, ()))

    @property
    def fine_tuned(self) -> nn.Module:
        """The part that is trained."""
        return self.vit

    @property
    def out_channels(self) -> list[int]:
        """Size of each layer's tokens."""
        inner: Any = self.vit
        return [int(size) for size in inner.out_channels]

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What gets weights from one published file, and what to call it."""
        return {"encoder": self.vit, "generator": self.generator}

    @property
    def readers(self) -> list[Any]:
        """What embeds pixels, each with ``encoder_embeddings`` and ``mod_name_mapping``."""
        inner: Any = self.vit
        embeddings = self.generator.encoder_embeddings
        return [inner, SimpleNamespace(encoder_embeddings=embeddings, mod_name_mapping=inner.mod_name_mapping)]

    def train(self, mode: bool = True) -> TimEncoder:
        """Set the mode; the generator stays in evaluation mode."""
        super().train(mode)
        self.generator.eval()
        return self

    def forward(self, d: Mapping[str, Tensor]) -> Any:
        """Give what the plain encoder gives for inputs and generated modalities.

        Args:
            d: {modality: (B, C, H, W)} standardised, (B, 2) for ``coords``.
        """
        generated = self.generate(d)
        images = {name: value for name, value in d.items() if value.dim() >= 4}
        # coordinates come last, as in the plain encoder
        return self.vit({**images, **generated, **{name: value for name, value in d.items() if name not in images}})

    @torch.compiler.disable
    @torch.no_grad()
    def generate(self, d: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Generate the modalities of a batch.

        The arithmetic is that of the inputs' own type, also in mixed precision, so that a chip gives the same tokens
        in training and in evaluation.

        Args:
            d: As for ``forward``; new modalities, which the generator has not learnt, are not looked at.

        Returns:
            {modality: (B, N) token ids}; nothing where there is no image to generate from.

        Raises:
            CityHeadsError: The images are not square, which upstream's embeddings of tokens take them for.
        """
        known: Any = self.generator.encoder_embeddings
        given: dict[str, Any] = {}
        size: tuple[int, int] | None = None
        for name, value in d.items():
            key = self.keys[name]
            if key not in known:
                continue
            if isinstance(known[key], ImageEncoderEmbedding):
                size = (int(value.shape[-2]), int(value.shape[-1]))
            given[key] = value
        if size is None:
            return {}
        if size[0] != size[1]:
            raise CityHeadsError(f"Thinking-in-Modalities needs square chips, not {size[0]} x {size[1]} px")
        device = next(self.generator.parameters()).device
        tokens = (size[0] // MODALITY_INFO[next(iter(self.generated.values()))]["patch_size"]) ** 2
        found = generate_tokens(
            self.generator,
            {key: self._full(key, value, tokens, device) for key, value in given.items()},
            list(self.generated.values()),
            tokens,
            chained=self.chained,
            decoding_steps=self.decoding_steps,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=int(self.seed),
        )
        return {name: found[key] for name, key in self.generated.items()}

    def _full(self, key: str, value: Tensor, tokens: int, device: torch.device) -> Any:
        """Give an input as the sampler takes it."""
        inner: Any = self.vit
        if key in inner.tokenizer:
            return init_full_input_modality(inner.tokenizer[key].encode(value, device), MODALITY_INFO, key, device)
        return full_image(key, value.detach().float(), tokens, device)


@torch.no_grad()
def generate_tokens(
    generator: nn.Module,
    inputs: Mapping[str, Any],
    targets: Sequence[str],
    tokens: int,
    *,
    seed: int,
    chained: bool = True,
    decoding_steps: int = 1,
    temperature: float = 0.0,
    top_p: float = 0.8,
    top_k: int = 0,
) -> dict[str, Tensor]:
    """Generate the tokens of image modalities; the outer random streams are put back.

    Args:
        generator: TerraMind's encoder and decoder.
        inputs: What is known, by upstream's keys, each as ``full_image`` gives it.
        targets: Upstream's keys of what is wanted, in the order of generation.
        tokens: Tokens of one image.
        seed: Seed of the order of decoding and of the choice of tokens.
        chained: As for ``TimEncoder``; as the rest.
        decoding_steps: Steps of decoding.
        temperature: Spread of the choice of a token.
        top_p: Share of the probability among which to choose.
        top_k: Number of tokens among which to choose.

    Returns:
        {key: (B, N) tokens}.
    """
    device = next(generator.parameters()).device
    batch = next(iter(inputs.values()))["tensor"].shape[0]
    found: dict[str, Tensor] = {}
    with own_stream(), torch.autocast(device.type, enabled=False):
        for group in [list(targets)] if chained else [[target] for target in targets]:
            empty = {key: init_empty_target_modality(MODALITY_INFO, key, batch, tokens, device) for key in group}
            output = Sampler(generator).generate(
                {**inputs, **empty},
                _schedule(list(inputs), group, tokens, decoding_steps, temperature),
                top_k=top_k,
                top_p=top_p,
                seed=seed,
            )
            found |= {key: output[key]["tensor"] for key in group}
    return found


def full_image(key: str, value: Tensor, tokens: int, device: torch.device) -> Any:
    """Give an image, all of which is known, as the sampler takes it."""
    mask = torch.zeros(value.shape[0], tokens, dtype=torch.bool, device=device)
    given = {
        "tensor": value,
        "input_mask": mask,
        "target_mask": torch.ones_like(mask),
        "decoder_attention_mask": torch.zeros_like(mask),
    }
    return init_full_input_modality(given, MODALITY_INFO, key, device)


def _schedule(given: list[str], targets: list[str], tokens: int, steps: int, temperature: float) -> Any:
    """Give the order of decoding: each target in random order, in so many steps (or one per token)."""
    count = len(targets)
    return build_chained_generation_schedules(
        cond_domains=given,
        target_domains=targets,
        tokens_per_target=[tokens] * count,
        autoregression_schemes=["roar"] * count,
        decoding_steps=[min(steps, tokens)] * count,
        token_decoding_schedules=["linear"] * count,
        temps=[temperature] * count,
        temp_schedules=["constant"] * count,
        cfg_scales=[1.0] * count,
        cfg_schedules=["constant"] * count,
        cfg_grow_conditioning=True,
    )


#: TerraTorch's names of the arguments of ``TerraMindTiM``, and ours.
_TIM = {
    "tim_modalities": "modalities",
    "tim_chained_generations": "chained",
    "tim_decoding_steps": "decoding_steps",
    "tim_temps": "temperature",
    "tim_top_p": "top_p",
    "tim_top_k": "top_k",
}


def split_arguments(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Split arguments of a TiM encoder: the plain encoder's, ``build_tim``'s, the temporal wrapper's."""
    plain: dict[str, Any] = {}
    given: dict[str, Any] = {}
    time: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in _TIM:
            given[_TIM[name]] = value
        elif name == "use_temporal" or name.startswith("temporal_"):
            time[name] = value
        else:
            plain[name] = value
    return plain, given, time


def build_tim(
    name: str,
    arguments: Mapping[str, Any],
    *,
    modalities: Sequence[str] = ("LULC",),
    chained: bool = True,
    decoding_steps: int = 1,
    temperature: float = 0.0,
    top_p: float = 0.8,
    top_k: int = 0,
) -> TimEncoder:
    """Build a TiM encoder with random weights.

    Args:
        name: ``terramind_v1_{tiny,small,base,large}_tim``.
        arguments: Arguments of the plain encoder: ``modalities``, ``merge_method`` and others.
        modalities: The generated modalities, in the order of generation.
        chained: See ``TimEncoder``; as the rest.
        decoding_steps: Steps in which one modality is decoded.
        temperature: Spread of the choice of a token.
        top_p: Share of the probability among which to choose.
        top_k: Number of tokens among which to choose.

    Raises:
        CityHeadsError: The backbone has no generator, or a generated modality is unknown or an input.
    """
    plain = name.removesuffix("_tim")
    if plain not in _SIZES:
        raise CityHeadsError(
            f"config key 'model.backbone': '{name}' has no Thinking-in-Modalities; there are {', '.join(_SIZES)} _tim"
        )
    for modality in modalities:
        if modality not in TARGETS:
            raise CityHeadsError(f"config key 'model.tim.modalities': '{modality}' is none of {', '.join(TARGETS)}")
        inputs = [next(iter(item)) if isinstance(item, dict) else item for item in arguments["modalities"]]
        if modality in inputs:
            raise CityHeadsError(f"config key 'model.tim.modalities': {modality} is an input already")
    generated = {modality: TARGETS[modality] for modality in modalities}
    vit = BACKBONE_REGISTRY.build(plain, pretrained=False, **arguments)
    dim, size = vit.encoder_norm.weight.shape[0], vit.img_size
    for modality, key in generated.items():
        embedding = embed(key, "encoder_embedding", dim, size)
        nn.init.normal_(embedding.token_emb.weight, std=_STD)
        vit.encoder_embeddings[key] = embedding
        vit.mod_name_mapping[modality] = key
        vit.modalities.append(modality)
        vit.image_modalities.append(key)
    learnt = [key for key in vit.encoder_embeddings if key in MODALITY_INFO]
    generator = build_generator(plain, learnt, list(generated.values()), size)
    return TimEncoder(
        vit, generator, generated, chained=chained, decoding_steps=decoding_steps, temperature=temperature,
        top_p=top_p, top_k=top_k,
    )  # fmt: skip


def embed(key: str, kind: str, dim: int, size: int) -> Any:
    """Build upstream's embedding of a modality, of kind ``encoder_embedding`` or ``decoder_embedding``."""
    info = MODALITY_INFO[key]
    return info[kind](image_size=size, dim_tokens=dim, **info)


def build_generator(plain: str, inputs: Sequence[str], outputs: Sequence[str], size: int) -> nn.Module:
    """Build TerraMind's encoder and decoder with random weights and embeddings of its own, without tokenizers.

    Args:
        plain: ``terramind_v1_tiny`` and the like.
        inputs: Upstream's keys of the modalities that it can see.
        outputs: Upstream's keys of the modalities that it can generate.
        size: Side in pixels that the positions are made for; other sides are interpolated.
    """
    dim = _SIZES[plain]["dim"]
    module: nn.Module = TerraMind(
        encoder_embeddings={key: embed(key, "encoder_embedding", dim, size) for key in inputs},
        decoder_embeddings={key: embed(key, "decoder_embedding", dim, size) for key in outputs},
        modality_info=MODALITY_INFO,
        mlp_ratio=4,
        norm_layer=partial(LayerNorm, eps=1e-6, bias=False),
        **_SIZES[plain],
    )
    return module.requires_grad_(False).eval()
