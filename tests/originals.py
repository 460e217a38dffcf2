"""What the originals' documents say of YOLOv3's head: the parameters they cut and the ratios."""

HEAD = [
    f"yolo_block.{scale}.{layer}.conv.weights"
    for scale in range(3)
    for layer in ("0.0", "0.1", "1.0", "1.1", "2", "tip")
]
RECIPES = {
    "sensity": [
        *(0.1, 0.2, 0.2, 0.2, 0.2, 0.1),
        *(0.2, 0.3, 0.3, 0.3, 0.2, 0.1),
        *(0.3, 0.4, 0.4, 0.4, 0.4, 0.3),
    ],
    "r578": [0.5] * 6 + [0.7] * 6 + [0.8] * 6,
    "75/87.5": [0.75] * 12 + [0.875] * 6,
}
