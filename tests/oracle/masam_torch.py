#!/usr/bin/env python3
"""MA-SAM in PyTorch, for comparison on the same machine: the model of src/model without prompts, weights by the formula
of src/model/weights.rs, so that both sides compute the same thing without a weight file.

    masam_torch.py check DIR [--device cuda] [--dtype bf16]       reference tensors, measured as `masam selftest` does
    masam_torch.py bench --config vit_h [--device cuda] [--dtype bf16] [--sdpa] [--compile] [--step]

`bench` prints one line of JSON. Tensors are channels last, [images, rows, columns, channels], as on the other side.
Needs PyTorch alone.
"""

import argparse
import json
import math
import struct
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    sys.exit(f"{sys.executable} lacks PyTorch: {error}. Install it with: {sys.executable} -m pip install torch numpy")

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


@dataclass(frozen=True)
class Config:
    """As `ModelConfig`, lengths in tokens or channels unless the name says pixels."""

    image_px: int = 512
    patch_px: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    global_blocks: tuple = (2, 5, 8, 11)
    partition: int = 14
    mlp_ratio: int = 4
    adapter: int = 384
    adapters: str = "both"
    temporal: str = "centered"
    rank: int = 32
    fact_scale: float = 1.0
    prompt_width: int = 256
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_mlp: int = 2048
    decoder: str = "progressive"
    classes: int = 12

    @property
    def grid(self):
        return self.image_px // self.patch_px

    def span(self, block):
        return self.grid if block in self.global_blocks else self.partition

    @property
    def widths(self):
        steps = 2 if self.decoder == "sam" else 4
        return [self.prompt_width] + [self.prompt_width >> n for n in range(2, 2 + steps)]


PRESETS = {
    "vit_b": Config(),
    "vit_l": Config(width=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23)),
    "vit_h": Config(width=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31)),
    "demo": Config(
        image_px=256, width=192, depth=6, heads=3, global_blocks=(2, 5), partition=8, adapter=64, temporal="causal",
        rank=8, prompt_width=192, decoder_heads=4, decoder_mlp=512,
    ),
}


