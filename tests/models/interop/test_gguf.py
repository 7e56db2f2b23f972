"""GGUF files, read back by our own reader and by the `gguf` package."""

import subprocess
from dataclasses import replace

import numpy as np
import pytest
from tokenizers.normalizers import Lowercase

from mlxlab.data.chat.chat_template import ChatTemplate
from mlxlab.data.tokenizers.bpe import train_bpe
from mlxlab.errors import CannotCreateError, ConfigError
from mlxlab.models.build import build_pretrained_model
from mlxlab.models.interop.gguf import export_gguf
from mlxlab.models.pretrained.load import pretrained_tokenizer
from support.exported import ALL_REAL, CODES, LLAMA, SCALING, TOKENS

TEXT = "the cat sees  the dog, Zo\u00eb!\n"


@pytest.mark.parametrize("options", [{}, {"tie_embeddings": False}, {"quantization": CODES}])
def test_our_reader_gives_equal_logits_and_tokens(trained, tokenizer, tmp_path, options):
    source, out = trained({**LLAMA, **options}), tmp_path / "model.gguf"
    export_gguf(source, out, "tiny")
    again = build_pretrained_model(out, tokenizer.vocab_size)
    np.testing.assert_allclose(again(TOKENS, ALL_REAL), source.model(TOKENS, ALL_REAL), atol=1e-5)
    assert pretrained_tokenizer(out).encode(TEXT, special=False) == tokenizer.encode(
        TEXT, special=False
    )
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_the_gguf_package_reads_it(trained, tokenizer, tmp_path):
    gguf = pytest.importorskip("gguf", reason="gguf is not installed (extra interop)")
    template = ChatTemplate("{{ messages }}", "a template", "<bos>", "<eos>")
    source = trained(LLAMA)
    export_gguf(replace(source, template=template), tmp_path / "model.gguf", "tiny")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    values = {name: field.contents() for name, field in reader.fields.items()}
    assert (values["general.architecture"], values["llama.block_count"]) == ("llama", 2)
    assert values["llama.attention.head_count_kv"] == 2
    assert values["llama.rope.freq_base"] == 5e4
    names = [tokenizer.inner.id_to_token(token) for token in range(tokenizer.vocab_size)]
    assert values["tokenizer.ggml.tokens"] == names
    assert values["tokenizer.chat_template"] == "{{ messages }}"
    assert values["tokenizer.ggml.eos_token_id"] == tokenizer.eos_id
    arrays = {tensor.name: tensor.data for tensor in reader.tensors}
    np.testing.assert_array_equal(
        arrays["blk.0.attn_v.weight"], source.model.backbone.layers[0].attention.value.weight
    )
    query = np.array(source.model.backbone.layers[0].attention.query.weight)
    permuted = query.reshape(4, 2, 4, 32).swapaxes(1, 2).reshape(32, 32)
    np.testing.assert_array_equal(arrays["blk.0.attn_q.weight"], permuted)


def test_what_a_killed_export_left_is_removed(trained, tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / f".tmp-{ended.pid}-0123abcd-model.gguf").touch()
    export_gguf(trained(LLAMA), tmp_path / "model.gguf", "tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_what_cannot_be_written_is_one_line(trained, tokenizer, tmp_path):
    out = tmp_path / "model.gguf"
    for options, message in [
        ({"mlp_type": "geglu"}, "model.mlp_type=geglu: "),
        ({"qk_norm": True}, "model: would be a Qwen3ForCausalLM"),
        ({"attention_bias": "all"}, "model.attention_bias=all: expected none"),
        ({"head_dim": 12}, "model.head_dim=12: "),
        ({"rope_scaling": SCALING}, "model.rope_scaling: expected null"),
    ]:
        with pytest.raises(ConfigError, match=f"^{message}"):
            export_gguf(trained({**LLAMA, **options}), out, "tiny")
    words = train_bpe(["a b"], 262, 2)
    words.inner.normalizer = Lowercase()
    source = trained(LLAMA)
    with pytest.raises(ConfigError, match=r"^data.tokenizer: expected a byte-level BPE"):
        export_gguf(replace(source, tokenizer=words), out, "tiny")
    assert not list(tmp_path.iterdir())
    out.touch()
    with pytest.raises(CannotCreateError, match="exists already"):
        export_gguf(source, out, "tiny")


@pytest.mark.filterwarnings("ignore")  # of programs that are not ours
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_transformers_gives_equal_logits(trained, tmp_path, dtype):
    transformers, torch, _ = map(pytest.importorskip, ("transformers", "torch", "gguf"))
    source = trained(LLAMA)
    export_gguf(source, tmp_path / "model.gguf", "tiny", dtype)
    torch_model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype="float32"
    )
    with torch.no_grad():
        logits = torch_model.eval()(torch.tensor(TOKENS.tolist())).logits.numpy()
    np.testing.assert_allclose(
        logits, source.model(TOKENS, ALL_REAL), atol=1e-4 if dtype == "float32" else 1e-3
    )
