from flyweight.measuring.float_islands import islands_of
from flyweight.runtimes.protocol import OptimizedOperator


def chain(*words):
    """Return operators one after the other, each `kind:precision`."""
    operators = []
    for place, word in enumerate(words):
        kind, _, precision = word.partition(":")
        reads, makes = (f"t{place}",), (f"t{place + 1}",)
        operators.append(OptimizedOperator(f"{kind}{place}", kind, precision, (), reads, makes))
    return operators


def kinds(operators):
    return [[one.kind for one in island] for island in islands_of(operators)]


QUANTIZE, DEQUANTIZE, LAYER = "QuantizeLinear:float32", "DequantizeLinear:int8", "QLinearConv:int8"


def test_operations_between_integer_layers():
    between = (LAYER, DEQUANTIZE, "HardSigmoid:float32", "Mul:float32", QUANTIZE, LAYER)
    assert kinds(chain(QUANTIZE, *between, DEQUANTIZE)) == [["HardSigmoid", "Mul"]]
    assert kinds(chain(QUANTIZE, *between, *between[1:])) == [["HardSigmoid", "Mul"]] * 2


def test_what_is_no_island():
    # Before the first and after the last integer layer, or two roundings in a row.
    assert kinds(chain("Sub:float32", QUANTIZE, LAYER, LAYER, DEQUANTIZE, "Exp:float32")) == []
    assert kinds(chain(LAYER, DEQUANTIZE, QUANTIZE, LAYER)) == []
    assert kinds(chain(LAYER, "Transpose:int8", LAYER)) == []
    assert kinds(chain("Conv:float32", "Conv:float32", "Conv:float32")) == []
