"""Small config.json of architectures of mlx-lm."""

import yaml

V = 300  # tokens
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 48, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": V}
OTHERS = yaml.safe_load("""
mamba: {hidden_size: 32, intermediate_size: 64, state_size: 8, num_hidden_layers: 2, conv_kernel: 4,
  use_bias: false, use_conv_bias: true, time_step_rank: 4}
glm4_moe: {head_dim: 8, max_position_embeddings: 64, rope_theta: 1.0e+4, moe_intermediate_size: 16,
  norm_topk_prob: true, n_group: 1, topk_group: 1, n_shared_experts: 1, n_routed_experts: 4,
  routed_scaling_factor: 1.0, num_experts_per_tok: 2, first_k_dense_replace: 1, use_qk_norm: true,
  tie_word_embeddings: false, attention_bias: false, partial_rotary_factor: 0.5, rope_scaling: null}
qwen3: {head_dim: 8, rope_theta: 1.0e+4, max_position_embeddings: 64, tie_word_embeddings: false}
""")
CONFIGS = {
    "llama": {"model_type": "llama", **SIZES},
    "llama-untied": {"model_type": "llama", **SIZES, "tie_word_embeddings": False},
    "mistral": {"model_type": "mistral", **SIZES},
    "mixtral": {"model_type": "mixtral", **SIZES, "num_local_experts": 4, "num_experts_per_tok": 2},
    "mamba": {"model_type": "mamba", "vocab_size": V, **OTHERS["mamba"]},
    "glm4_moe": {"model_type": "glm4_moe", **SIZES, **OTHERS["glm4_moe"]},
    "qwen3": {"model_type": "qwen3", **SIZES, **OTHERS["qwen3"]},
}
