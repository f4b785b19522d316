"""ContentStore: what is stored is found again, and what changed is not."""

from __future__ import annotations

from bytestag.store.content import ContentStore

SOME_TEXT = "37aa63c77398d954473262e1a0057c1e632eda77"


def test_the_text_of_the_papers_has_its_hash(tmp_path):
    store = ContentStore(tmp_path / "store")
    content = store.add_bytes(b"some text", name="file.txt")
    assert content.sha1.hex() == SOME_TEXT
    assert store.find(bytes.fromhex(SOME_TEXT)) == content
    assert store.read(content, 5) == b"text"
