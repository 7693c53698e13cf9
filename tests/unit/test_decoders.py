"""Decoders of TerraTorch's registry as heads: they work, or one line says why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cityheads.core.errors import CityHeadsError
from cityheads.model.decoders import FullResolutionDecoder
from cityheads.model.factory import MultiHeadModelFactory, TerraTorchMultiHeadModel

PX = 64


def build(decoder: str, arguments: dict[str, Any] | None = None, **changes: Any) -> TerraTorchMultiHeadModel:
    head = {"classes": 3, "decoder": decoder, "decoder_args": arguments or {}} | changes.pop("head", {})
    return MultiHeadModelFactory().build_model(
        heads={"roads": head}, backbone="terramind_v1_tiny", backbone_modalities=["DEM"],
        decoder_channels=[16, 16, 8, 8], **changes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("decoder", "arguments", "changes"),
    [
        ("smp_Unet", {}, {}),
        ("smp_Unet", {"decoder_channels": [32, 16, 8]}, {}),
        ("smp_UnetPlusPlus", {}, {}),
        ("smp_MAnet", {}, {}),
        ("smp_FPN", {"decoder_pyramid_channels": 16, "decoder_segmentation_channels": 32}, {}),
        ("smp_Linknet", {}, {}),
        ("smp_PSPNet", {"psp_out_channels": 16}, {}),
        ("smp_DeepLabV3Plus", {"decoder_channels": 16}, {}),
        ("smp_UPerNet", {"decoder_channels": 16}, {}),
        ("smp_Segformer", {"decoder_segmentation_channels": 16}, {}),
        ("UNetDecoder", {}, {}),
        ("UperNetDecoder", {"channels": 16}, {}),
        ("FCNDecoder", {"channels": 16}, {}),
        ("LinearDecoder", {"upsampling_size": 4}, {}),
        ("IdentityDecoder", {}, {}),
        ("MLPDecoder", {}, {"necks": []}),
        ("FullResolutionDecoder", {"stages": 1}, {}),
    ],
)
def test_a_decoder_trains_as_a_head(decoder: str, arguments: dict[str, Any], changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = build(decoder, arguments, **changes)
    assert all(module.training for module in model.heads.modules())
    generator = torch.Generator().manual_seed(1)
    images = {"DEM": torch.randn(2, 1, PX, PX, generator=generator)}
    target = (images["DEM"][:, 0] > 0).long()
    out = model(images)["roads"].output
    assert out.shape == (2, 3, PX, PX)
    loss = nn.functional.cross_entropy(out, target)
    loss.backward()
    parts = model.heads["roads"].decoder.parameters() if decoder != "IdentityDecoder" else model.heads.parameters()
    gradients = [p.grad for p in parts if p.grad is not None]
    assert sum(float(g.abs().sum()) for g in gradients) > 0
    assert float(model.encoder.state_dict(keep_vars=True)["encoder.0.attn.qkv.weight"].grad.abs().sum()) > 0


@pytest.mark.parametrize(
    ("decoder", "arguments", "message"),
    [
        ("smp_PAN", {}, r"'smp_PAN' does not work with the pyramid of 14 x 14 tokens \(.*\); choose another decoder"),
        ("MLPDecoder", {}, "'MLPDecoder' does not work with the pyramid"),
        ("smp_DPT", {}, r"'smp_DPT' does not take these arguments \(Only Timm"),
        ("smp_Unet", {"stages": 2}, r"'smp_Unet' does not take these arguments \(unknown: stages\)"),
        ("smp_Unet", {"decoder_channels": [8]}, r"'smp_Unet' does not take these arguments \(Model depth is 3"),
        ("LinearDecoder", {}, r"'LinearDecoder' does not take these arguments \(.*'upsampling_size'\)"),
        ("ASPPSegmentationHead", {}, "'ASPPSegmentationHead' does not take these arguments"),
        ("UNetDecoder", {"channels": [8]}, "'UNetDecoder' does not take these arguments"),
        ("smp_Nothing", {}, "'smp_Nothing' is not in"),
    ],
)
def test_one_line_says_why_a_decoder_cannot_be_taken(decoder: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CityHeadsError, match=message) as caught:
        build(decoder, arguments)
    assert "\n" not in str(caught.value)


def test_a_decoder_that_ends_in_a_classifier_gets_no_second_one() -> None:
    model = build("LinearDecoder", {"upsampling_size": 4})
    assert isinstance(model.heads["roads"].head, nn.Identity)
    values = build("LinearDecoder", {"upsampling_size": 4}, head={"target": "regression"})
    with torch.no_grad():
        assert values({"DEM": torch.rand(1, 1, PX, PX)})["roads"].output.shape == (1, 1, PX, PX)


def test_trying_a_head_changes_nothing_in_it() -> None:
    torch.manual_seed(0)
    model = build("smp_FPN")
    norms = [module for module in model.heads.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(int(norm.num_batches_tracked) == 0 for norm in norms)
    assert all(parameter.grad is None for parameter in model.heads.parameters())
    shared = build("smp_FPN", head={"neck": "shared"})
    assert shared.heads["roads"].neck is None
    assert shared.neck is not None


@pytest.mark.parametrize("modulate", [True, False])
def test_the_maps_scale_and_shift_the_skip(modulate: bool) -> None:
    torch.manual_seed(0)
    decoder = FullResolutionDecoder([4] * 4, [8] * 4, image_channels=2, stem_channels=3, modulate=modulate).eval()
    seen: list[torch.Tensor] = []
    decoder.ups[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    features = [torch.randn(1, 4, side, side) for side in (16, 8, 4, 2)]
    image = torch.randn(1, 2, PX, PX)
    with torch.no_grad():
        decoder(features, image)
        maps, skip = seen[0][:, :8], seen[0][:, 8:]
        stem = decoder.stems[-1](image)
        if not modulate:
            assert torch.equal(skip, stem)
            return
        layer = decoder.modulations[-1]
        weight, bias = layer.weight[:, :, 0, 0].numpy(), layer.bias.numpy()
    both = np.einsum("oc,chw->ohw", weight, maps[0].numpy()) + bias[:, None, None]
    np.testing.assert_allclose(skip[0].numpy(), stem[0].numpy() * (1 + both[:3]) + both[3:], atol=1e-5)
