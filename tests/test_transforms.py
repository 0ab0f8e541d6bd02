"""vision.transforms: functions against NumPy's and SciPy's answers (and torchvision's where it is installed), random
classes by seed and by what they may do, image and mask together, volumes."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright.vision import transforms as T
from tilewright.vision.transforms import functional as F

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (3, 17, 22), dtype=np.uint8)
FLOATS = RNG.random((3, 17, 22), dtype=np.float32)
VOLUME = RNG.random((2, 5, 6, 7), dtype=np.float32)
MODES = T.InterpolationMode


@pytest.mark.parametrize("mode, numpy_mode", [("edge", "edge"), ("reflect", "reflect"), ("symmetric", "symmetric"),
                                              ("constant", "constant")])
@pytest.mark.parametrize("padding, widths", [(3, ((3, 3), (3, 3))), ([1, 2], ((2, 2), (1, 1))),
                                             ([1, 2, 3, 4], ((2, 4), (1, 3)))])
def test_pad(mode, numpy_mode, padding, widths):
    want = np.pad(BYTES, ((0, 0), *widths), mode=numpy_mode)
    assert (F.pad(tw.tensor(BYTES), padding, padding_mode=mode).numpy() == want).all()


def test_crops_and_flips():
    x = tw.tensor(BYTES)
    assert (F.hflip(x).numpy() == BYTES[:, :, ::-1]).all() and (F.vflip(x).numpy() == BYTES[:, ::-1]).all()
    assert (F.crop(x, 2, 3, 5, 6).numpy() == BYTES[:, 2:7, 3:9]).all()
    outside = F.crop(x, -2, 20, 5, 6).numpy()
    assert (outside[:, 2:, :2] == BYTES[:, :3, 20:]).all() and outside[:, :2].sum() == outside[:, :, 2:].sum() == 0
    assert (F.center_crop(x, (7, 10)).numpy() == BYTES[:, 5:12, 6:16]).all()
    assert (F.center_crop(x, 23).numpy()[:, 3:20, :22] == BYTES).all()
    a, b, c, d, middle = F.five_crop(x, (4, 5))
    for got, want in ((a, BYTES[:, :4, :5]), (b, BYTES[:, :4, -5:]), (c, BYTES[:, -4:, :5]), (d, BYTES[:, -4:, -5:]),
                      (middle, F.center_crop(x, (4, 5)).numpy())):
        assert (got.numpy() == want).all()
    assert (F.ten_crop(x, 4)[5].numpy() == BYTES[:, :4, ::-1][:, :, :4]).all()
    volume = tw.tensor(VOLUME)
    assert (F.center_crop(volume, (3, 4, 5)).numpy() == VOLUME[:, 1:4, 1:5, 1:6]).all()
    assert (T.RandomDepthFlip(1.0)(volume).numpy() == VOLUME[:, ::-1]).all()
    assert (F.pad(volume, (1, 2, 3, 0, 1, 2)).numpy() == np.pad(VOLUME, ((0, 0), (3, 2), (2, 1), (1, 0)))).all()


@pytest.mark.parametrize("size, mode", [((8, 11), "BILINEAR"), ((30, 9), "BILINEAR"), ((8, 30), "BICUBIC"),
                                        (10, "NEAREST")])
def test_resize_is_pillows(size, mode):
    image = pytest.importorskip("PIL.Image")
    picture = image.fromarray(BYTES.transpose(1, 2, 0))
    how = getattr(MODES, mode)
    kinds = (picture, tw.tensor(BYTES), BYTES.transpose(1, 2, 0))
    of_pil, of_tensor, of_array = (F.resize(x, size, how) for x in kinds)
    assert of_tensor.shape[1:] == (size if isinstance(size, tuple) else (10, 12))
    assert of_pil.size == of_tensor.shape[:0:-1] and (of_array == of_tensor.permute(1, 2, 0).numpy()).all()
    if mode != "NEAREST":  # Pillow's takes the pixel's middle
        assert np.abs(np.array(of_pil).astype(int) - of_array).max() <= 1


def test_resize_sizes():
    x = tw.tensor(FLOATS)
    assert F.resize(x, 10, max_size=11).shape == (3, 9, 11) and F.resize(x, [17, 22]) is x
    assert F.resize(x, 34).shape == (3, 34, 44) and T.Resize((4, 5, 6))(tw.tensor(VOLUME)).shape == (2, 4, 5, 6)
    ramp = tw.arange(8.0).reshape(1, 8, 1, 1).expand(1, 8, 2, 2)
    assert F.resize(ramp, (4, 2, 2))[0, :, 0, 0].tolist() == [0.5, 2.5, 4.5, 6.5]
    with pytest.raises(ValueError, match="max_size needs a size of one number"):
        F.resize(x, (3, 4), max_size=5)
    with pytest.raises(ValueError, match="interpolation must be one of"):
        F.resize(x, 3, "lanczos")


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns(turns):
    square = BYTES[:, :17, :17]
    assert (F.rotate(tw.tensor(square), 90 * turns).numpy() == np.rot90(square, turns, (1, 2))).all()
    assert (F.affine(tw.tensor(square), -90 * turns, [0, 0], 1.0, 0.0).numpy() == np.rot90(square, turns, (1, 2))).all()
    wide = F.rotate(tw.tensor(BYTES[:, :16]), 90 * turns, expand=True).numpy()
    assert (wide == np.rot90(BYTES[:, :16], turns, (1, 2))).all()
    cube = RNG.random((1, 5, 5, 5), dtype=np.float32)
    for axis, plane in enumerate(((2, 3), (1, 3), (1, 2))):
        angles = [0, 0, 0]
        angles[axis] = 90 * turns
        got = F.affine3d(tw.tensor(cube), angles).numpy()
        assert min(np.abs(got - np.rot90(cube, k, plane)).max() for k in (turns, -turns)) < 1e-5
        assert np.abs(got - cube).max() > 0.1


def test_affine_moves_and_fills():
    y = F.affine(tw.tensor(BYTES), 0, [3, -2], 1.0, 0.0, fill=7).numpy()
    assert (y[:, :15, 3:] == BYTES[:, 2:, :19]).all() and (y[:, :, :3] == 7).all() and (y[:, 15:] == 7).all()
    three = F.rotate(tw.tensor(BYTES), 45, fill=[1, 2, 3]).numpy()
    assert three[:, 0, 0].tolist() == [1, 2, 3]
    moved = F.affine3d(tw.tensor(VOLUME), (0, 0, 0), (1, 0, -2)).numpy()
    assert np.allclose(moved[:, 1:, :, :5], VOLUME[:, :-1, :, 2:], atol=1e-6) and moved[:, 0].max() == 0


@pytest.mark.parametrize("scale, shear", [(1.3, [10.0, 5.0]), (0.6, [0.0, 0.0]), (1.0, [-20.0, 0.0])])
def test_affine_against_scipy(scale, shear):
    ndimage = pytest.importorskip("scipy.ndimage")
    angle, (sx, sy), (tx, ty) = np.radians(25), np.radians(shear), (2.0, -1.0)
    x = np.pad(FLOATS[0], 12).astype(np.float64)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shears = np.array([[1, 0], [-np.tan(sy), 1]]) @ np.array([[1, -np.tan(sx)], [0, 1]])
    back = np.linalg.inv(scale * turn @ shears)[::-1, ::-1]  # of (row, column)
    middle = (np.array(x.shape) - 1) / 2
    want = ndimage.affine_transform(x, back, middle - back @ (middle + np.array([ty, tx])), order=1, mode="constant")
    got = F.affine(tw.tensor(x[None]), 25, [tx, ty], scale, shear, MODES.BILINEAR).numpy()[0]
    np.testing.assert_allclose(got, want, atol=1e-9)


def test_perspective_moves_corners():
    x = tw.zeros(1, 9, 9)
    x[0, 2, 3] = 1
    corners = [[0, 0], [8, 0], [8, 8], [0, 8]]
    shifted = F.perspective(x, corners, [[a + 1, b + 2] for a, b in corners], MODES.NEAREST)
    assert shifted[0, 4, 4].item() == 1 and shifted.sum().item() == 1
    assert np.abs(F.perspective(tw.tensor(FLOATS), corners, corners).numpy() - FLOATS).max() < 1e-5


def test_elastic():
    x = tw.tensor(FLOATS)
    still = F.elastic_transform(x, tw.zeros(1, 17, 22, 2)).numpy()
    assert np.abs(still - FLOATS).max() < 1e-5
    push = tw.zeros(1, 17, 22, 2)
    push[..., 0] = 2 / 22 * 3  # three pixels
    assert np.abs(F.elastic_transform(x, push).numpy()[:, :, :19] - FLOATS[:, :, 3:]).max() < 1e-5
    tw.manual_seed(0)
    warped = T.ElasticTransform(60.0, 3.0)(x)
    assert warped.shape == x.shape and 0.01 < (warped - x).abs().mean().item() < 0.5
    assert T.ElasticTransform([30.0] * 3, 2.0)(tw.tensor(VOLUME)).shape == VOLUME.shape
    with pytest.raises(ValueError, match=r"displacement must be \(1, 17, 22, 2\)"):
        F.elastic_transform(x, tw.zeros(1, 4, 4, 2))


def test_colours():
    x = BYTES.astype(np.float64)
    t = tw.tensor(BYTES)
    gray = np.trunc(0.2989 * x[0] + 0.587 * x[1] + 0.114 * x[2])

    def close(got, want):  # a bit of float32 may fall to the other side of a whole number
        assert np.abs(got.numpy().astype(float) - want).max() <= 1 and (got.numpy() != want).mean() < 0.01

    close(F.rgb_to_grayscale(t)[0], gray)
    close(F.adjust_brightness(t, 1.7), np.trunc(np.clip(1.7 * x, 0, 255)))
    close(F.adjust_contrast(t, 0.4), np.trunc(0.4 * x + 0.6 * gray.mean()))
    close(F.adjust_saturation(t, 2.0), np.trunc(np.clip(2 * x - gray, 0, 255)))
    close(F.invert(t), 255 - x)
    np.testing.assert_allclose(F.adjust_gamma(tw.tensor(FLOATS), 0.7, 0.9).numpy(), 0.9 * FLOATS**0.7, rtol=1e-5)
    colorsys = pytest.importorskip("colorsys")
    turned = F.adjust_hue(tw.tensor(FLOATS), 0.3).numpy()
    for i, j in ((0, 0), (4, 7), (16, 21)):
        h, s, v = colorsys.rgb_to_hsv(*FLOATS[:, i, j].tolist())
        np.testing.assert_allclose(turned[:, i, j], colorsys.hsv_to_rgb((h + 0.3) % 1, s, v), atol=2e-6)
    assert (F.adjust_hue(t, 0.0).numpy() == BYTES).all() and F.adjust_hue(t[:1], 0.3).tolist() == t[:1].tolist()


def test_blur_is_scipys():
    ndimage = pytest.importorskip("scipy.ndimage")
    got = F.gaussian_blur(tw.tensor(FLOATS).double(), [9, 13], [1.0, 1.5]).numpy()
    want = ndimage.gaussian_filter(FLOATS.astype(float), (0, 1.5, 1.0), radius=(0, 6, 4), mode="mirror")
    np.testing.assert_allclose(got, want, atol=1e-12)
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        F.gaussian_blur(tw.tensor(FLOATS), 4)


def test_kinds_of_picture():
    image = pytest.importorskip("PIL.Image")
    hwc = BYTES.transpose(1, 2, 0)
    picture = image.fromarray(hwc)
    assert (F.pil_to_tensor(picture).numpy() == BYTES).all()
    for source in (picture, hwc):
        np.testing.assert_array_equal(F.to_tensor(source).numpy(), BYTES.astype(np.float32) / np.float32(255))
    assert (np.array(F.to_pil_image(F.to_tensor(picture))) == hwc).all()
    assert (np.array(F.to_pil_image(tw.tensor(BYTES[0]))) == BYTES[0]).all()
    for mode, dtype in (("L", "uint8"), ("I", "int32"), ("F", "float32")):
        one = image.fromarray(BYTES[0].astype(dtype))
        back = F.hflip(one)
        assert back.mode == mode and (np.array(back) == BYTES[0, :, ::-1]).all()
        assert F.to_tensor(one).dtype == (tw.float32 if mode != "I" else tw.int32)
    palette = picture.quantize(8)
    turned = F.vflip(palette)
    assert turned.mode == "P" and turned.getpalette()[:24] == palette.getpalette()[:24]
    assert (np.array(turned) == np.array(palette)[::-1]).all()
    assert (F.hflip(BYTES[0]) == BYTES[0, :, ::-1]).all() and (F.hflip(hwc) == hwc[:, ::-1]).all()
    assert F.rgb_to_grayscale(picture).mode == "L" and F.rgb_to_grayscale(hwc).shape == (17, 22, 1)
    with pytest.raises(TypeError, match="expects a Tensor, a PIL image or an array"):
        F.hflip([1, 2])
    with pytest.raises(ValueError, match="to_pil_image: the mode must be one of none for 5 channels"):
        F.to_pil_image(tw.zeros(5, 2, 2))


def test_convert_image_dtype():
    assert F.convert_image_dtype(tw.tensor([[0.0, 1.0]]), tw.uint8).tolist() == [[0, 255]]
    assert F.convert_image_dtype(tw.tensor([[0, 255]], dtype=tw.uint8), tw.float32).tolist() == [[0, 1]]
    assert F.convert_image_dtype(tw.tensor([[255]], dtype=tw.uint8), tw.int16).tolist() == [[255 * 128]]
    assert F.convert_image_dtype(tw.tensor([[32767]], dtype=tw.int16), tw.uint8).tolist() == [[255]]


def test_normalize():
    x = tw.tensor(FLOATS)
    want = (FLOATS - np.array([0.1, 0.2, 0.3]).reshape(3, 1, 1)) / np.array([1, 2, 4]).reshape(3, 1, 1)
    np.testing.assert_allclose(T.Normalize([0.1, 0.2, 0.3], [1, 2, 4])(x).numpy(), want, rtol=1e-5, atol=1e-7)
    assert (x.numpy() == FLOATS).all() and F.normalize(x.clone(), [0], [1], inplace=True).shape == x.shape
    by_channel = T.Normalize([0.0, 1.0], [1.0, 2.0], dims=3)(tw.tensor(VOLUME)).numpy()
    np.testing.assert_allclose(by_channel[1], (VOLUME[1] - 1) / 2, rtol=1e-6, atol=1e-7)
    with pytest.raises(TypeError, match="use ToTensor first"):
        F.normalize(tw.tensor(BYTES), [0], [1])
    with pytest.raises(ValueError, match="std must not be 0"):
        F.normalize(x, [0, 0, 0], [1, 0, 1])


# --- what is random --------------------------------------------------------------------------------------------------
RANDOM = [
    T.RandomCrop(9, padding=4), T.RandomResizedCrop(8), T.RandomRotation(30), T.RandomHorizontalFlip(),
    T.RandomVerticalFlip(), T.RandomAffine(20, (0.2, 0.1), (0.8, 1.2), (-10, 10, -5, 5)), T.RandomPerspective(p=1.0),
    T.ElasticTransform(50.0, 2.0), T.ColorJitter(0.4, 0.4, 0.4, 0.1), T.RandomGrayscale(0.5), T.GaussianBlur(5),
    T.RandomErasing(1.0), T.RandomErasing(1.0, value="random"), T.RandomInvert(),
    T.RandomChoice([T.RandomCrop(5), T.CenterCrop(6)]), T.RandomOrder([T.RandomCrop(7), T.Pad(1)]),
    T.RandomApply([T.RandomCrop(5)], 0.5),
]  # fmt: skip


@pytest.mark.parametrize("transform", RANDOM, ids=lambda t: type(t).__name__)
def test_a_seed_repeats_and_draws_differ(transform):
    def draw():
        tw.manual_seed(11)
        return [transform(tw.tensor(FLOATS)) for _ in range(8)]

    first, second = draw(), draw()
    assert all(a.shape == b.shape and (a == b).all() for a, b in zip(first, second, strict=True))
    assert len({(a.shape, float(a.double().std().item()), float(a[..., 0].double().sum().item())) for a in first}) > 1


def test_probabilities_and_ranges():
    tw.manual_seed(0)
    x = tw.tensor(FLOATS)
    flipped = sum(bool((T.RandomHorizontalFlip(0.25)(x) != x).any()) for _ in range(400))
    assert 70 <= flipped <= 130
    chosen = [T.RandomChoice([lambda v: 0, lambda v: 1, lambda v: 2], p=[0.2, 0.0, 0.8])(x) for _ in range(300)]
    assert set(chosen) == {0, 2} and 30 <= chosen.count(0) <= 90
    orders = {tuple(T.RandomOrder([lambda v: (*v, 1), lambda v: (*v, 2), lambda v: (*v, 3)])(())) for _ in range(100)}
    assert len(orders) == 6
    places = {T.RandomCrop.get_params(x, (15, 20))[:2] for _ in range(200)}
    assert places == {(i, j) for i in range(3) for j in range(3)}
    angles = [T.RandomRotation.get_params((-30, 10)) for _ in range(300)]
    assert -30 <= min(angles) < -25 and 5 < max(angles) < 10
    for _ in range(100):
        i, j, h, w = T.RandomResizedCrop.get_params(x, (0.2, 0.5), (0.5, 2.0))
        assert 0 <= i <= 17 - h and 0 <= j <= 22 - w and 0.15 < h * w / (17 * 22) < 0.58
        angle, move, scale, (sx, sy) = T.RandomAffine.get_params((5, 6), (0.5, 0.0), (2, 3), (1, 2), (10, 20))
        assert 5 <= angle < 6 and abs(move[0]) <= 5 and move[1] == 0 and 2 <= scale < 3 and 1 <= sx < 2 and sy == 0
    assert T.RandomResizedCrop.get_params(tw.zeros(1, 10, 100), (0.99, 1.0), (1.0, 1.0)) == (0, 45, 10, 10)
    order, *factors = T.ColorJitter.get_params((0.5, 0.6), None, (2, 3), None)
    assert sorted(order.tolist()) == [0, 1, 2, 3] and factors[1] is factors[3] is None and 2 <= factors[2] < 3


def test_erasing():
    tw.manual_seed(1)
    x = tw.ones(3, 20, 30)
    for _ in range(20):
        gone = (T.RandomErasing(1.0, (0.1, 0.2), (0.5, 2.0), value=(2.0, 3.0, 4.0))(x) != 1).numpy()
        rows, columns = gone[0].any(1).sum(), gone[0].any(0).sum()
        assert gone[0].sum() == rows * columns and 0.07 < rows * columns / 600 < 0.23 and (gone == gone[0]).all()
    assert (T.RandomErasing(0.0)(x) == x).all()
    assert F.erase(x, 1, 2, 3, 4, 0.0).sum().item() == 3 * (600 - 12) and x.sum().item() == 1800


JOINT = [
    T.RandomCrop(9, padding=2, fill=9), T.RandomResizedCrop(8), T.RandomRotation(40, fill=9), T.Resize(9),
    T.FiveCrop(5),
    T.RandomAffine(20, (0.2, 0.1), (0.8, 1.2), 10, interpolation=MODES.BILINEAR), T.RandomPerspective(p=1.0),
    T.ElasticTransform(50.0, 2.0), T.RandomHorizontalFlip(), T.CenterCrop(30),
    T.Compose([T.RandomApply([T.RandomVerticalFlip(1.0)]), T.ColorJitter(0.5), T.RandomChoice([T.RandomCrop(8)])]),
]  # fmt: skip


@pytest.mark.parametrize("transform", JOINT, ids=lambda t: type(t).__name__)
def test_image_and_mask_move_together(transform):
    """The mask is the picture's own left half: after any move the two still agree, and no new labels appear."""
    tw.manual_seed(5)
    picture = tw.zeros(1, 16, 20)
    picture[..., :10] = 1.0
    mask = (picture > 0.5).long() * 3
    for _ in range(5):
        image, moved, same = transform(picture, mask, mask)
        image, moved, same = ((v,) if not isinstance(v, tuple) else v for v in (image, moved, same))
        for a, m, s in zip(image, moved, same, strict=True):
            assert m.dtype == tw.int64 and a.shape == m.shape and (m == s).all() and set(m.unique().tolist()) <= {0, 3}
            sure = ((a <= 0.05) | (a > 0.55)) & (a < 5)  # neither between two pixels nor filled
            assert (((a > 0.3) == (m == 3)) | ~sure).float().mean().item() > 0.97


