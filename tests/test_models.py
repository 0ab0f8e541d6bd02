"""tilewright.vision.models: published parameter counts, the names of public weights, and what the networks compute."""

import pytest

import tilewright as tw
from tilewright import nn
from tilewright.vision import models

COUNTS = {  # of the papers' PyTorch forms, 1,000 classes (LeNet: 10)
    "lenet5": 61_706, "alexnet": 61_100_840, "vgg11": 132_863_336, "vgg13_bn": 133_053_736, "vgg16": 138_357_544,
    "vgg19_bn": 143_678_248, "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032,
    "resnet101": 44_549_160, "resnet152": 60_192_808, "resnext50_32x4d": 25_028_904, "wide_resnet50_2": 68_883_240,
    "densenet121": 7_978_856, "densenet161": 28_681_000, "densenet169": 14_149_480, "densenet201": 20_013_928,
    "googlenet": 13_004_888, "inception_v3": 27_161_264, "mobilenet_v2": 3_504_872}
# Keys and shapes that every copy of the published weights has.
PUBLIC = {
    "alexnet": {"features.10.weight": (256, 256, 3, 3), "classifier.6.bias": (1000,)},
    "vgg11": {"features.18.weight": (512, 512, 3, 3), "classifier.0.weight": (4096, 25088)},
    "resnet18": {"layer2.0.downsample.1.running_var": (128,), "layer4.1.conv2.weight": (512, 512, 3, 3)},
    "resnet50": {"layer3.5.conv3.weight": (1024, 256, 1, 1), "layer1.0.downsample.0.weight": (256, 64, 1, 1)},
    "densenet121": {"features.denseblock4.denselayer16.conv2.weight": (32, 128, 3, 3),
                    "features.transition2.conv.weight": (256, 512, 1, 1), "features.norm5.num_batches_tracked": ()},
    "googlenet": {"inception4e.branch3.1.conv.weight": (128, 32, 3, 3), "aux2.fc1.weight": (1024, 2048)},
    "inception_v3": {"Mixed_6c.branch7x7dbl_5.conv.weight": (192, 160, 1, 7), "AuxLogits.fc.bias": (1000,)},
    "mobilenet_v2": {"features.1.conv.0.0.weight": (32, 1, 3, 3), "features.18.1.weight": (1280,),
                     "features.17.conv.2.weight": (320, 960, 1, 1), "classifier.1.weight": (1000, 1280)}}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.fixture
