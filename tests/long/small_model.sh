# Sourced: small_model HIDDEN prints the config.json of a model that is trained within seconds; REQUIRES: HIDDEN % 16 = 0.
small_model() {
  cat <<JSON
{"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 320, "hidden_size": $1,
 "num_hidden_layers": 3, "first_k_dense_replace": 1, "intermediate_size": $(($1 * 2)), "moe_intermediate_size": $(($1 / 2)),
 "n_routed_experts": $(($1 / 8)), "n_shared_experts": 1, "num_experts_per_tok": 2, "num_attention_heads": 2,
 "num_key_value_heads": 2, "q_lora_rank": null, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
 "v_head_dim": 8, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "hidden_act": "silu", "scoring_func": "sigmoid",
 "topk_method": "noaux_tc", "n_group": 1, "topk_group": 1, "norm_topk_prob": true, "routed_scaling_factor": 2.446,
 "tie_word_embeddings": false, "rope_theta": 50000.0}
JSON
}
