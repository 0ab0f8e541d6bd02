"""tilewright.vision.models: published parameter counts, the names of public weights, and what the networks compute."""

import hashlib
import re

import pytest

import tilewright as tw
from tilewright import nn
from tilewright.vision import models

# For 1,000 classes: parameters, entries of the state dict, the digest of their names and shapes in order as torchvision
# 0.29 has them, and the map that an image of ImageNet's shape (224 x 224, Inception 299 x 299) comes to.
PUBLISHED = {
    "alexnet": (61_100_840, 16, "9c198ebdae1863e4", (256, 6, 6)),
    "vgg11": (132_863_336, 22, "cb3dc23f2a13e182", (512, 7, 7)),
    "vgg11_bn": (132_868_840, 62, "8b6717e727c0ecf9", (512, 7, 7)),
    "vgg13": (133_047_848, 26, "67c1dc8b57fde74b", (512, 7, 7)),
    "vgg13_bn": (133_053_736, 76, "f6b0597d18a7e4d2", (512, 7, 7)),
    "vgg16": (138_357_544, 32, "35c4623e0cd4a39d", (512, 7, 7)),
    "vgg16_bn": (138_365_992, 97, "347371586a8ea365", (512, 7, 7)),
    "vgg19": (143_667_240, 38, "4723255af8f6c485", (512, 7, 7)),
    "vgg19_bn": (143_678_248, 118, "fc3ff6fab2b5cc09", (512, 7, 7)),
    "resnet18": (11_689_512, 122, "84fb10d9c6905a1c", (512, 7, 7)),
    "resnet34": (21_797_672, 218, "28f9096d51307499", (512, 7, 7)),
    "resnet50": (25_557_032, 320, "d7e4f8bb0a536344", (2048, 7, 7)),
    "resnet101": (44_549_160, 626, "02c0f34f4842751f", (2048, 7, 7)),
    "resnet152": (60_192_808, 932, "685c66205bc823aa", (2048, 7, 7)),
    "resnext50_32x4d": (25_028_904, 320, "e3bad165c034e60f", (2048, 7, 7)),
    "wide_resnet50_2": (68_883_240, 320, "41203d1d536c02ed", (2048, 7, 7)),
    "densenet121": (7_978_856, 727, "aa0fd9923b0003b8", (1024, 7, 7)),
    "densenet161": (28_681_000, 967, "82d337d48f910d3a", (2208, 7, 7)),
    "densenet169": (14_149_480, 1015, "e2d0f02d9c0ce650", (1664, 7, 7)),
    "densenet201": (20_013_928, 1207, "0d234ad7e9a31b95", (1920, 7, 7)),
    "googlenet": (13_004_888, 364, "7f541ca29410efb1", (1024, 7, 7)),
    "inception_v3": (27_161_264, 580, "aab0ac2cbaf84aa2", (2048, 8, 8)),
    "mobilenet_v2": (3_504_872, 314, "37bbbce8932fd0c4", (1280, 7, 7))}
FURTHER = {  # the same of nets without such a map; FCN for 21 classes, with its auxiliary head
    "vit_b_16": (86_567_656, 152, "b124b34d9346c58c"),
    "vit_b_32": (88_224_232, 152, "f8bc3a1f2fd0c4c4"),
    "vit_l_16": (304_326_632, 296, "0fd5127fe79be5b3"),
    "fcn_resnet50": (35_322_218, 334, "1092973e1eb9477c"),
    "fcn_resnet101": (54_314_346, 640, "25617490219d50b0")}
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


def check_form(model: nn.Module, parameters: int, entries: int, digest: str) -> None:
    state = [f"{name} {tuple(value.shape)}" for name, value in model.state_dict().items()]
    assert (count(model), len(state)) == (parameters, entries)
    assert hashlib.sha256("\n".join(state).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_form_at_the_shape_of_imagenet(name):
    *form, size = PUBLISHED[name]
    tw.manual_seed(0)
    model = getattr(models, name)().eval()
    check_form(model, *form)
    for key, shape in PUBLIC.get(name, {}).items():
        assert tuple(model.state_dict()[key].shape) == shape
    maps = []
    last = next(p for p in ("features", "layer4", "inception5b", "Mixed_7c") if hasattr(model, p))
    getattr(model, last).register_forward_hook(lambda module, args, y: maps.append(y))
    side = 299 if name == "inception_v3" else 224
    with tw.no_grad():
        y = model(tw.rand(1, 3, side, side))
    assert tuple(maps[0].shape[1:]) == size and tuple(y.shape) == (1, 1000)
    assert y.isfinite().all() and y.std() > 0 and maps[0].std((2, 3)).max() > 0


@pytest.mark.parametrize("name", FURTHER)
def test_published_form(name, no_start):
    check_form(getattr(models, name)(**({"aux_loss": True} if name.startswith("fcn") else {})), *FURTHER[name])


@pytest.mark.parametrize("depth, parameters", [(18, 11_687_720), (34, 21_795_880), (50, 25_549_352),
                                               (101, 44_541_480), (152, 60_185_128)])
def test_preactivation_at_the_shape_of_imagenet(depth, parameters):
    """ResNet's convolutions, and norms of what goes into a block in place of what comes out."""
    model, plain = getattr(models, f"preact_resnet{depth}")().eval(), getattr(models, f"resnet{depth}")()
    assert count(model) == parameters
    assert sorted(tuple(p.shape) for p in model.parameters() if p.ndim > 1) == sorted(
        tuple(p.shape) for p in plain.parameters() if p.ndim > 1)
    with tw.no_grad():
        y = model(tw.rand(1, 3, 224, 224))
        assert model.blocks(model.start(tw.rand(1, 3, 224, 224))).shape == (1, 512 if depth < 50 else 2048, 7, 7)
    assert tuple(y.shape) == (1, 1000) and y.isfinite().all() and y.std() > 0


def test_lenet_has_the_published_count():
    assert count(models.lenet5()) == 61_706


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "googlenet", "inception_v3", "mobilenet_v2",
                                  "fcn_resnet50"])
