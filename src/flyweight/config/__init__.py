"""Configuration: settings, strict reading of YAML, overrides and presets. It needs no torch."""
