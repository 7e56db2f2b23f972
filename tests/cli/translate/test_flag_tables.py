"""The tables have every flag of the old programs; all old defaults of a program together make a valid config."""

import re

import pytest

from mlxlab.cli.translate import check
from mlxlab.cli.translate.command_line import normalized
from mlxlab.cli.translate.shape import SIZES
from mlxlab.cli.translate.tables import example_of
from mlxlab.cli.translate.translation import PROGRAMS, translate
from mlxlab.config.hydra.yaml_limits import read_yaml
from mlxlab.config.paths import shipped_conf

BERT = """train val output model model-type batch-size lr epochs max-length warmup-ratio grad-accum workers prefetch
 experiment run-name no-mlflow augment no-augment dynamic-batch no-dynamic-batch max-batch-size early-stopping grad-clip
 label-smoothing eval-steps save-steps resume config cnn-kernels cnn-filters dilated no-dilated t v o m b e w c"""
BERT_FILE = """learning_rate num_epochs warmup_ratio early_stopping_patience batch_size max_batch_size
 enable_dynamic_batching gradient_accumulation num_workers prefetch_size experiment_name gradient_clip label_smoothing
 eval_steps save_steps model_name max_length warmup_steps augment configurations weight_decay early_stopping_threshold
 lazy_eval_interval memory_threshold eval_batch_size enable_caching cache_dir tracking_uri log_models
 enable_quantization quantization_bits quantization_group_size save_total_limit enable_profiling profile_memory_steps
 enable_visualization training_modifiers data kernel_sizes num_filters"""
HYBRID = """model-type train-path val-path batch-size learning-rate epochs warmup-ratio cnn-kernel-sizes cnn-num-filters
 use-dilated-conv use-attention-fusion use-highway optimizer weight-decay betas output-dir experiment-name enable-mlflow
 enable-visualization"""
FULL = """teacher_model_name student_model_name tokenizer_name student_vocab_size alpha kl_temperature total_rounds
 ensemble_path ensemble_random_init num_train_epochs steps_per_round learning_rate lr_scheduler_type warmup_steps
 weight_decay max_grad_norm per_device_train_batch_size gradient_accumulation_steps eval_batch_size eval_steps
 logging_steps ckpt_save_steps save_total_limit early_stop_patience early_stop_min_delta enable_id_tracking
 difficulty_filter_percentage logs_dir dataset_name dataset_type synthetic_data resume_from_checkpoint checkpointed_dir
 run_name base_output_dir description ddp ignore_index seed explicit-prefetching mixed-precision config"""
SIMPLE = """teacher student num_epochs batch_size eval_batch_size learning_rate max_grad_norm alpha temperature
 dataset_name max_seq_length output_dir save_steps eval_steps resume_from_checkpoint seed mixed-precision"""
GPT = """out_dir log_dir file_logging wandb_log wandb_project wandb_run_name init_from eval_interval eval_iters
 log_interval eval_only always_save_checkpoint dataset train_shard_filenames num_train_shards
 gradient_accumulation_steps batch_size block_size n_layer n_head n_embd n_hidden dropout bias use_rotary_embeddings
 rotary_base rotary_max_position_embeddings learning_rate max_iters weight_decay beta1 beta2 grad_clip decay_lr
 warmup_iters lr_decay_iters min_lr device dtype compile backend embedding_mode embedding_rank attn_lora_rank lora_alpha
 scaling_schedule_file scaling_schedule target_architecture_config ignored_outlayers_sum shrunken_vocab_size
 vocab_remapping_file RARE_TOKEN_ID"""
STREAMING = """dataset-id text-column dataset-config split val-split max-train-examples max-val-examples auto-vocab-size
 vocab-size min-vocab-size max-vocab-size tokenizer-train-examples retrain-tokenizer tokenizer-path model-preset d-model
 num-layers num-heads d-ff seq-len dropout-rate activation no-rmsnorm no-swiglu no-rope use-lora lora-rank epochs
 batch-size gradient-accumulation-steps learning-rate weight-decay warmup-steps grad-clip no-streaming
 shuffle-buffer-size stride use-mixed-precision output-dir log-every save-every eval-every resume-from cloud-provider
 cloud-bucket cloud-region cloud-prefix azure-sas-token azure-account-name seed"""
