"""ResNeXt: a bottleneck split into many narrow ones.

Xie, Girshick, Dollar, Tu and He, "Aggregated Residual Transformations for Deep Neural
Networks", CVPR 2017 (arXiv:1611.05431). 32x4d means 32 groups ("cardinality") of four
channels in the first stage; more groups buy more accuracy than more width. It is a
ResNet whose 3x3 layers are grouped, and that is how it is built here.

ResNeXt-29 is kuangliu/pytorch-cifar's form for CIFAR: a 1x1 stem and three stages.
"""

from functools import partial

from training.networks.card import NetworkCard
from training.networks.resnet import POINTWISE_STEM, Bottleneck, ResNet

PAPER = "Xie et al., arXiv:1611.05431"

CARDS = (
    NetworkCard(
        name="resnext50_32x4d",
        family="ResNeXt",
        year=2016,
        paper=PAPER,
        build=partial(ResNet, Bottleneck, (3, 4, 6, 3), groups=32, group_width=4),
        dataset="ImageNet",
        image_size=224,
        smallest_image_size=1,
        classes=1000,
        parameters=25_028_904,
        macs=4_230_479_872,
        accuracy=77.62,
        source="torchvision",
    ),
    *(
        NetworkCard(
            name=f"resnext29_{groups}x{group_width}d_cifar",
            family="ResNeXt",
            year=2016,
            paper=PAPER,
            build=partial(
                ResNet,
                Bottleneck,
                (3, 3, 3),
                stem=POINTWISE_STEM,
                groups=groups,
                group_width=group_width,
            ),
            dataset="CIFAR-10",
            image_size=32,
            smallest_image_size=1,
            classes=10,
            parameters=parameters,
            macs=macs,
            accuracy=accuracy,
            source="kuangliu/pytorch-cifar",
        )
        for groups, group_width, parameters, macs, accuracy in (
            (32, 4, 4_774_218, 772_483_072, 94.73),
            (2, 64, 9_128_778, 1_409_492_992, 94.82),
        )
    ),
)
