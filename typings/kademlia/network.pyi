from typing import Any

class Server:
    protocol_class: Any
    ksize: int
    alpha: int
    storage: Any
    node: Any
    transport: Any
    protocol: Any
    refresh_loop: Any
    save_state_loop: Any
    def __init__(
        self, ksize: int = 20, alpha: int = 3, node_id: bytes | None = None, storage: Any = None
    ) -> None: ...
    def stop(self) -> None: ...
    async def listen(self, port: int, interface: str = "0.0.0.0") -> None: ...
    async def bootstrap(self, addrs: Any) -> Any: ...
    async def get(self, key: Any) -> Any: ...
    async def set(self, key: Any, value: Any) -> Any: ...