EXPECTED = {
    "mlx_bert_cli_v2.py train": f"{BERT} {BERT_FILE}",
    "mlx_bert_cli.py train": f"{BERT} {BERT_FILE}",
    "train_unified.py": f"{BERT} {BERT_FILE}",
    **{f"{script}.py {name}": flags for script in ("mlx_bert_cli_v2", "mlx_bert_cli") for name, flags in {
        "predict": "test checkpoint output batch-size max-length t c o b",
        "benchmark": "batch-size seq-length steps model-type warmup b s n",
        "info": "",
        "export": "checkpoint output format c o f",
        "list-experiments": "",
    }.items()},
    "train_titanic_v2.py": """train_path val_path test_path model_name batch_size learning_rate num_epochs output_dir
 experiment_name run_name log_level disable_mlflow do_train do_predict do_visualize launch_mlflow checkpoint_path""",
    "train_optimized.py": """data_dir train_file val_file test_file model_name config_path epochs base_batch_size
 max_batch_size eval_batch_size gradient_accumulation_steps learning_rate weight_decay warmup_ratio num_workers
 prefetch_size lazy_eval_interval memory_threshold output_dir save_steps eval_steps experiment_name run_name
 enable_mlflow seed enable_profiling log_level""",
    "train_cnn_hybrid.py": f"{HYBRID} momentum compare-models",
    "train_cnn_hybrid_enhanced.py": f"{HYBRID} loss-function gradient-clipping max-gradient-norm gradient-log-interval"
    " mlflow-base-dir",
    "run_production.py": "config experiment-name enable-mlflow predict",
    "benchmark_optimizations.py": "output_dir num_steps batch_sizes enable_memory_profiling",
    "migrate_mlflow_databases.py": "root-dir dry-run interactive backup",
    "main.py": FULL,
    "main_simple.py": SIMPLE,
    "train.py": GPT,
    "train_refactored.py": GPT,
    "sample.py": "start num_samples max_new_tokens temperature top_k seed",
    "analyze_tokens.py": "",
    "create_remapping_tensor.py": "mapping_json output_path",
    "train_advanced.py": STREAMING,
    "generate_text.py": "checkpoint prompt tokenizer-path max-length temperature top-k top-p seed",
}  # fmt: skip


def spellings(program):
    return {
        normalized(name)
        for flag in (*program.flags, *program.file_flags)
        for name in flag.names.split()
    }


def test_every_old_program_has_a_table():
    assert {program.name for program in PROGRAMS} == set(EXPECTED)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_table_has_every_flag_of_the_program(program):
    assert {normalized(name) for name in EXPECTED[program.name].split()} <= spellings(program)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_flag_becomes_an_override_or_says_why_not(program):
    names = [name for flag in (*program.flags, *program.file_flags) for name in flag.names.split()]
    assert len(names) == len(set(names))
    for flag in (*program.flags, *program.file_flags, *program.phantoms):
        assert flag.to or flag.reason or program.reason or flag.name == program.file_flag, flag.name


@pytest.mark.parametrize(
    "program", [each for each in PROGRAMS if each.to == "train"], ids=lambda program: program.name
)
def test_all_old_defaults_together_compose(program):
    result = translate(f"python {program.name}", defaults=True)
    assert len(result.overrides) > 6 or program.script == "run_production"
    check(result.overrides)


def test_the_sizes_are_those_of_the_config():
    files = {
        size: read_yaml(shipped_conf() / "model" / "size" / f"{size}.yaml").values
        for size in SIZES.values()
    }
    keys = ("hidden_size", "num_layers", "num_heads", "intermediate_size")
    assert {tuple(values[key] for key in keys): size for size, values in files.items()} == dict(
        SIZES
    )


def test_the_example_of_a_value_is_no_switch():
    flags = [flag for program in PROGRAMS for flag in (*program.flags, *program.file_flags)]
    values = [
        flag
        for flag in flags
        if flag.kind != "switch" and "true" not in (flag.default or "").lower()
    ]
    assert not [
        flag.name
        for flag in values
        if re.search(r"=\[?'?true\b", example_of(flag)) and not flag.example
    ]
