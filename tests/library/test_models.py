"""The papers' networks, row by row: every layer's name, shape and parameters against numbers worked out by hand."""

import inspect
import re

import numpy as np
import pytest

from ref_bioplaus import algorithms, models, optimizers
from ref_bioplaus.initializers import forward_params
from ref_bioplaus.losses import cross_entropy
from ref_bioplaus.models import (
    MODELS,
    akrout2019,
    bartunov2018,
    he2016,
    lee2015,
    lin2017,
    moskovitz2018,
    nokland2016,
    xiao2018,
)
from ref_bioplaus.models.residual import padded_identity
from ref_bioplaus.models.sizes import scaled
from ref_bioplaus.network import forward
from tests.helpers import ROOT
from tests.helpers.small_models import CLASSES, DETECTORS, SMALL

PAPERS = (bartunov2018, moskovitz2018, xiao2018, akrout2019, lee2015, nokland2016, he2016, lin2017)


# What is expected: the number of parameters, and (name, output shape) of every layer. In the arithmetic a convolution
# is height * width * in * out of its kernel, and BatchNorm, with its gamma and beta, 2 * channels.


def bartunov_mnist(synapses, b):
    return [
        ("input", (28, 28, 1)),
        (f"{synapses}(32, 3x3, stride 2x2) · {b} · tanh", (14, 14, 32)),
        (f"{synapses}(64, 3x3, stride 2x2) · {b} · tanh · flatten", (3136,)),
        ("dense(1024) · bias · tanh", (1024,)),
        ("dense(10) · bias", (10,)),
    ]


def bartunov_cifar(synapses, b):
    return [
        ("input", (32, 32, 3)),
        (f"{synapses}(64, 5x5, stride 2x2) · {b} · tanh", (16, 16, 64)),
        (f"{synapses}(128, 5x5, stride 2x2) · {b} · tanh", (8, 8, 128)),
        (f"{synapses}(256, 3x3) · {b} · tanh · flatten", (16384,)),
        ("dense(1024) · bias · tanh", (1024,)),
        ("dense(10) · bias", (10,)),
    ]


def bartunov_imagenet(synapses, b):
    return [
        ("input", (224, 224, 3)),
        (f"{synapses}(48, 9x9, stride 4x4) · {b} · tanh", (56, 56, 48)),
        (f"{synapses}(48, 3x3, stride 2x2) · {b} · tanh", (28, 28, 48)),
        (f"{synapses}(96, 5x5) · {b} · tanh", (28, 28, 96)),
        (f"{synapses}(96, 3x3, stride 2x2) · {b} · tanh", (14, 14, 96)),
        (f"{synapses}(192, 3x3) · {b} · tanh", (14, 14, 192)),
        (f"{synapses}(192, 3x3, stride 2x2) · {b} · tanh", (7, 7, 192)),
        (f"{synapses}(384, 3x3) · {b} · tanh · flatten", (18816,)),
        ("dense(1000) · bias", (1000,)),
    ]


def basic_blocks(size, channels, stride, after):
    """Two blocks, with a projected shortcut in the first where the stride is 2."""
    unit, end, join = (
        ("relu · batch_norm", "", "relu · batch_norm") if after else ("batch_norm · relu", " · batch_norm", "relu")
    )
    shape, strided = (size, size, channels), ", stride 2x2" if stride == 2 else ""
    first, second = f"conv({channels}, 3x3{strided}, padding 1)", f"conv({channels}, 3x3, padding 1)"
    shortcut = [(f"conv({channels}, 1x1, stride 2x2, padding 0){end}", shape)] if stride == 2 else []
    return [
        *[(f"{first} · {unit}", shape), (f"{second}{end}", shape), *shortcut, (join, shape)],
        *[(f"{second} · {unit}", shape), (f"{second}{end}", shape), (join, shape)],
    ]


def resnet18(after):
    unit = "relu · batch_norm" if after else "batch_norm · relu"
    return [
        ("input", (224, 224, 3)),
        (f"conv(64, 7x7, stride 2x2, padding 3) · {unit}", (112, 112, 64)),
        ("max_pool(3x3, stride 2x2, padding 1)", (56, 56, 64)),
        *basic_blocks(56, 64, 1, after),
        *basic_blocks(28, 128, 2, after),
        *basic_blocks(14, 256, 2, after),
        *basic_blocks(7, 512, 2, after),
        ("global_average_pool", (512,)),
        ("dense(1000) · bias", (1000,)),
    ]


