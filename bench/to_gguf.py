"""Writes a model of ours as GGUF by llama.cpp's own converter, without a vocabulary: random and tiny models have none.

to_gguf.py LLAMA_CPP_FOLDER [arguments of convert_hf_to_gguf.py]
"""

import sys

llama_cpp = sys.argv.pop(1)
sys.path.insert(0, llama_cpp)
import convert_hf_to_gguf  # noqa: E402

find_class = convert_hf_to_gguf.get_model_class


def without_vocabulary(*arguments, **options):
    model_class = find_class(*arguments, **options)

    def set_vocab(self):
        self._set_vocab_none()
        self.gguf_writer.add_vocab_size(self.hparams["vocab_size"])

    model_class.set_vocab = set_vocab
    return model_class


convert_hf_to_gguf.get_model_class = without_vocabulary
convert_hf_to_gguf.main()
