"""A U-Net that finds discs in noise: skip connections, Dice and cross-entropy, one-cycle rate."""
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import optim
from torch.utils.data import DataLoader, Dataset


class DoubleConv(nn.Module):
    """(convolution => [BN] => ReLU) * 2"""

    def __init__(self, in_channels, out_channels, mid_channels=None):
        super().__init__()
        if not mid_channels:
            mid_channels = out_channels
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(mid_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True)
        )

    def forward(self, x):
        return self.double_conv(x)


class Up(nn.Module):
    """Upscaling then double conv"""

    def __init__(self, in_channels, out_channels, bilinear=True):
        super().__init__()
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode='bilinear', align_corners=True)
            self.conv = DoubleConv(in_channels, out_channels, in_channels // 2)
        else:
            self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, kernel_size=2, stride=2)
            self.conv = DoubleConv(in_channels, out_channels)

    def forward(self, x1, x2):
        x1 = self.up(x1)
        # input is CHW
        diffY = x2.size()[2] - x1.size()[2]
        diffX = x2.size()[3] - x1.size()[3]
        x1 = F.pad(x1, [diffX // 2, diffX - diffX // 2, diffY // 2, diffY - diffY // 2])
        x = torch.cat([x2, x1], dim=1)
        return self.conv(x)


class UNet(nn.Module):
    def __init__(self, n_channels, n_classes):
        super(UNet, self).__init__()
        self.inc = DoubleConv(n_channels, 4)
        self.down1 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(4, 8))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(8, 8))
        self.up1 = Up(16, 8, bilinear=True)
        self.up2 = Up(8, 4, bilinear=False)
        self.outc = nn.Conv2d(4, n_classes, kernel_size=1)

    def forward(self, x):
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x = self.up1(x3, x2)
        x = self.up2(x, x1)
        return self.outc(x)


def dice_coeff(input, target, epsilon=1e-6):
    inter = 2 * (input * target).sum(dim=(-1, -2))
    sets_sum = input.sum(dim=(-1, -2)) + target.sum(dim=(-1, -2))
    sets_sum = torch.where(sets_sum == 0, inter, sets_sum)
    return ((inter + epsilon) / (sets_sum + epsilon)).mean()


class Discs(Dataset):
    def __init__(self, n):
        rng = np.random.RandomState(4)
        y, x = np.mgrid[:18, :18]
        centres, radii = rng.uniform(4, 14, (n, 2)), rng.uniform(2, 5, n)
        self.masks = np.stack([(x - a) ** 2 + (y - b) ** 2 < r * r for (a, b), r in zip(centres, radii)])
        self.images = self.masks + rng.normal(0, 0.5, self.masks.shape)

    def __len__(self):
        return len(self.masks)

    def __getitem__(self, idx):
        return {'image': torch.as_tensor(self.images[idx][np.newaxis].copy()).float().contiguous(),
                'mask': torch.as_tensor(self.masks[idx].copy()).long().contiguous()}


dataset = Discs(36)
train_loader = DataLoader(torch.utils.data.Subset(dataset, list(range(24))), batch_size=6)
val_loader = DataLoader(torch.utils.data.Subset(dataset, list(range(24, 36))), batch_size=6, drop_last=True)
net = UNet(1, 2)
for i, p in enumerate(p for p in net.parameters() if p.dim() == 4):
    grid = torch.linspace(-3, 3, p.numel()).reshape(p.shape)
    p.data = torch.sin(grid * (11.0 + i)) / (p.shape[1] * p.shape[2] * p.shape[3]) ** 0.5 * 1.8
nn.init.zeros_(net.outc.bias)
nn.init.constant_(net.up2.up.bias, 0.0)
optimizer = optim.SGD(net.parameters(), lr=1e-2, weight_decay=1e-4, momentum=0.9)
scheduler = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-2, steps_per_epoch=len(train_loader), epochs=3)
criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))
for epoch in range(1, 4):
    net.train()
    epoch_loss = 0
    for batch in train_loader:
        images, true_masks = batch['image'], batch['mask']
        masks_pred = net(images)
        loss = criterion(masks_pred, true_masks)
        probability = F.softmax(masks_pred, dim=1).float()
        one_hot = F.one_hot(true_masks, 2).permute(0, 3, 1, 2).float()
        loss += 1 - dice_coeff(probability[:, 1:], one_hot[:, 1:])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_value_(net.parameters(), 0.1)
        optimizer.step()
        scheduler.step()
        epoch_loss += loss.item()
    net.eval()
    dice_score = 0
    with torch.inference_mode():
        for batch in val_loader:
            mask_pred = net(batch['image']).argmax(dim=1)
            dice_score += dice_coeff((mask_pred == 1).float(), (batch['mask'] == 1).float())
    print('Epoch %d: loss %.4f, Dice %.4f, lr %.6f' % (epoch, epoch_loss / len(train_loader),
                                                      dice_score / max(len(val_loader), 1),
                                                      optimizer.param_groups[0]['lr']))
