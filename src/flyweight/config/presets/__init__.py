"""Configs that come with flyweight: one YAML file per model and data set."""
