"""Transfer learning: a saved net, a new head, frozen features, then rates by group; the best weights are kept."""
import copy
import os
import tempfile
from collections import OrderedDict

import numpy as np
import torch
import torch.nn as nn
import torch.optim as optim
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

rng = np.random.RandomState(0)
x = rng.randn(200, 10).astype(np.float32)
hidden = np.tanh(x @ rng.randn(10, 6)).astype(np.float32)
old_y, new_y = hidden.argmax(1) % 4, (hidden.sum(1) > 0).astype(int)
dataloaders = {'train': DataLoader(TensorDataset(torch.from_numpy(x[:150]), torch.from_numpy(new_y[:150])), 25),
               'val': DataLoader(TensorDataset(torch.from_numpy(x[150:]), torch.from_numpy(new_y[150:])), 25)}
dataset_sizes = {phase: len(loader.dataset) for phase, loader in dataloaders.items()}


def build(classes):
    model = nn.Sequential(OrderedDict([
        ('features', nn.Sequential(nn.Linear(10, 16, bias=False), nn.BatchNorm1d(16), nn.ELU(), nn.Linear(16, 12), nn.Tanh())),
        ('classifier', nn.Linear(12, classes))]))
    for name, value in model.state_dict().items():
        if name.endswith('weight') and value.dim() == 2:
            value.copy_(torch.from_numpy(rng.randn(*value.shape) / value.shape[1] ** 0.5))
        elif name.endswith('bias'):
            value.zero_()
    return model


def train_model(model, criterion, optimizer, scheduler, num_epochs):
    best_model_wts = copy.deepcopy(model.state_dict())
    best_acc = 0.0
    for epoch in range(num_epochs):
        for phase in ['train', 'val']:
            if phase == 'train':
                model.train()
            else:
                model.eval()
            running_loss = 0.0
            running_corrects = 0
            for inputs, labels in dataloaders[phase]:
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == 'train'):
                    outputs = model(inputs)
                    _, preds = torch.max(outputs, 1)
                    loss = criterion(outputs, labels)
                    if phase == 'train':
                        loss.backward()
                        optimizer.step()
                running_loss += loss.item() * inputs.size(0)
                running_corrects += torch.sum(preds == labels.data)
            if phase == 'train':
                scheduler.step()
            epoch_loss = running_loss / dataset_sizes[phase]
            epoch_acc = running_corrects.double() / dataset_sizes[phase]
            print('Epoch {} {} Loss: {:.4f} Acc: {:.4f}'.format(epoch, phase, epoch_loss, epoch_acc))
            if phase == 'val' and epoch_acc > best_acc:
                best_acc = epoch_acc
                best_model_wts = copy.deepcopy(model.state_dict())
    print('Best val Acc: {:4f}'.format(best_acc))
    model.load_state_dict(best_model_wts)
    return model


base = build(4)
optimizer = optim.Adam(base.parameters(), lr=0.01)
for step in range(20):
    loss = nn.functional.cross_entropy(base(torch.from_numpy(x)), torch.from_numpy(old_y))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print('pretrained %.5f' % loss.item())
path = os.path.join(tempfile.mkdtemp(), 'base.pth')
torch.save(base.state_dict(), path)

model = build(2)
pretrained_dict = torch.load(path, weights_only=True)
model_dict = model.state_dict()
pretrained_dict = {k: v for k, v in pretrained_dict.items() if k in model_dict and v.shape == model_dict[k].shape}
model_dict.update(pretrained_dict)
model.load_state_dict(model_dict)
missing = model.load_state_dict(torch.load(path) if False else pretrained_dict, strict=False)
print(sorted(missing.missing_keys), missing.unexpected_keys)

for param in model.features.parameters():
    param.requires_grad = False
print([n for n, p in model.named_parameters() if p.requires_grad])
optimizer_conv = optim.SGD(filter(lambda p: p.requires_grad, model.parameters()), lr=0.05, momentum=0.9)
model = train_model(model, nn.CrossEntropyLoss(), optimizer_conv, lr_scheduler.StepLR(optimizer_conv, 2, gamma=0.1), 3)
for param in model.features.parameters():
    param.requires_grad = True
optimizer_ft = optim.Adam([{'params': model.features.parameters(), 'lr': 1e-4},
                           {'params': model.classifier.parameters()}], lr=1e-2)
model = train_model(model, nn.CrossEntropyLoss(), optimizer_ft, lr_scheduler.ExponentialLR(optimizer_ft, 0.9), 2)
