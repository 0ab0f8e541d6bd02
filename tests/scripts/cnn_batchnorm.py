"""A convolutional net with batch norm on three classes of textures, with a DataLoader and its workers."""
import math

import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

# Device configuration
device = torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')

# Hyper-parameters
num_epochs = 2
num_classes = 3
batch_size = 24
learning_rate = 0.002

rng = np.random.RandomState(0)
labels = rng.randint(0, num_classes, 240)
u, v = np.meshgrid(np.arange(12), np.arange(12))
waves = np.stack([np.sin(u), np.sin(v), np.sin(u + v)])
images = waves[labels][:, None] + 0.8 * rng.randn(240, 1, 12, 12)

train_dataset = TensorDataset(torch.tensor(images[:192], dtype=torch.float), torch.tensor(labels[:192]).long())
test_dataset = TensorDataset(torch.tensor(images[192:], dtype=torch.float), torch.tensor(labels[192:]).long())
train_loader = DataLoader(dataset=train_dataset, batch_size=batch_size, shuffle=False, num_workers=2, drop_last=True)
test_loader = DataLoader(dataset=test_dataset, batch_size=batch_size, shuffle=False)


class ConvNet(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.layer1 = nn.Sequential(
            nn.Conv2d(1, 8, kernel_size=5, stride=1, padding=2),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=2, stride=2))
        self.layer2 = nn.Sequential(
            nn.Conv2d(8, 16, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.LeakyReLU(0.1, inplace=True),
            nn.AvgPool2d(2))
        self.fc = nn.Linear(3 * 3 * 16, num_classes)

    def forward(self, x):
        out = self.layer1(x)
        out = self.layer2(out)
        out = out.reshape(out.size(0), -1)
        return self.fc(out)


model = ConvNet(num_classes).to(device)
with torch.no_grad():
    for name, p in model.named_parameters():
        if p.dim() > 1:
            fan_in = p[0].numel()
            wave = torch.arange(p.numel(), dtype=torch.float32).mul(1.7).sin()
            p.copy_(wave.view_as(p) * math.sqrt(2.0 / fan_in))
        elif 'bias' in name:
            nn.init.zeros_(p)
print(model)
print('parameters:', sum(p.numel() for p in model.parameters() if p.requires_grad))

criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)

total_step = len(train_loader)
for epoch in range(num_epochs):
    for i, (images, labels) in enumerate(train_loader):
        images = images.to(device)
        labels = labels.to(device)
        outputs = model(images)
        loss = criterion(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (i + 1) % 4 == 0:
            print(f'Epoch [{epoch + 1}/{num_epochs}], Step [{i + 1}/{total_step}], Loss: {loss.item():.5f}')

model.eval()
with torch.no_grad():
    correct = 0
    total = 0
    for images, labels in test_loader:
        images, labels = images.to(device), labels.to(device)
        outputs = model(images)
        _, predicted = torch.max(outputs.data, 1)
        total += labels.size(0)
        correct += (predicted == labels).sum().item()
    print('Test Accuracy: {} %'.format(100 * correct / total))
print('running mean', model.layer1[1].running_mean.norm().item(), model.layer1[1].num_batches_tracked.item())
