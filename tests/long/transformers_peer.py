"""What farskip exports, run by transformers (see 75_transformers_peer.sh): logits of every golden model, standard ones by the
stock classes, others by the modelling file of the export; and refusals where that file may not be run.

transformers_peer.py FARSKIP GOLDEN WORK
"""

import json
import math
import os
import shutil
import subprocess
import sys

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

TOLERANCE = 5e-4  # of GOLDEN/README.md
farskip, golden, work = sys.argv[1:]
stock_yarn_bug = transformers.__version__.startswith("4.")  # DeepSeek-V2: YaRN's factor is not in the softmax scale


def convert(source, name, *options):
    out = os.path.join(work, name)
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([farskip, "convert", source, out, *options], check=True, stdout=subprocess.DEVNULL)
    return out


def config_of(folder):
    with open(os.path.join(folder, "config.json")) as file:
        return json.load(file)


def load(folder, **options):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32, **options
    )
    for what, names in info.items():
        assert not names, f"{folder}: {what}: {names}"
    return model.eval()


@torch.no_grad()
def differences(model, path):
    """Largest |d| of the logits of both batches; greedy decoding with the cache has to give the very same ids."""
    reference = load_file(path)
    worst = 0.0
    for batch in "ab":
        ids = reference["input_ids." + batch]
        worst = max(worst, (model(ids).logits - reference["logits." + batch]).abs().max().item())
        expected = reference["greedy." + batch]
        made = model.generate(
            ids, max_new_tokens=expected.shape[1], do_sample=False, eos_token_id=None, pad_token_id=2
        )
        assert torch.equal(made[:, ids.shape[1] :], expected), f"{path}: other greedy ids"
    return worst


def refused(folder):
    """Without trust_remote_code nothing is run."""
    try:
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        return type(error).__name__
    raise AssertionError(f"{folder} was loaded without its own code")


def farskip_class(folder):
    """The class of share/modeling_farskip.py for a golden model of AMD's, whose own code is not at hand."""
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "share"))
    import modeling_farskip

    return modeling_farskip.FarSkipInstellaMoEForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()


supported = failed = 0
for case in sorted(os.listdir(golden)):
    source = os.path.join(golden, case)
    if not os.path.isdir(source):
        continue
    try:
        folder = convert(source, case)
    except subprocess.CalledProcessError:
        print(f"{case:22} not a family of farskip's")
        continue
    supported += 1
    config = config_of(folder)
    name = config["architectures"][0]
    if name == "InstellaMoEForCausalLM":
        assert "auto_map" not in config and config["model_type"] == "deepseek_v3"
        how, model = "the class, called by name", farskip_class(folder)
    elif config.get("farskip"):
        assert name.startswith("FarSkip"), name
        how, model = f"trust_remote_code; without: {refused(folder)}", load(folder, trust_remote_code=True)
        assert type(model).__name__ == name
    else:
        how, model = "stock", load(folder)
        if name == "DeepseekV2ForCausalLM" and config.get("rope_scaling") and stock_yarn_bug:
            how = "stock, its softmax scale set to DeepSeek's: transformers 4 leaves YaRN's factor out"
            rope = config["rope_scaling"]
            factor = 0.1 * rope["mscale_all_dim"] * math.log(rope["factor"]) + 1
            for layer in model.model.layers:
                layer.self_attn.scaling *= factor**2
    worst = differences(model, os.path.join(source, "golden.safetensors"))
    failed += worst > TOLERANCE
    print(f"{case:22} {worst:.1e} {'ok' if worst <= TOLERANCE else 'WRONG'} ({name}, {how})")

# Connectivities of which there is no golden data: against what farskip itself computes with the same folder.
for case, connectivity in [
    ("olmoe", "farskip"),
    ("olmoe", "skip=2,1,0"),
    ("mixtral", "last=50%"),
    ("moonlight", "attn-only"),
    ("qwen3_moe", "mlp-only"),
    ("deepseek_v2_lite", "skip=0,2,3"),
    ("deepseek_v3", "skip=2,1,1@1-2"),
    ("instella_off", "skip=3,0,1"),
]:
    folder = convert(os.path.join(golden, case), "other", "--connectivity", connectivity)
    refused(folder)
    dump = os.path.join(work, "computed.safetensors")
    reference = os.path.join(golden, case, "golden.safetensors")
    # Its own status is that of a comparison with the other graph.
    subprocess.run([farskip, "verify", folder, reference, "--dump", dump], stdout=subprocess.DEVNULL)
    worst = differences(load(folder, trust_remote_code=True), dump)
    failed += worst > TOLERANCE
    moved = (load_file(dump)["logits.a"] - load_file(reference)["logits.a"]).abs().max()
    assert moved > 0.1, "another graph has other logits"
    os.remove(dump)
    print(f"{case:22} {worst:.1e} {'ok' if worst <= TOLERANCE else 'WRONG'} ({connectivity}, as farskip computes it)")
    back = convert(folder, "back", "--connectivity", "standard")
    assert config_of(back)["architectures"] == config_of(os.path.join(golden, case))["architectures"]
    assert "auto_map" not in config_of(back)

assert supported >= 15, f"only {supported} golden models"
print(f"{supported} models agree with transformers {transformers.__version__}" if not failed else f"{failed} FAILED")
sys.exit(failed > 0)
