"""The steps of training.rs in PyTorch, on the CPU: same models, same optimiser, same batches.

Prints a line `measured NAME STEPS_PER_SECOND` for each model.
"""

import time

import torch
from torch import nn

ROWS, FEATURES, BATCH = 4096, 30, 32


def steps_per_second(model, rows, labels, epochs):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    loss = nn.BCEWithLogitsLoss()
    model.train()
    taken, start, first = 0, None, 0
    total = (len(rows) + BATCH - 1) // BATCH * epochs
    for _ in range(epochs):
        order = torch.randperm(len(rows))
        for at in range(0, len(rows), BATCH):
            batch = order[at : at + BATCH]
            optimizer.zero_grad()
            loss(model(rows[batch]), labels[batch]).backward()
            optimizer.step()
            taken += 1
            # As there: from the first hundredth on.
            if start is None and taken * 100 >= total:
                start, first = time.perf_counter(), taken
    return (taken - first) / (time.perf_counter() - start)


def main():
    torch.manual_seed(1)
    mlp = nn.Sequential(
        nn.Linear(FEATURES, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1)
    )
    x = torch.rand(ROWS, FEATURES) * 2 - 1
    y = (x[:, :1] + x[:, 1:2] * x[:, 2:3] > 0).float()
    print(f"measured train_mlp {steps_per_second(mlp, x, y, 20):.3f}")

    def block(before, width):
        return [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]

    cnn = nn.Sequential(
        *block(1, 16), *block(16, 32), nn.Flatten(), nn.Linear(32 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 1)
    )
    images = torch.rand(260, 1, 28, 28)
    labels = (torch.rand(260, 1) > 0.5).float()
    print(f"measured train_cnn {steps_per_second(cnn, images, labels, 10):.3f}")


main()
