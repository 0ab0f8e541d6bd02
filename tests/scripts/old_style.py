"""A script as they were written for PyTorch 0.3 and 0.4: Variable, typed tensors, size_average, F.sigmoid, xavier."""
from __future__ import division

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.autograd import Variable

use_gpu = torch.cuda.is_available()
FloatTensor = torch.cuda.FloatTensor if use_gpu else torch.FloatTensor
LongTensor = torch.cuda.LongTensor if use_gpu else torch.LongTensor
rng = np.random.RandomState(2)


class Net(nn.Module):
    def __init__(self, n_feature, n_hidden, n_output):
        super(Net, self).__init__()
        self.hidden = torch.nn.Linear(n_feature, n_hidden)
        self.predict = torch.nn.Linear(n_hidden, n_output)
        nn.init.xavier_uniform(self.hidden.weight)
        nn.init.normal(self.predict.weight, 0, 0.1)
        nn.init.constant(self.predict.bias, 0)
        for p in self.parameters():
            p.data.copy_(torch.from_numpy(rng.uniform(-0.5, 0.5, p.size())))

    def forward(self, x):
        x = F.tanh(self.hidden(x))
        return F.sigmoid(self.predict(x))


x = torch.unsqueeze(torch.linspace(-1, 1, 80), dim=1)
y = (x.pow(2) + 0.1 * torch.from_numpy(rng.rand(80, 1)).type(torch.FloatTensor) > 0.4).float()
x, y = Variable(x), Variable(y)
net = Net(n_feature=1, n_hidden=8, n_output=1)
print(net)
optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.8)
loss_func = torch.nn.MSELoss(size_average=False)
for t in range(12):
    prediction = net(x)
    loss = loss_func(prediction, y)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm(net.parameters(), 5.0)
    optimizer.step()
    if t % 4 == 3:
        pred_y = prediction.data.numpy().squeeze()
        target_y = y.data.numpy().squeeze()
        print('step', t, 'loss', loss.data.item(), 'accuracy', float((np.round(pred_y) == target_y).mean()))

scores = FloatTensor(3, 4).zero_()
scores.scatter_(1, LongTensor([[2], [0], [3]]), 1)
print(scores.cpu().numpy().tolist(), torch.is_tensor(scores))
logits = Variable(torch.from_numpy(rng.randn(5, 4)).float(), requires_grad=True)
target = Variable(LongTensor([0, 1, 2, 3, -100]))
loss = F.cross_entropy(logits, target, size_average=True, ignore_index=-100)
loss.backward()
print(loss.data.item(), logits.grad.data.abs().sum().item(), logits.grad.data[4].tolist())
h = Variable(torch.ones(2, 3).cuda() if use_gpu else torch.ones(2, 3))
print(torch.addmm(h, h, torch.eye(3)).data.tolist(), h.mean().data.numpy(), h.data.new(2).zero_().tolist())
