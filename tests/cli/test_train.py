from types import SimpleNamespace

from flyweight.config.reading import load_config

SMALL = ("width=0.1", "input_size=64", "data.size=64", "data.train_count=2", "data.val_count=2")
FAST = ("train.num_workers=0", "train.precision=32")
CONFIG = load_config("demo_digits", (*SMALL, *FAST))[1]
TOLD = ("-c", "demo_digits", "-o", *SMALL, *FAST)


def test_train_says_what_it_starts_from_and_what_it_saved(flyweight, monkeypatch, tmp_path):
    def train(model, config, training, data, folder, *, resume, progress):
        assert training.steps == 3
        return SimpleNamespace(
            best_metrics={"map_50": 0.25},
            best_path=folder / "best.safetensors",
            seconds=1.5,
            resumed=resume,
        )

    monkeypatch.setattr("flyweight.pipeline.stages.train.train_model", train)
    told = (*TOLD, "train.steps=3", "train.warmup_steps=0")
    answer = flyweight("train", *told)
    assert answer.err == "weights: fresh\n"
    assert answer.out == "map_50   25.00 %\nsaved output/demo_digits/best.safetensors\n"
    assert flyweight("train", *told, "--json").json["seconds"] == 1.5