def test_logits_of_the_same_weights_are_torchvisions(name, tmp_path):
    """Their state dict, saved by PyTorch and read from the file, gives their logits."""
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("torchvision.models", exc_type=ImportError)
    torch.manual_seed(0)
    make = getattr(theirs.segmentation if name.startswith("fcn") else theirs, name)
    more = {"aux_loss": True, "weights_backbone": None} if name.startswith("fcn") else {}
    more |= {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    model = make(weights=None, **more).eval()
    for key, value in model.state_dict().items():
        if "running" in key:
            value.uniform_(*((0.5, 1.5) if "var" in key else (-0.3, 0.3)))
    torch.save(model.state_dict(), tmp_path / "theirs.pth")
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad(), tw.no_grad():
        y, mine = model(x), getattr(models, name)(weights=tmp_path / "theirs.pth").eval()(tw.tensor(x.numpy()))
    y, mine = (part["out"] if isinstance(part, dict) else part for part in (y, mine))
    assert (tw.tensor(y.numpy()) - mine).abs().max() < 1e-5 * y.std().item()


def test_the_public_files_forms_load(tmp_path):
    """DenseNets' files name layers norm.1 and conv.2; files of 2017 count no batches; heads may be left out."""
    tw.manual_seed(0)
    model, x = models.DenseNet(8, (2, 2), 8, num_classes=3).eval(), tw.rand(1, 3, 32, 32)
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", k): v for k, v in model.state_dict().items()
           if "num_batches" not in k}
    assert "features.denseblock1.denselayer1.norm.1.running_mean" in old
    other = models.DenseNet(8, (2, 2), 8, num_classes=3).eval()
    other.load_state_dict(old)
    assert tw.equal(other(x), model(x))
    with pytest.raises(RuntimeError, match=r"norm3"):
        other.load_state_dict(old | {"features.denseblock1.denselayer1.norm3.weight": tw.ones(8)})
    whole = models.googlenet(num_classes=2, init_weights=False)
    tw.save(whole.state_dict(), tmp_path / "whole.pt")
    assert models.googlenet(weights=tmp_path / "whole.pt", num_classes=2, aux_logits=False,
                            init_weights=False).aux1 is None


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


def test_small_forms():
    """The nets for CIFAR: 3 x 3 starts, narrower stages; ResNet-20 has the paper's 0.27 million."""
    narrow = {"num_classes": 10, "widths": (16, 32, 64), "small": True}
    nets = [models.ResNet(models.BasicBlock, (3, 3, 3), **narrow),
            models.PreActResNet(models.PreActBlock, (3, 3, 3), **narrow),
            models.DenseNet(12, (2, 2, 2), 24, num_classes=10, small=True),
            models.VGG(models.vgg_features(11, True, (8, 16, 16, 32, 32)), 10, channels=32, size=1, hidden=16)]
    assert count(nets[0]) == 272_474  # ResNet-20, with shortcuts of 1 x 1 and a norm
    for net in nets:
        y = net(tw.rand(2, 3, 32, 32))
        y.square().sum().backward()
        assert y.shape == (2, 10) and all(p.grad is not None for p in net.parameters())
    assert nets[0].layer1(tw.rand(1, 16, 32, 32)).shape == (1, 16, 32, 32)
    for cls, block in ((models.ResNet, models.BasicBlock), (models.PreActResNet, models.PreActBlock)):
        with pytest.raises(ValueError, match="layers and widths must be as many, got"):
            cls(block, (1, 1), widths=(8, 8, 8))


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
        for size in ((40, 33), (224, 224)):
            y = model(tw.rand(1, 3, *size))
            assert y["out"].shape == y["aux"].shape == (1, 3, *size)
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
