// generate MODEL PROMPT [MAX_TOKENS]: continues a prompt with the model and the tokenizer of a Hugging Face folder.

#include <cstdio>
#include <cstdlib>
#include <exception>

#include "farskip/infer/generate.h"
#include "farskip/tokenizer/tokenizer.h"

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: generate MODEL PROMPT [MAX_TOKENS]\n");
    return 2;
  }
  try {
    const std::string prompt = argv[2];
    const auto tokenizer = farskip::load_tokenizer(argv[1]);
    const farskip::InferenceModel model(argv[1]);
    farskip::GenerateOptions options;  // greedy
    options.max_tokens = argc > 3 ? std::atoi(argv[3]) : 100;
    options.stop_tokens = {tokenizer->eos()};
    farskip::StreamDecoder text(*tokenizer, /*skip_special=*/true);
    std::printf("%s", prompt.c_str());
    farskip::generate(model, {tokenizer->encode(prompt, /*add_special=*/true)}, options, [&](size_t, int32_t token) {
      std::printf("%s", text.push(token).c_str());
      return true;  // go on
    });
    std::printf("%s\n", text.finish().c_str());
    return 0;
  } catch (const std::exception& error) {  // farskip::Error says what is wrong with the folder or the prompt
    std::fprintf(stderr, "generate: %s\n", error.what());
    return 1;
  }
}