def test_joint_pipeline_of_pil_images():
    image = pytest.importorskip("PIL.Image")
    picture, mask = image.fromarray(BYTES.transpose(1, 2, 0)), image.fromarray((BYTES[0] > 128).astype(np.uint8) * 7)
    both = T.Compose([T.Resize((20, 20)), T.RandomCrop(16), T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)])
    x, m = both(picture, mask)
    assert x.shape == (3, 16, 16) and x.min().item() < -0.5
    assert m.dtype == tw.uint8 and set(m.unique().tolist()) == {0, 7}
    assert both(picture).shape == (3, 16, 16) and "Resize(size=(20, 20)" in repr(both)


def test_volumes_and_labels():
    tw.manual_seed(2)
    volume, labels = tw.tensor(VOLUME), (tw.tensor(VOLUME[:1]) > 0.5).long()
    pipeline = T.Compose([T.RandomDepthFlip(), T.RandomAffine3d(20, (0.1, 0.1, 0.1), (0.9, 1.1)),
                          T.RandomCrop((4, 5, 6)), T.ElasticTransform([20.0] * 3, 1.0),
                          T.Normalize([0.5, 0.5], [2.0, 2.0], dims=3)])
    x, y = pipeline(volume, labels)
    assert x.shape == (2, 4, 5, 6) and y.shape == (1, 4, 5, 6) and set(y.unique().tolist()) <= {0, 1}
    still = T.RandomAffine3d(0.0)(volume)
    assert (still - volume).abs().max().item() < 1e-5


