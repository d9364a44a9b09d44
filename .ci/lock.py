"""Write locked.txt: every distribution that `make demo` installs but torch, with the hashes of its files.

    python .ci/lock.py

The versions of direct dependencies are those of constraints.txt, and uv finds the rest. torch is pinned
by its version alone. Its wheel differs from index to index (one brings CUDA, another is for the CPU),
and pip prefers a file whose hash it knows: with hashes, a machine that offers a build for the CPU would
download CUDA all the same. What that build asks for besides is left to it too.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "locked.txt"

EXTRAS = "tasks", "export", "fast", "parallel", "dev"

TORCH = [
    "torch",
    "cuda-bindings",
    "cuda-pathfinder",
    "cuda-toolkit",
    "nvidia-cublas",
    "nvidia-cuda-cupti",
    "nvidia-cuda-nvrtc",
    "nvidia-cuda-runtime",
    "nvidia-cudnn-cu13",
    "nvidia-cufft",
    "nvidia-cufile",
    "nvidia-curand",
    "nvidia-cusolver",
    "nvidia-cusparse",
    "nvidia-cusparselt-cu13",
    "nvidia-nccl-cu13",
    "nvidia-nvjitlink",
    "nvidia-nvshmem-cu13",
    "nvidia-nvtx",
]
"""torch, and what its build for CUDA asks for besides."""

HEAD = "# Written by .ci/lock.py from pyproject.toml and constraints.txt.\n"


def compiled() -> str:
    """What uv resolves, for every platform and Python from 3.11 on."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal"]
    command += ["--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate"]
    command += ["--constraint", "constraints.txt", "pyproject.toml"]
    command += [f"--extra={extra}" for extra in EXTRAS]
    command += [f"--no-emit-package={name}" for name in TORCH]
    # torch's build for CUDA asks for a triton of its own; which one we try is our choice.
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as override:
        ours = [f"{pin}; sys_platform == 'linux'\n" for pin in pins if pin.startswith("triton")]
        override.writelines(ours)
        override.flush()
        command += ["--override", override.name]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def main() -> None:
    LOCK.write_text(HEAD + compiled())
    print(f"{LOCK.name}: {sum('==' in line for line in LOCK.read_text().splitlines())} pinned")


if __name__ == "__main__":
    main()
