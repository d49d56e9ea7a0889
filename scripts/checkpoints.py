#!/usr/bin/env python3
"""Wraps SAM's and MA-SAM's checkpoints in every way that people save them, gives each to `masam inspect` and `masam
convert`, and prints a table: what the file is, what is said, the exit status, and whether the model is the reference.

    scripts/checkpoints.py target/release/masam weights/demo.safetensors > benchmarks/checkpoints.txt

Needs PyTorch (Debian's python3-torch will do) and NumPy. `--also DIR` adds the files of a folder that hold variants of
the same two files, by their names alone.
"""

import argparse
import collections
import datetime
import gzip
import json
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import numpy as np
import torch
import torch.serialization

OD = collections.OrderedDict


class Net(torch.nn.Module):
    """A whole pickled module with the weights as parameters under their own names."""

    def __init__(self, weights):
        super().__init__()
        for key, value in weights.items():
            *path, name = key.split(".")
            module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, torch.nn.Module())
                module = module._modules[part]
            module.register_parameter(name, torch.nn.Parameter(value.float(), requires_grad=False))


class Config(dict):
    """A dict of its own class, as configuration libraries have."""


def prefixed(prefix, weights):
    return OD((prefix + key, value) for key, value in weights.items())


def real_whole(sam, epoch):
    """Names of Fact_tt_Sam.state_dict(): SAM inside the wrappers of the original software."""
    whole = OD()
    for key, value in epoch.items():
        if key.startswith(("q_FacTs_", "v_FacTs_")):
            block = int(key[-3:])
            key = f"sam.image_encoder.ImageEncoderViT.blocks.{block}.Block.attn.Attention.qkv.{key[:7]}.weight"
        elif key.startswith("image_encoder.FacT"):
            whole[key.removeprefix("image_encoder.")] = value
            key = "sam." + key
        else:
            key = "sam." + key
        whole[key] = value
    for key, value in sam.items():
        if not key.startswith("image_encoder."):
            continue
        key = key.removeprefix("image_encoder.")
        if key.startswith("blocks."):
            _, block, rest = key.split(".", 2)
            rest = rest.replace("attn.", "attn.Attention.").replace("qkv.", "qkv.qkv.")
            key = f"blocks.{block}.Block.{rest}"
        whole[f"sam.image_encoder.ImageEncoderViT.{key}"] = value
    return whole


def write_safetensors(path, weights):
    header, offset, data = {}, 0, []
    names = {torch.float32: "F32", torch.float16: "F16"}
    for key, value in weights.items():
        raw = value.contiguous().numpy().tobytes()
        header[key] = {
            "dtype": names[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [offset, offset + len(raw)],
        }
        offset += len(raw)
        data.append(raw)
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(data))


