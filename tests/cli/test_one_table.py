"""Two nodes over one PostgreSQL table are one larger donor: real processes, killed."""

import json
import random
import signal

import pytest

from bytestag.config import RECORD_OVERHEAD_BYTES
from bytestag.tables.database import DatabaseKVPTable

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(180)]

QUOTA = "16MiB"


@pytest.fixture
def url(postgres_url):
    return postgres_url.replace("postgresql+psycopg", "postgresql")


def tree(directory):
    return {
        path.relative_to(directory): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


def donor(programs, home, url, *arguments):
    """Start a node that keeps what it is given in the shared table; return it and its address."""
    node = programs.start(
        home, "node", "--host", "127.0.0.1", "--cache-dir", url, "--cache-size", QUOTA, *arguments
    )
    return node, node.line()


def used(programs, home):
    code, answer, notes = programs.run(home, "status", "--json")
    assert code == 0, notes
    return json.loads(answer[0])["cache_bytes"]


def rows_of(url):
    """Return all rows, by looking at them."""
    table = DatabaseKVPTable(url, None)
    try:
        return table.records_between(0, 1 << 160, 10_000)
    finally:
        table.close()


def check_quota(programs, url, shared, *homes):
    """Each value is there once, and both nodes count it once."""
    rows = rows_of(url)
    assert len({(row.key, row.index, row.blake3) for row in rows}) == len(rows)
    cost = sum(row.size + RECORD_OVERHEAD_BYTES for row in rows)
    size = sum(path.stat().st_size for path in shared.rglob("*") if path.is_file())
    assert size < cost < 1.5 * size
    for home in homes:
        code, answer, notes = programs.run(home, "status", "--json")
        assert code == 0, notes
        assert json.loads(answer[0])["cache_bytes"] == cost


def fetch(programs, home, link, dest, address):
    """Fetch on the link and one address alone; return what came."""
    code, _, notes = programs.run(
        home, "fetch", link, dest, "--known-node", address, "--no-hints"
    )  # fmt: skip
    assert code == 0, notes
    return tree(dest)


def test_what_one_of_two_nodes_stored_the_other_serves(programs, tmp_path, url):
    """They know nothing of each other, and store at the same time: the table alone joins them."""
    rng = random.Random(3)
    for name in ("a", "b"):
        for i in range(5):
            path = tmp_path / "both" / name / f"sub{i}" / "file"
            path.parent.mkdir(parents=True)
            path.write_bytes(rng.randbytes(100_000 * i + 5))
    nodes = {name: donor(programs, f"node-{name}", url) for name in ("a", "b")}
    shares = {
        name: programs.start(
            f"publisher-{name}", "share", tmp_path / "both" / name, "--host", "127.0.0.1",
            "--known-node", nodes[name][1], "--until-copies", "1",
        )
        for name in ("a", "b")
    }  # fmt: skip
    links = {name: share.line() for name, share in shares.items()}
    assert [share.code() for share in shares.values()] == [0, 0]
    check_quota(programs, url, tmp_path / "both", "node-a", "node-b")

    assert nodes["a"][0].end(signal.SIGKILL) == -signal.SIGKILL
    for name, link in links.items():
        got = fetch(programs, f"reader-{name}", link, tmp_path / f"got-{name}", nodes["b"][1])
        assert got == tree(tmp_path / "both" / name)


def test_a_donor_of_two_processes_outlives_one_of_them(programs, source, tmp_path, url):
    first, address = donor(programs, "node-a", url)
    _, survivor = donor(programs, "node-b", url, "--known-node", address)
    code, links, notes = programs.run(
        "publisher", "share", source, "--host", "127.0.0.1", "--known-node", address,
        "--until-copies", "2",
    )  # fmt: skip
    assert code == 0, notes
    check_quota(programs, url, source, "node-a", "node-b")

    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    assert fetch(programs, "reader", links[0], tmp_path / "got", survivor) == tree(source)
    check_quota(programs, url, source, "node-b")
