"""The table of constants in the protocol page and the code say the same."""

import re
from pathlib import Path

from bytestag import config

PAGE = Path(__file__).parents[1] / "docs" / "protocol.rst"
ROW = re.compile(r"^``([A-Z_0-9]+)``\s+([\d,]+)\s", re.MULTILINE)
UNITS = {"KIB", "MIB", "GIB", "MINUTE", "HOUR", "DAY"}


def test_every_constant_of_the_wire_is_in_the_table_with_its_value():
    section = PAGE.read_text("utf-8").partition("\nConstants\n")[2]
    written = {name: int(value.replace(",", "")) for name, value in ROW.findall(section)}
    known = {name: value for name, value in vars(config).items() if name.isupper()}
    assert written == {name: value for name, value in known.items() if name not in UNITS}
