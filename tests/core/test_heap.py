import platform

import pytest
import torch

from lamina.core.heap import reused_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left alone")
def test_memory_that_was_freed_is_used_again_without_the_system() -> None:
    import resource

    def pages_fetched() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(3):
            torch.ones(12 << 20)  # 48 MB, which glibc would map anew each time
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    usual = pages_fetched()
    with reused_memory():
        torch.ones(12 << 20)
        assert pages_fetched() < usual / 2
    assert pages_fetched() > usual / 2
