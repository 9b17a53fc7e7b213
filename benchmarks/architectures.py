"""Classifiers of torchvision and timm: how each is cut, and whether it stays the same network.

    python -m benchmarks.architectures torchvision timm
    python -m benchmarks.architectures torchvision/vit_b_16 timm/resnet18

With random weights, one network at a time. A line has the cut (a: the map before a global average
pooling, b: a vector, c: the logits alone), the features, the tail's layers, the largest difference
of a logit to the source's own network in units of the logits' spread, seconds to build, and why
the cut is no better. Classifiers whose weights start at zero are drawn first: they would answer
the same to everything.
"""

import argparse
import gc
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from kd3_pipeline.errors import UserError
from kd3_pipeline.models import build
from kd3_pipeline.models.cut_network import CutNetwork
from kd3_pipeline.models.network import pool

CLASSES = 10
LETTERS = {"map": "a", "vector": "b", "logits": "c"}
SAME = 1e-4  # of the logits' spread
TIMM = """
beit_base_patch16_224 bat_resnext26ts botnet26t_256 cait_xxs24_224 coat_lite_tiny coatnet_0_rw_224
convit_tiny convmixer_768_32 convnext_atto convnextv2_atto crossvit_tiny_240 cs3darknet_s
cspresnet50 darknet53 davit_tiny deit_tiny_patch16_224 deit3_small_patch16_224 densenet121 dla34
dpn68 edgenext_xx_small efficientformer_l1 efficientformerv2_s0 efficientnet_b0 efficientvit_b0
eva02_tiny_patch14_224 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny ghostnet_100 hardcorenas_a
hgnetv2_b0 hiera_tiny_224 hrnet_w18_small inception_v4 lcnet_050 levit_128s maxvit_nano_rw_256
maxxvit_rmlp_nano_rw_256 mixer_s32_224 mnasnet_small mobilenetv3_small_050 mobilenetv4_conv_small
mobileone_s0 mobilevit_xxs mvitv2_tiny nf_regnet_b0 pit_ti_224 poolformer_s12 pvt_v2_b0
regnetx_002 repvgg_a0 res2net50_14w_8s resmlp_12_224 resnet18 resnetv2_50x1_bit rexnet_100
sequencer2d_s swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 tnt_s_legacy_patch16_224
vgg11_bn vit_tiny_patch16_224 xcit_nano_12_p16_224
""".split()  # noqa: SIM905


@dataclass
class Row:
    """What came of one name; `difference` is of the logits, in units of their spread."""

    name: str
    kind: str
    features: str = ""
    tail: str = ""
    difference: float = 0.0
    seconds: float = 0.0
    told: str = ""

    def line(self) -> str:
        figures = f"{self.difference:.0e} | {self.seconds:.1f}" if self.kind in "abc" else " | "
        cells = (self.name, self.kind, self.features, self.tail, figures, self.told)
        return f"| {' | '.join(cells)} |"


def names_of(wanted: list[str]) -> Iterator[str]:
    """Names of architectures: `torchvision` and `timm` stand for those of the sweep."""
    for name in wanted:
        if name == "torchvision":
            from torchvision import models

            yield from (f"torchvision/{one}" for one in models.list_models(module=models))
        elif name == "timm":
            yield from (f"timm/{one}" for one in TIMM)
        else:
            yield name


def looked_at(name: str, classes: int = CLASSES) -> Row:
    """How the network of this name is cut, and how far its parts are from the source's network."""
    torch.manual_seed(0)
    begun = time.perf_counter()
    options = {"init_weights": False} if name in SLOW else {}
    try:
        network = build(name, classes, **options)
    except UserError as error:
        return Row(name, "refused", told=str(error).replace("\n", " "))
    seconds = time.perf_counter() - begun
    assert isinstance(network, CutNetwork)
    draw_zeros(network)
    images = torch.randn(
        1, 3, network.side, network.side, generator=torch.Generator().manual_seed(1)
    )
    network.eval()
    with torch.inference_mode():
        theirs = network.whole(images)
        ours = network.classifier(pool(network.features(images)))
        difference = float((ours - theirs).abs().max() / theirs.std())
    kind = LETTERS[network.cut] if difference <= SAME else "other logits"
    layers = [one for one in network.classifier.modules() if not list(one.children())]
    tail = ", ".join(type(one).__name__ for one in layers if type(one) is not nn.Identity)
    shape = "×".join(map(str, network.map_shape))
    return Row(name, kind, shape, tail, difference, seconds, network.cut_reason)


SLOW = ("torchvision/googlenet", "torchvision/inception_v3")  # to draw: not what is looked at


def draw_zeros(network: nn.Module) -> None:
    """Draws matrices that start at zero, as the classifiers of some transformers do."""
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(0, 0.02, generator=draw)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", help="torchvision, timm, or names of architectures")
    wanted = parser.parse_args().names
    print("| name | cut | features | tail | difference | seconds | why no better |")
    print("|---|---|---|---|---|---|---|")
    found: Counter[str] = Counter()
    for name in names_of(wanted):
        row = looked_at(name)
        found[row.kind] += 1
        print(row.line(), flush=True)
        gc.collect()
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))
    print(f"{sum(found.values())} networks: {counts}", file=sys.stderr)


if __name__ == "__main__":
    main()