def bottlenecks(count, size, channels, stride, after):
    """Blocks of three convolutions, with a projected shortcut in the first."""
    unit, end, join = (
        ("relu · batch_norm", "", "relu · batch_norm") if after else ("batch_norm · relu", " · batch_norm", "relu")
    )
    strided = ", stride 2x2" if stride == 2 else ""
    before, narrow, wide = (size * stride, size * stride, channels), (size, size, channels), (size, size, 4 * channels)
    first = [
        (f"conv({channels}, 1x1, padding 0) · {unit}", before),
        (f"conv({channels}, 3x3{strided}, padding 1) · {unit}", narrow),
        (f"conv({4 * channels}, 1x1, padding 0){end}", wide),
        (f"conv({4 * channels}, 1x1{strided}, padding 0){end}", wide),
        (join, wide),
    ]
    other = [
        (f"conv({channels}, 1x1, padding 0) · {unit}", narrow),
        (f"conv({channels}, 3x3, padding 1) · {unit}", narrow),
        (f"conv({4 * channels}, 1x1, padding 0){end}", wide),
        (join, wide),
    ]
    return first + (count - 1) * other


def resnet50(after):
    unit = "relu · batch_norm" if after else "batch_norm · relu"
    return [
        ("input", (224, 224, 3)),
        (f"conv(64, 7x7, stride 2x2, padding 3) · {unit}", (112, 112, 64)),
        ("max_pool(3x3, stride 2x2, padding 1)", (56, 56, 64)),
        *bottlenecks(3, 56, 64, 1, after),
        *bottlenecks(4, 28, 128, 2, after),
        *bottlenecks(6, 14, 256, 2, after),
        *bottlenecks(3, 7, 512, 2, after),
        ("global_average_pool", (2048,)),
        ("dense(1000) · bias", (1000,)),
    ]


