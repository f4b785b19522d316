"""``python -m bytestag`` (composition)."""

from bytestag.cli.main import run

if __name__ == "__main__":
    run()
