#!/usr/bin/env python3
"""One training step after another in PyTorch eager, for bench/training.py to compare with.

    python torch_training.py --work gpt2 --dir DIR --prepare       writes DIR/weights.safetensors and DIR/batch.safetensors
    python torch_training.py --work gpt2 --dir DIR --threads 2     then obeys the lines on its input

The first line that it prints, {"ready": true, "parameters", "threads", "precision"}, says that the model is loaded. It
answers `step` with one training step and {"loss", "grad_norm", "seconds"}; at `quit`, or when its input ends, it prints
{"peak_rss_mib"} and ends.

The files hold parameters under the names and in the shapes that Hugging Face writes (torchvision for the convolutional
network), so that both sides of the comparison begin from the same. The models are written as a good user of PyTorch on a
processor would write them. What was tried, on two cores of an AMD EPYC with AVX2 that others used too, torch 2.15, a few
steps each, so differences of some percent are rough: the fused AdamW saves 0.35 s of 4 s for gpt2; query, key and value in
one product save 2 % for vit-tiny, and nothing that stands out for bert; the flash kernel of the attention beats the plain
one by 2 % to 9 %; Conv1D is as fast as Linear; channels_last makes no clear difference for cnn, so it is not used; keeping
memory, as bench/training.py makes the peer do, saves some 6 %. Under autocast a step of vit-tiny takes 20 times as long.
"""

import argparse
import contextlib
import json
import pathlib
import re
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

LEARNING_RATE, BETAS, EPS, WEIGHT_DECAY, CLIP_NORM = 1e-4, (0.9, 0.999), 1e-8, 0.01, 1.0

# Which parameters decay: those with two or more dimensions, unless a part of the name between dots is one of these.
NO_DECAY = {"cls_token", "position_embeddings", "wpe"}


def decays(name: str, parameter: torch.Tensor) -> bool:
    return parameter.ndim >= 2 and NO_DECAY.isdisjoint(name.split("."))


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[samples, tokens, width] to [samples, heads, tokens, width of a head]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).flatten(-2)


class SelfAttention(nn.Module):
    """As in ViT and BERT, with query, key and value as one product; they are apart in files."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x):
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        return join_heads(F.scaled_dot_product_attention(query, key, value))


class Dense(nn.Module):
    """A linear layer under the name that Hugging Face gives it."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)

    def forward(self, x):
        return self.dense(x)


class VitTiny(nn.Module):
    """ViT-Ti/16, as ViTForImageClassification: 224 x 224 x 3, 1000 classes, pre-norm, class token."""

    WIDTH, LAYERS, HEADS, MLP, PATCH, SIZE, CLASSES, SAMPLES = 192, 12, 3, 768, 16, 224, 1000, 8
    DATA = dict(inputs=[SAMPLES, 3, SIZE, SIZE], classes=CLASSES, labels=[SAMPLES])

    class Embeddings(nn.Module):
        def __init__(self):
            super().__init__()
            width, patch = VitTiny.WIDTH, VitTiny.PATCH
            tokens = (VitTiny.SIZE // patch) ** 2 + 1
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
            self.position_embeddings = nn.Parameter(torch.zeros(1, tokens, width))
            self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(3, width, patch, stride=patch)})

        def forward(self, images):
            patches = self.patch_embeddings["projection"](images).flatten(2).transpose(1, 2)
            return torch.cat([self.cls_token.expand(len(images), -1, -1), patches], 1) + self.position_embeddings

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            width = VitTiny.WIDTH
            self.layernorm_before, self.layernorm_after = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
            self.attention = nn.ModuleDict({"attention": SelfAttention(width, VitTiny.HEADS), "output": Dense(width, width)})
            self.intermediate, self.output = Dense(width, VitTiny.MLP), Dense(VitTiny.MLP, width)

        def forward(self, x):
            x = x + self.attention["output"](self.attention["attention"](self.layernorm_before(x)))
            return x + self.output(F.gelu(self.intermediate(self.layernorm_after(x))))

    def __init__(self):
        super().__init__()
        layers = nn.ModuleList(VitTiny.Layer() for _ in range(self.LAYERS))
        self.vit = nn.ModuleDict({
            "embeddings": VitTiny.Embeddings(),
            "encoder": nn.ModuleDict({"layer": layers}),
            "layernorm": nn.LayerNorm(self.WIDTH, eps=1e-6),
        })
        self.classifier = nn.Linear(self.WIDTH, self.CLASSES)

    def forward(self, images, labels):
        x = self.vit["embeddings"](images)
        for layer in self.vit["encoder"]["layer"]:
            x = layer(x)
        # The norm is one of each token, so the others need none.
        return F.cross_entropy(self.classifier(self.vit["layernorm"](x[:, 0])), labels)


