"""What vLLM makes of exported folders (see 77_other_tools.sh): which class it chooses for each, with and without
trust_remote_code, and whether a model of that class comes to be built.

A standard model has to be taken by vLLM's own class for its family. Any other must be refused without trust_remote_code;
with it vLLM chooses its backend for transformers' models, whose construction must end with an error that names our
configuration: our classes are for AutoModelForCausalLM, and vLLM asks for a base model.

vllm_choice.py FOLDER...
"""

import json
import os
import sys
import tempfile

from vllm.config import DeviceConfig, ModelConfig, VllmConfig, set_current_vllm_config
from vllm.distributed import init_distributed_environment, initialize_model_parallel
from vllm.model_executor.models.registry import ModelRegistry


def choice(folder, trust, implementation="auto"):
    return ModelConfig(model=folder, trust_remote_code=trust, skip_tokenizer_init=True, dtype="float32",
                       enforce_eager=True, model_impl=implementation)


def error_of(action):
    """What an action ends with, in one line; empty where it ends well."""
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace("\n", " ")
    return ""


def build(config):
    """As far as it comes on a machine without the device that vLLM's wheel is built for."""
    settings = VllmConfig(model_config=config, device_config=DeviceConfig(device="cpu"))
    with set_current_vllm_config(settings):
        model_class, _ = ModelRegistry.resolve_model_cls(config.architectures, config)
        model_class(vllm_config=settings)


def first_choice(folder):
    chosen = {}
    failure = error_of(lambda: chosen.update(name=choice(folder, False).architecture))
    return chosen.get("name", ""), failure


failed = 0
with set_current_vllm_config(VllmConfig(device_config=DeviceConfig(device="cpu"))):
    init_distributed_environment(1, 0, "file://" + tempfile.mktemp(), 0, backend="gloo")
    initialize_model_parallel(1, 1, backend="gloo")
for folder in sys.argv[1:]:
    with open(os.path.join(folder, "config.json")) as file:
        config = json.load(file)
    name = config["architectures"][0]
    untrusted, failure = first_choice(folder)
    if not config.get("farskip"):
        good = untrusted == name
        # The control of the construction below: it gets past the choice of transformers' class.
        construction = error_of(lambda: build(choice(folder, True, "transformers")))
        good = good and "Unrecognized configuration class" not in construction
        told = f"taken by {untrusted}" if good else f"{failure} {construction}"
    else:
        good = not untrusted and ("trust_remote_code=True" in failure or "not supported" in failure)
        trusted = error_of(lambda: build(choice(folder, True)))
        named = "Unrecognized configuration class" in trusted and "FarSkip" in trusted
        good = good and (named or "are not supported" in trusted)
        told = f"refused: {failure[:150]} | with trust_remote_code: {trusted[:150]}"
    failed += not good
    print(f"{os.path.basename(folder):28} {'ok' if good else 'WRONG'} {name}: {told}", flush=True)
sys.exit(failed > 0)
