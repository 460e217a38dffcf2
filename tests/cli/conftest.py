import json
from dataclasses import dataclass

import pytest

from flyweight.cli.main import run


@dataclass(frozen=True)
class Answer:
    """What a command left: its status and its two streams."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    @property
    def mistake(self):
        """The one line of a refusal."""
        assert self.status == 2, self.err
        assert self.out == ""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in lines[0]
        return lines[0]


@pytest.fixture
def flyweight(capsys, tmp_path, monkeypatch):
    """Run the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        streams = capsys.readouterr()
        return Answer(status, streams.out, streams.err)

    return call
