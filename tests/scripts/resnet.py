"""A small ResNet with its own blocks: meters, top-k accuracy, milestones, Nesterov's momentum, weight decay by group."""
import time

import numpy as np
import torch
import torch.nn as nn
import torch.optim
import torch.utils.data


def conv3x3(in_planes, out_planes, stride=1):
    """3x3 convolution with padding"""
    return nn.Conv2d(in_planes, out_planes, kernel_size=3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inplanes, planes, stride=1, downsample=None):
        super(BasicBlock, self).__init__()
        self.conv1 = conv3x3(inplanes, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x):
        residual = x
        out = self.conv1(x)
        out = self.bn1(out)
        out = self.relu(out)
        out = self.conv2(out)
        out = self.bn2(out)
        if self.downsample is not None:
            residual = self.downsample(x)
        out += residual
        out = self.relu(out)
        return out


class ResNet(nn.Module):
    def __init__(self, block, layers, num_classes=5):
        self.inplanes = 8
        super(ResNet, self).__init__()
        self.conv1 = conv3x3(3, 8)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = self._make_layer(block, 8, layers[0])
        self.layer2 = self._make_layer(block, 16, layers[1], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(16 * block.expansion, num_classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode='fan_out', nonlinearity='relu')
            elif isinstance(m, (nn.BatchNorm2d, nn.GroupNorm)):
                nn.init.constant_(m.weight, 1)
                nn.init.constant_(m.bias, 0)

    def _make_layer(self, block, planes, blocks, stride=1):
        downsample = None
        if stride != 1 or self.inplanes != planes * block.expansion:
            downsample = nn.Sequential(
                nn.Conv2d(self.inplanes, planes * block.expansion, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(planes * block.expansion),
            )
        layers = []
        layers.append(block(self.inplanes, planes, stride, downsample))
        self.inplanes = planes * block.expansion
        for i in range(1, blocks):
            layers.append(block(self.inplanes, planes))
        return nn.Sequential(*layers)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        x = self.avgpool(x)
        x = x.view(x.size(0), -1)
        return self.fc(x)


class AverageMeter(object):
    """Computes and stores the average and current value"""

    def __init__(self):
        self.reset()

    def reset(self):
        self.val = self.avg = self.sum = self.count = 0

    def update(self, val, n=1):
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = self.sum / self.count


def accuracy(output, target, topk=(1,)):
    """Computes the accuracy over the k top predictions for the specified values of k"""
    with torch.no_grad():
        maxk = max(topk)
        batch_size = target.size(0)
        _, pred = output.topk(maxk, 1, True, True)
        pred = pred.t()
        correct = pred.eq(target.view(1, -1).expand_as(pred))
        res = []
        for k in topk:
            correct_k = correct[:k].reshape(-1).float().sum(0, keepdim=True)
            res.append(correct_k.mul_(100.0 / batch_size))
        return res


rng = np.random.RandomState(0)
prototypes = rng.randn(5, 3, 8, 8)
target = rng.randint(0, 5, 120)
images = torch.from_numpy(prototypes[target] + 1.5 * rng.randn(120, 3, 8, 8)).float()
dataset = torch.utils.data.TensorDataset(images, torch.from_numpy(target))
train_set, val_set = torch.utils.data.Subset(dataset, range(90)), torch.utils.data.Subset(dataset, range(90, 120))
train_loader = torch.utils.data.DataLoader(train_set, batch_size=30, shuffle=False, num_workers=0, pin_memory=False)
val_loader = torch.utils.data.DataLoader(val_set, batch_size=30)

model = ResNet(BasicBlock, [1, 2])
for name, p in model.named_parameters():
    if p.dim() == 4:
        p.data.copy_(torch.from_numpy(rng.randn(*p.shape) * (2.0 / (p.shape[0] * 9)) ** 0.5))
    elif name.startswith('fc'):
        p.data.copy_(torch.from_numpy(rng.uniform(-0.25, 0.25, p.shape)))
decay = [p for n, p in model.named_parameters() if p.ndim > 1]
no_decay = [p for n, p in model.named_parameters() if p.ndim <= 1]
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD([{'params': decay}, {'params': no_decay, 'weight_decay': 0}], 0.05, momentum=0.9,
                            weight_decay=1e-3, nesterov=True)
scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[1, 2], gamma=0.1)
for epoch in range(3):
    losses, top1, top3, end = AverageMeter(), AverageMeter(), AverageMeter(), time.time()
    model.train()
    for i, (input, target) in enumerate(train_loader):
        output = model(input)
        loss = criterion(output, target)
        prec1, prec3 = accuracy(output.data, target, topk=(1, 3))
        losses.update(loss.item(), input.size(0))
        top1.update(prec1[0].item(), input.size(0))
        top3.update(prec3[0].item(), input.size(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print('Epoch: [{0}]\tLoss {loss.val:.4f} ({loss.avg:.4f})\tPrec@1 {top1.avg:.3f}\tPrec@3 {top3.avg:.3f}'.format(
        epoch, loss=losses, top1=top1, top3=top3))
    model.eval()
    with torch.no_grad():
        for input, target in val_loader:
            output = model(input)
            print(' * loss {:.4f} Prec@1 {:.3f}'.format(criterion(output, target).item(),
                                                       accuracy(output, target)[0].item()))
    scheduler.step()
    assert time.time() >= end
print([round(group['lr'], 6) for group in optimizer.param_groups])
