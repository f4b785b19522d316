from typing import Any

class SpiderCrawl:
    def __init__(self, protocol: Any, node: Any, peers: Any, ksize: int, alpha: int) -> None: ...
