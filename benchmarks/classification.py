"""Train, prune, fine-tune, export and measure a classifier; keep the rows.

    python benchmarks/classification.py --data DATA --weights BACKBONE --out OUT
    python benchmarks/classification.py -c classify_quick --out OUT

As `detection.py`, with another config.
"""

import sys

from detection import HERE, main

CONFIG = HERE / "mobilenet_v2_clothing10.yaml"

if __name__ == "__main__":
    sys.exit(main(config=CONFIG))