def retinanet(resnet):
    """A ResNet without its last two layers on 256 pixels, then the pyramid and its two heads, of 256 channels."""
    body = [(name, tuple(n * 8 // 7 for n in shape[:2]) + shape[2:]) for name, shape in resnet[1:-2]]
    sizes = (32, 16, 8, 4, 2)
    pixels = sum(n * n for n in sizes)
    unit = ("shared_conv(256, 3x3, 5 images) · bias · relu", (pixels, 256))
    return [
        ("input", (256, 256, 3)),
        *body,
        *[("conv(256, 1x1) · bias", (n, n, 256)) for n in sizes[:3]],
        *[row for n in (16, 32) for row in (("upsample(2)", (n, n, 256)), ("join", (n, n, 256)))],
        *[("conv(256, 3x3, padding 1) · bias", (n, n, 256)) for n in sizes[:3]],
        ("conv(256, 3x3, stride 2x2, padding 1) · bias", (4, 4, 256)),
        ("relu", (4, 4, 256)),
        ("conv(256, 3x3, stride 2x2, padding 1) · bias", (2, 2, 256)),
        *[("rows", (n * n, 256)) for n in sizes],
        ("concatenation", (pixels, 256)),
        *4 * [unit],
        ("shared_conv(720, 3x3, 5 images) · bias · rows(80)", (9 * pixels, 80)),
        *4 * [unit],
        ("shared_conv(36, 3x3, 5 images) · bias · rows(4)", (9 * pixels, 4)),
        ("concatenation", (9 * pixels, 84)),
    ]


def pyramid_and_heads(channels, classes=80):
    """Parameters: laterals, P3 to P7, four layers of both heads, and the last ones."""
    square = 3 * 3 * 256 * 256 + 256
    last = [3 * 3 * 256 * 9 * units + 9 * units for units in (classes, 4)]
    return sum(C * 256 + 256 for C in channels) + 5 * square + 2 * 4 * square + sum(last)


RESNET18_CONVOLUTIONS = (
    7 * 7 * 3 * 64
    + 4 * (3 * 3 * 64 * 64)
    + (3 * 3 * 64 * 128 + 3 * (3 * 3 * 128 * 128) + 64 * 128)
    + (3 * 3 * 128 * 256 + 3 * (3 * 3 * 256 * 256) + 128 * 256)
    + (3 * 3 * 256 * 512 + 3 * (3 * 3 * 512 * 512) + 256 * 512)
)
RESNET18_BATCH_NORM_AFTER = 2 * 64 + 4 * (2 * 64) + 4 * (2 * 128) + 4 * (2 * 256) + 4 * (2 * 512)
RESNET18_BATCH_NORM_BEFORE = RESNET18_BATCH_NORM_AFTER + 2 * 128 + 2 * 256 + 2 * 512  # the three shortcuts'
RESNET18_OUTPUT = 512 * 1000 + 1000

RESNET50_CONVOLUTIONS = (
    7 * 7 * 3 * 64
    + (64 * 64 + 2 * (256 * 64) + 3 * (3 * 3 * 64 * 64 + 64 * 256) + 64 * 256)
    + (256 * 128 + 3 * (512 * 128) + 4 * (3 * 3 * 128 * 128 + 128 * 512) + 256 * 512)
    + (512 * 256 + 5 * (1024 * 256) + 6 * (3 * 3 * 256 * 256 + 256 * 1024) + 512 * 1024)
    + (1024 * 512 + 2 * (2048 * 512) + 3 * (3 * 3 * 512 * 512 + 512 * 2048) + 1024 * 2048)
)
RESNET50_BATCH_NORM_AFTER = (
    2 * 64
    + 3 * (2 * 64 + 2 * 64 + 2 * 256)
    + 4 * (2 * 128 + 2 * 128 + 2 * 512)
    + 6 * (2 * 256 + 2 * 256 + 2 * 1024)
    + 3 * (2 * 512 + 2 * 512 + 2 * 2048)
)
RESNET50_BATCH_NORM_BEFORE = RESNET50_BATCH_NORM_AFTER + 2 * 256 + 2 * 512 + 2 * 1024 + 2 * 2048  # the four shortcuts'
RESNET50_OUTPUT = 2048 * 1000 + 1000

EXPECTED = {
    "bartunov2018/mnist-fc": (
        784 * 256 + 256 + 4 * (256 * 256 + 256) + 256 * 10 + 10,
        [("input", (784,)), *5 * [("dense(256) · bias · tanh", (256,))], ("dense(10) · bias", (10,))],
    ),
    "bartunov2018/mnist-lc": (
        14 * 14 * (3 * 3 * 1 * 32 + 32) + 7 * 7 * (3 * 3 * 32 * 64 + 64) + 3136 * 1024 + 1024 + 1024 * 10 + 10,
        bartunov_mnist("locally_connected", "unit_bias"),
    ),
    "bartunov2018/mnist-convnet": (
        3 * 3 * 1 * 32 + 32 + 3 * 3 * 32 * 64 + 64 + 3136 * 1024 + 1024 + 1024 * 10 + 10,
        bartunov_mnist("conv", "bias"),
    ),
    "bartunov2018/cifar-fc": (
        3072 * 1024 + 1024 + 2 * (1024 * 1024 + 1024) + 1024 * 10 + 10,
        [("input", (3072,)), *3 * [("dense(1024) · bias · tanh", (1024,))], ("dense(10) · bias", (10,))],
    ),
    "bartunov2018/cifar-lc": (
        16 * 16 * (5 * 5 * 3 * 64 + 64)
        + 8 * 8 * (5 * 5 * 64 * 128 + 128)
        + 8 * 8 * (3 * 3 * 128 * 256 + 256)
        + (16384 * 1024 + 1024)
        + (1024 * 10 + 10),
        bartunov_cifar("locally_connected", "unit_bias"),
    ),
    "bartunov2018/cifar-convnet": (
        (5 * 5 * 3 * 64 + 64)
        + (5 * 5 * 64 * 128 + 128)
        + (3 * 3 * 128 * 256 + 256)
        + (16384 * 1024 + 1024)
        + (1024 * 10 + 10),
        bartunov_cifar("conv", "bias"),
    ),
    "bartunov2018/imagenet-lc": (
        56 * 56 * (9 * 9 * 3 * 48 + 48)
        + 28 * 28 * (3 * 3 * 48 * 48 + 48)
        + 28 * 28 * (5 * 5 * 48 * 96 + 96)
        + 14 * 14 * (3 * 3 * 96 * 96 + 96)
        + 14 * 14 * (3 * 3 * 96 * 192 + 192)
        + 7 * 7 * (3 * 3 * 192 * 192 + 192)
        + 7 * 7 * (3 * 3 * 192 * 384 + 384)
        + (18816 * 1000 + 1000),
        bartunov_imagenet("locally_connected", "unit_bias"),
    ),
    "bartunov2018/imagenet-convnet": (
        (9 * 9 * 3 * 48 + 48)
        + (3 * 3 * 48 * 48 + 48)
        + (5 * 5 * 48 * 96 + 96)
        + (3 * 3 * 96 * 96 + 96)
        + (3 * 3 * 96 * 192 + 192)
        + (3 * 3 * 192 * 192 + 192)
        + (3 * 3 * 192 * 384 + 384)
        + (18816 * 1000 + 1000),
        bartunov_imagenet("conv", "bias"),
    ),
    "bartunov2018/autoencoder": (
        784 * 512 + 512 + 512 * 64 + 64 + 64 * 512 + 512 + 512 * 784 + 784,
        [
            ("input", (784,)),
            ("dense(512) · bias · tanh", (512,)),
            ("dense(64) · bias · tanh", (64,)),
            ("dense(512) · bias · tanh", (512,)),
            ("dense(784) · bias", (784,)),
        ],
    ),
    "moskovitz2018/mnist": (
        5 * 5 * 1 * 32 + 32 + 5 * 5 * 32 * 64 + 64 + 7 * 7 * 64 * 1024 + 1024 + 1024 * 10 + 10,
        [
            ("input", (28, 28, 1)),
            ("conv(32, 5x5) · bias · relu", (28, 28, 32)),
            ("max_pool(2x2)", (14, 14, 32)),
            ("conv(64, 5x5) · bias · relu", (14, 14, 64)),
            ("max_pool(2x2) · flatten", (3136,)),
            ("dense(1024) · bias · relu · dropout(0.5)", (1024,)),
            ("dense(10) · bias", (10,)),
        ],
    ),
    "moskovitz2018/cifar10-model1": (
        (5 * 5 * 3 * 64 + 64) + (5 * 5 * 64 * 64 + 64) + (6 * 6 * 64 * 384 + 384) + (384 * 192 + 192) + (192 * 10 + 10),
        [
            ("input", (24, 24, 3)),
            ("conv(64, 5x5) · bias · relu", (24, 24, 64)),
            ("max_pool(2x2)", (12, 12, 64)),
            ("conv(64, 5x5) · bias · relu", (12, 12, 64)),
            ("max_pool(2x2) · flatten", (2304,)),
            ("dense(384) · bias · relu", (384,)),
            ("dense(192) · bias · relu", (192,)),
            ("dense(10) · bias", (10,)),
        ],
    ),
    "moskovitz2018/cifar10-model2": (
        (3 * 3 * 3 * 96 + 96)
        + 2 * (3 * 3 * 96 * 96 + 96)
        + (3 * 3 * 96 * 192 + 192)
        + 3 * (3 * 3 * 192 * 192 + 192)
        + (192 * 192 + 192)
        + (192 * 10 + 10),
        [
            ("input", (32, 32, 3)),
            ("dropout(0.2)", (32, 32, 3)),
            ("conv(96, 3x3) · bias · relu", (32, 32, 96)),
            ("conv(96, 3x3) · bias · relu", (32, 32, 96)),
            ("conv(96, 3x3, stride 2x2) · bias · relu · dropout(0.5)", (16, 16, 96)),
            ("conv(192, 3x3) · bias · relu", (16, 16, 192)),
            ("conv(192, 3x3) · bias · relu", (16, 16, 192)),
            ("conv(192, 3x3, stride 2x2) · bias · relu · dropout(0.5)", (8, 8, 192)),
            ("conv(192, 3x3) · bias · relu", (8, 8, 192)),
            ("conv(192, 1x1) · bias · relu", (8, 8, 192)),
            ("conv(10, 1x1) · bias · relu", (8, 8, 10)),
            ("global_average_pool", (10,)),
        ],
    ),
    "moskovitz2018/imagenet-model1": (
        (9 * 9 * 3 * 192 + 192)
        + (5 * 5 * 192 * 192 + 192)
        + (19 * 19 * 192 * 512 + 512)
        + (512 * 512 + 512)
        + (512 * 1000 + 1000),
        [
            ("input", (299, 299, 3)),
            ("conv(192, 9x9, stride 2x2) · bias · relu", (150, 150, 192)),
            ("max_pool(2x2)", (75, 75, 192)),
            ("conv(192, 5x5, stride 2x2) · bias · relu", (38, 38, 192)),
            ("max_pool(2x2) · flatten", (69312,)),
            ("dense(512) · bias · relu", (512,)),
            ("dense(512) · bias · relu", (512,)),
            ("dense(1000) · bias", (1000,)),
        ],
    ),
    "moskovitz2018/imagenet-model2": (
        (9 * 9 * 3 * 192 + 192)
        + 2 * (3 * 3 * 192 * 192 + 192)
        + (5 * 5 * 192 * 256 + 256)
        + 2 * (3 * 3 * 256 * 256 + 256)
        + (3 * 3 * 256 * 512 + 512)
        + (512 * 512 + 512)
        + (512 * 1000 + 1000),
        [
            ("input", (299, 299, 3)),
            ("conv(192, 9x9, stride 4x4) · bias · relu", (75, 75, 192)),
            ("conv(192, 3x3, stride 2x2) · bias · relu", (38, 38, 192)),
            ("conv(192, 3x3, stride 3x3) · bias · relu", (13, 13, 192)),
            ("conv(256, 5x5, stride 2x2) · bias · relu", (7, 7, 256)),
            ("conv(256, 3x3) · bias · relu", (7, 7, 256)),
            ("conv(256, 3x3, stride 2x2) · bias · relu", (4, 4, 256)),
            ("conv(512, 3x3) · bias · relu", (4, 4, 512)),
            ("conv(512, 1x1) · bias · relu", (4, 4, 512)),
            ("conv(1000, 1x1) · bias · relu", (4, 4, 1000)),
            ("global_average_pool", (1000,)),
        ],
    ),
    "xiao2018/alexnet": (
        (11 * 11 * 3 * 64 + 2 * 64)
        + (5 * 5 * 64 * 192 + 2 * 192)
        + (3 * 3 * 192 * 384 + 2 * 384)
        + (3 * 3 * 384 * 256 + 2 * 256)
        + (3 * 3 * 256 * 256 + 2 * 256)
        + (6 * 6 * 256 * 4096 + 2 * 4096)
        + (4096 * 4096 + 2 * 4096)
        + (4096 * 1000 + 1000),
        [
            ("input", (224, 224, 3)),
            ("conv(64, 11x11, stride 4x4, padding 2) · batch_norm · relu", (55, 55, 64)),
            ("max_pool(3x3, stride 2x2)", (27, 27, 64)),
            ("conv(192, 5x5, padding 2) · batch_norm · relu", (27, 27, 192)),
            ("max_pool(3x3, stride 2x2)", (13, 13, 192)),
            ("conv(384, 3x3, padding 1) · batch_norm · relu", (13, 13, 384)),
            ("conv(256, 3x3, padding 1) · batch_norm · relu", (13, 13, 256)),
            ("conv(256, 3x3, padding 1) · batch_norm · relu", (13, 13, 256)),
            ("max_pool(3x3, stride 2x2) · flatten", (9216,)),
            ("dense(4096) · batch_norm · relu", (4096,)),
            ("dense(4096) · batch_norm · relu", (4096,)),
            ("dense(1000) · bias", (1000,)),
        ],
    ),
    "xiao2018/resnet18": (RESNET18_CONVOLUTIONS + RESNET18_BATCH_NORM_BEFORE + RESNET18_OUTPUT, resnet18(after=False)),
    "akrout2019/resnet18": (RESNET18_CONVOLUTIONS + RESNET18_BATCH_NORM_AFTER + RESNET18_OUTPUT, resnet18(after=True)),
    "akrout2019/resnet50": (RESNET50_CONVOLUTIONS + RESNET50_BATCH_NORM_AFTER + RESNET50_OUTPUT, resnet50(after=True)),
    "akrout2019/mlp": (
        784 * 500 + 500 + 500 * 10 + 10,
        [("input", (784,)), ("dense(500) · bias · sigmoid", (500,)), ("dense(10) · bias", (10,))],
    ),
    "lee2015/mnist": (
        784 * 240 + 240 + 6 * (240 * 240 + 240) + 240 * 10 + 10,
        [("input", (784,)), *7 * [("dense(240) · bias · tanh", (240,))], ("dense(10) · bias", (10,))],
    ),
    "nokland2016/mnist": (
        784 * 800 + 800 + 800 * 800 + 800 + 800 * 10 + 10,
        [("input", (784,)), *2 * [("dense(800) · bias · tanh", (800,))], ("dense(10) · bias", (10,))],
    ),
    "he2016/resnet20": (
        (3 * 3 * 3 * 16 + 2 * 16)
        + 6 * (3 * 3 * 16 * 16 + 2 * 16)
        + (3 * 3 * 16 * 32 + 2 * 32)
        + 5 * (3 * 3 * 32 * 32 + 2 * 32)
        + (3 * 3 * 32 * 64 + 2 * 64)
        + 5 * (3 * 3 * 64 * 64 + 2 * 64)
        + (64 * 10 + 10),
        [
            ("input", (32, 32, 3)),
            ("conv(16, 3x3, padding 1) · batch_norm · relu", (32, 32, 16)),
            *3
            * [
                ("conv(16, 3x3, padding 1) · batch_norm · relu", (32, 32, 16)),
                ("conv(16, 3x3, padding 1) · batch_norm", (32, 32, 16)),
                ("relu", (32, 32, 16)),
            ],
            ("conv(32, 3x3, stride 2x2, padding 1) · batch_norm · relu", (16, 16, 32)),
            ("conv(32, 3x3, padding 1) · batch_norm", (16, 16, 32)),
            ("padded_identity(32, stride 2)", (16, 16, 32)),
            ("relu", (16, 16, 32)),
            *2
            * [
                ("conv(32, 3x3, padding 1) · batch_norm · relu", (16, 16, 32)),
                ("conv(32, 3x3, padding 1) · batch_norm", (16, 16, 32)),
                ("relu", (16, 16, 32)),
            ],
            ("conv(64, 3x3, stride 2x2, padding 1) · batch_norm · relu", (8, 8, 64)),
            ("conv(64, 3x3, padding 1) · batch_norm", (8, 8, 64)),
            ("padded_identity(64, stride 2)", (8, 8, 64)),
            ("relu", (8, 8, 64)),
            *2
            * [
                ("conv(64, 3x3, padding 1) · batch_norm · relu", (8, 8, 64)),
                ("conv(64, 3x3, padding 1) · batch_norm", (8, 8, 64)),
                ("relu", (8, 8, 64)),
            ],
            ("global_average_pool", (64,)),
            ("dense(10) · bias", (10,)),
        ],
    ),
    "lin2017/retinanet-resnet18": (
        RESNET18_CONVOLUTIONS + RESNET18_BATCH_NORM_BEFORE + pyramid_and_heads((128, 256, 512)),
        retinanet(resnet18(after=False)),
    ),
    "lin2017/retinanet-resnet50": (
        RESNET50_CONVOLUTIONS + RESNET50_BATCH_NORM_BEFORE + pyramid_and_heads((512, 1024, 2048)),
        retinanet(resnet50(after=False)),
    ),
}


def rows(network):
    """(name, output shape) of every layer; where an input is not the layer below, its name says so first: left out."""
    return [(re.sub(r"^\[.*?\] ", "", layer.name), layer.out_shape) for layer in network.layers]


def test_the_expectations_cover_every_model():
    assert EXPECTED.keys() == MODELS.keys() == SMALL.keys()


@pytest.mark.parametrize("name", list(EXPECTED))
def test_layers_and_parameters(name):
    parameters, layers = EXPECTED[name]
    network = MODELS[name]()
    assert rows(network) == layers
    assert network.parameter_count == parameters
    assert network.dtype == "float32"


def test_public_totals():
    """As others count them: torchvision's ResNets and AlexNet, He's table 6."""
    assert xiao2018.resnet18().parameter_count == 11_689_512
    assert akrout2019.resnet18(batch_norm_after_relu=False).parameter_count == 11_689_512
    assert akrout2019.resnet50(batch_norm_after_relu=False).parameter_count == 25_557_032
    torchvision_alexnet, biases = 61_100_840, 64 + 192 + 384 + 256 + 256 + 4096 + 4096
    assert xiao2018.alexnet().parameter_count == torchvision_alexnet - biases + 2 * biases  # gamma and beta for b
    assert round(he2016.resnet20().parameter_count, -4) == 270_000
    assert lin2017.retinanet_resnet50(classes=91).parameter_count == 34_068_119  # with BatchNorm that learns


def test_batch_norm_before_the_relu():
    assert rows(akrout2019.resnet18(batch_norm_after_relu=False)) == resnet18(after=False)
    before = akrout2019.resnet50(batch_norm_after_relu=False)
    assert rows(before) == resnet50(after=False)
    assert before.parameter_count == RESNET50_CONVOLUTIONS + RESNET50_BATCH_NORM_BEFORE + RESNET50_OUTPUT


def test_where_the_shortcuts_lead():
    assert [layer.inputs for layer in xiao2018.resnet18().layers] == [
        *[(), (0,), (1,)],
        *[(2,), (3,), (4, 2)],
        *[(5,), (6,), (7, 5)],
        *[(8,), (9,), (8,), (10, 11)],
        *[(12,), (13,), (14, 12)],
        *[(15,), (16,), (15,), (17, 18)],
        *[(19,), (20,), (21, 19)],
        *[(22,), (23,), (22,), (24, 25)],
        *[(26,), (27,), (28, 26)],
        *[(29,), (30,)],
    ]
    assert [layer.inputs for layer in akrout2019.resnet50().layers[:16]] == [
        *[(), (0,), (1,)],
        *[(2,), (3,), (4,), (2,), (5, 6)],
        *[(7,), (8,), (9,), (10, 7)],
        *[(11,), (12,), (13,), (14, 11)],
    ]
    assert [layer.inputs for layer in he2016.resnet20().layers[:18]] == [
        *[(), (0,)],
        *[(1,), (2,), (3, 1)],
        *[(4,), (5,), (6, 4)],
        *[(7,), (8,), (9, 7)],
        *[(10,), (11,), (10,), (12, 13)],
        *[(14,), (15,), (16, 14)],
    ]


POOLING = {  # kernel, stride, padding: a pooling layer's name holds its kernel only
    "moskovitz2018/mnist": 2 * [((2, 2), (2, 2), ((0, 0), (0, 0)))],
    "moskovitz2018/cifar10-model1": 2 * [((2, 2), (2, 2), ((0, 0), (0, 0)))],
    "moskovitz2018/imagenet-model1": 2 * [((2, 2), (2, 2), ((0, 0), (0, 0)))],
    "xiao2018/alexnet": 3 * [((3, 3), (2, 2), ((0, 0), (0, 0)))],
    "xiao2018/resnet18": [((3, 3), (2, 2), ((1, 1), (1, 1)))],
    "akrout2019/resnet18": [((3, 3), (2, 2), ((1, 1), (1, 1)))],
    "akrout2019/resnet50": [((3, 3), (2, 2), ((1, 1), (1, 1)))],
    **dict.fromkeys(DETECTORS, [((3, 3), (2, 2), ((1, 1), (1, 1)))]),
}


@pytest.mark.parametrize("name", list(EXPECTED))
def test_pooling(name):
    pools = [layer.local[0].window for layer in MODELS[name]().layers if layer.name.startswith("max_pool")]
    assert [(pool.kernel, pool.stride, pool.padding) for pool in pools] == POOLING.get(name, [])


def test_sizes_of_imagenet_model2():
    heights = [layer.out_shape[0] for layer in moskovitz2018.imagenet_model2().layers[:8]]
    assert heights == [299, 75, 38, 13, 7, 7, 4, 4]  # as the 4x4 before the pooling demands: SAME padding


# What a model can be asked for


def test_width_scales_hidden_layers_only():
    network = bartunov2018.cifar_convnet(in_shape=(9, 6, 3), classes=7, width=1 / 32)
    assert [layer.out_shape for layer in network.layers] == [
        *[(9, 6, 3), (5, 3, 2), (3, 2, 4), (3 * 2 * 8,), (32,), (7,)],
    ]
    assert network.parameter_count == (
        (5 * 5 * 3 * 2 + 2) + (5 * 5 * 2 * 4 + 4) + (3 * 3 * 4 * 8 + 8) + (48 * 32 + 32) + (32 * 7 + 7)
    )
    assert [scaled(width)(3) for width in (1e-9, 0.5, 1.0, 2.4)] == [1, 2, 3, 7]
    for width in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=rf"width is {width}, expected a positive factor"):
            bartunov2018.mnist_fc(width=width)


@pytest.mark.parametrize("name", [n for n in EXPECTED if len(EXPECTED[n][1][0][1]) == 3 and n not in DETECTORS])
def test_images_may_have_any_size(name):
    """Height and width go their own ways: a tall image's shapes are a wide one's with the two exchanged."""
    tall, wide = (MODELS[name](in_shape=shape, width=1 / 64) for shape in ((96, 71, 2), (71, 96, 2)))
    for a, b in zip(tall.layers, wide.layers, strict=True):
        assert b.out_shape == (*a.out_shape[1::-1], *a.out_shape[2:])
        assert a.linear is None or b.linear.fan_in == a.linear.fan_in
    assert tall[1].out_shape[0] > tall[1].out_shape[1]


def test_a_detectors_images_have_whole_cells_on_every_level():
    for shape in ((256, 200, 3), (64, 128, 3), (0, 128, 3), (128,)):
        with pytest.raises(
            ValueError, match=r"expected \(height, width, channels\) with multiples of 128 as height and"
        ):
            lin2017.retinanet_resnet18(in_shape=shape)
    network = lin2017.retinanet_resnet18(in_shape=(384, 128, 3), classes=7, width=1 / 8, channels=16, anchors=3)
    pixels = 48 * 16 + 24 * 8 + 12 * 4 + 6 * 2 + 3 * 1
    assert network[network.L].out_shape == (3 * pixels, 11) and network[-12].out_shape == (pixels, 16 // 8)
    assert [network[l].linear.channels for l in network.outputs] == [3 * 7, 3 * 4]
    rare, plain = (network[l].local[0].start for l in network.outputs)
    assert (1 / (1 + np.exp(-rare)), plain) == (pytest.approx(0.01, rel=1e-12), 0.0)


def test_auxiliary_output():
    """z stands behind the classes, and adds n_in weights and one bias for each of its units."""
    for name, n_in in (
        ("mnist-fc", 256),
        ("mnist-lc", 1024),
        ("cifar-fc", 1024),
        ("cifar-lc", 1024),
        ("imagenet-lc", 18816),
    ):
        model = MODELS[f"bartunov2018/{name}"]
        plain, with_z = model(), model(auxiliary=512)
        assert with_z.parameter_count - plain.parameter_count == 512 * n_in + 512
        assert with_z[with_z.L].out_shape[0] == plain[plain.L].out_shape[0] + 512


def test_akrouts_net_for_cifar10():
    network = akrout2019.mlp(in_shape=(3072,), hidden=1000)
    assert [layer.out_shape for layer in network.layers] == [(3072,), (1000,), (10,)]
    assert network.parameter_count == 3072 * 1000 + 1000 + 1000 * 10 + 10


def test_an_image_without_flatten_is_refused():
    message = (
        "layer 1, dense(256) in (dense(256) · bias · tanh): its input has shape (28, 28, 1), expected (units,): "
        "end the layer below with `flatten`"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        bartunov2018.mnist_fc(in_shape=(28, 28, 1))


def test_a_vector_is_no_image():
    part = "locally_connected(32, 3x3, stride 2x2)"
    message = f"layer 1, {part} in ({part} · unit_bias · tanh): its input has shape (784,), expected (height, width, "
    with pytest.raises(ValueError, match=re.escape(message)):
        bartunov2018.mnist_lc(in_shape=(784,))


def test_an_image_too_small_is_refused():
    pool = "max_pool(3x3, stride 2x2)"
    message = f"layer 8, {pool} in ({pool} · flatten): a kernel of 3x3 does not fit its input of 2x2"
    with pytest.raises(ValueError, match=re.escape(message)):
        xiao2018.alexnet(in_shape=(55, 55, 3))


@pytest.mark.parametrize("name", [name for name in SMALL if name.startswith(("bartunov2018", "lee2015"))])
def test_target_propagation_takes_these(name):
    """Chains with synapses in every layer."""
    network = SMALL[name]()
    algorithm = algorithms.sdtp(network, cross_entropy(), optimizers.sgd(0.1), optimizers.sgd(0.1))
    state = algorithm.init(np.array([0, 1], np.int32))
    inverted = [l for l, p in enumerate(state.feedback.params) if p.W is not None]
    assert inverted == list(range(2, network.L + 1))


# Small versions, run


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("name", list(SMALL))
def test_forward(name, n, numpy64):
    anchors = (9 * (512 + 128 + 32 + 8 + 2), CLASSES + 4)
    outputs = anchors if name in DETECTORS else (9,) if name == "bartunov2018/autoencoder" else (CLASSES,)
    check_forward(SMALL[name](), n, numpy64, outputs)


@pytest.mark.parametrize("model", [akrout2019.resnet18, akrout2019.resnet50])
def test_forward_with_batch_norm_before_the_relu(model, numpy64):
    network = model(in_shape=(40, 33, 3), classes=CLASSES, width=1 / 32, batch_norm_after_relu=False)
    check_forward(network.with_dtype("float64"), 3, numpy64, (CLASSES,))


def check_forward(network, n, backend, outputs):
    key = backend.key(seed=0)
    params, stats = forward_params(network, (key, "forward"))
    x = backend.asarray(np.random.default_rng(0).standard_normal((n, *network[0].out_shape)))
    for train in (True, False):
        trace, new_stats = forward(network, params, stats, x, (key, "step"), train)
        assert trace.h[-1].shape == (n, *outputs)
        for layer, h in zip(network.layers, trace.h, strict=True):
            assert h.shape == (n, *layer.out_shape) and h.dtype == np.float64 and np.all(np.isfinite(h))
        arrays = [a for layer in new_stats for op in layer for a in op.values()]
        assert all(np.all(np.isfinite(a)) for a in arrays)
    assert (
        sum(p.W.size for p in params if p.W is not None)
        + sum(a.size for p in params for op in p.local for a in op.values())
        == network.parameter_count
    )


@pytest.mark.parametrize("name", list(SMALL))
def test_small_models_have_the_structure_of_the_large(name):
    def structure(network):
        return [(layer.inputs, re.sub(r"\((\d+)", "(", layer.name)) for layer in network.layers]

    small, large = SMALL[name](), MODELS[name]()
    assert structure(small) == structure(large)
    assert small.dtype == "float64"
    assert all(min(layer.out_shape) >= 1 for layer in small.layers)
    assert small.parameter_count < 30_000
    if len(small[0].out_shape) == 3:
        assert small[0].out_shape[0] != small[0].out_shape[1]


# The shortcut without weights


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(7, 4), (4, 6), (2, 1)])
def test_padded_identity(stride, size, any_backend):
    op = padded_identity(5, stride).build((*size, 3))
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, *size, 3)), rng.standard_normal((2, *op.out_shape))
    y, _, cache = op.forward({}, {}, any_backend.asarray(x), (), True)
    dx, gradients = op.backward({}, cache, any_backend.asarray(dy))
    y, dx = any_backend.to_numpy(y), any_backend.to_numpy(dx)
    assert y.shape == dy.shape and dx.shape == x.shape and gradients == {}
    assert np.array_equal(y[..., :3], x[:, ::stride, ::stride, :]) and not y[..., 3:].any()
    assert np.isclose(np.sum(y * dy), np.sum(x * dx), rtol=1e-13)  # its backward pass is its adjoint
    expected = np.zeros_like(x)
    expected[:, ::stride, ::stride, :] = dy[..., :3]
    assert np.array_equal(dx, expected)


