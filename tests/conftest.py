"""For every test: array shapes are checked, one thread, and hypothesis draws the same examples every time."""

from __future__ import annotations

from jaxtyping import install_import_hook

FLOORS = ("core", "seeds", "storage", "threat", "goals", "data", "models", "explain", "training", "attacks", "defences")
install_import_hook([f"encircle.{floor}" for floor in FLOORS], "beartype.beartype")  # before encircle is imported

from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("encircle", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("encircle")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: a long one that begins last is waited for by every process but its own."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
