"""An iroh 0.35 node on loopback: ``seed STORE FILE PORT``, ``leech STORE OUT PORT HASH NODE PORT``.

Blobs over QUIC, verified by BLAKE3; discovery is off. The seeder imports in place.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any


async def main(arguments: list[str]) -> None:
    import iroh

    role, store, path, port = arguments[:4]
    iroh.iroh_ffi.uniffi_set_event_loop(asyncio.get_running_loop())
    options = iroh.NodeOptions(
        gc_interval_millis=None, blob_events=None, enable_docs=False,
        ipv4_addr=f"127.0.0.1:{port}", ipv6_addr=None,
        node_discovery=iroh.NodeDiscoveryConfig.NONE, secret_key=None, protocols=None,
    )  # fmt: skip
    node = await iroh.Iroh.persistent_with_options(store, options)

    class Added(iroh.AddCallback):  # type: ignore[misc]
        hash: Any = None

        async def progress(self, progress: Any) -> None:
            if progress.type() == iroh.AddProgressType.ALL_DONE:
                self.hash = progress.as_all_done().hash

    class Ignored(iroh.DownloadCallback):  # type: ignore[misc]
        async def progress(self, progress: Any) -> None:
            pass

    tag = iroh.SetTagOption.auto()
    if role == "seed":
        added = Added()
        await node.blobs().add_from_path(path, True, tag, iroh.WrapOption.no_wrap(), added)
        print("ready", added.hash, await node.net().node_id(), flush=True)
        while True:
            await asyncio.sleep(60)
    hash_, node_id, peer = arguments[4:]
    address = iroh.NodeAddr(iroh.PublicKey.from_string(node_id), None, [f"127.0.0.1:{peer}"])
    wanted = iroh.Hash.from_string(hash_)
    request = iroh.BlobDownloadOptions(iroh.BlobFormat.RAW, [address], tag)
    await node.blobs().download(wanted, request, Ignored())
    mode = iroh.BlobExportMode.TRY_REFERENCE
    await node.blobs().export(wanted, path, iroh.BlobExportFormat.BLOB, mode)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
