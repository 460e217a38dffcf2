"""Settings: the models behind the one YAML file, how it is read, and the built-in presets."""
