"""Sequences through nn.TransformerEncoder, with positions, a padding mask and a warm-up schedule."""
import math

import numpy as np
import torch
from torch import nn, Tensor
from torch.optim.lr_scheduler import LambdaLR


class PositionalEncoding(nn.Module):
    def __init__(self, d_model: int, dropout: float = 0.0, max_len: int = 50):
        super().__init__()
        self.dropout = nn.Dropout(p=dropout)
        position = torch.arange(max_len).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
        pe = torch.zeros(max_len, 1, d_model)
        pe[:, 0, 0::2] = torch.sin(position * div_term)
        pe[:, 0, 1::2] = torch.cos(position * div_term)
        self.register_buffer('pe', pe)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pe[:x.size(0)]
        return self.dropout(x)


class TransformerModel(nn.Module):
    def __init__(self, ntoken: int, d_model: int, nhead: int, d_hid: int, nlayers: int, nclass: int):
        super().__init__()
        self.pos_encoder = PositionalEncoding(d_model)
        encoder_layers = nn.TransformerEncoderLayer(d_model, nhead, d_hid, dropout=0.0, activation='gelu')
        self.transformer_encoder = nn.TransformerEncoder(encoder_layers, nlayers, enable_nested_tensor=False)
        self.embedding = nn.Embedding(ntoken, d_model)
        self.d_model = d_model
        self.linear = nn.Linear(d_model, nclass)

    def forward(self, src: Tensor, pad: Tensor) -> Tensor:
        src = self.embedding(src) * math.sqrt(self.d_model)
        src = self.pos_encoder(src)
        output = self.transformer_encoder(src, src_key_padding_mask=pad)
        keep = (~pad).t().unsqueeze(-1).float()
        return self.linear((output * keep).sum(0) / keep.sum(0))


rng = np.random.RandomState(0)
tokens = rng.randint(1, 20, (12, 96))
lengths = rng.randint(4, 13, 96)
tokens[np.arange(12)[:, None] >= lengths] = 0
targets = (tokens == 7).any(0).astype(np.int64)
model = TransformerModel(20, 16, 4, 32, 2, 2)
for name, p in model.named_parameters():
    if name.endswith('bias'):
        nn.init.zeros_(p)
    if p.dim() > 1:
        p.data = torch.from_numpy(rng.uniform(-1, 1, p.shape).astype(np.float32)) * math.sqrt(6 / sum(p.shape))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.98), eps=1e-9)
scheduler = LambdaLR(optimizer, lr_lambda=lambda step: min(1.0, (step + 1) / 5))
criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
x, y = torch.from_numpy(tokens), torch.from_numpy(targets)
for epoch in range(3):
    model.train()
    total_loss = 0.
    for start in range(0, 96, 24):
        data, labels = x[:, start:start + 24], y[start:start + 24]
        pad = (data == 0).transpose(0, 1)
        loss = criterion(model(data, pad), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        scheduler.step()
        total_loss += loss.item()
    print(f'| epoch {epoch:3d} | lr {scheduler.get_last_lr()[0]:.5f} | loss {total_loss / 4:7.4f}')
model.eval()
with torch.no_grad():
    print('accuracy', (model(x, (x == 0).t()).argmax(-1) == y).float().mean().item())