def no_start(monkeypatch):
    """Nobody looks at the numbers of a hundred million weights."""
    for name in ("kaiming_uniform_", "kaiming_normal_", "uniform_", "normal_", "trunc_normal_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)


@pytest.mark.parametrize("name", COUNTS)
def test_published_counts_and_names(name, no_start):
    model = getattr(models, name)()
    assert count(model) == COUNTS[name]
    state = model.state_dict()
    for key, shape in PUBLIC.get(name, {}).items():
        assert tuple(state[key].shape) == shape


@pytest.mark.parametrize("name, size, options", [
    ("lenet5", (2, 1, 32, 32), {}), ("alexnet", (2, 3, 63, 63), {"num_classes": 3}),
    ("resnet18", (2, 3, 32, 32), {"num_classes": 5}),
    ("preact_resnet18", (2, 3, 16, 16), {"small": True, "num_classes": 4}),
    ("preact_resnet50", (2, 3, 32, 32), {"num_classes": 4}), ("densenet121", (2, 3, 32, 32), {"num_classes": 4}),
    ("mobilenet_v2", (2, 3, 96, 96), {"num_classes": 4}), ("googlenet", (2, 3, 64, 64), {"num_classes": 3})])
def test_every_parameter_learns(name, size, options):
    """Backward reaches each parameter, and no two samples of a batch meet but in batch norm."""
    tw.manual_seed(0)
    model = getattr(models, name)(**options)
    x = tw.randn(*size)
    y = model(x)
    sum(part.square().sum() for part in (y if isinstance(y, tuple) else (y,))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    model.eval()
    alone = model(x[:1])
    assert alone.shape == (1, options.get("num_classes", 10))
    assert tw.allclose(model(x)[:1], alone, rtol=1e-3, atol=1e-4)


def test_residual_networks_begin_as_the_identity():
    """zero_init_residual: with its last norms at zero, a stage of equal shapes hands its (rectified) input on."""
    model = models.resnet18(num_classes=3, zero_init_residual=True).eval()
    x = tw.rand(1, 64, 8, 8)
    assert tw.equal(model.layer1(x), x)
    pre = models.PreActBlock(8, 8)
    nn.init.zeros_(pre.conv2.weight)
    assert tw.equal(pre(x[:, :8] - 0.5), x[:, :8] - 0.5)


def test_googlenet_without_heads_is_smaller(no_start):
    assert count(models.googlenet(aux_logits=False)) == 6_624_904
    assert count(models.inception_v3(aux_logits=False)) == 23_834_568


def test_inception_in_evaluation():
    model = models.inception_v3(num_classes=2, transform_input=True, init_weights=False).eval()
    with tw.no_grad():
        assert model(tw.rand(1, 3, 107, 107)).shape == (1, 2)


def test_fcn_keeps_the_size():
    model = models.fcn_resnet50(num_classes=3, aux_loss=True).eval()
    with tw.no_grad():
        y = model(tw.rand(1, 3, 40, 33))
    assert y["out"].shape == y["aux"].shape == (1, 3, 40, 33)
    assert model.backbone.layer4[0].conv2.stride == (1, 1) and model.backbone.layer4[1].conv2.dilation == (4, 4)


def test_weights_come_from_a_file(tmp_path):
    a, b = models.lenet5(), models.lenet5()
    tw.save(a.state_dict(), tmp_path / "a.pt")
    assert not tw.equal(a.classifier[1].weight, b.classifier[1].weight)
    c = models.lenet5(weights=tmp_path / "a.pt")
    x = tw.randn(1, 1, 32, 32)
    assert tw.equal(a(x), c(x))
    with pytest.raises(TypeError, match="downloads nothing"):
        models.resnet18(weights="IMAGENET1K_V1")


# --- segmentation and detection --------------------------------------------------------------------------------------
def test_unet_keeps_any_size():
    assert count(models.UNet(1, 2)) == 31_036_546  # the paper's widths; batch norm in place of the first one's biases
    for dims, size in ((2, (17, 30)), (3, (5, 9, 12))):
        for skip in (True, False):
            model = models.UNet(1, 3, (4, 8, 16), dims, skip, scores=2)
            y = model(tw.rand(2, 1, *size))
            assert y.masks.shape == (2, 3, *size) and y.scores.shape == (2, 2)
    with pytest.raises(ValueError, match="dims must be 2 or 3"):
        models.UNet(dims=4)


def test_dice():
    target = tw.tensor([[[0, 1], [1, 1]]])
    sure = 50.0 * nn.functional.one_hot(target, 3).movedim(-1, 1).float()
    assert models.dice_score(sure, target).tolist() == [1, 1, 1]
    assert models.dice_loss(sure, target, background=True).item() == pytest.approx(0, abs=1e-6)
    half = 50.0 * nn.functional.one_hot(tw.tensor([[[0, 1], [0, 0]]]), 3).movedim(-1, 1).float()
    assert models.dice_score(half, target).tolist() == pytest.approx([2 / 4, 2 / 4, 1])
    assert models.dice_loss(half, target, smooth=0.0).item() > 0.5


def test_vision_transformers(no_start):
    assert count(models.vit_b_16()) == 86_567_656 and count(models.vit_b_32()) == 88_224_232
    model = models.VisionTransformer(8, 2, 2, 2, 16, 32, num_classes=10, in_channels=1).eval()
    x = tw.rand(3, 1, 8, 8)
    assert model(x).shape == (3, 10)
    for weights in model.attention(x):
        assert weights.shape == (3, 17, 17) and tw.allclose(weights.sum(-1), tw.ones(3, 17), atol=1e-5)


def test_boxes_and_their_numbers():
    anchors = models.anchor_boxes(2, 3, 8, (4, 16), (0.5, 2.0))
    assert anchors.shape == (24, 4)
    centres = [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]
    assert ((anchors[:, :2] + anchors[:, 2:])[::4] / 2).tolist() == centres
    wide, high = (anchors[0, 2:] - anchors[0, :2]).tolist()
    assert wide * high == pytest.approx(16) and high / wide == pytest.approx(0.5)
    boxes = tw.tensor([[1.0, 2, 9, 12], [3, 3, 4, 4]])
    assert tw.allclose(models.decode_boxes(models.encode_boxes(boxes, anchors[:2]), anchors[:2]), boxes, atol=1e-4)
    cut = models.decode_boxes(tw.zeros(1, 4), tw.tensor([[-5.0, -5, 30, 30]]), (16, 20))
    assert cut.tolist() == [[0, 0, 20, 16]]


def test_mean_average_precision_by_hand():
    """Three boxes of one class; results right, wrong, right, and one more on the first's box: recall 1/3 and 2/3."""
    truth = [{"boxes": tw.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]]), "labels": tw.tensor([1, 1])},
             {"boxes": tw.tensor([[5.0, 5, 15, 15]]), "labels": tw.tensor([1])}]
    found = [{"boxes": tw.tensor([[0.0, 0, 10, 9], [20, 20, 30, 31], [1, 0, 10, 10]]), "labels": tw.tensor([1, 1, 1]),
              "scores": tw.tensor([0.9, 0.7, 0.6])},
             {"boxes": tw.tensor([[50.0, 50, 60, 60]]), "labels": tw.tensor([1]), "scores": tw.tensor([0.8])}]
    assert models.mean_average_precision(found, truth) == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
    assert models.mean_average_precision(found, truth, iou=0.99) == 0
    assert models.mean_average_precision([t | {"scores": tw.ones(len(t["labels"]))} for t in truth], truth) == 1