def uniform(name, count):
    """`count` float64 values in [-1, 1): the top 24 bits of splitmix64 over the FNV-1a hash of `name`."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64

    def signed(value):  # int64 multiplies and adds as uint64 does
        return value - 2**64 if value >= 2**63 else value

    def mixed(z, bits):  # z ^ (z >> bits), zeros from the left
        return z ^ (z >> bits & (1 << (64 - bits)) - 1)

    z = torch.arange(1, count + 1, dtype=torch.int64) * signed(0x9E3779B97F4A7C15) + signed(seed)
    z = mixed(z, 30) * signed(0xBF58476D1CE4E5B9)
    z = mixed(z, 27) * signed(0x94D049BB133111EB)
    return (mixed(z, 31) >> 40 & (1 << 24) - 1).double() / 2**23 - 1


TABLES = ("pos_embed", "rel_pos_h", "rel_pos_w", "no_mask_embed.weight", "iou_token.weight", "mask_tokens.weight")


def by_formula(name, shape):
    """The weight of that name and shape, float32."""
    factor, offset = 0.0, 0.0
    if name.endswith(TABLES):
        factor = 0.2
    elif name.endswith("positional_encoding_gaussian_matrix"):
        factor = 1.0
    elif len(shape) == 1:
        factor, offset = (0.1, 1.0) if name.endswith(".weight") else (0.05, 0.0)
    else:
        factor = math.sqrt(3 / (shape[0] if "output_upscaling" in name else math.prod(shape[1:])))
    return (offset + factor * uniform(name, math.prod(shape))).reshape(shape).float()


class MaSam(torch.nn.Module):
    """Clips `[batch, frames, 3, image_px, image_px]` in [0, 1] to logits `[batch * frames, classes, px, px]`."""

    def __init__(self, config, dtype, device, sdpa=False):
        super().__init__()
        self.config, self.dtype, self.device, self.sdpa = config, dtype, device, sdpa
        self._encoder()
        self._decoder()

    def _keep(self, name, tensor):
        self.register_buffer(name.replace(".", "__"), tensor.to(self.device, self.dtype).contiguous())

    def _weight(self, name, *shape):
        self._keep(name, by_formula(name, shape))

    def _linear(self, name, inputs, outputs):
        self._weight(f"{name}.weight", outputs, inputs)
        self._weight(f"{name}.bias", outputs)

    def _norm(self, name, width):
        self._weight(f"{name}.weight", width)
        self._weight(f"{name}.bias", width)

    def w(self, name):
        return getattr(self, name.replace(".", "__"))

    def linear(self, name, x):
        return F.linear(x, self.w(f"{name}.weight"), self.w(f"{name}.bias"))

    def norm(self, name, x, eps=1e-6):
        return F.layer_norm(x, x.shape[-1:], self.w(f"{name}.weight"), self.w(f"{name}.bias"), eps)

    # The image encoder.

    def suffixes(self):
        return {"both": ("", "_2"), "before": ("",), "after": ("_2",), "none": ()}[self.config.adapters]

    def _encoder(self):
        c, e = self.config, "image_encoder"
        self._weight(f"{e}.pos_embed", 1, c.grid, c.grid, c.width)
        self._weight(f"{e}.patch_embed.proj.weight", c.width, 3, c.patch_px, c.patch_px)
        self._weight(f"{e}.patch_embed.proj.bias", c.width)
        u = by_formula(f"{e}.fact_u.weight", (c.rank, c.width))
        v = by_formula(f"{e}.fact_v.weight", (c.width, c.rank))
        for i in range(c.depth):
            b = f"{e}.blocks.{i}"
            for s in self.suffixes():
                self._norm(f"{b}.adapter_norm{s}", c.width)
                self._weight(f"{b}.adapter_linear_down{s}.weight", c.adapter, c.width)
                taps = by_formula(f"{b}.adapter_conv{s}.weight", (c.adapter, c.adapter, 3, 1, 1))
                self._keep(f"{b}.adapter_conv{s}.weight", taps.flatten(2).transpose(1, 2).flatten(1))
                self._weight(f"{b}.adapter_conv{s}.bias", c.adapter)
                self._weight(f"{b}.adapter_linear_up{s}.weight", c.width, c.adapter)
            self._norm(f"{b}.norm1", c.width)
            self._norm(f"{b}.norm2", c.width)
            for table in ("rel_pos_h", "rel_pos_w"):
                self._weight(f"{b}.attn.{table}", 2 * c.span(i) - 1, c.width // c.heads)
            qkv = by_formula(f"{b}.attn.qkv.weight", (3 * c.width, c.width))
            for first, fact in ((0, "q_fact"), (2 * c.width, "v_fact")):
                core = by_formula(f"{b}.attn.{fact}.weight", (c.rank, c.rank))
                qkv[first : first + c.width] += c.fact_scale * (v @ core @ u)
            self._keep(f"{b}.attn.qkv.weight", qkv)
            self._weight(f"{b}.attn.qkv.bias", 3 * c.width)
            self._linear(f"{b}.attn.proj", c.width, c.width)
            self._linear(f"{b}.mlp.lin1", c.width, c.mlp_ratio * c.width)
            self._linear(f"{b}.mlp.lin2", c.mlp_ratio * c.width, c.width)
        self._weight(f"{e}.neck.0.weight", c.prompt_width, c.width, 1, 1)
        self._norm(f"{e}.neck.1", c.prompt_width)
        self._weight(f"{e}.neck.2.weight", c.prompt_width, c.prompt_width, 3, 3)
        self._norm(f"{e}.neck.3", c.prompt_width)

    def adapt(self, b, s, x, frames, state):
        """`state` is a dictionary of the last two inputs of each convolution, or None for whole clips."""
        low = F.linear(self.norm(f"{b}.adapter_norm{s}", x), self.w(f"{b}.adapter_linear_down{s}.weight"))
        if state is None:
            low = low.unflatten(0, (-1, frames))
            before = 2 if self.config.temporal == "causal" else 1
            low = F.pad(low, (0, 0, 0, 0, 0, 0, before, 2 - before))
        else:
            past = state.get(b + s)
            if past is None:
                past = low.new_zeros(low.shape[0], 2, *low.shape[1:])
            low = torch.cat([past, low.unsqueeze(1)], 1)
            state[b + s] = low[:, 1:]
        count = low.shape[1] - 2
        stacked = torch.cat([low[:, t : t + count] for t in range(3)], -1).flatten(0, 1)
        active = F.gelu(self.linear(f"{b}.adapter_conv{s}", stacked))
        return x + F.linear(active, self.w(f"{b}.adapter_linear_up{s}.weight"))

    def attend(self, b, x, side):
        heads, (_, rows, columns, channels) = self.config.heads, x.shape
        down, across = -(-rows // side), -(-columns // side)
        x = F.pad(x, (0, 0, 0, across * side - columns, 0, down * side - rows))
        x = x.unflatten(1, (down, side)).unflatten(3, (across, side)).transpose(2, 3)
        x = x.reshape(-1, side * side, channels)
        qkv = self.linear(f"{b}.attn.qkv", x).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # [spans, heads, tokens, head width]
        apart = torch.arange(side, device=x.device)
        apart = apart[:, None] - apart[None, :] + side - 1
        grid = q.unflatten(2, (side, side))
        along_rows = torch.einsum("nhabc,akc->nhabk", grid, self.w(f"{b}.attn.rel_pos_h")[apart])
        along_columns = torch.einsum("nhabc,bkc->nhabk", grid, self.w(f"{b}.attn.rel_pos_w")[apart])
        positions = (along_rows[..., :, None] + along_columns[..., None, :]).flatten(4).flatten(2, 3)
        if self.sdpa:
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=positions)
        else:
            x = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + positions, -1) @ v
        x = x.transpose(1, 2).reshape(-1, down, across, side, side, channels).transpose(2, 3)
        x = x.reshape(-1, down * side, across * side, channels)[:, :rows, :columns]
        return self.linear(f"{b}.attn.proj", x)

    def encode(self, images, frames, state=None):
        c, e = self.config, "image_encoder"
        weight, bias = (self.w(f"{e}.patch_embed.proj.{part}") for part in ("weight", "bias"))
        patches = F.conv2d(images, weight, bias, c.patch_px)
        x = patches.permute(0, 2, 3, 1) + self.w(f"{e}.pos_embed")
        skips = []
        for i in range(c.depth):
            b = f"{e}.blocks.{i}"
            if "" in self.suffixes():
                x = self.adapt(b, "", x, frames, state)
            x = x + self.attend(b, self.norm(f"{b}.norm1", x), c.span(i))
            if "_2" in self.suffixes():
                x = self.adapt(b, "_2", x, frames, state)
            hidden = F.gelu(self.linear(f"{b}.mlp.lin1", self.norm(f"{b}.norm2", x)))
            x = x + self.linear(f"{b}.mlp.lin2", hidden)
            if i in c.global_blocks:
                skips.insert(0, x)
        x = self.norm(f"{e}.neck.1", F.linear(x, self.w(f"{e}.neck.0.weight").flatten(1)))
        x = F.conv2d(x.permute(0, 3, 1, 2), self.w(f"{e}.neck.2.weight"), padding=1)
        return self.norm(f"{e}.neck.3", x.permute(0, 2, 3, 1)), skips

    # The mask decoder.

    def _decoder(self):
        c, d, width = self.config, "mask_decoder", self.config.prompt_width
        matrix = by_formula("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", (2, width // 2))
        centres = (torch.arange(c.grid) + 0.5) / c.grid
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        angle = 2 * math.pi * ((2 * torch.stack([x, y], -1).flatten(0, 1) - 1) @ matrix)
        self._keep("positions", torch.cat([angle.sin(), angle.cos()], -1)[None])
        self._weight("prompt_encoder.no_mask_embed.weight", 1, width)
        t = f"{d}.transformer"

        def attention(name, inner):
            for part in ("q_proj", "k_proj", "v_proj"):
                self._linear(f"{name}.{part}", width, inner)
            self._linear(f"{name}.out_proj", inner, width)

        for i in range(c.decoder_depth):
            attention(f"{t}.layers.{i}.self_attn", width)
            attention(f"{t}.layers.{i}.cross_attn_token_to_image", width // 2)
            attention(f"{t}.layers.{i}.cross_attn_image_to_token", width // 2)
            for n in range(1, 5):
                self._norm(f"{t}.layers.{i}.norm{n}", width)
            self._linear(f"{t}.layers.{i}.mlp.lin1", width, c.decoder_mlp)
            self._linear(f"{t}.layers.{i}.mlp.lin2", c.decoder_mlp, width)
        attention(f"{t}.final_attn_token_to_image", width // 2)
        self._norm(f"{t}.norm_final_attn", width)
        self._weight(f"{d}.iou_token.weight", 1, width)
        self._weight(f"{d}.mask_tokens.weight", c.classes, width)
        for i, (inputs, outputs) in enumerate(zip(c.widths, c.widths[1:])):
            self._weight(f"{d}.output_upscaling.{3 * i}.weight", inputs, outputs, 2, 2)
            self._weight(f"{d}.output_upscaling.{3 * i}.bias", outputs)
            if i + 2 < len(c.widths):
                self._norm(f"{d}.output_upscaling.{3 * i + 1}", outputs)
            if c.decoder == "multi-scale" and i < len(c.global_blocks):
                self._linear(f"{d}.skip_projections.{i}", c.width, outputs)
        # The classes' networks side by side, as one batched product each.
        for layer, (inputs, outputs) in enumerate([(width, width), (width, width), (width, c.widths[-1])]):
            for part, shape in (("weight", (outputs, inputs)), ("bias", (outputs,))):
                names = [f"{d}.output_hypernetworks_mlps.{i}.layers.{layer}.{part}" for i in range(c.classes)]
                self._keep(f"hypernetworks.{layer}.{part}", torch.stack([by_formula(n, shape) for n in names]))

    def look(self, name, q, k, v):
        def split(part, x):
            return self.linear(f"{name}.{part}", x).unflatten(-1, (self.config.decoder_heads, -1)).transpose(1, 2)

        q, k, v = split("q_proj", q), split("k_proj", k), split("v_proj", v)
        if self.sdpa:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            x = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1), -1) @ v
        return self.linear(f"{name}.out_proj", x.transpose(1, 2).flatten(2))

    def decode(self, grid, skips):
        c, d = self.config, "mask_decoder"
        images, side = grid.shape[0], grid.shape[1]
        start = torch.cat([self.w(f"{d}.iou_token.weight"), self.w(f"{d}.mask_tokens.weight")])
        start = start.expand(images, -1, -1)
        tokens, places = start, self.w("positions")
        picture = (grid + self.w("prompt_encoder.no_mask_embed.weight")).flatten(1, 2)
        for i in range(c.decoder_depth):
            l = f"{d}.transformer.layers.{i}"
            norm = lambda n, x: self.norm(f"{l}.norm{n}", x, 1e-5)
            placed = tokens + start
            if i:
                tokens = tokens + self.look(f"{l}.self_attn", placed, placed, tokens)
            else:
                tokens = self.look(f"{l}.self_attn", tokens, tokens, tokens)
            tokens = norm(1, tokens)
            seen = self.look(f"{l}.cross_attn_token_to_image", tokens + start, picture + places, picture)
            tokens = norm(2, tokens + seen)
            tokens = norm(3, tokens + self.linear(f"{l}.mlp.lin2", F.relu(self.linear(f"{l}.mlp.lin1", tokens))))
            seen = self.look(f"{l}.cross_attn_image_to_token", picture + places, tokens + start, tokens)
            picture = norm(4, picture + seen)
        t = f"{d}.transformer"
        seen = self.look(f"{t}.final_attn_token_to_image", tokens + start, picture + places, picture)
        tokens = self.norm(f"{t}.norm_final_attn", tokens + seen, 1e-5)
        x = picture.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        for i in range(len(c.widths) - 1):
            name = f"{d}.output_upscaling.{3 * i}"
            x = F.conv_transpose2d(x, self.w(f"{name}.weight"), self.w(f"{name}.bias"), stride=2)
            if c.decoder == "multi-scale" and i < len(c.global_blocks):
                skip = self.linear(f"{d}.skip_projections.{i}", skips[i]).permute(0, 3, 1, 2)
                x = x + F.interpolate(skip, x.shape[2:], mode="bilinear", align_corners=False)
            if i + 2 < len(c.widths):
                x = self.norm(f"{d}.output_upscaling.{3 * i + 1}", x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            x = F.gelu(x)
        kernels = tokens[:, 1 : 1 + c.classes].transpose(0, 1)  # [classes, images, width]
        for layer in range(3):
            weight = self.w(f"hypernetworks.{layer}.weight").transpose(1, 2)
            kernels = torch.baddbmm(self.w(f"hypernetworks.{layer}.bias")[:, None], kernels, weight)
            kernels = F.relu(kernels) if layer < 2 else kernels
        logits = (kernels.transpose(0, 1) @ x.flatten(2)).unflatten(2, x.shape[2:])
        if logits.shape[-1] != c.image_px:
            logits = F.interpolate(logits, (c.image_px,) * 2, mode="bilinear", align_corners=False)
        return logits

    def forward(self, clip):
        return self.decode(*self.encode(clip.flatten(0, 1), clip.shape[1]))

    def step(self, images, state):
        """One new frame of each stream, `[streams, 3, px, px]`: logits and the state after it."""
        state = dict(state)
        return self.decode(*self.encode(images, 1, state)), state


# Reference tensors.


def read(path):
    """Tensors and metadata of a safetensors file."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    kinds = {"F32": torch.float32, "U8": torch.uint8, "F64": torch.float64}
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = (8 + length + at for at in entry["data_offsets"])
            values = torch.frombuffer(bytearray(data[first:last]), dtype=kinds[entry["dtype"]])
            tensors[name] = values.reshape(entry["shape"])
    return tensors, header.get("__metadata__", {})


