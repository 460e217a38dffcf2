"""Trace a model into operations and coupled channel groups; count what it costs."""

from flyweight.graph.cost import Convention, Cost, CostModel
from flyweight.graph.groups import ChannelGroup, Member
from flyweight.graph.model_graph import ModelGraph
from flyweight.graph.trace import trace

__all__ = ["ChannelGroup", "Convention", "Cost", "CostModel", "Member", "ModelGraph", "trace"]