class Gpt2(nn.Module):
    """GPT-2 of 124 million parameters, as GPT2LMHeadModel; the head is the word embedding."""

    WIDTH, LAYERS, HEADS, WORDS, POSITIONS, TOKENS = 768, 12, 12, 50257, 1024, 512
    DATA = dict(inputs=[1, TOKENS], words=WORDS, classes=WORDS, labels=[1, TOKENS])

    class Conv1d(nn.Module):
        """A linear layer whose weight is [in, out]."""

        def __init__(self, inputs: int, outputs: int):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(inputs, outputs))
            self.bias = nn.Parameter(torch.zeros(outputs))

        def forward(self, x):
            return torch.addmm(self.bias, x.flatten(0, 1), self.weight).view(*x.shape[:-1], -1)

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            width, linear = Gpt2.WIDTH, Gpt2.Conv1d
            self.ln_1, self.ln_2 = (nn.LayerNorm(width, eps=1e-5) for _ in range(2))
            self.attn = nn.ModuleDict({"c_attn": linear(width, 3 * width), "c_proj": linear(width, width)})
            self.mlp = nn.ModuleDict({"c_fc": linear(width, 4 * width), "c_proj": linear(4 * width, width)})

        def forward(self, x):
            query, key, value = (split_heads(part, Gpt2.HEADS) for part in self.attn["c_attn"](self.ln_1(x)).chunk(3, -1))
            seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self.attn["c_proj"](join_heads(seen))
            return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh"))

    def __init__(self):
        super().__init__()
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(self.WORDS, self.WIDTH),
            "wpe": nn.Embedding(self.POSITIONS, self.WIDTH),
            "h": nn.ModuleList(Gpt2.Layer() for _ in range(self.LAYERS)),
            "ln_f": nn.LayerNorm(self.WIDTH, eps=1e-5),
        })

    def forward(self, ids, labels):
        x = self.transformer["wte"](ids) + self.transformer["wpe"](torch.arange(ids.shape[1]))
        for layer in self.transformer["h"]:
            x = layer(x)
        logits = F.linear(self.transformer["ln_f"](x), self.transformer["wte"].weight)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


class Bert(nn.Module):
    """BERT-base as BertForSequenceClassification: post-norm, pooler, two classes; no token is padding."""

    WIDTH, LAYERS, HEADS, MLP, WORDS, POSITIONS, TYPES, CLASSES = 768, 12, 12, 3072, 30522, 512, 2, 2
    SAMPLES, TOKENS = 8, 128
    DATA = dict(inputs=[SAMPLES, TOKENS], words=WORDS, classes=CLASSES, labels=[SAMPLES])

    class Embeddings(nn.Module):
        def __init__(self):
            super().__init__()
            self.word_embeddings = nn.Embedding(Bert.WORDS, Bert.WIDTH)
            self.position_embeddings = nn.Embedding(Bert.POSITIONS, Bert.WIDTH)
            self.token_type_embeddings = nn.Embedding(Bert.TYPES, Bert.WIDTH)
            self.LayerNorm = nn.LayerNorm(Bert.WIDTH, eps=1e-12)

        def forward(self, ids):
            # All tokens are of type 0.
            places = self.position_embeddings(torch.arange(ids.shape[1])) + self.token_type_embeddings.weight[0]
            return self.LayerNorm(self.word_embeddings(ids) + places)

    class Output(Dense):
        """Closes a residual branch, and has the norm after it."""

        def __init__(self, inputs: int):
            super().__init__(inputs, Bert.WIDTH)
            self.LayerNorm = nn.LayerNorm(Bert.WIDTH, eps=1e-12)

        def forward(self, x, residual):
            return self.LayerNorm(self.dense(x) + residual)

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.ModuleDict({"self": SelfAttention(Bert.WIDTH, Bert.HEADS), "output": Bert.Output(Bert.WIDTH)})
            self.intermediate, self.output = Dense(Bert.WIDTH, Bert.MLP), Bert.Output(Bert.MLP)

        def forward(self, x):
            x = self.attention["output"](self.attention["self"](x), x)
            return self.output(F.gelu(self.intermediate(x)), x)

    def __init__(self):
        super().__init__()
        layers = nn.ModuleList(Bert.Layer() for _ in range(self.LAYERS))
        self.bert = nn.ModuleDict({
            "embeddings": Bert.Embeddings(),
            "encoder": nn.ModuleDict({"layer": layers}),
            "pooler": Dense(self.WIDTH, self.WIDTH),
        })
        self.classifier = nn.Linear(self.WIDTH, self.CLASSES)

    def forward(self, ids, labels):
        x = self.bert["embeddings"](ids)
        for layer in self.bert["encoder"]["layer"]:
            x = layer(x)
        return F.cross_entropy(self.classifier(torch.tanh(self.bert["pooler"](x[:, 0]))), labels)


class Cnn(nn.Module):
    """The first two stages of ResNet-18 on 64 x 64 images, without its stem."""

    CLASSES, SAMPLES, SIZE = 10, 16, 64
    DATA = dict(inputs=[SAMPLES, 3, SIZE, SIZE], classes=CLASSES, labels=[SAMPLES])

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
            self.downsample = None
            if stride > 1:
                self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

        def forward(self, x):
            residual = x if self.downsample is None else self.downsample(x)
            x = F.relu(self.bn1(self.conv1(x)), inplace=True)
            return F.relu(self.bn2(self.conv2(x)) + residual, inplace=True)

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(Cnn.Block(64, 64, 1), Cnn.Block(64, 64, 1))
        self.layer2 = nn.Sequential(Cnn.Block(64, 128, 2), Cnn.Block(128, 128, 1))
        self.fc = nn.Linear(128, self.CLASSES)

    def forward(self, images, labels):
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        return F.cross_entropy(self.fc(self.layer2(self.layer1(x)).mean((2, 3))), labels)


