"""Characters of a text through a GRU: truncated backpropagation, gradient clipping, perplexity, greedy sampling."""
import numpy as np
import torch
import torch.nn as nn
from torch.nn.utils import clip_grad_norm_

text = 'the cat sat on the mat and the rat sat on the cat . ' * 12
chars = sorted(set(text))
word2idx = {c: i for i, c in enumerate(chars)}
embed_size, hidden_size, num_layers, num_epochs, batch_size, seq_length, learning_rate = 12, 24, 1, 4, 6, 10, 0.01

ids = torch.LongTensor([word2idx[c] for c in text])
num_batches = ids.size(0) // batch_size
ids = ids[:num_batches * batch_size].view(batch_size, -1)
vocab_size = len(chars)
num_batches = ids.size(1) // seq_length


class RNNLM(nn.Module):
    def __init__(self, vocab_size, embed_size, hidden_size, num_layers):
        super(RNNLM, self).__init__()
        self.embed = nn.Embedding(vocab_size, embed_size)
        self.gru = nn.GRU(embed_size, hidden_size, num_layers, batch_first=True)
        self.linear = nn.Linear(hidden_size, vocab_size)

    def forward(self, x, h):
        x = self.embed(x)
        out, h = self.gru(x, h)
        out = out.reshape(out.size(0) * out.size(1), out.size(2))
        return self.linear(out), h


model = RNNLM(vocab_size, embed_size, hidden_size, num_layers)
for i, p in enumerate(model.parameters()):
    values = np.cos(np.arange(p.numel()) * (0.7 + i)).reshape(p.size()) * 0.3
    p.data = torch.tensor(values, dtype=p.dtype)

criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)


def detach(states):
    return [state.detach() for state in states]


for epoch in range(num_epochs):
    states = torch.zeros(num_layers, batch_size, hidden_size)
    for i in range(0, ids.size(1) - seq_length, seq_length):
        inputs = ids[:, i:i + seq_length]
        targets = ids[:, (i + 1):(i + 1) + seq_length]
        states = states.detach()
        outputs, states = model(inputs, states)
        loss = criterion(outputs, targets.reshape(-1))
        model.zero_grad()
        loss.backward()
        norm = clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        step = (i + 1) // seq_length
        if step % 5 == 0:
            print('Epoch [{}/{}], Step[{}/{}], Loss: {:.4f}, Perplexity: {:5.2f}, Norm: {:.4f}'
                  .format(epoch + 1, num_epochs, step, num_batches, loss.item(), np.exp(loss.item()), norm.item()))

with torch.no_grad():
    state = torch.zeros(num_layers, 1, hidden_size)
    input = torch.tensor([[word2idx['t']]])
    out = 't'
    for i in range(20):
        output, state = model(input, state)
        prob = torch.softmax(output, dim=-1).squeeze()
        word_id = torch.argmax(prob).item()
        input.fill_(word_id)
        out += chars[word_id]
    print(out)
