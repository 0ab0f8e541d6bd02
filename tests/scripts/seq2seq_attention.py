"""Reversing sequences: GRU encoder, attention decoder, teacher forcing, masked loss, ReduceLROnPlateau, mixed code."""
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

SOS, EOS, PAD = 0, 1, 2
rng = np.random.default_rng(0)


class EncoderRNN(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.embedding = nn.Embedding(input_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size, batch_first=True)

    def forward(self, input):
        return self.gru(self.embedding(input))


class BahdanauAttention(nn.Module):
    def __init__(self, hidden_size):
        super().__init__()
        self.Wa = nn.Linear(hidden_size, hidden_size)
        self.Ua = nn.Linear(hidden_size, hidden_size)
        self.Va = nn.Linear(hidden_size, 1)

    def forward(self, query, keys, mask):
        scores = self.Va(torch.tanh(self.Wa(query) + self.Ua(keys)))
        scores = scores.squeeze(2).unsqueeze(1).masked_fill(mask.unsqueeze(1), float('-inf'))
        weights = F.softmax(scores, dim=-1)
        return torch.bmm(weights, keys), weights


class AttnDecoderRNN(nn.Module):
    def __init__(self, hidden_size, output_size):
        super().__init__()
        self.embedding = nn.Embedding(output_size, hidden_size)
        self.attention = BahdanauAttention(hidden_size)
        self.gru = nn.GRUCell(2 * hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, output_size)

    def forward(self, encoder_outputs, hidden, mask, target_tensor=None, max_length=6):
        batch_size = encoder_outputs.size(0)
        decoder_input = torch.empty(batch_size, dtype=torch.long).fill_(SOS)
        decoder_outputs, attentions = [], []
        for i in range(max_length):
            embedded = self.embedding(decoder_input)
            context, weights = self.attention(hidden.unsqueeze(1), encoder_outputs, mask)
            hidden = self.gru(torch.cat((embedded, context.squeeze(1)), dim=-1), hidden)
            output = self.out(hidden)
            decoder_outputs.append(output)
            attentions.append(weights)
            if target_tensor is not None:
                decoder_input = target_tensor[:, i]
            else:
                _, topi = output.topk(1)
                decoder_input = topi.squeeze(-1).detach()
        return F.log_softmax(torch.stack(decoder_outputs, dim=1), dim=-1), torch.cat(attentions, dim=1)


def make(n):
    source, target = np.full((n, 6), PAD), np.full((n, 6), PAD)
    for i in range(n):
        word = rng.integers(3, 9, rng.integers(2, 6))
        source[i, :len(word) + 1] = [*word, EOS]
        target[i, :len(word) + 1] = [*word[::-1], EOS]
    return torch.tensor(source), torch.tensor(target)


encoder, decoder = EncoderRNN(9, 16), AttnDecoderRNN(16, 9)
for module in (encoder, decoder):
    for p in module.parameters():
        p.data.copy_(torch.as_tensor(rng.uniform(-0.3, 0.3, p.shape)))
parameters = list(encoder.parameters()) + list(decoder.parameters())
optimizer = torch.optim.NAdam(parameters, lr=1e-2)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, 'min', factor=0.5, patience=0, threshold=0.5)
criterion = nn.NLLLoss(ignore_index=PAD, reduction='none')
accumulation = 2
for epoch in range(4):
    epoch_loss = 0.0
    optimizer.zero_grad()
    for step in range(6):
        source, target = make(20)
        outputs, hidden = encoder(source)
        logprobs, attention = decoder(outputs, hidden[0], source == PAD, target)
        losses = criterion(logprobs.view(-1, 9), target.view(-1)).view_as(target)
        mask = target.ne(PAD)
        loss = losses.masked_select(mask).mean()
        (loss / accumulation).backward()
        if (step + 1) % accumulation == 0:
            optimizer.step()
            optimizer.zero_grad()
        epoch_loss += loss.item()
    scheduler.step(epoch_loss)
    print(f'{epoch} {epoch_loss / 6:.5f} {optimizer.param_groups[0]["lr"]:.4f}')
source, target = make(30)
with torch.no_grad():
    outputs, hidden = encoder(source)
    logprobs, attention = decoder(outputs, hidden[0], source.eq(PAD))
guess = logprobs.argmax(-1)
print('tokens right', ((guess == target) & (target != PAD)).sum().item(), 'attention', attention.sum().item())
