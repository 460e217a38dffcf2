"""Channel graph of a model: operations, coupled channel groups, cost."""

from flyweight.graph.cost import Convention, Cost, CostModel
from flyweight.graph.groups import ChannelGroup, Member
from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.operations import GraphTensor, Operation
from flyweight.graph.trace import trace

__all__ = [
    "ChannelGroup",
    "Convention",
    "Cost",
    "CostModel",
    "GraphTensor",
    "Member",
    "ModelGraph",
    "Operation",
    "trace",
]