def test_yolo_begins_with_hardly_any_box():
    """Each of the anchors starts at 0.01, so that the many empty ones do not drown the first steps."""
    tw.manual_seed(0)
    model = models.YOLO(nn.Conv2d(1, 16, 3, padding=1), 16, 1, 4, [(8, 8), (16, 12)])
    assert model.head.bias.reshape(2, 8)[:, 4].sigmoid().tolist() == pytest.approx([0.01, 0.01])
    assert model.head.bias.count_nonzero() == 2


@pytest.mark.parametrize("pool", [3, 7])
def test_regions_are_pooled_to_the_size_that_was_asked_for(pool):
    model = models.FasterRCNN(nn.Conv2d(1, 6, 1), 6, 1, 3, sizes=(8,), proposals=5, hidden=12, pool=pool)
    assert model.box_head[1].weight.shape == (12, 6 * pool**2)
    assert len(model.eval()(tw.rand(2, 1, 16, 16))) == 2


@pytest.mark.parametrize("name", ["FasterRCNN", "YOLO"])
def test_detectors(name):
    tw.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
    model = models.FasterRCNN(backbone, 16, 4, 3, sizes=(8, 16), proposals=20) if name == "FasterRCNN" else \
        models.YOLO(backbone, 16, 4, 3, [(8, 8), (16, 12)])
    x = tw.rand(3, 1, 32, 40)
    targets = [{"boxes": tw.tensor([[2.0, 3, 12, 11], [20, 10, 36, 24]]), "labels": tw.tensor([1, 2])},
               {"boxes": tw.zeros(0, 4), "labels": tw.zeros(0, dtype=tw.int64)},
               {"boxes": tw.tensor([[0.0, 0, 39, 31]]), "labels": tw.tensor([2])}]
    losses = model(x, targets)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    nothing = model(x, [targets[1]] * 3)
    assert all(v.isfinite() for v in nothing.values())
    model.eval()
    model.score_thresh = 0.0
    for found in model(x):
        assert set(found) == {"boxes", "labels", "scores"} and len(found["boxes"]) == len(found["labels"]) > 0
        assert found["labels"].min() >= 1 and found["labels"].max() <= 2
        assert found["scores"].tolist() == sorted(found["scores"].tolist(), reverse=True)
        assert found["boxes"][:, 2].max() <= 40 and found["boxes"][:, 3].max() <= 32 and found["boxes"].min() >= 0
    model.train()
    with pytest.raises(ValueError, match="training needs targets"):
        model(x)
    with pytest.raises(ValueError, match="one target an image, got 1 for 3"):
        model(x, targets[:1])