def test_mixtures():
    tw.manual_seed(0)
    images, labels = tw.rand(6, 3, 8, 10), tw.tensor([0, 1, 2, 0, 1, 2])
    mixed, soft = T.MixUp(num_classes=3)(images, labels)
    lam = (mixed[0] - images[5]).sum().item() / (images[0] - images[5]).sum().item()
    np.testing.assert_allclose(mixed.numpy(), (lam * images + (1 - lam) * images.roll(1, 0)).numpy(), atol=1e-5)
    np.testing.assert_allclose(soft[0].numpy(), [lam, 0, 1 - lam], atol=1e-5)
    for _ in range(20):
        cut, soft = T.CutMix(alpha=1.0)((images, tw.nn.functional.one_hot(labels, 3)))
        taken = (cut != images).any(1)
        assert (tw.where(taken.unsqueeze(1), images.roll(1, 0), images) == cut).all() and (taken == taken[0]).all()
        np.testing.assert_allclose(soft[0, 2].item(), taken[0].float().mean().item(), atol=1e-6)
    for call, words in ((lambda: T.MixUp()(images, labels), "need num_classes"),
                        (lambda: T.CutMix(num_classes=3)(images[0], labels), "expects float images"),
                        (lambda: T.MixUp(alpha=0.0), "alpha must be")):
        with pytest.raises(ValueError, match=words):
            call()
    loader = tw.utils.data.DataLoader(tw.utils.data.TensorDataset(images, labels), 3)
    assert [T.MixUp(num_classes=3)(batch)[1].sum().item() for batch in loader] == pytest.approx([3, 3])


