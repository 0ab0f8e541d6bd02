"""Sentences of different lengths through a bidirectional LSTM: padding, packing, and a collate function."""
import numpy as np
import torch
import torch.nn as nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset

SEED = 1234
torch.manual_seed(SEED)
torch.backends.cudnn.deterministic = True
good, bad, vocab = range(2, 12), range(12, 22), 40


class Reviews(Dataset):
    def __init__(self, n, seed):
        rng = np.random.RandomState(seed)
        self.items = []
        for _ in range(n):
            label = rng.randint(2)
            words = rng.randint(22, vocab, rng.randint(3, 12))
            words[rng.rand(len(words)) < 0.4] = rng.choice(good if label else bad)
            self.items.append((torch.tensor(words, dtype=torch.long), float(label)))

    def __getitem__(self, i):
        return self.items[i]

    def __len__(self):
        return len(self.items)


def collate_batch(batch):
    batch.sort(key=lambda item: len(item[0]), reverse=True)
    texts, labels = zip(*batch)
    lengths = torch.LongTensor([len(t) for t in texts])
    return pad_sequence(texts, batch_first=True, padding_value=1), lengths, torch.FloatTensor(labels)


class RNN(nn.Module):
    def __init__(self, vocab_size, embedding_dim, hidden_dim, output_dim, n_layers, bidirectional, pad_idx):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx=pad_idx)
        self.rnn = nn.LSTM(embedding_dim, hidden_dim, num_layers=n_layers, bidirectional=bidirectional,
                           batch_first=True)
        self.fc = nn.Linear(hidden_dim * 2, output_dim)

    def forward(self, text, text_lengths):
        embedded = self.embedding(text)
        packed_embedded = pack_padded_sequence(embedded, text_lengths.to('cpu'), batch_first=True)
        packed_output, (hidden, cell) = self.rnn(packed_embedded)
        output, output_lengths = pad_packed_sequence(packed_output, batch_first=True)
        hidden = torch.cat((hidden[-2, :, :], hidden[-1, :, :]), dim=1)
        return self.fc(hidden + output.mean(dim=1))


def count_parameters(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def binary_accuracy(preds, y):
    rounded_preds = torch.round(torch.sigmoid(preds))
    correct = (rounded_preds == y).float()
    return correct.sum() / len(correct)


model = RNN(vocab, 10, 8, 1, 2, True, 1)
print(f'The model has {count_parameters(model):,} trainable parameters')
rng = np.random.RandomState(0)
for name, p in model.named_parameters():
    p.data.copy_(torch.from_numpy(rng.uniform(-0.35, 0.35, tuple(p.shape))))
model.embedding.weight.data[1] = torch.zeros(10)
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
criterion = nn.BCEWithLogitsLoss()
iterator = DataLoader(Reviews(96, 0), batch_size=16, shuffle=False, collate_fn=collate_batch)
for epoch in range(3):
    epoch_loss, epoch_acc = 0, 0
    model.train()
    for text, text_lengths, label in iterator:
        optimizer.zero_grad()
        predictions = model(text, text_lengths).squeeze(1)
        loss = criterion(predictions, label)
        loss.backward()
        optimizer.step()
        epoch_loss += loss.item()
        epoch_acc += binary_accuracy(predictions, label).item()
    print(f'Epoch: {epoch + 1:02} | Train Loss: {epoch_loss / len(iterator):.3f} | '
          f'Train Acc: {epoch_acc / len(iterator) * 100:.2f}%')
print('padding row moved:', model.embedding.weight[1].abs().sum().item())
