"""A libtorrent session on loopback: ``make FILE TORRENT``, ``seed TORRENT DIR PORT MODE BUFFERS``,
``leech TORRENT DIR PORT MODE BUFFERS PORT…``.

DHT, local discovery and port mapping are off, connections in the clear; MODE is tcp or utp, BUFFERS
the bytes of socket buffers, or 0 for the defaults.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from libtorrent import settings_pack

HOST = "127.0.0.1"
PIECE_BYTES = 1024 * 1024


def main(arguments: list[str]) -> None:
    import libtorrent as lt

    if arguments[0] == "make":
        _make(lt, *arguments[1:])
        return
    role, torrent, directory, port, mode, buffers = arguments[:6]
    session = lt.session(_settings(lt, port, mode, int(buffers)))
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = directory
    flags = parameters.flags & ~lt.torrent_flags.auto_managed & ~lt.torrent_flags.paused
    parameters.flags = flags | (lt.torrent_flags.seed_mode if role == "seed" else 0)
    handle = session.add_torrent(parameters)
    if role == "seed":
        while not handle.status().is_seeding:
            time.sleep(0.01)
        print("ready", flush=True)
        while True:
            time.sleep(60)
    for peer in arguments[6:]:
        handle.connect_peer((HOST, int(peer)))
    while not handle.status().is_seeding:
        session.wait_for_alert(100)
        session.pop_alerts()
    handle.flush_cache()
    while not any(isinstance(a, lt.cache_flushed_alert) for a in session.pop_alerts()):
        session.wait_for_alert(100)
    os._exit(0)  # leaving the session politely takes seconds


def _settings(lt: Any, port: str, mode: str, buffers: int) -> settings_pack:
    is_tcp = mode == "tcp"
    settings: settings_pack = {
        "listen_interfaces": f"{HOST}:{port}",
        "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
        "allow_multiple_connections_per_ip": True,
        "enable_outgoing_tcp": is_tcp, "enable_incoming_tcp": is_tcp,
        "enable_outgoing_utp": not is_tcp, "enable_incoming_utp": not is_tcp,
        "out_enc_policy": 2, "in_enc_policy": 2,
        "alert_mask": lt.alert.category_t.status_notification
        | lt.alert.category_t.storage_notification,
    }  # fmt: skip
    if buffers:
        settings |= {"recv_socket_buffer_size": buffers, "send_socket_buffer_size": buffers}
    return settings


def _make(lt: Any, file: str, torrent: str) -> None:
    storage = lt.file_storage()
    lt.add_files(storage, file)
    made = lt.create_torrent(storage, PIECE_BYTES, lt.create_torrent.v1_only)
    lt.set_piece_hashes(made, os.path.dirname(file))
    with open(torrent, "wb") as out:
        out.write(lt.bencode(made.generate()))


if __name__ == "__main__":
    main(sys.argv[1:])