# What is expected of a file: "equal" to the reference, "close" (other rounding), "made" (another model, by design),
# or "refused".
def variants(folder, sam, epoch):
    """Yields (file, what it is, expected, arguments of convert with FILE for the file)."""
    masam = ["--sam", "sam.pth", "--masam", "FILE"]
    base = ["--sam", "FILE", "--masam", "epoch.pth"]
    path = lambda name: os.path.join(folder, name)

    def saved(name, what, value, expected="equal", arguments=masam, **options):
        torch.save(value, path(name), **options)
        return name, what, expected, arguments

    for number, prefix in enumerate(
        ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "net.", "student.", "a.b.c."]
    ):
        yield saved(f"prefix_{number}.pth", f"keys begin with {prefix}", prefixed(prefix, epoch))
    yield saved("prefix_sam.pth", "SAM's keys begin with sam.module.", prefixed("sam.module.", sam), arguments=base)
    inner = OD((k.replace("image_encoder.", "image_encoder._orig_mod.module."), v) for k, v in epoch.items())
    yield saved("prefix_inner.pth", "wrappers inside the names", inner)
    lightning = {
        "state_dict": prefixed("model.", epoch),
        "epoch": 3,
        "pytorch-lightning_version": "2.0.0",
        "callbacks": {"ModelCheckpoint{'monitor': 'dice'}": {"best_model_path": pathlib.PurePosixPath("/x")}},
        "hyper_parameters": argparse.Namespace(lr=1e-4),
        "loops": {"fit_loop": {"state_dict": {}}},
    }
    yield saved("lightning.ckpt", "Lightning: state_dict beside callbacks and loops", lightning)
    for key in ["net", "params", "model", "model_state_dict", "weights"]:
        yield saved(f"under_{key}.pth", f"under {key}", {key: epoch, "epoch": 1})
    yield saved("nested.pth", "under checkpoint.model.module.", {"checkpoint": {"model": prefixed("module.", epoch)}})
    parts = collections.defaultdict(OD)
    for key, value in epoch.items():
        top, _, rest = key.partition(".")
        parts[top][rest] = value if rest else value
    parts = {top: (own if set(own) != {""} else own[""]) for top, own in parts.items()}
    yield saved("modules_apart.pth", "a state dict for each module", parts)

    average = OD((key, value * 0) for key, value in epoch.items())
    yield saved("ema_beside.pth", "model beside model_ema: the model", {"model": epoch, "model_ema": average})
    yield saved(
        "ema_asked.pth",
        "model beside model_ema, --ema: the average",
        {"model": average, "model_ema": epoch},
        arguments=masam + ["--ema"],
    )
    yield saved(
        "ema_flat.pth",
        "student. beside teacher. in one dict, --ema",
        OD([*prefixed("student.", average).items(), *prefixed("teacher.", epoch).items()]),
        arguments=masam + ["--ema"],
    )
    yield saved(
        "ema_ambiguous.pth", "ema_state_dict beside best_state", {"ema_state_dict": average, "best_state": epoch}, "refused"
    )
    yield saved(
        "ema_chosen.pth",
        "the same with --key best_state",
        {"ema_state_dict": average, "best_state": epoch},
        arguments=masam + ["--key", "best_state"],
    )
    yield saved(
        "ema_same.pth", "the same, one object under both keys", {"ema_state_dict": epoch, "best_state": epoch}, "refused"
    )
    yield saved("ema_none.pth", "no average, --ema", {"model": epoch}, "refused", masam + ["--ema"])
    yield saved("two_models.pth", "model beside net", {"model": epoch, "net": average}, "refused")
    yield saved("twice_the_same.pth", "model and state_dict of the same weights", {"model": OD(epoch), "state_dict": OD(epoch)})

    for suffix in ["pth", "bin", "ckpt", "safetensors"]:
        yield saved(
            f"legacy_named.{suffix}",
            f"the format before PyTorch 1.6, named .{suffix}",
            epoch,
            _use_new_zipfile_serialization=False,
        )
    yield saved("protocol_4.pth", "pickle protocol 4", epoch, pickle_protocol=4)
    yield saved("protocol_4_legacy.pth", "the same, before 1.6", epoch, pickle_protocol=4, _use_new_zipfile_serialization=False)
    yield saved("zip_named.safetensors", "a file of torch.save named .safetensors", epoch)
    write_safetensors(path("safetensors_named.pth"), epoch)
    yield "safetensors_named.pth", "safetensors named .pth", "equal", masam
    write_safetensors(path("no_suffix"), prefixed("model.", epoch))
    yield "no_suffix", "safetensors without a suffix, keys begin with model.", "equal", masam
    yield saved("half.pth", "float16", OD((k, v.half()) for k, v in epoch.items()))
    yield saved("bfloat16.pth", "bfloat16", OD((k, v.bfloat16()) for k, v in epoch.items()), "close")
    yield saved("double.pth", "float64", OD((k, v.double()) for k, v in epoch.items()))
    yield saved("parameters.pth", "Parameter around each tensor", OD((k, torch.nn.Parameter(v)) for k, v in epoch.items()))
    tag = torch.serialization.location_tag
    for location in ["cuda:1", "mps", "xpu:0"]:
        torch.serialization.location_tag = lambda _: location
        yield saved(f"location_{location[:3]}.pth", f"tensors of {location}", epoch)
    torch.serialization.location_tag = tag

    tiny = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(tiny.parameters())
    tiny(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    named = {"state": {k: {"exp_avg": v * 0} for k, v in epoch.items()}, "param_groups": []}
    for name, what, beside in [
        ("optimizer", "an optimizer's state", {"optimizer": optimizer.state_dict(), "scheduler": {"last_epoch": 3}}),
        ("optimizer_named", "an optimizer's state under the weights' names", {"optimizer": named}),
        ("numpy_scalar", "NumPy numbers", {"best": np.float64(0.7), "epoch": np.int64(9)}),
        ("numpy_array", "a NumPy array", {"history": np.zeros(3)}),
        ("namespace", "argparse.Namespace", {"args": argparse.Namespace(lr=0.1, vit="vit_h")}),
        ("path", "a path and a time", {"cfg": {"path": pathlib.PurePosixPath("/x"), "when": datetime.datetime.now()}}),
        ("defaultdict", "a defaultdict", {"d": collections.defaultdict(list, {"loss": [1.0]})}),
        ("own_class", "objects of the program's own classes", {"cfg": Config(a=1), "when": datetime.timedelta(1)}),
        ("function", "a function and a class", {"loss": torch.nn.functional.relu, "cls": Config}),
        ("random_state", "random states", {"rng": torch.get_rng_state(), "numpy": np.random.get_state()}),
    ]:
        yield saved(f"beside_{name}.pth", f"{what} beside the weights", {"model": epoch, **beside})
    yield saved("dict_class.pth", "a state dict of a class of its own", Config(epoch))
    yield saved("defaultdict_of_weights.pth", "a defaultdict of weights", collections.defaultdict(list, epoch))
    yield saved("list.pth", "a list of one state dict", [epoch])
    yield saved("whole_module.pth", "a whole pickled module", Net(epoch))
    yield saved("foreign_module.pth", "a whole pickled module of another model", torch.nn.Linear(2, 2), "refused")

    whole = OD([*prefixed("sam.", sam).items(), *epoch.items()])
    alone = ["--masam", "FILE"]
    yield saved("whole_two_parts.pth", "a whole MA-SAM model: sam.* beside FacT's keys", whole, arguments=alone)
    yield saved("whole_with_sam.pth", "the same with --sam", whole)
    yield saved("whole_state_dict.pth", "a whole MA-SAM model's own state_dict()", real_whole(sam, epoch), arguments=alone)
    wrapped = {"state_dict": prefixed("model.module.", real_whole(sam, epoch))}
    yield saved("whole_lightning.ckpt", "the same by Lightning and DataParallel", wrapped, arguments=alone)
    yield saved("two_files_in_one.pth", "both files in one", {"sam": sam, "masam": epoch}, arguments=alone)

    extra = OD(epoch)
    extra["pixel_mean"] = torch.zeros(3, 1, 1)
    extra["num_batches_tracked"] = torch.tensor(4)
    extra["criterion.weight"] = torch.ones(12)
    yield saved("extra_keys.pth", "constants and counters among the weights", extra)
    extra = OD(epoch)
    extra["mask_decoder.iou_prediction_head.extra"] = torch.zeros(0)
    yield saved("empty_tensor.pth", "a tensor without elements", extra)
    extra = OD(epoch)
    extra["mask_decoder.extra_head.weight"] = torch.zeros(3)
    yield saved("extra_weight.pth", "a weight that the model does not have", extra, "refused")
    extra = OD(sam)
    extra["pixel_mean"], extra["pixel_std"] = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    yield saved("sam_pixel_mean.pth", "SAM with its constants", extra, arguments=base)
    medsam = {"model": sam, "optimizer": {"state": {}, "param_groups": []}, "epoch": 1}
    yield saved("medsam.pth", "SAM trained further, as MedSAM", medsam, arguments=base)
    yield saved("sam_hq.pth", "SAM-HQ", OD(sam, **{"mask_decoder.hf_token.weight": torch.zeros(1, 8)}), arguments=base)
    bad = OD(epoch)
    key = list(bad)[3]
    bad[key] = bad[key].clone()
    bad[key].view(-1)[0] = float("nan")
    yield saved("nan.pth", "a weight that is not a number", bad, "refused")

    sparse = OD((k, v.float().to_sparse() if v.dim() == 2 else v) for k, v in epoch.items())
    yield saved("sparse.pth", "sparse tensors", sparse, "refused")
    arrays = OD((k, v.numpy()) for k, v in epoch.items())
    yield saved("numpy_weights.pth", "NumPy arrays instead of tensors", arrays, "refused")
    few = OD(list(arrays.items())[:3])
    yield saved("numpy_few.pth", "the same, a few", few, "refused")
    with open(path("plain_pickle.pth"), "wb") as file:
        pickle.dump(dict(few), file)
    yield "plain_pickle.pth", "a pickle of Python's own with NumPy arrays", "refused", masam
    with open(path("plain_tensors.pkl"), "wb") as file:
        pickle.dump(dict(list(epoch.items())[:3]), file)
    yield "plain_tensors.pkl", "a pickle of Python's own with tensors", "refused", masam

    whole_file = open(path("epoch.pth"), "rb").read()
    texts = {
        "lfs_pointer.safetensors": (
            "a Git LFS pointer",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 2564550879\n",
        ),
        "web_page.pth": ("a web page", b"<!DOCTYPE html><html><head><title>Virus scan warning</title></head></html>\n"),
        "web_error.pth": ("an error of a store", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"),
        "web_json.pth": ("an error in JSON", b'{"message": "Not Found"}'),
        "half_download.pth": ("half a download", whole_file[: len(whole_file) // 2]),
        "empty.pth": ("an empty file", b""),
        "compressed.pth.gz": ("compressed by gzip", gzip.compress(whole_file, 1)),
        "noise.pth": ("bytes of nothing", bytes(range(1, 200))),
    }
    for name, (what, content) in texts.items():
        with open(path(name), "wb") as file:
            file.write(content)
        yield name, what, "refused", masam
    legacy = open(path("legacy_named.pth"), "rb").read()
    with open(path("half_legacy.pth"), "wb") as file:
        file.write(legacy[: len(legacy) // 2])
    yield "half_legacy.pth", "half a download of the format before 1.6", "refused", masam
    flat = open(path("safetensors_named.pth"), "rb").read()
    with open(path("half.safetensors"), "wb") as file:
        file.write(flat[: len(flat) // 2])
    yield "half.safetensors", "half a download of safetensors", "refused", masam
    with zipfile.ZipFile(path("zipped.zip"), "w") as archive:
        archive.write(path("epoch.pth"), "epoch.pth")
    yield "zipped.zip", "a zip archive around the file", "refused", masam
    with zipfile.ZipFile(path("epoch.pth")) as old, zipfile.ZipFile(path("packed_again.pth"), "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    yield "packed_again.pth", "the archive packed again, deflated", "equal", masam
    with tarfile.open(path("tarred.tar"), "w") as archive:
        archive.add(path("epoch.pth"), "epoch.pth")
    yield "tarred.tar", "a tar archive around the file", "refused", masam
    np.savez(path("arrays.npz"), **{k: v for k, v in few.items()})
    yield "arrays.npz", "an archive of NumPy arrays", "refused", masam

    marker = path("harmed")

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    yield saved("hostile.pth", "a pickle that calls os.system beside the weights", {"model": epoch, "x": Hostile()})

    swapped = ["--sam", "epoch.pth", "--masam", "sam.pth"]
    yield "epoch.pth", "swapped: --sam epoch.pth --masam sam.pth", "refused", swapped
    yield "epoch.pth", "MA-SAM's file alone", "refused", alone
    yield "sam.pth", "SAM's file alone", "made", ["--sam", "sam.pth"]
    yield "sam.pth", "SAM's file given for MA-SAM's", "refused", alone
    yield "reference.safetensors", "a masam model file given as --masam", "refused", masam
    head = OD((k, v) for k, v in sam.items() if not k.startswith("image_encoder."))
    z = lambda *shape: torch.zeros(*shape)
    foreign = {
        "sam2.pt": (
            "SAM 2",
            {"model": OD(head, **{"image_encoder.trunk.patch_embed.proj.weight": z(4), "memory_attention.norm.weight": z(4)})},
        ),
        "transformers.bin": (
            "SAM under Hugging Face's names",
            OD(head, **{"vision_encoder.layers.0.attn.qkv.weight": z(4), "shared_image_embedding.positional_embedding": z(4)}),
        ),
        "samed.pth": ("SAMed: LoRA", OD(head, w_a_000=z(4, 4), w_b_000=z(4, 4))),
        "litemedsam.pth": (
            "MobileSAM or LiteMedSAM: TinyViT",
            OD(head, **{"image_encoder.patch_embed.seq.0.c.weight": z(4), "image_encoder.layers.0.blocks.0.x": z(4)}),
        ),
        "encoder.pth": (
            "an image encoder alone",
            OD((k, v) for k, v in sam.items() if k.startswith("image_encoder.")),
        ),
        "vit.pth": ("a vision transformer", {"patch_embed.proj.weight": z(4, 3, 2, 2), "blocks.0.attn.qkv.weight": z(4)}),
        "resnet.pth": ("a ResNet", {"conv1.weight": z(4), "layer1.0.conv1.weight": z(4)}),
        "lora.safetensors": ("a LoRA", None),
    }
    for name, (what, weights) in foreign.items():
        if weights is None:
            write_safetensors(path(name), {"base_model.model.q.lora_A.weight": z(4)})
        else:
            torch.save(weights, path(name))
        yield name, what + ", given as --sam", "refused", base


def run(*arguments, cwd):
    done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def header_of(path):
    with open(path, "rb") as file:
        return json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))


def content(folder, path):
    """Card and weights of a model file, the card without the sources, which name the files."""
    header = header_of(os.path.join(folder, path))
    with open(os.path.join(folder, path), "rb") as file:
        start = 8 + struct.unpack("<Q", file.read(8))[0]
        weights = {}
        for name, info in header.items():
            if name != "__metadata__":
                file.seek(start + info["data_offsets"][0])
                weights[name] = file.read(info["data_offsets"][1] - info["data_offsets"][0])
    card = json.loads(header["__metadata__"]["masam"])
    card["provenance"]["sources"] = []
    return json.dumps(card, sort_keys=True), weights


def compare(folder, reference, path):
    card, weights = content(folder, path)
    wanted_card, wanted = reference
    if sorted(weights) != sorted(wanted) or card != wanted_card:
        return "made"
    if weights == wanted:
        return "equal"
    largest = 0.0
    for name, raw in weights.items():
        own, other = (np.frombuffer(bytes_, np.float16).astype(np.float32) for bytes_ in (raw, wanted[name]))
        largest = max(largest, float(np.abs(own - other).max() / max(np.abs(other).max(), 1e-6)))
    return "close" if largest < 1 / 128 else "other weights"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("masam")
    parser.add_argument("model")
    parser.add_argument("--also", metavar="DIR")
    options = parser.parse_args()
    masam = os.path.abspath(options.masam)
    model = os.path.abspath(options.model)
    also = options.also and os.path.abspath(options.also)
    odd = 0
    with tempfile.TemporaryDirectory() as folder:
        split = ["convert", "--model", model, "--to-sam", "sam.pth", "--to-masam", "epoch.pth"]
        subprocess.run([masam, *split], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with open(model, "rb") as original, open(os.path.join(folder, "reference.safetensors"), "wb") as copy:
            copy.write(original.read())
        sam, epoch = (torch.load(os.path.join(folder, name)) for name in ("sam.pth", "epoch.pth"))

        code, said = run(
            masam, "convert", "--sam", "sam.pth", "--masam", "epoch.pth", "-o", "back.safetensors", cwd=folder
        )
        there, back = (header_of(path)["__metadata__"] for path in (model, os.path.join(folder, "back.safetensors")))
        same = there == back
        print(
            f"The way to the original software and back: exit status {code}, card and checksum over card and weights "
            f"{'the same' if same else 'NOT THE SAME'} ({back['masam_sha256']}).\n"
        )
        odd += not same

        # From here on without the cards beside the files, but with one given: what a variant is compared with.
        card = os.path.join(folder, "card.json")
        os.rename(os.path.join(folder, "epoch.pth.card.json"), card)
        os.remove(os.path.join(folder, "sam.pth.card.json"))
        convert = [masam, "convert", "--card", card, "-o", "made.safetensors"]
        code, said = run(*convert, "--sam", "sam.pth", "--masam", "epoch.pth", cwd=folder)
        assert code == 0, said
        reference = content(folder, "made.safetensors")

        rows = list(variants(folder, sam, epoch)) if not also else []
        if also:
            for name in sorted(os.listdir(also)):
                if name.endswith(".json") or not os.path.isfile(os.path.join(also, name)):
                    continue
                os.symlink(os.path.join(also, name), os.path.join(folder, "also_" + name))
                sams = name == "sam.pth" or name.startswith("o")
                arguments = ["--sam", "FILE", "--masam", "epoch.pth"] if sams else ["--sam", "sam.pth", "--masam", "FILE"]
                rows.append(("also_" + name, "", None, arguments))
        print("| file | what it is | convert's options | exit | model | last line of convert | first line of inspect |")
        print("|---|---|---|---|---|---|---|")
        for name, what, expected, arguments in rows:
            if os.path.exists(os.path.join(folder, "made.safetensors")):
                os.remove(os.path.join(folder, "made.safetensors"))
            arguments = [name if argument == "FILE" else argument for argument in arguments]
            code, said = run(*convert, *arguments, cwd=folder)
            made = "refused"
            if code == 0:
                made = compare(folder, reference, "made.safetensors")
            flag = "" if expected in (None, made) else f" (EXPECTED {expected})"
            odd += bool(flag)
            lines = said.strip().splitlines() or [""]
            last = lines[-1].removeprefix("masam: ") if code else made_line(lines)
            _, seen = run(masam, "inspect", name, cwd=folder)
            seen = (seen.strip().splitlines() or [""])[0].removeprefix("masam: ")
            cells = [name, what, " ".join(arguments), str(code), made + flag, last, seen]
            print("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
            sys.stdout.flush()
        harmed = os.path.exists(os.path.join(folder, "harmed"))
        print(f"\n{len(rows)} files, {odd} not as expected; code of a pickle that ran: {'YES' if harmed else 'none'}.")
    return 1 if odd or harmed else 0


def made_line(lines):
    """The line that says what was taken, of several the one on the variant."""
    telling = [line for line in lines if "tensors" in line and ("under" in line or "not taken" in line or "not used" in line)]
    return "; ".join(telling[:2]) if telling else lines[0]


if __name__ == "__main__":
    sys.exit(main())
