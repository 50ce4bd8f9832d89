"""diffusers: a pipeline that makes images, with its U-Net compiled ahead of time.

A small DDIM pipeline with random weights, so that nothing is downloaded; a real one is
compiled the same way. Run it: python examples/diffusers_pipeline.py
"""

import time

import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel  # noqa: TID253 - what it is about

import rewright


class Compiled(torch.nn.Module):
    """A compiled U-Net in the place of diffusers' own, with what the pipeline asks of one."""

    def __init__(self, unet: UNet2DModel, program: rewright.CompiledProgram) -> None:
        super().__init__()
        self.config, self.dtype, self.device = unet.config, unet.dtype, unet.device
        self.program = program

    def forward(self, sample, timestep, **_):
        """As UNet2DModel.forward with return_dict=True."""
        return self.program(sample, timestep)


def main() -> None:
    """Makes an image eagerly and compiled from the same noise, and compares pixels and times."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=32, in_channels=3, out_channels=3, layers_per_block=1,
        block_out_channels=(32, 64), norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip
    pipeline = DDIMPipeline(unet, DDIMScheduler(num_train_timesteps=100))
    pipeline.set_progress_bar_config(disable=True)

    def image():
        noise = torch.Generator().manual_seed(1)
        start = time.perf_counter()
        made = pipeline(num_inference_steps=10, generator=noise, output_type="np").images[0]
        return made, time.perf_counter() - start

    expected, eager = image()
    print(f"eager:     {eager:.2f} s for 10 steps")
    start = time.perf_counter()
    program = rewright.compile(unet, (torch.randn(1, 3, 32, 32), torch.tensor(50)))
    print(f"compiling: {time.perf_counter() - start:.2f} s, {len(program.graph)} nodes")
    pipeline.unet = Compiled(unet, program)
    found, compiled = image()
    print(f"compiled:  {compiled:.2f} s for 10 steps")
    error = abs(found - expected).max()
    print(f"pixels differ by at most {error:.1e} of 1")
    assert error < 1e-3


if __name__ == "__main__":
    main()
