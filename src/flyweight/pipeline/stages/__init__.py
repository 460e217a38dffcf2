"""Stages of pipelines, one file each; the command of the same name enters the same stage."""
