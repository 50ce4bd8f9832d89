"""Ahead of time: sizes that vary, saved to a file, loaded without the model's code.

Run it: python examples/aot_dynamic_shapes.py
"""

import tempfile
from pathlib import Path

import torch

import rewright
from rewright.demo_models import ResNet


def main() -> None:
    """Compiles a residual network for batches of 1 to 16, saves it, loads it, calls it."""
    torch.manual_seed(0)
    model = ResNet().eval()
    images = torch.export.Dim("batch", min=1, max=16)
    program = rewright.compile(
        model,
        (torch.randn(4, 3, 64, 64),),
        dynamic_shapes=({0: images},),
        inputs=[rewright.Input(min=(1, 3, 64, 64), opt=(8, 3, 64, 64), max=(16, 3, 64, 64))],
    )
    print(program.report())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet.rw"
        program.save(path)
        print(f"\nsaved: {path.stat().st_size / 2**10:.0f} KiB")
        loaded = rewright.load(path)
        with torch.no_grad():
            for batch in (1, 5, 16):
                x = torch.randn(batch, 3, 64, 64)
                error = (loaded(x) - model(x)).abs().max()
                print(f"a batch of {batch:2}: off by {error:.1e}")
                assert error < 1e-3
        try:
            loaded(torch.randn(17, 3, 64, 64))
        except rewright.errors.InputError as error:
            print(f"a batch of 17: {error}")


if __name__ == "__main__":
    main()
