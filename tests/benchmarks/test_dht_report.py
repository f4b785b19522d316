"""What the DHT is judged by: rows are judged as they say, helpers do as what they stand for."""

import json
import random
from types import SimpleNamespace

import pytest

from benchmarks import dht_report, dht_rows
from benchmarks.dht_rows import sockets, stock
from benchmarks.dht_rows.figures import beside, figure, over_seeds
from benchmarks.dht_rows.held import CompactTable
from benchmarks.dht_rows.packed_providers import PackedProviderTable
from bytestag.keys import KeyBytes
from bytestag.tables.memory_stores import MemoryProviderTable


@pytest.mark.parametrize("name", dht_rows.ROWS)
def test_every_row_has_a_module_that_says_what_is_counted(name):
    module = dht_rows.load(name)
    assert callable(module.measure)
    assert len(module.__doc__.splitlines()) > 3


def test_the_report_is_one_object_with_judged_rows(monkeypatch, capsys):
    def measure(scale):
        assert (scale.name, scale.is_quick, scale.seeds, scale.is_long) == ("hops", True, 1, False)
        yield figure("a", [1.0, 3.0, 2.0], "s", "<=", 2.0, {"stock": None})
        yield figure("b", 1.0, "s", ">=", 2.0)

    monkeypatch.setattr(dht_rows, "load", lambda name: SimpleNamespace(measure=measure))
    assert dht_report.main(["--json", "--quick", "--rows", "hops"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["benchmark"], told["ok"]) == ("dht_report", False)
    first, second = told["rows"]
    assert (first["value"], first["min"], first["max"], first["runs"]) == (2.0, 1.0, 3.0, 3)
    assert (first["holds"], first["peers"], second["holds"]) == (True, {"stock": None}, False)


def test_an_unknown_row_is_refused(capsys):
    with pytest.raises(SystemExit):
        dht_report.main(["--rows", "hops,nonsense"])
    assert "nonsense" in capsys.readouterr().err


def test_a_row_beside_a_peer_is_judged_where_the_peer_is_there():
    there = beside("puts", [80.0, 81.0, 82.0], "1/s", ">=", 0.8, {"other": 100.0}, "other")
    assert (there.target, there.holds, there.peers) == (80.0, True, {"other": 100.0})
    missing = beside("puts", [80.0], "1/s", ">=", 0.8, {"other": None}, "other")
    assert (missing.value, missing.holds, missing.peers) == (80.0, None, {"other": None})


def test_what_takes_long_is_measured_once():
    assert over_seeds(lambda seed: {"seed": seed}, 3) == {"seed": [1, 2, 3]}
    assert over_seeds(lambda seed: {"seed": seed}, 3, seconds_max=-1.0) == {"seed": [1]}


def test_the_packed_provider_table_does_as_the_one_in_memory():
    rng, now = random.Random(1), 1000.0
    tables = PackedProviderTable(), MemoryProviderTable()
    keys = [KeyBytes(rng.randbytes(20)) for _ in range(40)]
    for step in range(400):
        provider, prefix = bytes([rng.randrange(3)]), bytes([rng.randrange(4)])
        seq, expires = rng.randrange(50), 1000 + rng.randrange(20)
        match rng.randrange(4):
            case 0 | 1:
                chosen = rng.sample(keys, rng.randint(1, 10))
                record = rng.choice([b"x", b"y"])
                done = [t.put(chosen, provider, prefix, seq, expires, b"a", record) for t in tables]
            case 2:
                named = [(prefix, rng.choice([b"x", b"y"]))]
                done = [t.renew(provider, named, seq, expires, b"a") for t in tables]
            case _:
                now += step % 3 == 0
                done = [t.expire(now) for t in tables]
        assert done[0] == done[1]
        assert len(tables[0]) == len(tables[1])
        for key in keys:
            first, second = (sorted(table.lookup(key, now)) for table in tables)
            assert first == second


def test_a_compact_table_shows_the_keys_it_holds():
    table = CompactTable(100, random.Random(1), lambda: 5.0)
    key = KeyBytes(table.some_key())
    (record,) = table.records_by_key(key)
    assert (record.key, len(table.read_row(record)), record.size) == (key, 100, 100)
    assert table.records_by_key(KeyBytes(bytes(20))) == []
    assert table.some_key() != key


def test_stock_nodes_join_store_and_read_in_virtual_time():
    async def play(net):
        await net.join(40)
        took, _ = await net.look_up()
        await net.set("key", b"value")
        return took, await net.get("key"), net.placed("key", 20), net.sent

    took, value, placed, sent = stock.run(play, 1)
    assert 0 < took < 5
    assert value == b"value"
    assert placed > 0.5
    assert sent > 100


def test_what_storms_is_stopped(monkeypatch):
    async def play(net):
        await net.join(5)
        monkeypatch.setattr(stock, "DATAGRAMS_MAX", net.sent + 3)
        await net.set("key", b"value")
        return net.has_stormed

    assert stock.run(play, 1)


def test_puts_are_not_judged_without_the_peer(monkeypatch):
    monkeypatch.setattr(sockets, "_opendht_python", lambda: None)
    done = {"rate": 10.0, "p99": 0.1, "cpu_ms": 1.0, "done": 1.0}
    ours, none = {"put": done, "get": done}, sockets._opendht(50)
    turns = {"ours": [ours], "opendht": [none], "kademlia": [ours]}
    rows = {row.name: row for row in sockets._figures(50, turns)}
    assert rows["sockets_50_puts"].peers == {"opendht": None, "kademlia": 10.0}
    assert rows["sockets_50_puts"].holds is None
    assert rows["sockets_50_put_cpu"].holds is None
    assert rows["sockets_50_put_p99"].holds is True
