"""What to test compiled programs with: a reference evaluator of TensorRT networks.

    from rewright.testing import evaluate_network

    outputs = evaluate_network(network, {"x": x})

computes what the layers of an ``INetworkDefinition`` mean, by TensorRT's API and its documentation
alone, with torch on the CPU. It needs no GPU and no engine, and shares no code with what makes
networks here; so it tells a wrong network from a wrong kernel. Every tensor it computes is checked
against the shape and dtype that TensorRT itself infers for it.

Floating-point layers are computed in float32 and rounded once, to the dtype of their output. Where
the documentation leaves open what a layer gives (NaN in a maximum, floats beyond an integer's
range), it is what TensorRT computes on the host when it folds constants while inferring shapes,
against which tests compare this package. A layer whose meaning is not documented is refused.

``evaluate(program, *args)`` calls a compiled program, its engines computed in this way.

``weights: Mapping[str, torch.Tensor]`` is a side table with the values of weights: a constant's by
the name of its layer, others by ``"<layer name>.<role>"``, as ``"conv1.kernel"``. It is optional.
Where it has nothing, weights are read back from the network, which holds references to the memory
they were given in, and no copies: that memory must still be there.
"""

from rewright.testing.evaluator import evaluate_network
from rewright.testing.program import evaluate

__all__ = ["evaluate", "evaluate_network"]