# House rules for this folder


def test_every_public_constructor_is_a_row():
    written = [
        function
        for paper in PAPERS
        for name, function in vars(paper).items()
        if inspect.isfunction(function) and function.__module__ == paper.__name__ and not name.startswith("_")
    ]
    assert sorted(map(id, written)) == sorted(map(id, MODELS.values()))
    assert len(MODELS) == len(models.ROWS)
    for name, model in MODELS.items():
        paper, _, row = name.partition("/")
        assert getattr(getattr(models, paper), row.replace("-", "_")) is model


@pytest.mark.parametrize("name", list(MODELS))
def test_constructors_share_one_convention(name):
    parameters = inspect.signature(MODELS[name]).parameters
    first = ["in_shape", "width"] if name == "bartunov2018/autoencoder" else ["in_shape", "classes", "width"]
    assert list(parameters)[: len(first)] == first
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters.values())
    text = inspect.getdoc(MODELS[name])
    assert "\n" not in text and text.endswith(".")
    assert re.search(r"(et al\.|Nøkland) 20\d\d, (supplementary )?(tables? \d|sec\. \d|app\. \d|public code)", text), (
        text
    )


@pytest.mark.parametrize("paper", PAPERS)
def test_papers_state_their_choices(paper):
    """Source on the first line, then what it leaves open."""
    assert re.search(r"( et al\.|Nøkland) 20\d\d", paper.__doc__.partition("\n")[0])
    assert "\nChoices: " in paper.__doc__


def test_the_page_of_detection_shows_lines_that_stand_in_the_code():
    page = (ROOT / "ref_bioplaus" / "models" / "DETECTION.md").read_text()
    shown = re.findall(r"```python\n# (\S+)\n(.*?)```", page, re.S)
    assert len(shown) == 6
    for file, code in shown:
        lines = {line.strip() for line in (ROOT / file).read_text().splitlines()}
        assert all(line.strip() in lines for line in code.strip().splitlines()), file
    assert "`side * weight * rest**gamma * (gamma * p * log_p - rest)`" in page
    assert (
        "side * weight * rest**gamma * (gamma * p * log_p - rest)" in (ROOT / "ref_bioplaus" / "losses.py").read_text()
    )
    for target in re.findall(r"\]\(([^)]*)\)", page):
        assert (ROOT / "ref_bioplaus" / "models" / target).is_file(), target
    network = lin2017.retinanet_resnet18()
    assert f"{network[network.L].out_shape[0]:,}" in page