def config_of(m):
    n = lambda key: int(m[key])
    return Config(
        image_px=n("image"), patch_px=n("patch"), width=n("dim"), depth=n("depth"), heads=n("heads"),
        global_blocks=tuple(int(b) for b in m["global_blocks"].split(",") if b), partition=n("window"),
        mlp_ratio=n("mlp_ratio"), adapter=n("adapter"), adapters=m["adapters"], temporal=m["temporal"], rank=n("rank"),
        fact_scale=float(m["fact_scale"]), prompt_width=n("prompt_dim"), decoder_depth=n("decoder_depth"),
        decoder_heads=n("decoder_heads"), decoder_mlp=n("decoder_mlp"), decoder=m["decoder"], classes=n("classes"),
    )


def check(args):
    exact = torch.backends.cuda.matmul
    exact.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    bound = {"f32": 5e-5, "bf16": 5e-2, "f16": 1e-2}[args.dtype]
    checked = failed = 0
    for path in sorted(args.folder.glob("*.safetensors")):
        tensors, m = read(path)
        if "logits" not in tensors or m.get("prompts") != "none" or m.get("sam_size") != "0":
            continue
        config, batch, frames = config_of(m), int(m["batch"]), int(m["frames"])
        model = MaSam(config, DTYPES[args.dtype], args.device, args.sdpa)
        shape = (batch, frames, 3, config.image_px, config.image_px)
        clip = ((uniform(m["clip"], math.prod(shape)) + 1) / 2).float().reshape(shape)
        with torch.inference_mode():
            logits = model(clip.to(args.device, model.dtype)).float().cpu()
        stride = int(m["stride"])
        thin, wanted = logits[:, :, stride // 2 :: stride, stride // 2 :: stride], tensors["logits"]
        largest = wanted.abs().max()
        error = (thin - wanted).abs().max() / largest
        rms = (thin - wanted).square().mean().sqrt() / largest
        same = (logits.argmax(1) == tensors["labels"]).float().mean()
        passed = error <= bound
        verdict = "PASS" if passed else "FAIL"
        print(f"{path.stem} max_rel_err={error:.2e} rms={rms:.2e} label_agreement={same:.6f} {verdict}")
        checked, failed = checked + 1, failed + (not passed)
    print(f"{checked - failed} passed, {failed} failed (pytorch {torch.__version__} {args.device} {args.dtype})")
    return 0 if checked and not failed else 1


# Timing.


def bench(args):
    config = PRESETS[args.config]
    if args.step:
        config = replace(config, temporal="causal")
    model = MaSam(config, DTYPES[args.dtype], args.device, args.sdpa)
    shape = (args.batch, args.frames, 3, config.image_px, config.image_px)
    clip = ((uniform("clip", math.prod(shape)) + 1) / 2).float().reshape(shape).to(args.device, model.dtype)
    frame, state = clip[:, 0].contiguous(), {}
    run = (lambda s: model.step(frame, s)) if args.step else (lambda s: (model(clip), s))
    if args.compile:
        run = torch.compile(run, mode=args.compile_mode)
    wait = torch.cuda.synchronize if args.device.startswith("cuda") else (lambda: None)
    times = []
    with torch.inference_mode():
        for i in range(args.warmup + args.runs):
            if args.compile and args.compile_mode == "reduce-overhead":
                torch.compiler.cudagraph_mark_step_begin()
                state = {key: value.clone() for key, value in state.items()}
            wait()
            start = time.perf_counter()
            _, state = run(state)
            wait()
            if i >= args.warmup:
                times.append(time.perf_counter() - start)
    times.sort()
    report = {
        "what": "pytorch", "torch": torch.__version__, "config": args.config, "image": config.image_px,
        "frames": 1 if args.step else args.frames, "batch": args.batch, "device": args.device, "dtype": args.dtype,
        "sdpa": args.sdpa, "compile": args.compile_mode if args.compile else "", "step": args.step, "runs": args.runs,
        "min_s": times[0], "median_s": times[len(times) // 2], "max_s": times[-1],
    }
    if args.device.startswith("cuda"):
        report |= {"card": torch.cuda.get_device_name(), "peak_bytes": torch.cuda.max_memory_allocated()}
    print(json.dumps(report))
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("check", "bench"):
        command = commands.add_parser(name)
        command.add_argument("--device", default="cpu")
        command.add_argument("--dtype", choices=DTYPES, default="f32")
        command.add_argument("--sdpa", action="store_true", help="PyTorch's fused attention")
    commands.choices["check"].add_argument("folder", type=Path)
    b = commands.choices["bench"]
    b.add_argument("--config", choices=PRESETS, default="vit_b")
    b.add_argument("--batch", type=int, default=1)
    b.add_argument("--frames", type=int, default=5)
    b.add_argument("--compile", action="store_true")
    b.add_argument("--compile-mode", default="default", choices=["default", "reduce-overhead", "max-autotune"])
    b.add_argument("--step", action="store_true", help="one new frame of a causal model")
    b.add_argument("--runs", type=int, default=20)
    b.add_argument("--warmup", type=int, default=5)
    args = parser.parse_args()
    return check(args) if args.command == "check" else bench(args)


if __name__ == "__main__":
    sys.exit(main())
