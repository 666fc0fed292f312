"""What every refusal of the command has in common."""

from pathlib import Path

from maxent.cli import main


def files(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


def refusal(capsys, *words: str) -> str:
    """The one line with which these words are refused; nothing is written, and nothing is printed beside it."""
    before = files(Path.cwd())
    capsys.readouterr()
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("maxent: error: ") and err.endswith("\n") and err.count("\n") == 1
    assert "│" not in err and "Traceback" not in err
    assert files(Path.cwd()) == before
    return err