MODELS = {"vit-tiny": VitTiny, "gpt2": Gpt2, "bert": Bert, "cnn": Cnn}


def as_in_files(state: dict) -> dict:
    """Query, key and value apart; without the counters of the batch norms, which have no effect."""
    out = {}
    for name, tensor in state.items():
        if ".qkv." in name:
            for part, piece in zip(["query", "key", "value"], tensor.chunk(3)):
                out[name.replace(".qkv.", f".{part}.")] = piece.clone()
        elif not name.endswith("num_batches_tracked"):
            out[name] = tensor
    return out


def as_in_model(tensors: dict) -> dict:
    """The inverse."""
    out = dict(tensors)
    for name in tensors:
        if ".query." in name:
            parts = [out.pop(name.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
            out[name.replace(".query.", ".qkv.")] = torch.cat(parts)
    return out


def prepare(model: str, folder: pathlib.Path) -> None:
    """Random weights and one random batch. No parameter begins as zeros or ones, so that each one shows in the loss."""
    torch.manual_seed(7)
    network = MODELS[model]()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            is_gain = name.endswith("weight") and parameter.ndim == 1
            spread = (2 / parameter[0].numel()) ** 0.5 if model == "cnn" and parameter.ndim == 4 else 0.02
            parameter.normal_(1.0 if is_gain else 0.0, spread)
    data = network.DATA
    if "words" in data:
        inputs = torch.randint(data["words"], data["inputs"], dtype=torch.int32)
    else:
        inputs = torch.randn(data["inputs"])
    labels = torch.randint(data["classes"], data["labels"], dtype=torch.int32)
    if model == "gpt2":
        # The label of a token is the token after it; the last one has a random label.
        labels[:, :-1] = inputs[:, 1:]
    folder.mkdir(parents=True, exist_ok=True)
    save_file(as_in_files(network.state_dict()), folder / "weights.safetensors")
    save_file({"inputs": inputs, "labels": labels}, folder / "batch.safetensors")


def load(model: str, folder: pathlib.Path) -> nn.Module:
    network = MODELS[model]()
    missing, unexpected = network.load_state_dict(as_in_model(load_file(folder / "weights.safetensors")), strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), (missing, unexpected)
    return network.train()


def load_batch(folder: pathlib.Path) -> tuple[torch.Tensor, torch.Tensor]:
    batch = load_file(folder / "batch.safetensors")
    inputs = batch["inputs"]
    return inputs if inputs.is_floating_point() else inputs.long(), batch["labels"].long()


class Training:
    """What a step needs. `network` may be wrapped (compiled, or parallel): it gives the loss of inputs and labels."""

    def __init__(self, network: nn.Module, plain: nn.Module, batch: tuple, precision: str):
        self.network, self.batch = network, batch
        self.parameters = list(plain.parameters())
        groups = {True: [], False: []}
        for name, parameter in plain.named_parameters():
            groups[decays(name, parameter)].append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": groups[True]}, {"params": groups[False], "weight_decay": 0.0}],
            lr=LEARNING_RATE, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY, fused=True,
        )
        self.precision = {
            "f32": contextlib.nullcontext,
            "bf16": lambda: torch.autocast("cpu", torch.bfloat16),
        }[precision]

    def step(self) -> dict:
        start = time.perf_counter()
        self.optimizer.zero_grad()
        with self.precision():
            loss = self.network(*self.batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        self.optimizer.step()
        loss, norm = loss.item(), norm.item()
        return {"loss": loss, "grad_norm": norm, "seconds": time.perf_counter() - start}

    def ready(self, precision: str) -> dict:
        count = sum(parameter.numel() for parameter in self.parameters)
        return {"ready": True, "parameters": count, "threads": torch.get_num_threads(), "precision": precision}


def peak_rss_mib() -> float:
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def say(**fields) -> None:
    print(json.dumps(fields), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", choices=MODELS, required=True)
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    parser.add_argument("--prepare", action="store_true", help="write the weights and the batch, and end")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--compile", action="store_true", help="with torch.compile; no longer eager")
    arguments = parser.parse_args()
    if arguments.prepare:
        return prepare(arguments.work, arguments.dir)
    torch.set_num_threads(arguments.threads)
    network = load(arguments.work, arguments.dir)
    wrapped = torch.compile(network) if arguments.compile else network
    training = Training(wrapped, network, load_batch(arguments.dir), arguments.precision)
    say(**training.ready(arguments.precision))
    for line in sys.stdin:
        if line.strip() == "quit":
            break
        assert line.strip() == "step", line
        say(**training.step())
    say(peak_rss_mib=peak_rss_mib())


if __name__ == "__main__":
    main()
