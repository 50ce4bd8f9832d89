"""Every name of TensorRT's that we use is in every version that we support."""

from __future__ import annotations

import ast

import pytest

from rewright.backends.tensorrt import enums
from rewright.backends.tensorrt.dtypes import TENSORRT
from tests.backends.tensorrt.api_check import api, asked_names, faults, sources

MODULES = dict(sources())
GUARDED = set().union(*(asked_names(tree) for tree in MODULES.values()))
ENUMS = [
    item
    for item in vars(enums).values()
    if isinstance(item, type) and issubclass(item, enums.Name) and item is not enums.Name
]
WITH = {
    "AttentionNormalizationOp": "add_attention",
    "CausalMaskKind": "add_attention_v2",
    "CumulativeOperation": "add_cumulative",
}
"""Enums that came with a layer, which is asked for first."""


def test_tables_hold_every_supported_version() -> None:
    packages = {name.partition(" ")[0] for name in api().versions}
    assert packages == {"tensorrt", "tensorrt_rtx"}
    assert len(api().versions) == 8


@pytest.mark.parametrize("module", MODULES)
def test_names_in_source(module: str) -> None:
    assert faults(MODULES[module], GUARDED, api()) == []


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.__name__)
def test_enum_members(enum: type[enums.Name]) -> None:
    having = api().find(enum.__name__)
    needed = range(len(api().versions))
    if enum.__name__ in WITH:
        needed = api().find("INetworkDefinition", WITH[enum.__name__])
    assert set(needed) <= set(having)
    for member in enum:
        lacking = set(having) - set(api().find(enum.__name__, member.name))
        assert not lacking, f"{member} is not in every version"


def test_dtypes() -> None:
    assert [name for name in TENSORRT.values() if api().missing("DataType", name)] == []


PLANTED = {
    "net.layer('add_softmux', x)": "add_softmux is not in tensorrt 10.3.0",
    "net.layer('add_softmax', x, y)": "add_softmax takes other arguments",
    "net.layer('add_softmax', x, axis=1)": "ISoftMaxLayer.axis can't be set",
    "net.layer('add_moe', x, y, z)": "add_moe is not in tensorrt 10.3.0",
    "net.layer('add_convolution_nd', x, 1, k, w, num_input=3)": "num_input can't be set",
    "trt.DataTypes": "TensorRT has no DataTypes",
    "trt.BuilderFlag.FP16": "BuilderFlag.FP16 is not in tensorrt 11.0",
    "config.int8_calibrator": "IBuilderConfig.int8_calibrator is not in",
    "library.has('Builder.nothing')": "nothing is called Builder.nothing",
    "handle.location": "ITensor.location is not in tensorrt_rtx 1.5",
}


@pytest.mark.parametrize("code", PLANTED)
def test_planted_mistakes_are_found(code: str) -> None:
    found = faults(ast.parse(code), set(), api())
    assert any(PLANTED[code] in fault for fault in found), found
