"""A fully connected net on small pictures of digits: argparse, device, train and test functions, checkpoint."""
import argparse
import os
import tempfile

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Dataset


class Digits(Dataset):
    def __init__(self, train=True, transform=None):
        rng = np.random.RandomState(0)
        shapes = rng.rand(10, 8, 8)
        rng = np.random.RandomState(1 if train else 2)
        self.targets = rng.randint(0, 10, 512 if train else 128)
        self.data = (255 * np.clip(shapes[self.targets] + 0.3 * rng.randn(len(self.targets), 8, 8), 0, 1)).astype(np.uint8)
        self.transform = transform

    def __len__(self):
        return len(self.data)

    def __getitem__(self, idx):
        img, target = self.data[idx], int(self.targets[idx])
        if self.transform:
            img = self.transform(img)
        return img, target


def to_tensor(img):
    return (torch.from_numpy(img).float().div(255).unsqueeze(0) - 0.5) / 0.3


class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()
        self.fc1 = nn.Linear(64, 48)
        self.fc2 = nn.Linear(48, 10)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x):
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = self.dropout(x)
        x = self.fc2(x)
        return F.log_softmax(x, dim=1)


def init_weights(m):
    if isinstance(m, nn.Linear):
        rng = np.random.RandomState(m.in_features)
        m.weight.data = torch.from_numpy(rng.randn(*m.weight.shape).astype(np.float32)) / m.in_features ** 0.5
        m.bias.data.fill_(0.01)


def train(args, model, device, train_loader, optimizer, epoch):
    model.train()
    for batch_idx, (data, target) in enumerate(train_loader):
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        output = model(data)
        loss = F.nll_loss(output, target)
        loss.backward()
        optimizer.step()
        if batch_idx % args.log_interval == 0:
            print('Train Epoch: {} [{}/{} ({:.0f}%)]\tLoss: {:.6f}'.format(
                epoch, batch_idx * len(data), len(train_loader.dataset),
                100. * batch_idx / len(train_loader), loss.item()))


def test(model, device, test_loader):
    model.eval()
    test_loss = 0
    correct = 0
    with torch.no_grad():
        for data, target in test_loader:
            data, target = data.to(device), target.to(device)
            output = model(data)
            test_loss += F.nll_loss(output, target, reduction='sum').item()
            pred = output.argmax(dim=1, keepdim=True)
            correct += pred.eq(target.view_as(pred)).sum().item()
    test_loss /= len(test_loader.dataset)
    print('Test set: Average loss: {:.4f}, Accuracy: {}/{}'.format(test_loss, correct, len(test_loader.dataset)))


def main():
    parser = argparse.ArgumentParser(description='digits')
    parser.add_argument('--batch-size', type=int, default=64, metavar='N')
    parser.add_argument('--epochs', type=int, default=3, metavar='N')
    parser.add_argument('--lr', type=float, default=0.1, metavar='LR')
    parser.add_argument('--gamma', type=float, default=0.7, metavar='M')
    parser.add_argument('--no-cuda', action='store_true', default=False)
    parser.add_argument('--seed', type=int, default=1, metavar='S')
    parser.add_argument('--log-interval', type=int, default=4, metavar='N')
    args = parser.parse_args()
    use_cuda = not args.no_cuda and torch.cuda.is_available()
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if use_cuda else "cpu")
    kwargs = {'num_workers': 0, 'pin_memory': True} if use_cuda else {}
    train_loader = DataLoader(Digits(True, to_tensor), batch_size=args.batch_size, **kwargs)
    test_loader = DataLoader(Digits(False, to_tensor), batch_size=50, **kwargs)

    model = Net().to(device)
    model.apply(init_weights)
    optimizer = optim.Adadelta(model.parameters(), lr=args.lr * 10)
    scheduler = StepLR(optimizer, step_size=1, gamma=args.gamma)
    for epoch in range(1, args.epochs + 1):
        train(args, model, device, train_loader, optimizer, epoch)
        test(model, device, test_loader)
        scheduler.step()
    print('lr', scheduler.get_last_lr()[0])

    path = os.path.join(tempfile.mkdtemp(), 'digits.pt')
    torch.save({'epoch': args.epochs, 'state_dict': model.state_dict(), 'optimizer': optimizer.state_dict()}, path)
    checkpoint = torch.load(path, map_location=device)
    fresh = Net().to(device)
    fresh.load_state_dict(checkpoint['state_dict'])
    optimizer.load_state_dict(checkpoint['optimizer'])
    test(fresh, device, test_loader)


if __name__ == '__main__':
    main()
