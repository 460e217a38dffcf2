"""Train, prune, fine-tune, export and measure a segmenter; keep the rows.

    python benchmarks/segmentation.py --data DATA --weights BACKBONE --out OUT
    python benchmarks/segmentation.py -c segment_quick --out OUT

As `detection.py`, with another config.
"""

import sys

from detection import HERE, main

CONFIG = HERE / "deeplabv3p_camvid11.yaml"

if __name__ == "__main__":
    sys.exit(main(config=CONFIG))
