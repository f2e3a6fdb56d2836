"""Models of connectivities that are not standard, on top of transformers' own modules (4.57 and 5).

A connectivity says which contributions to the residual stream each reader's input misses (skip = [a, f, g]): attention of
layer k reads routed experts of layers up to k-1-a, its feed-forward reads those up to k-1-f and attention up to k-1-g.
FarSkip is [1, 0, 0], the standard model [0, 0, -1]. It is in config.json, in the keys that `skips` below reads.

Attention, experts, norms and caches are the stock classes, untouched. Only what a decoder layer reads and hands on is
new: between layers travel, side by side in the last dimension, the sum of all older layers and the contributions of
those layers that a later reader still misses. So `output_hidden_states` shows this bundle, and the residual stream where
it holds no more than that.
"""

import math

import torch
import transformers
from torch import nn
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

STANDARD, FARSKIP, ATTN_ONLY, MLP_ONLY = [0, 0, -1], [1, 0, 0], [1, 0, -1], [0, 0, 0]


def skips(config):
    """[a, f, g] of each layer of the model."""

    def key(name, absent):
        value = getattr(config, name, None)
        return absent if value is None else value

    attn_only, mlp_only = key("attn_only_farskip", False), key("mlp_only_farskip", False)
    if attn_only and mlp_only:
        raise ValueError("config.json: attn_only_farskip and mlp_only_farskip together say standard; set at most one")
    if not key("farskip", False):
        return [STANDARD] * config.num_hidden_layers
    skip = list(key("farskip_skip", ATTN_ONLY if attn_only else MLP_ONLY if mlp_only else FARSKIP))
    inside = range(key("farskip_start_idx", 0), key("farskip_end_idx", 10000) + 1)
    return [skip if k in inside else STANDARD for k in range(config.num_hidden_layers)]


def view(base, window, routed_missed, attention_missed):
    """The residual stream (B, T, H) without what the newest layers of `window` contributed: the same sums in the same
    order, these leaves left out. `window`: (attention, routed, shared or dense) of layers, the oldest first."""
    x = base
    for age, (attention, routed, other) in zip(range(len(window), 0, -1), window):
        if age > attention_missed:
            x = x + attention
        x = x + (routed + other if age > routed_missed else other)
    return x


class FarSkipLayer:
    """A decoder layer of transformers whose readers miss what `self.skip` says; `self.keep` layers' contributions are
    handed on one by one."""

    def connect(self, skip, keep, width):
        self.skip, self.keep, self.width = skip, keep, width
        experts = self._feed_forward()
        self.shared = next((s for s in ("shared_experts", "shared_expert") if getattr(experts, s, None) is not None), None)
        if self.shared:  # it is added apart: for the stock class it is zero
            getattr(experts, self.shared).forward = torch.zeros_like

    def _feed_forward(self):
        return next(getattr(self, n) for n in ("mlp", "block_sparse_moe", "feed_forward") if hasattr(self, n))

    def _contributions(self, u):
        """Routed, shared or dense, and the router's logits where the stock class tells them."""
        module = self._feed_forward()
        out = module(u)
        out, router_logits = out if isinstance(out, tuple) else (out, None)
        out = out.view(u.shape)
        if not hasattr(module, "experts"):
            return torch.zeros_like(out), out, router_logits
        if not self.shared:
            return out, torch.zeros_like(out), router_logits
        shared = getattr(module, self.shared)
        return out, type(shared).forward(shared, u), router_logits

    def forward(self, hidden_states, **kwargs):
        base, *leaves = hidden_states.split(self.width, dim=-1)
        window = [tuple(leaves[i : i + 3]) for i in range(0, len(leaves), 3)]
        a, f, g = self.skip
        attention_input = self.input_layernorm(view(base, window, a, 0))
        attention, weights = self.self_attn(hidden_states=attention_input, **kwargs)[:2]
        x = view(base, window, f, max(g, 0))
        if g < 0:
            x = x + attention
        routed, other, router_logits = self._contributions(self.post_attention_layernorm(x))
        window.append((attention, routed, other))
        done = len(window) - min(self.keep, len(window))
        base = view(base, window[:done], 0, 0)
        out = torch.cat([base, *(leaf for layer in window[done:] for leaf in layer)], dim=-1)
        if not self.returns_tuple:
            return out
        told = [("output_attentions", weights), ("output_router_logits", router_logits)]
        return (out, *(value for name, value in told if kwargs.get(name)))


