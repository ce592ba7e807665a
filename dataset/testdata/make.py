"""Makes the fixtures of this folder. Needs NumPy, Pillow and PyTorch.

The images are read, resized and normalised by Pillow and PyTorch, so that the
tests compare this package with what networks are trained on. Run it in this
folder; it was run with Pillow 9.4.0 (libjpeg-turbo 2.1.5) and PyTorch 1.13.
"""
import numpy as np
import torch
from PIL import Image


def picture(w, h):
    """Smooth colours, hard coloured edges and a little noise."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    rng = np.random.default_rng(1)
    p = np.stack([
        127 + 120 * np.sin(x / 7 + y / 11),
        127 + 120 * np.cos(x / 5 - y / 9),
        255 * (x + y) / (w + h),
    ], -1)
    p[h // 4:h // 2, w // 3:2 * w // 3] = (230, 20, 30)
    p[h // 2:3 * h // 4, w // 5:w // 2] = (10, 40, 240)
    return Image.fromarray((p + rng.normal(0, 4, p.shape)).clip(0, 255).round().astype(np.uint8))


im = picture(61, 45)
im.save("rgb.png")
im.convert("L").save("grey.png")

# JPEG files of each layout beside what Pillow reads from them.
for name, mode, options in [
    ("444", "RGB", dict(subsampling=0)),
    ("422", "RGB", dict(subsampling=1)),
    ("420", "RGB", dict(subsampling=2)),
    ("420-progressive", "RGB", dict(subsampling=2, progressive=True)),
    ("grey", "L", {}),
]:
    im.convert(mode).save(name + ".jpg", quality=90, **options)
    Image.open(name + ".jpg").save(name + ".jpg.png")
picture(3, 5).save("420-narrow.jpg", quality=90, subsampling=2)
Image.open("420-narrow.jpg").save("420-narrow.jpg.png")

# Resizing of the shorter side as torchvision does it on Pillow images.
for n in (20, 32, 45, 64, 97):
    w, h = int(n * im.width / im.height), n
    im.resize((w, h), Image.BILINEAR).save("rgb-%d.png" % n)
    im.convert("L").resize((w, h), Image.BILINEAR).save("grey-%d.png" % n)

# All samples, normalised for ImageNet: 3x256 little-endian float32.
v = torch.arange(256, dtype=torch.uint8).to(torch.float32).div(255).expand(3, 256).clone()
mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1)
std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1)
v.sub_(mean).div_(std).numpy().astype("<f4").tofile("normalized.f32")
