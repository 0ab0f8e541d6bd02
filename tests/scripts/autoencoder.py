"""An autoencoder in the style of older tutorials: Variable, view, loss.data."""
import numpy as np
import torch
from torch import nn
from torch.autograd import Variable
from torch.utils.data import DataLoader

num_epochs = 4
batch_size = 32
learning_rate = 1e-2


def to_img(x):
    x = 0.5 * (x + 1)
    x = x.clamp(0, 1)
    x = x.view(x.size(0), 1, 8, 8)
    return x


rng = np.random.RandomState(3)
basis = rng.randn(4, 64)
dataset = [(np.tanh(rng.randn(4).dot(basis)).astype('float32').reshape(1, 8, 8), 0) for _ in range(128)]
dataloader = DataLoader(dataset, batch_size=batch_size, shuffle=False)


class autoencoder(nn.Module):
    def __init__(self):
        super(autoencoder, self).__init__()
        self.encoder = nn.Sequential(
            nn.Linear(8 * 8, 32),
            nn.ReLU(True),
            nn.Linear(32, 12),
            nn.ReLU(True), nn.Linear(12, 4))
        self.decoder = nn.Sequential(
            nn.Linear(4, 12),
            nn.ReLU(True),
            nn.Linear(12, 32),
            nn.ReLU(True), nn.Linear(32, 8 * 8), nn.Tanh())

    def forward(self, x):
        x = self.encoder(x)
        x = self.decoder(x)
        return x


model = autoencoder()
if torch.cuda.is_available():
    model = model.cuda()
for m in model.modules():
    if isinstance(m, nn.Linear):
        m.weight.data.copy_(torch.from_numpy(rng.uniform(-1, 1, m.weight.size()) * (3.0 / m.weight.size(1)) ** 0.5))
        m.bias.data.zero_()
criterion = nn.MSELoss()
optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=1e-5)

for epoch in range(num_epochs):
    for data in dataloader:
        img, _ = data
        img = img.view(img.size(0), -1)
        img = Variable(img)
        # ===================forward=====================
        output = model(img)
        loss = criterion(output, img)
        # ===================backward====================
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # ===================log========================
    print('epoch [{}/{}], loss:{:.4f}'.format(epoch + 1, num_epochs, loss.data))
    if epoch % 2 == 1:
        pic = to_img(output.cpu().data)
        print(pic.size(), pic.mean().item())