class FarSkipModel:
    """Stands before a stock ...ForCausalLM."""

    returns_tuple = False  # what its decoder layers return

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        skip = skips(config)
        reach = [max(one) for one in skip]  # how many layers back a reader of this layer misses something
        for k, layer in enumerate(self.model.layers):
            keep = max([reach[j] - (j - k) + 1 for j in range(k + 1, len(skip))] + [0])
            stock = type(layer)
            # The name stays, by which transformers knows what may be placed on one device.
            layer.__class__ = type(stock.__name__, (FarSkipLayer, stock), {"returns_tuple": self.returns_tuple})
            layer.connect(skip[k], keep, config.hidden_size)


class FarSkipDeepseekV2Config(DeepseekV2Config):
    model_type = "farskip_deepseek_v2"


class FarSkipDeepseekV2ForCausalLM(FarSkipModel, DeepseekV2ForCausalLM):
    config_class = FarSkipDeepseekV2Config

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        # transformers 4.57 leaves YaRN's factor out of the softmax scale; DeepSeek's own code and transformers 5 have it.
        rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
        factor, scale = rope.get("factor", 1), rope.get("mscale_all_dim", 0)
        mscale = 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1
        for layer in self.model.layers:
            layer.self_attn.scaling = layer.self_attn.qk_head_dim**-0.5 * mscale**2


class FarSkipDeepseekV3Config(DeepseekV3Config):
    model_type = "farskip_deepseek_v3"


class FarSkipDeepseekV3ForCausalLM(FarSkipModel, DeepseekV3ForCausalLM):
    config_class = FarSkipDeepseekV3Config


class GatedAttention:
    """o_proj(core attention * sigmoid(gate_proj(input))), Instella's addition to DeepSeek-V3's attention."""

    def forward(self, hidden_states, *args, **kwargs):
        gate = torch.sigmoid(self.gate_proj(hidden_states))
        hook = self.o_proj.register_forward_pre_hook(lambda module, inputs: (inputs[0] * gate,))
        try:
            return super().forward(hidden_states, *args, **kwargs)
        finally:
            hook.remove()


class FarSkipInstellaMoEConfig(FarSkipDeepseekV3Config):
    pass


class FarSkipInstellaMoEForCausalLM(FarSkipModel, DeepseekV3ForCausalLM):
    config_class = FarSkipInstellaMoEConfig

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        for layer in self.model.layers if getattr(config, "gated_attention", False) else ():
            attention = layer.self_attn
            attention.__class__ = type(type(attention).__name__, (GatedAttention, type(attention)), {})
            attention.gate_proj = nn.Linear(config.hidden_size, attention.num_heads * attention.v_head_dim, bias=False)


class FarSkipQwen3MoeConfig(Qwen3MoeConfig):
    model_type = "farskip_qwen3_moe"


class FarSkipQwen3MoeForCausalLM(FarSkipModel, Qwen3MoeForCausalLM):
    config_class = FarSkipQwen3MoeConfig


class FarSkipMixtralConfig(MixtralConfig):
    model_type = "farskip_mixtral"


class FarSkipMixtralForCausalLM(FarSkipModel, MixtralForCausalLM):
    config_class = FarSkipMixtralConfig


class FarSkipOlmoeConfig(OlmoeConfig):
    model_type = "farskip_olmoe"


class FarSkipOlmoeForCausalLM(FarSkipModel, OlmoeForCausalLM):
    config_class = FarSkipOlmoeConfig
    returns_tuple = int(transformers.__version__.split(".")[0]) < 5


class FarSkipLlama4Config(Llama4TextConfig):
    model_type = "farskip_llama4_text"


class FarSkipLlama4ForCausalLM(FarSkipModel, Llama4ForCausalLM):
    config_class = FarSkipLlama4Config


try:  # transformers 5 stacks the experts of a checkpoint as its table says, in which our names must stand
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
except ImportError:
    pass
else:
    for _config in (
        FarSkipDeepseekV2Config,
        FarSkipDeepseekV3Config,
        FarSkipQwen3MoeConfig,
        FarSkipMixtralConfig,
        FarSkipOlmoeConfig,
        FarSkipLlama4Config,
    ):
        _mapping = get_checkpoint_conversion_mapping(_config.__bases__[0].model_type)
        if _mapping is not None:
            register_checkpoint_conversion_mapping(_config.model_type, _mapping, overwrite=True)
