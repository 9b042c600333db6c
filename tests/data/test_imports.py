from __future__ import annotations

import subprocess
import sys

import condgan.data


def test_import_has_no_side_effects() -> None:
    code = (
        "import sys, torch\n"
        "state = torch.random.get_rng_state()\n"
        "before = set(sys.modules)\n"
        "import condgan.data\n"
        "assert torch.equal(torch.random.get_rng_state(), state)\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "assert not new & {'torchvision', 'torch_fidelity', 'sklearn'}, new\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_every_export_exists_and_is_documented() -> None:
    for name in condgan.data.__all__:
        assert getattr(condgan.data, name).__doc__
