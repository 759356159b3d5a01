"""Random crops and horizontal flips of a whole batch at once, on the batch's device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def crop_and_flip(x: Tensor, *, generator: torch.Generator) -> Tensor:
    """Shift each image by up to an eighth of its size, filling with zeros (the mean), and mirror half of them.

    For 32x32 images this is the padding by 4 of [He2016] and [Lee2019].

    Args:
        x: normalized images, shape (batch, channels, height, width).
        generator: a CPU generator, so that every device draws the same crops.

    Returns:
        Images of the same shape.
    """
    batch, channels, height, width = x.shape
    pad = max(1, height // 8)
    shifts = torch.randint(2 * pad + 1, (2, batch), generator=generator).to(x.device)
    mirror = torch.randint(2, (batch, 1), generator=generator).to(x.device).bool()
    rows = shifts[0][:, None] + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device).expand(batch, width)
    columns = shifts[1][:, None] + torch.where(mirror, columns.flip(1), columns)
    padded = functional.pad(x, (pad, pad, pad, pad))
    image = torch.arange(batch, device=x.device)[:, None, None, None]
    channel = torch.arange(channels, device=x.device)[None, :, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