@pytest.mark.parametrize("make, words", [
    (lambda: T.RandomCrop(30)(tw.tensor(FLOATS)), r"size must be at most the picture's \(17, 22\), got \(30, 30\)"),
    (lambda: T.RandomRotation(-5), "degrees must be >= 0"), (lambda: T.RandomAffine(0, (2, 0)), "shares in"),
    (lambda: T.ColorJitter(hue=0.7), r"hue must be .* in \[-0.5, 0.5\]"),
    (lambda: T.ColorJitter(-1), "brightness must be"),
    (lambda: T.RandomErasing(scale=(0.5, 0.1)), "scale must be a range"), (lambda: T.GaussianBlur(3, (0, 1)), "sigma"),
    (lambda: T.RandomErasing(value="noise"), "or 'random'"), (lambda: F.pad(BYTES[0], [1, 2, 3]), "1, 2, 4 or 6"),
    (lambda: F.pad(BYTES[0], 17, padding_mode="reflect"), "reflect padding must be at most"),
    (lambda: F.adjust_hue(tw.tensor(FLOATS), 0.6), "hue_factor must be in"), (lambda: T.CenterCrop(0), "all > 0"),
    (lambda: F.affine(tw.tensor(FLOATS), 0, [0, 0], 0, 0), "scale must be > 0"),
    (lambda: F.five_crop(tw.tensor(FLOATS), 20), "five_crop: size must be at most"),
    (lambda: T.RandomChoice([abs], p=[0.5, 0.5]), "p must have 1 probabilities"),
])  # fmt: skip
def test_refusals(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_pad_if_needed():
    tw.manual_seed(0)
    assert T.RandomCrop(30, pad_if_needed=True)(tw.tensor(FLOATS)).shape == (3, 30, 30)


def test_against_torchvision():
    theirs = pytest.importorskip("torchvision.transforms.functional", exc_type=ImportError)
    torch = pytest.importorskip("torch")
    calls = [("rotate", (33,), {}), ("rotate", (-77.5,), {"expand": True, "fill": 5}), ("adjust_hue", (0.2,), {}),
             ("affine", (20, [3, -2], 1.3, [10, 5]), {"fill": 3}), ("gaussian_blur", ([5, 7], [1.5, 0.8]), {}),
             ("perspective", ([[0, 0], [21, 0], [21, 16], [0, 16]], [[2, 3], [18, 1], [20, 14], [3, 15]]), {"fill": 9}),
             ("adjust_contrast", (1.9,), {}), ("resize", ([9, 30],), {}), ("resized_crop", (1, 2, 10, 11, [7, 8]), {})]
    for name, args, options in calls:
        for values in (BYTES, FLOATS):
            got = getattr(F, name)(tw.tensor(values), *args, **options).double().numpy()
            want = getattr(theirs, name)(torch.tensor(values), *args, **options).double().numpy()
            assert got.shape == want.shape
            assert np.abs(got - want).max() <= (1 if values is BYTES else 1e-4), name
